"""Profile ``paper``: the published procedure (DARSR, section 3.4)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace

import numpy as np
import torch
from torch import Tensor, nn

from darsr_deploy.errors import DarsrError

from ..networks.darm import DARM
from ..networks.dictionary import correction_dictionary
from ..networks.dsem import DSEM
from ..networks.family import load_family
from ..networks.gan import Discriminator, Generator
from ..networks.prior import load_prior
from .checkpoint import Checkpoint
from .fast import camera_probability, estimate_blur
from .fit import Evidence
from .options import AdaptOptions
from .published.crops import CropSampler, usable
from .published.judging import JUDGINGS, Average, Choice, Judge, correction_at
from .published.schedule import RATE, KernelWeights, Schedule, set_rates
from .published.step import Networks, adversarial_step
from .result import Curve, Result, record


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
    watch: Callable[[int, Networks, Average, float], None] = lambda *judged: None,
) -> Result:
    """Adapt by the published procedure, averaging the iterates and keeping the average that explains the image best.

    The published program keeps the last iterate where it has no truth to choose by.

    Args:
        pixels: uint8, H x W or H x W x 3, sides of at least ``options.least_side()``.
        backbone: frozen; N x 3 x H x W in [0, 1] -> N x 3 x sH x sW.
        watch: called with the step, the networks, their average and its best strength whenever that was judged.

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
        "g": torch.optim.Adam(nets.generator.parameters(), RATE, betas=(0.5, 0.999)),
        "d": torch.optim.Adam(nets.discriminator.parameters(), RATE, betas=(0.5, 0.999)),
        "darm": torch.optim.Adam(nets.darm.parameters(), options.rate, betas=(0.5, 0.999)),
    }
    average = Average(nets)
    states = {
        "generator": nets.generator,
        "discriminator": nets.discriminator,
        "darm": nets.darm,
        "dsem": nets.dsem,
        "average": average,
    }
    states |= {f"optimiser_{name}": optimiser for name, optimiser in optimisers.items()}
    schedule, choice = Schedule(options.bicubic_gate, options.steps), Choice()
    saved = checkpoint.restore("adapt")
    if saved is None:
        scoring = train_dsem(nets.dsem, sampler, options, device, checkpoint, report)
        first, history = 0, []
    else:
        first = checkpoint.load("adapt", states)
        scoring, history = saved["scoring"], saved["losses"]
        schedule = replace(schedule, weights=KernelWeights(**saved["weights"]), run=saved["run"], open=saved["open"])
        choice = Choice(**saved["choice"])
    nets.dsem.eval().requires_grad_(False)
    judge, every = Judge(_look_at(pixels, backbone, scale, device), backbone, scale), -(-options.steps // JUDGINGS)
    for step in range(first + 1, options.steps + 1):
        if choice.settled():
            break
        crops = _on(sampler.sample(options.seed, step - 1, options.batch), device)
        set_rates(optimisers, step, options.rate, options.steps)
        loss, bicubic = adversarial_step(nets, optimisers, crops, schedule.weights)
        schedule.after(step, bicubic)
        average.update(nets, step)
        history.append(loss)
        report({"phase": "adapting", "step": step, "steps": options.steps, "loss": loss})
        if step % every == 0 or step == options.steps:
            watch(step, nets, average, choice.consider(judge, average, step))
        scheduled = {"weights": asdict(schedule.weights), "run": schedule.run, "open": schedule.open}
        scheduled |= {"scoring": scoring, "losses": history, "choice": vars(choice)}
        checkpoint.save("adapt", {"step": step, **scheduled, **{n: s.state_dict() for n, s in states.items()}})
    facts = {
        "chosen": "backbone alone",
        "kernel_sum": choice.state["kernel"].sum().item(),
        "steps": len(history),
        "judged": {"best": min(choice.scores), "uncorrected": judge.uncorrected},
        "losses": {
            "degradation score": record(scoring),
            "adapting": record(history),
            "cycles of the average": Curve(len(history), tuple(choice.scores)).to_json(),
        },
    }
    kernel = {"kernel": choice.state["kernel"].cpu().numpy()}
    if min(choice.scores) >= judge.uncorrected:
        return Result("none", kernel, facts)
    average.load_state_dict(choice.state)
    correction = correction_at(average.darm, choice.strength).state_dict()
    chosen = f"step {choice.step} of {options.steps}, average of weights, strength {choice.strength:g}"
    return Result(
        "network",
        {f"darm.{name}": tensor.numpy() for name, tensor in correction.items()} | kernel,
        facts | {"chosen": chosen, "strength": choice.strength},
    )


def _look_at(pixels: np.ndarray, backbone: nn.Module, scale: int, device: str) -> Evidence:
    """Return what the iterates are judged by: the blur as profile ``fast`` estimates it."""
    camera = camera_probability(pixels) > 0.5
    prior = load_prior(scale, camera=camera).to(device, memory_format=torch.channels_last)
    family = None if camera else load_family(scale).to(device)
    return estimate_blur(pixels, prior, family, backbone, scale, device)[0]


def _on(crops: dict[str, np.ndarray], device: str) -> dict[str, Tensor]:
    return {name: torch.from_numpy(array).to(device) for name, array in crops.items()}
