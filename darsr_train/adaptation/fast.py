"""Profile ``fast``: seconds instead of hours.

The published procedure learns everything from one image. Here a pre-trained correction network (the prior) gives the
first result, the blur follows from it in closed form, and the network for this blur from the blur:

1. correct with the prior, super-resolve: ``x = backbone(DARM(y))``;
2. the spread of the kernel that best reduces ``x`` to the given image, by least squares, corrected (:mod:`darsr_train.blur.estimate`);
3. the correction network for this blur, a member of the family (:mod:`darsr_train.networks.family`). Where more steps are asked for, DARM
   is fitted to reference photographs blurred by kernels like the estimated one, since what an image's blur destroyed cannot
   be learned from that image (:mod:`.fit` can add DARSR's own terms on the image);
4. choose without ground truth: no correction where there is no blur; the prior where a camera's treatment shows
   (:mod:`darsr_train.blur.camera_traces`), and the more mildly the surer that is; the network for the blur where that is wider or narrower than what
   the prior is made for; else the prior, that network, or the middle between their weights: the bolder, the more clearly it
   must explain the image better;
5. where no camera shows, back-projection makes the result consistent with the given image.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from darsr_deploy.images.arrays import to_tensor
from darsr_deploy.images.detail import find_largest_sum
from darsr_deploy.images.resample import pillow_bicubic

from ..blur import camera_traces as traces
from ..blur import estimate as blur
from ..degradation import covariance as moments
from ..degradation import kernels, reduction
from ..degradation.reduction import reduce
from ..networks.darm import DARM, at_strength, between
from ..networks.family import DarmFamily, load_family
from ..networks.prior import load_prior
from .checkpoint import Checkpoint
from .fit import Evidence, fit, held_out_loss, planned
from .options import AdaptOptions
from .references import degraded_references
from .result import Result, record

# Of a larger image only the part with most detail is looked at: more does not change the blur, only the seconds.
_WINDOW, _BLOCK = 512, 64  # its side, and the grid that it begins on, in pixels
# Mean variance in HR pixels squared up to which nothing is corrected: where such a blur is estimated, the correction is worth less
# than 0.3 dB if the estimate is right, and costs as much if the image was only reduced.
_NO_BLUR = 0.4
_BETTER = {"adapted by half": 1.0, "adapted": 0.9}  # share of the loss before that a bolder candidate must be under
# Logarithms of the variance between which candidates are judged. Of a wider blur the prior takes too little away, of a narrower
# one too much, and by the loss that cannot be told: of 118 images of BSDS500 the 13 widest gain 0.5 dB by this.
_JUDGED = (-0.4, 1.2)
_MILD = 0.4  # strength of the correction where a camera's treatment is certain


def adapt_fast(
    pixels: np.ndarray,
    backbone: nn.Module,
    options: AdaptOptions,
    device: str,
    checkpoint: Checkpoint,
    report: Callable[[dict], None],
    start: DARM | None = None,
) -> Result:
    """Adapt to one image.

    Args:
        pixels: uint8, H x W or H x W x 3, sides of at least 32.
        backbone: frozen; N x 3 x H x W in [0, 1] -> N x 3 x sH x sW.
        start: another image's correction network, to go on from instead.
    """
    started = time.perf_counter()
    torch.manual_seed(options.seed)
    if not getattr(backbone, "differentiable", True):  # an ONNX model: the terms that need its gradient are left out
        options = replace(options, cycle=0.0, interpolation=0.0)
    treated = camera_probability(pixels)
    prior = load_prior(options.scale, camera=treated > 0.5).to(device, memory_format=torch.channels_last)
    family = load_family(options.scale).to(device) if options.family and treated <= 0.5 else None
    evidence, network, restored = look(pixels, prior, family, backbone, options.scale, device, options.amount)
    found = {"camera_probability": treated, "kernel_sum": evidence.kernel.sum().item()}
    kernel = {"kernel": evidence.kernel.cpu().numpy()}
    if np.trace(evidence.covariance) / 2 < _NO_BLUR and treated <= 0.5:
        return Result("none", kernel, {**found, "chosen": "none", **_took(options, 0)})
    if treated > 0.5:  # this prior has seen cameras, the references have not
        network, found = prior, {**found, "chosen": "prior", **_took(options, 0)}
    else:
        darm = copy.deepcopy(network if start is None else start).to(device, memory_format=torch.channels_last)
        if options.fits() or start is not None:
            restored.pop("adapted", None)
        if options.fits():
            spent = time.perf_counter() - started
            options, history = _fitted(darm, evidence, backbone, options, checkpoint, report, spent)
            found |= {"losses": {"adapting": record(history)}} if history else {}
        candidates = {"prior": prior}
        if family is not None or start is not None or options.steps > 0:
            candidates |= {"adapted by half": between(prior, darm, 0.5), "adapted": darm}
        scores = {
            name: held_out_loss(network, evidence, backbone, options, restored.get(name))
            for name, network in candidates.items()
        }
        own = "adapted" in candidates and (start is None or options.fits())  # else it is for another image's blur
        width, asked = moments.logarithm(evidence.covariance)[0], options.amount != 1
        chosen, by = pick(scores, width, asked) if own else (boldest(scores), "loss")
        network = candidates[chosen]
        found |= {"chosen": chosen, "chosen_by": by, "held_out_loss": scores, **_took(options, options.steps)}
    strength = 1 - (1 - _MILD) * treated
    if treated > 0.5:
        strength = min(1.0, options.amount * strength)
    network = at_strength(network, strength)
    arrays = {f"darm.{name}": tensor.detach().cpu().numpy() for name, tensor in network.state_dict().items()}
    rounds = options.rounds if treated <= 0.5 else 0
    return Result("network", arrays | kernel, {**found, "strength": strength}, rounds)


def _fitted(
    darm: DARM,
    evidence: Evidence,
    backbone: nn.Module,
    options: AdaptOptions,
    checkpoint: Checkpoint,
    report: Callable[[dict], None],
    spent: float,
) -> tuple[AdaptOptions, list[float]]:
    """Fit ``darm`` in place: the options, in which a budget has become steps, and the loss of every step.

    Args:
        spent: seconds of the work so far.
    """
    references = degraded_references(evidence.covariance, options.scale, options.references, options.seed)
    fitting = (darm.requires_grad_(True), evidence, references, backbone)
    if options.budget is not None:
        options = planned(*fitting, options, checkpoint, spent)
    return options, fit(*fitting, options, checkpoint, report)


def pick(scores: dict[str, float], width: float, asked: bool = False) -> tuple[str, str]:
    """The candidate to take, and by what: the boldest by its ``loss``; the network for the blur where that is far from the
    prior's, by its ``width``, or where it was asked for, by the ``amount``.

    Args:
        scores: of every candidate, from the mildest, the held-out loss.
        width: mean logarithm of the estimated variance.
        asked: the blur is not what was estimated but what somebody wants.
    """
    if asked:
        return "adapted", "amount"
    if not _JUDGED[0] <= width <= _JUDGED[1]:
        return "adapted", "width"
    return boldest(scores), "loss"


def boldest(scores: dict[str, float]) -> str:
    """The boldest candidate (they come in that order) that explains the image better than the one before, clearly so.

    The kernel that all are judged by is an estimate, and the bolder a candidate, the more it relies on it.
    """
    names = list(scores)
    chosen = names[0]
    for name in names[1:]:
        if scores[name] >= _BETTER[name] * scores[chosen]:
            break
        chosen = name
    return chosen


def _took(options: AdaptOptions, steps: int) -> dict:
    """What the adapter records: the options (a budget has become its number of steps) and the steps that were done."""
    return {"steps": steps, "options": replace(options, budget=None).to_json()}


@torch.no_grad()
def look(
    pixels: np.ndarray,
    prior: DARM,
    family: DarmFamily | None,
    backbone: nn.Module,
    scale: int,
    device: str,
    amount: float = 1.0,
) -> tuple[Evidence, DARM, dict[str, Tensor]]:
    """Steps 1 to 3: what the blur is, the network for it (without a family: the prior), and what both make of the image.

    Args:
        amount: see :class:`.options.AdaptOptions`.

    Returns:
        Evidence; network; the backbone's results (not clipped), of the ``prior`` and, with a family, of the network (``adapted``).
    """
    window = looked_at(pixels)
    y = torch.from_numpy(to_tensor(window)).to(device, memory_format=torch.channels_last)

    def restored(network: DARM) -> Tensor:
        return backbone(network(y).contiguous(memory_format=torch.channels_last))

    results, network = {"prior": restored(prior)}, prior
    x = results["prior"].clamp(0, 1)
    covariance = blur.estimate_covariance(x, y, scale)
    if amount != 1:
        covariance = moments.scaled(covariance, amount)
    if family is not None:
        network = family.member(covariance).to(memory_format=torch.channels_last)
        results["adapted"] = restored(network)
        x = results["adapted"].clamp(0, 1)
    kernel = torch.from_numpy(kernels.estimated(covariance, scale)).float().to(device)
    blurred = (reduce(x, kernel, scale).clamp(0, 1) * 255).round() / 255
    bicubic = reduce(x, reduction.bicubic_table(scale).to(device), scale)
    enlarged = to_tensor(_enlarge(window, scale))
    evidence = Evidence(y, blurred, bicubic, torch.from_numpy(enlarged).to(device), kernel, covariance)
    return evidence, network, results


def camera_probability(pixels: np.ndarray) -> float:
    """How certain it is that a camera's treatment is visible, 0 to 1."""
    return 1 / (1 + math.exp(-traces.log_odds(pixels)))


def looked_at(pixels: np.ndarray) -> np.ndarray:
    """The part of a uint8 image that its blur is read from: 512 x 512, or as much as there is.

    Where neighbours differ most, in whole blocks of 64 pixels: sky says nothing of a blur, and what is out of focus says too
    much. The middle where there is hardly more than that, or no detail.
    """
    if max(pixels.shape[:2]) < _WINDOW + _BLOCK:
        return _middle(pixels)
    plane = pixels if pixels.ndim == 2 else np.ascontiguousarray(pixels[:, :, 1])
    corner = plane[:-1, :-1]
    detail = cv2.max(cv2.absdiff(corner, plane[1:, :-1]), cv2.absdiff(corner, plane[:-1, 1:]))
    rows, columns = (max(1, length // _BLOCK) for length in detail.shape)
    detail = detail[: rows * _BLOCK, : columns * _BLOCK].astype(np.float32)
    blocks = cv2.resize(detail, (columns, rows), interpolation=cv2.INTER_AREA).astype(np.float64)
    found = find_largest_sum(blocks, _WINDOW // _BLOCK, _WINDOW // _BLOCK)
    if found is None:
        return _middle(pixels)
    top, left = (_BLOCK * part.start for part in found)
    return pixels[top : top + _WINDOW, left : left + _WINDOW]


def _middle(pixels: np.ndarray) -> np.ndarray:
    height, width = pixels.shape[:2]
    top, left = max(0, height - _WINDOW) // 2, max(0, width - _WINDOW) // 2
    return pixels[top : top + _WINDOW, left : left + _WINDOW]


def _enlarge(window: np.ndarray, scale: int) -> np.ndarray:
    rgb = np.repeat(window[:, :, None], 3, axis=2) if window.ndim == 2 else window
    return pillow_bicubic(rgb, rgb.shape[0] * scale, rgb.shape[1] * scale)
