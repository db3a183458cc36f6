"""Profile ``fast``: seconds instead of hours.

The published procedure learns everything from one image. Here most is learned once for all images:

1. correct with a pre-trained network (the prior) and super-resolve: ``x = backbone(DARM(y))``;
2. estimate the second moments of the kernel that best reduces ``x`` to the given image
   (:mod:`darsr_deploy.blind.blur`);
3. take the correction network for this blur, a member of the family (:mod:`darsr_train.networks.family`). Where steps
   are asked for, fit it to reference photographs blurred by kernels like the estimated one (:mod:`.fit`), since what
   blur destroyed in an image cannot be learned from that image;
4. choose without ground truth: no correction where there is no blur; the prior, more mildly the surer it is, where an
   image shows in-camera processing (:mod:`darsr_deploy.blind.camera_traces`); the network for the blur where that is
   wider or narrower than the prior was made for; else the strongest of the prior, that network and the mean of their
   weights that explains the image clearly better than the weaker ones;
5. back-project, except for a camera's image, so that the result reduces to the given image.
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

from darsr_deploy.blind import camera_traces
from darsr_deploy.blind.blur import estimate_covariance
from darsr_deploy.degradation import covariance as moments
from darsr_deploy.degradation import kernels
from darsr_deploy.images.arrays import to_tensor
from darsr_deploy.images.detail import find_largest_sum

from ..degradation.reduction import bicubic_table, reduce
from ..networks.darm import DARM, at_strength, between
from ..networks.family import DarmFamily, load_family
from ..networks.prior import load_prior
from .checkpoint import Checkpoint
from .fit import Evidence, fit, held_out_loss, plan_steps
from .options import AdaptOptions
from .references import degraded_references
from .result import Result, record

_WINDOW, _BLOCK = 512, 64  # side of the part that is analysed, and the grid that it starts on, in pixels
_NO_BLUR = (
    0.4  # mean variance in HR pixels squared below which nothing is corrected: there is less to gain than to lose
)
_BETTER = {"adapted by half": 1.0, "adapted": 0.9}  # share of the weaker one's loss that a stronger one must stay below
# Logarithms of the variance between which candidates are judged: the prior under-corrects wider blurs and over-corrects
# narrower ones, and the loss does not show it.
_JUDGED = (-0.4, 1.2)
_MILD = 0.4  # strength of the correction where in-camera processing is certain


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
        start: another image's correction network to go on from.
    """
    started = time.perf_counter()
    torch.manual_seed(options.seed)
    probability = camera_probability(pixels)
    camera = probability > 0.5
    prior = load_prior(options.scale, camera=camera).to(device, memory_format=torch.channels_last)
    family = load_family(options.scale).to(device) if options.family and not camera else None
    evidence, network, results = estimate_blur(pixels, prior, family, backbone, options.scale, device, options.amount)
    found = {"camera_probability": probability, "kernel_sum": evidence.kernel.sum().item()}
    kernel = {"kernel": evidence.kernel.cpu().numpy()}
    if np.trace(evidence.covariance) / 2 < _NO_BLUR and not camera:
        return Result("none", kernel, {**found, "chosen": "none", **_describe_work(options, 0)})
    strength = 1 - (1 - _MILD) * probability
    if camera:  # this prior has seen cameras, the references have not
        network, found = prior, {**found, "chosen": "prior", **_describe_work(options, 0)}
        strength = min(1.0, options.amount * strength)
    else:
        darm = copy.deepcopy(network if start is None else start).to(device, memory_format=torch.channels_last)
        if options.fits() or start is not None:
            results.pop("adapted", None)
        if options.fits():
            options, history = _fit(darm, evidence, options, checkpoint, report, time.perf_counter() - started)
            found |= {"losses": {"adapting": record(history)}} if history else {}
        candidates = {"prior": prior}
        if family is not None or start is not None or options.steps > 0:
            candidates |= {"adapted by half": between(prior, darm, 0.5), "adapted": darm}
        scores = {
            name: held_out_loss(network, evidence, backbone, options.scale, results.get(name))
            for name, network in candidates.items()
        }
        own = "adapted" in candidates and (start is None or options.fits())  # else it is for another image's blur
        width, asked = moments.logarithm(evidence.covariance)[0], options.amount != 1
        chosen, by = select_candidate(scores, width, asked) if own else (strongest_supported(scores), "loss")
        network = candidates[chosen]
        found |= {"chosen": chosen, "chosen_by": by, "held_out_loss": scores, **_describe_work(options, options.steps)}
    network = at_strength(network, strength)
    arrays = {f"darm.{name}": tensor.detach().cpu().numpy() for name, tensor in network.state_dict().items()}
    return Result("network", arrays | kernel, {**found, "strength": strength}, 0 if camera else options.rounds)


def _fit(
    darm: DARM,
    evidence: Evidence,
    options: AdaptOptions,
    checkpoint: Checkpoint,
    report: Callable[[dict], None],
    spent: float,
) -> tuple[AdaptOptions, list[float]]:
    """Fit ``darm`` in place; return the options, in which a budget has become steps, and the loss of every step."""
    references = degraded_references(evidence.covariance, options.scale, options.references, options.seed)
    darm.requires_grad_(True)
    if options.budget is not None:
        options = plan_steps(darm, references, options, checkpoint, spent)
    return options, fit(darm, references, options, checkpoint, report)


def select_candidate(scores: dict[str, float], width: float, asked: bool = False) -> tuple[str, str]:
    """Return the candidate to use and what decided: ``amount``, ``width`` or ``loss``.

    Args:
        scores: the held-out loss of every candidate, from the weakest.
        width: mean logarithm of the estimated variance.
        asked: the user scaled the estimated blur, so the network for it is what is wanted.
    """
    if asked:
        return "adapted", "amount"
    if not _JUDGED[0] <= width <= _JUDGED[1]:
        return "adapted", "width"
    return strongest_supported(scores), "loss"


def strongest_supported(scores: dict[str, float]) -> str:
    """Return the strongest candidate (they come in that order) that explains the image clearly better than the last.

    The kernel that all are judged by is an estimate, and the stronger a candidate, the more it relies on it.
    """
    names = list(scores)
    chosen = names[0]
    for name in names[1:]:
        if scores[name] >= _BETTER[name] * scores[chosen]:
            break
        chosen = name
    return chosen


def _describe_work(options: AdaptOptions, steps: int) -> dict:
    """Return what the adapter records: the steps done, and the options without a budget."""
    return {"steps": steps, "options": replace(options, budget=None).to_json()}


@torch.no_grad()
def estimate_blur(
    pixels: np.ndarray,
    prior: DARM,
    family: DarmFamily | None,
    backbone: nn.Module,
    scale: int,
    device: str,
    amount: float = 1.0,
) -> tuple[Evidence, DARM, dict[str, Tensor]]:
    """Estimate the blur and return the evidence, the network for it, and the results so far (steps 1 to 3).

    Args:
        amount: see :class:`.options.AdaptOptions`.

    Returns:
        Evidence; the network (without a family: the prior); the backbone's results, not clipped, of the ``prior`` and,
        with a family, of that network (``adapted``).
    """
    y = torch.from_numpy(to_tensor(analysis_window(pixels))).to(device, memory_format=torch.channels_last)

    def restore(network: DARM) -> Tensor:
        return backbone(network(y).contiguous(memory_format=torch.channels_last))

    results, network = {"prior": restore(prior)}, prior
    x = results["prior"].clamp(0, 1)
    covariance = estimate_covariance(x.cpu().numpy(), y.cpu().numpy(), scale)
    if amount != 1:
        covariance = moments.scaled(covariance, amount)
    if family is not None:
        network = family.member(covariance).to(memory_format=torch.channels_last)
        results["adapted"] = restore(network)
        x = results["adapted"].clamp(0, 1)
    kernel = torch.from_numpy(kernels.estimated(covariance, scale)).float().to(device)
    blurred = (reduce(x, kernel, scale).clamp(0, 1) * 255).round() / 255
    bicubic = reduce(x, bicubic_table(scale).to(device), scale)
    return Evidence(y, blurred, bicubic, kernel, covariance), network, results


def camera_probability(pixels: np.ndarray) -> float:
    """Return the probability, 0 to 1, that a uint8 image shows in-camera processing."""
    return 1 / (1 + math.exp(-camera_traces.log_odds(pixels)))


def analysis_window(pixels: np.ndarray) -> np.ndarray:
    """Return the part of a uint8 image that its blur is estimated from, as a view: 512 x 512, or as much as there is.

    It is where neighbours differ most, in whole blocks of 64 pixels, since flat areas say nothing of a blur and areas
    out of focus say too much; the middle where there is hardly more than that, or no detail.
    """
    plane = pixels if pixels.ndim == 2 else np.ascontiguousarray(pixels[:, :, 1])
    corner = plane[:-1, :-1]
    detail = cv2.max(cv2.absdiff(corner, plane[1:, :-1]), cv2.absdiff(corner, plane[:-1, 1:]))
    rows, columns = (max(1, length // _BLOCK) for length in detail.shape)
    detail = detail[: rows * _BLOCK, : columns * _BLOCK].astype(np.float32)
    blocks = cv2.resize(detail, (columns, rows), interpolation=cv2.INTER_AREA).astype(np.float64)
    found = find_largest_sum(blocks, _WINDOW // _BLOCK, _WINDOW // _BLOCK)
    starts = [_BLOCK * part.start for part in found] if found else [max(0, n - _WINDOW) // 2 for n in plane.shape]
    top, left = starts
    return pixels[top : top + _WINDOW, left : left + _WINDOW]
