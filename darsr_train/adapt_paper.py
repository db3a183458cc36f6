"""Profile ``paper``: the published procedure, step by step (DARSR, section 3.4)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from . import losses
from .darm import DARM
from .degradation import Discriminator, Generator
from .dsem import DSEM


@dataclass
class Networks:
    """The five networks of one image. DSEM and the backbone are frozen."""

    generator: Generator
    discriminator: Discriminator
    darm: DARM
    dsem: DSEM
    backbone: nn.Module


@dataclass(frozen=True)
class KernelWeights:
    """Weights of the kernel's regularisation, which the schedule changes."""

    bicubic: float = 5.0
    sum_to_one: float = 0.5
    boundaries: float = 0.5
    off_centre: float = 0.0
    sparse: float = 0.0


def step_losses(nets: Networks, crops: dict[str, Tensor], weights: KernelWeights = KernelWeights(), sum_colours: bool = False) -> tuple[dict, dict]:
    """Forward pass and every loss of one step.

    Args:
        crops: ``x`` (plays HR, N x 3 x P x P), ``b`` (x reduced by Pillow's bicubic), ``y`` (LR, N x 3 x P/s x P/s) and
            ``u`` (y enlarged by Pillow's bicubic).
        sum_colours: the reference program's faulty bicubic term, see :func:`losses.bicubic_distance`.

    Returns:
        ``(outputs, terms)``; ``terms["total"]`` is what DARM and the generator descend.
    """
    g, darm, backbone, score = nets.generator, nets.darm, nets.backbone, nets.dsem
    x, y, b, u = (crops[name] for name in "xybu")
    out = {"kernel": g.kernel(), "x_d": g(x), "y_c": darm(y)}
    out["x_c"] = darm(out["x_d"])
    out["x_sr"] = backbone(out["x_c"])
    out["y_sr"] = backbone(out["y_c"])
    out["y_d"] = g(out["y_sr"])
    # Gradients of the adversarial term reach G through D, whose own weights take none of them.
    nets.discriminator.requires_grad_(False)
    out["d_fake"] = nets.discriminator(out["x_d"])
    nets.discriminator.requires_grad_(True)
    for name, patch in (("b", b), ("y", y), ("y_c", out["y_c"]), ("x_d", out["x_d"]), ("x_c", out["x_c"]), ("y_d", out["y_d"])):
        out[f"q_{name}"] = score(losses.centre_crop(patch, out["x_d"]))

    kernel, scale = out["kernel"], g.scale
    terms = {
        "gan_g": losses.gan_generator(out["d_fake"]),
        "cycle_forward": 5 * (losses.matching_l1(out["x_c"], b) + losses.matching_l1(out["x_sr"], x)),
        "cycle_backward": 5 * losses.matching_l1(out["y_d"], y),
        "dsem_zero": losses.score_distance(out["q_x_c"], out["q_b"]) + losses.score_distance(out["q_y_c"], out["q_b"]),
        "dsem_one": losses.score_distance(out["q_x_d"], out["q_y"]) + losses.score_distance(out["q_y_d"], out["q_y"]),
        "interpolation": 2 * losses.masked_interpolation(out["y_sr"], u),
        "bicubic": losses.bicubic_distance(out["x_d"], x, scale, sum_colours),
        "sum_to_one": losses.sum_to_one(kernel),
        "boundaries": losses.boundaries(kernel),
        "off_centre": losses.off_centre(kernel, scale),
        "sparse": losses.sparsity(kernel),
    }
    kernel_term = sum(getattr(weights, name) * terms[name] for name in ("bicubic", "sum_to_one", "boundaries", "off_centre", "sparse"))
    adversarial = ("gan_g", "cycle_forward", "cycle_backward", "dsem_zero", "dsem_one", "interpolation")
    terms["total"] = sum(terms[name] for name in adversarial) + 2 * kernel_term
    return out, terms
