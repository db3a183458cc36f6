"""One step of the published procedure (DARSR, section 3.4)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...networks.darm import DARM, correct_by_taps
from ...networks.dsem import DSEM
from ...networks.gan import KERNEL_SIZE, Discriminator, Generator
from . import losses
from .schedule import KernelWeights

_FIRST = KernelWeights()  # of the first iterations


@dataclass
class Networks:
    """The five networks of one image; DSEM and the backbone are frozen."""

    generator: Generator
    discriminator: Discriminator
    darm: DARM
    dsem: DSEM
    backbone: nn.Module


def step_losses(
    nets: Networks, crops: dict[str, Tensor], weights: KernelWeights = _FIRST, sum_colours: bool = False
) -> tuple[dict, dict]:
    """Run the forward pass and return every loss of one step.

    Args:
        crops: ``x`` (plays HR, N x 3 x P x P), ``b`` (x reduced by Pillow's bicubic), ``y`` (LR, N x 3 x P/s x P/s) and
            ``u`` (y enlarged by Pillow's bicubic).
        sum_colours: the reference program's wrong bicubic term, see :func:`losses.bicubic_distance`.

    Returns:
        ``(outputs, terms)``; ``terms["total"]`` is what DARM and the generator descend.
    """
    g, darm, backbone, score = nets.generator, nets.darm, nets.backbone, nets.dsem
    x, y, b, u = (crops[name] for name in "xybu")
    scale = g.scale
    front = losses.lr_front(scale)
    lead = (
        scale * front - KERNEL_SIZE // 2
    )  # 0 at x2; at x4 the kernel's centre meets LR pixel ``front`` 2 px further in
    out = {"kernel": g.kernel(), "x_d": g(x[..., lead:, lead:]), "y_c": correct_by_taps(darm, y)}
    out["x_c"] = correct_by_taps(darm, out["x_d"])
    out["x_sr"] = backbone(out["x_c"])
    out["y_sr"] = backbone(out["y_c"])
    out["y_d"] = g(out["y_sr"][..., lead:, lead:])
    # Gradients of the adversarial term reach G through D, whose own weights take none of them.
    nets.discriminator.requires_grad_(False)
    out["d_fake"] = nets.discriminator(out["x_d"])
    nets.discriminator.requires_grad_(True)
    # What is compared with a reduced image is cut to the LR pixels that it covers, scores included.
    on_lr = {name: losses.window(image, out["x_d"], front) for name, image in (("b", b), ("y", y), ("y_c", out["y_c"]))}
    on_hr = losses.window(x, out["x_sr"], scale * front)
    for name, patch in (*on_lr.items(), ("x_d", out["x_d"]), ("x_c", out["x_c"]), ("y_d", out["y_d"])):
        out[f"q_{name}"] = score(patch)

    kernel = out["kernel"]
    terms = {
        "gan_g": losses.gan_generator(out["d_fake"]),
        "cycle_forward": 5 * (F.l1_loss(out["x_c"], on_lr["b"]) + F.l1_loss(out["x_sr"], on_hr)),
        "cycle_backward": 5 * F.l1_loss(out["y_d"], on_lr["y"]),
        "dsem_zero": losses.score_distance(out["q_x_c"], out["q_b"]) + losses.score_distance(out["q_y_c"], out["q_b"]),
        "dsem_one": losses.score_distance(out["q_x_d"], out["q_y"]) + losses.score_distance(out["q_y_d"], out["q_y"]),
        "interpolation": 2 * losses.masked_interpolation(out["y_sr"], u),
        "bicubic": losses.bicubic_distance(out["x_d"], x, scale, sum_colours),
        "sum_to_one": losses.sum_to_one(kernel),
        "boundaries": losses.boundaries(kernel),
        "off_centre": losses.off_centre(kernel, scale),
        "sparse": losses.sparsity(kernel),
    }
    kernel_term = sum(
        getattr(weights, name) * terms[name] for name in ("bicubic", "sum_to_one", "boundaries", "off_centre", "sparse")
    )
    adversarial = ("gan_g", "cycle_forward", "cycle_backward", "dsem_zero", "dsem_one", "interpolation")
    terms["total"] = sum(terms[name] for name in adversarial) + 2 * kernel_term
    return out, terms


def adversarial_step(
    nets: Networks, optimisers: dict[str, torch.optim.Optimizer], crops: dict[str, Tensor], weights: KernelWeights
) -> tuple[float, float]:
    """Take a step of G and DARM, then one of D; return the total loss and the unweighted bicubic term."""
    outputs, terms = step_losses(nets, crops, weights)
    optimisers["g"].zero_grad()
    optimisers["darm"].zero_grad()
    terms["total"].backward()
    optimisers["g"].step()
    optimisers["darm"].step()
    fake = outputs["x_d"].detach()  # from before the step
    real = losses.window(crops["y"], fake, losses.lr_front(nets.generator.scale))
    loss = losses.gan_discriminator(nets.discriminator(fake), nets.discriminator(real))
    optimisers["d"].zero_grad()
    loss.backward()
    optimisers["d"].step()
    return terms["total"].item(), terms["bicubic"].item()
