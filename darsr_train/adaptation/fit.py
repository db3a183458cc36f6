"""The per-image fit of profile ``fast``: the forward cycle on reference photographs, and DARSR's terms on the image itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from ..degradation.reduction import reduce
from ..networks.darm import DARM
from . import losses
from .checkpoint import Checkpoint
from .options import AdaptOptions

_USED_OF_BUDGET = 0.9  # other programs may need the machine too
_MOST_STEPS = 400  # more change nothing that can be measured
_HELD_OUT_SHARE = 0.2  # of the longer side: the strip at its end, which is never fitted on
_LEAST_STRIP = 16  # pixels: wider than what the loss leaves out at a crop's border


@dataclass(frozen=True)
class Evidence:
    """What the fit sees of the image, all 1 x 3 x h x w in [0, 1].

    Attributes:
        y: the given LR image.
        blurred: the estimated HR image reduced by the estimated kernel, rounded to 8 bits: a stand-in for y ...
        bicubic: ... whose right correction is known: the estimated HR image reduced bicubically.
        enlarged: y enlarged bicubically.
        kernel: the estimated kernel, k x k.
        covariance: second moments of the x2 kernel, 2 x 2 in the order y, x (see :mod:`.references`).
    """

    y: Tensor
    blurred: Tensor
    bicubic: Tensor
    enlarged: Tensor
    kernel: Tensor
    covariance: np.ndarray

    def crop(self, top: int, left: int, size: int, scale: int) -> dict[str, Tensor]:
        small = (..., slice(top, top + size), slice(left, left + size))
        large = (..., slice(scale * top, scale * (top + size)), slice(scale * left, scale * (left + size)))
        return {
            "y": self.y[small],
            "blurred": self.blurred[small],
            "bicubic": self.bicubic[small],
            "enlarged": self.enlarged[large],
        }


def fit(
    darm: DARM,
    evidence: Evidence,
    references: tuple[Tensor, Tensor],
    backbone: nn.Module,
    options: AdaptOptions,
    checkpoint: Checkpoint,
    report: Callable[[dict], None],
) -> list[float]:
    """``options.steps`` steps of Adam, in place; a step's crops depend on the seed and its number alone.

    Args:
        references: blurred crops and their right corrections, see :func:`.references.degraded_references`.

    Returns:
        The loss of every step, those of a run that is resumed included.
    """
    optimiser = torch.optim.Adam(darm.parameters(), options.rate)
    saved = checkpoint.restore("fit")
    first, history = 0, []
    if saved is not None:
        darm.load_state_dict(saved["darm"])
        optimiser.load_state_dict(saved["optimiser"])
        first, history = saved["step"], saved["losses"]
    for step in range(first, options.steps):
        for group in optimiser.param_groups:
            group["lr"] = options.rate * (1 - step / options.steps)
        loss = step_loss(darm, evidence, references, backbone, options, step)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        history.append(loss.item())
        report({"phase": "adapting", "step": step + 1, "steps": options.steps, "loss": history[-1]})
        states = {"darm": darm.state_dict(), "optimiser": optimiser.state_dict()}
        checkpoint.save("fit", {"step": step + 1, "steps": options.steps, "losses": history, **states})
    return history


def planned(
    darm: DARM,
    evidence: Evidence,
    references: tuple[Tensor, Tensor],
    backbone: nn.Module,
    options: AdaptOptions,
    checkpoint: Checkpoint,
    spent: float,
) -> AdaptOptions:
    """Options with as many steps as fit into ``options.budget`` seconds, and no budget any more.

    Three steps whose gradients are thrown away tell what one costs; the first, which also warms up, does not count. A
    resumed run keeps the plan it had.

    Args:
        spent: seconds of the work so far.
    """
    saved = checkpoint.restore("fit")
    if saved is not None:
        return replace(options, steps=saved["steps"], budget=None)
    for attempt in range(3):
        if attempt == 1:
            started = time.perf_counter()
        loss = step_loss(darm, evidence, references, backbone, options, attempt)
        if loss.requires_grad:
            loss.backward()
    step = (time.perf_counter() - started) / 2
    darm.zero_grad(set_to_none=True)
    # What comes after the fit (measuring, writing) takes less than what came before it.
    left = _USED_OF_BUDGET * options.budget - 1.5 * spent - 3 * step
    return replace(options, steps=int(min(max(0.0, left / step), _MOST_STEPS)), budget=None)


def step_loss(
    darm: DARM,
    evidence: Evidence,
    references: tuple[Tensor, Tensor],
    backbone: nn.Module,
    options: AdaptOptions,
    step: int,
) -> Tensor:
    """The loss of a step: reference crops, and the image's own terms with their weights (0 leaves a term out)."""
    random = np.random.default_rng((options.seed, 2, step))
    loss = evidence.y.new_zeros(())
    if options.references:
        size = min(options.crop, references[0].shape[-1])
        picks = [
            (
                int(random.integers(options.references)),
                *(int(v) for v in random.integers(0, references[0].shape[-1] - size + 1, 2)),
            )
            for _ in range(options.batch)
        ]
        blurred, bicubic = (
            torch.stack([part[i, :, top : top + size, left : left + size] for i, top, left in picks]).to(
                evidence.y.device, memory_format=torch.channels_last
            )
            for part in references
        )
        loss = loss + (darm(blurred) - bicubic).abs().mean()
    if options.uses_the_image():
        loss = loss + image_loss(darm, evidence, backbone, options, places(evidence, options, step, options.batch))
    return loss


def image_loss(
    darm: nn.Module,
    evidence: Evidence,
    backbone: nn.Module,
    options: AdaptOptions,
    crops_at: list[tuple[int, int, int]],
) -> Tensor:
    """DARSR's terms on the image's own crops: forward cycle, backward cycle, masked interpolation.

    The forward cycle goes from the estimated HR image through the estimated kernel back to its bicubic version; the
    backward cycle from the given image through the frozen backbone and the kernel back to itself.
    """
    scale, size = options.scale, crops_at[0][2]
    crops = [evidence.crop(*place, scale) for place in crops_at]
    stacked = {
        name: torch.cat([c[name] for c in crops]).contiguous(memory_format=torch.channels_last) for name in crops[0]
    }
    loss = options.forward_cycle * (darm(stacked["blurred"]) - stacked["bicubic"]).abs().mean()
    if options.cycle or options.interpolation:
        # The backbone costs three times the correction network: one crop of the batch goes through it.
        y = stacked["y"][:1]
        sr = backbone(darm(y))
        margin = _margin(evidence.kernel, scale)
        inner = (..., slice(margin, size - margin), slice(margin, size - margin))
        loss = loss + options.cycle * (reduce(sr, evidence.kernel, scale) - y)[inner].abs().mean()
        loss = loss + options.interpolation * losses.masked_interpolation(sr, stacked["enlarged"][:1])
    return loss


@torch.no_grad()
def held_out_loss(
    darm: nn.Module, evidence: Evidence, backbone: nn.Module, options: AdaptOptions, sr: Tensor | None = None
) -> float:
    """The two cycles where the fit has never been: everywhere, or in the strip where it used the image itself.

    The whole image is corrected, since attention is pooled over it. Masked interpolation is left out: it is least where
    nothing is corrected.

    Args:
        sr: ``backbone(darm(evidence.y))`` where it is known, which is most of the work.
    """
    margin = _margin(evidence.kernel, options.scale)
    area = [[margin, side - margin] for side in evidence.y.shape[-2:]]
    if options.uses_the_image():
        longer, cut = _strip(evidence, options)
        area[longer][0] = cut + margin
    inner = (..., *(slice(*side) for side in area))
    forward = (darm(evidence.blurred) - evidence.bicubic)[inner].abs().mean()
    sr = backbone(darm(evidence.y)) if sr is None else sr
    backward = (reduce(sr, evidence.kernel, options.scale) - evidence.y)[inner].abs().mean()
    return (forward + backward).item()


def places(evidence: Evidence, options: AdaptOptions, step: int, count: int) -> list[tuple[int, int, int]]:
    """(top, left, size) of a step's crops, outside the held-out strip; they depend on the seed and the step alone."""
    random = np.random.default_rng((options.seed, step + 1))
    sides = list(evidence.y.shape[-2:])
    longer, cut = _strip(evidence, options)
    sides[longer] = cut
    size = min(options.crop, *sides)
    return [(*(int(random.integers(0, side - size + 1)) for side in sides), size) for _ in range(count)]


def _strip(evidence: Evidence, options: AdaptOptions) -> tuple[int, int]:
    """The axis of the longer side (0 or 1) and where on it the strip begins that is never fitted on."""
    sides = evidence.y.shape[-2:]
    longer = int(sides[1] > sides[0])
    wide = max(_LEAST_STRIP, 2 * _margin(evidence.kernel, options.scale) + 2, int(_HELD_OUT_SHARE * sides[longer]))
    return longer, sides[longer] - wide


def _margin(kernel: Tensor, scale: int) -> int:
    """LR pixels at a crop's border that see beyond it through the kernel, where the reduction guesses."""
    return -(-(kernel.shape[-1] // 2) // scale)
