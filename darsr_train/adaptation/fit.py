"""The optional fit of profile ``fast``: a few steps of Adam on reference photographs blurred as the image is."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from ..degradation.reduction import reduce
from ..networks.darm import DARM
from .checkpoint import Checkpoint
from .options import AdaptOptions

_USED_OF_BUDGET = 0.9  # other programs may need the machine too
_MOST_STEPS = 400  # more make no measurable difference

References = tuple[Tensor, Tensor]  # blurred crops and their right corrections, see references.degraded_references


@dataclass(frozen=True)
class Evidence:
    """What candidates are judged by.

    Attributes:
        y: the given LR image, 1 x 3 x h x w in [0, 1].
        blurred: the estimated HR image reduced by the estimated kernel, rounded to 8 bits: a stand-in for ``y`` ...
        bicubic: ... whose right correction is known: the estimated HR image reduced bicubically.
        kernel: the estimated kernel, k x k.
        covariance: second moments of the x2 kernel, 2 x 2 in the order y, x (see :mod:`.references`).
    """

    y: Tensor
    blurred: Tensor
    bicubic: Tensor
    kernel: Tensor
    covariance: np.ndarray


def fit(
    darm: DARM,
    references: References,
    options: AdaptOptions,
    checkpoint: Checkpoint,
    report: Callable[[dict], None],
) -> list[float]:
    """Train ``darm`` in place for ``options.steps`` steps; a step's crops depend on the seed and its number alone.

    Returns:
        The loss of every step, including those before a resumed run was interrupted.
    """
    optimiser = torch.optim.Adam(darm.parameters(), options.rate)
    first = checkpoint.load("fit", {"darm": darm, "optimiser": optimiser})
    history = checkpoint.restore("fit")["losses"] if first else []
    for step in range(first, options.steps):
        for group in optimiser.param_groups:
            group["lr"] = options.rate * (1 - step / options.steps)
        loss = step_loss(darm, references, options, step)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        history.append(loss.item())
        report({"phase": "adapting", "step": step + 1, "steps": options.steps, "loss": history[-1]})
        states = {"darm": darm.state_dict(), "optimiser": optimiser.state_dict()}
        checkpoint.save("fit", {"step": step + 1, "steps": options.steps, "losses": history, **states})
    return history


def plan_steps(
    darm: DARM, references: References, options: AdaptOptions, checkpoint: Checkpoint, spent: float
) -> AdaptOptions:
    """Replace ``options.budget``, in seconds, by as many steps as fit into it.

    Three steps whose gradients are discarded show what one costs; the first only warms up. A resumed run keeps its
    plan.

    Args:
        spent: seconds of the work so far.
    """
    saved = checkpoint.restore("fit")
    if saved is not None:
        return replace(options, steps=saved["steps"], budget=None)
    for attempt in range(3):
        if attempt == 1:
            started = time.perf_counter()
        step_loss(darm, references, options, attempt).backward()
    step = (time.perf_counter() - started) / 2
    darm.zero_grad(set_to_none=True)
    # What comes after the fit (judging, writing) takes less than what came before it.
    left = _USED_OF_BUDGET * options.budget - 1.5 * spent - 3 * step
    return replace(options, steps=int(min(max(0.0, left / step), _MOST_STEPS)), budget=None)


def step_loss(darm: DARM, references: References, options: AdaptOptions, step: int) -> Tensor:
    """Return the mean absolute error of a step's corrected crops."""
    random = np.random.default_rng((options.seed, 2, step))
    side = references[0].shape[-1]
    size = min(options.crop, side)
    places = [
        (int(random.integers(options.references)), *(int(v) for v in random.integers(0, side - size + 1, 2)))
        for _ in range(options.batch)
    ]
    device = next(darm.parameters()).device
    blurred, bicubic = (
        torch.stack([part[i, :, top : top + size, left : left + size] for i, top, left in places]).to(
            device, memory_format=torch.channels_last
        )
        for part in references
    )
    return (darm(blurred) - bicubic).abs().mean()


@torch.no_grad()
def held_out_loss(
    darm: nn.Module, evidence: Evidence, backbone: nn.Module, scale: int, sr: Tensor | None = None
) -> float:
    """Return :func:`cycle_loss` of a candidate.

    Args:
        sr: ``backbone(darm(evidence.y))`` where it is known already: it is most of the work.
    """
    sr = backbone(darm(evidence.y)) if sr is None else sr
    return cycle_loss(darm(evidence.blurred), sr, evidence, scale)


def cycle_loss(corrected: Tensor, sr: Tensor, evidence: Evidence, scale: int) -> float:
    """Return the sum of DARSR's two cycles on the image itself, which no candidate was fitted to.

    The whole image is corrected, since attention is pooled over it. Masked interpolation is left out: it is lowest
    where nothing is corrected.

    Args:
        corrected: ``evidence.blurred`` as a candidate corrects it.
        sr: the candidate's result for ``evidence.y``.
    """
    margin = -(-(evidence.kernel.shape[-1] // 2) // scale)  # LR pixels whose kernel reaches beyond the border
    inner = (..., *(slice(margin, side - margin) for side in evidence.y.shape[-2:]))
    forward = (corrected - evidence.bicubic)[inner].abs().mean()
    backward = (reduce(sr, evidence.kernel, scale) - evidence.y)[inner].abs().mean()
    return (forward + backward).item()
