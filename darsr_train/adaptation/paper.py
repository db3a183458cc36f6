"""Profile ``paper``: the published procedure, step by step (DARSR, section 3.4)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darsr_deploy.errors import DarsrError

from ..networks.darm import DARM
from ..networks.dictionary import correction_dictionary
from ..networks.dsem import DSEM
from ..networks.gan import KERNEL_SIZE, Discriminator, Generator
from . import losses
from .checkpoint import Checkpoint
from .crops import CropSampler, usable
from .options import AdaptOptions
from .result import Result, record


@dataclass
class Networks:
    """The five networks of one image; DSEM and the backbone are frozen."""

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


def step_losses(
    nets: Networks, crops: dict[str, Tensor], weights: KernelWeights = KernelWeights(), sum_colours: bool = False
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
    out = {"kernel": g.kernel(), "x_d": g(x[..., lead:, lead:]), "y_c": darm(y)}
    out["x_c"] = darm(out["x_d"])
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


@dataclass
class Schedule:
    """The falling weight of the bicubic term (DARSR, section 3.4).

    Once the unweighted term has been below ``gate`` in three consecutive iterations, at every iteration divisible by
    200 the weight goes from 5 to .05, 5e-4, 5e-6; at 5e-4 the centre and sparsity terms begin. The reference program's
    gate of 0.4 belongs to its faulty term: the correct one starts at 0.01.
    """

    gate: float
    weights: KernelWeights = KernelWeights()
    run: int = 0  # consecutive iterations under the gate
    open: bool = False

    def after(self, iteration: int, bicubic: float) -> None:
        """Update with the term measured in ``iteration`` (counted from 1)."""
        self.run = self.run + 1 if bicubic < self.gate else 0
        self.open = self.open or self.run >= 3
        if self.open and iteration % 200 == 0 and self.weights.bicubic > 5e-6 * 1.01:
            lower = self.weights.bicubic / 100
            started = lower < 5e-4 * 1.01
            self.weights = KernelWeights(lower, off_centre=1.0 if started else 0.0, sparse=5.0 if started else 0.0)


def rate_factor(iteration: int, milestones: tuple[int, ...], divisor: float) -> float:
    """Return the factor on a learning rate that is divided by ``divisor`` after each milestone."""
    return divisor ** -sum(iteration > m for m in milestones)


def train_dsem(
    dsem: DSEM,
    sampler: CropSampler,
    options: AdaptOptions,
    device: str,
    checkpoint: Checkpoint,
    report: Callable[[dict], None],
) -> list[float]:
    """Train DSEM to tell crops of the image (1) from crops reduced bicubically (0) (DARSR, section 3.3).

    Returns:
        The loss of every step.
    """
    optimiser = torch.optim.Adam(dsem.parameters(), lr=1e-4, betas=(0.9, 0.999))
    first = checkpoint.load("dsem", {"dsem": dsem, "optimiser": optimiser})
    history = list(checkpoint.restore("dsem")["losses"]) if first else []
    for step in range(first, options.dsem_steps):
        crops = _on(sampler.sample(options.seed + 1, step, options.batch), device)
        for group in optimiser.param_groups:
            group["lr"] = 1e-4 * 0.5 ** (step // 100)
        loss = dsem(crops["b"]).square().mean() + (dsem(crops["y"]) - 1).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        history.append(loss.item())
        report({"phase": "degradation score", "step": step + 1, "steps": options.dsem_steps, "loss": history[-1]})
        states = {"dsem": dsem.state_dict(), "optimiser": optimiser.state_dict()}
        checkpoint.save("dsem", {"step": step + 1, "losses": history, **states})
    return history


def adapt_paper(
    pixels: np.ndarray,
    backbone: nn.Module,
    options: AdaptOptions,
    device: str,
    checkpoint: Checkpoint,
    report: Callable[[dict], None],
) -> Result:
    """Adapt by the published procedure; keep the last iterate, as there is no ground truth to choose by.

    Args:
        pixels: uint8, H x W or H x W x 3, sides of at least 148.
        backbone: frozen; N x 3 x H x W in [0, 1] -> N x 3 x sH x sW.

    Raises:
        DarsrError: no gradient passes through the backbone.
    """
    if not getattr(backbone, "differentiable", True):
        raise DarsrError(
            "profile paper",
            "needs gradients through the backbone, and an ONNX model gives none",
            "use --profile fast, or give PyTorch weights",
        )
    torch.manual_seed(options.seed)
    scale = options.scale
    sampler = CropSampler.of(usable(pixels, scale), scale, options.crop * scale, options.augment)
    nets = Networks(Generator(scale), Discriminator(), DARM(correction_dictionary()), DSEM(), backbone)
    for network in (nets.generator, nets.discriminator, nets.darm, nets.dsem):
        network.to(device)
    optimisers = {
        "g": torch.optim.Adam(nets.generator.parameters(), 2e-4, betas=(0.5, 0.999)),
        "d": torch.optim.Adam(nets.discriminator.parameters(), 2e-4, betas=(0.5, 0.999)),
        "darm": torch.optim.Adam(nets.darm.parameters(), options.rate, betas=(0.5, 0.999)),
    }
    states = {
        "generator": nets.generator,
        "discriminator": nets.discriminator,
        "darm": nets.darm,
        "dsem": nets.dsem,
    }
    states |= {f"optimiser_{name}": optimiser for name, optimiser in optimisers.items()}
    schedule = Schedule(options.bicubic_gate)
    saved = checkpoint.restore("adapt")
    if saved is None:
        scoring = train_dsem(nets.dsem, sampler, options, device, checkpoint, report)
        first, history = 0, []
    else:
        first = checkpoint.load("adapt", states)
        scoring, history = saved["scoring"], saved["losses"]
        schedule = Schedule(options.bicubic_gate, KernelWeights(**saved["weights"]), saved["run"], saved["open"])
    nets.dsem.eval().requires_grad_(False)
    for step in range(first, options.steps):
        crops = _on(sampler.sample(options.seed, step, options.batch), device)
        _set_rates(optimisers, step + 1, options.rate)
        loss, bicubic = adversarial_step(nets, optimisers, crops, schedule.weights)
        schedule.after(step + 1, bicubic)
        history.append(loss)
        report({"phase": "adapting", "step": step + 1, "steps": options.steps, "loss": loss})
        scheduled = {"weights": asdict(schedule.weights), "run": schedule.run, "open": schedule.open}
        scheduled |= {"scoring": scoring, "losses": history}
        checkpoint.save("adapt", {"step": step + 1, **scheduled, **{n: s.state_dict() for n, s in states.items()}})
    kernel = nets.generator.kernel().detach().cpu().numpy()
    arrays = {f"darm.{name}": tensor.cpu().numpy() for name, tensor in nets.darm.state_dict().items()}
    facts = {"chosen": "last iterate", "kernel_sum": float(kernel.sum())}
    facts["losses"] = {"degradation score": record(scoring), "adapting": record(history)}
    return Result("network", arrays | {"kernel": kernel}, facts)


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


def _set_rates(optimisers: dict[str, torch.optim.Optimizer], iteration: int, darm_rate: float) -> None:
    adversarial = 2e-4 * rate_factor(iteration, (750, 1500, 2250), 4)
    rates = {"g": adversarial, "d": adversarial, "darm": darm_rate * rate_factor(iteration, (1000, 2000), 2)}
    for name, rate in rates.items():
        for group in optimisers[name].param_groups:
            group["lr"] = rate


def _on(crops: dict[str, np.ndarray], device: str) -> dict[str, Tensor]:
    return {name: torch.from_numpy(array).to(device) for name, array in crops.items()}
