"""Adapt to one image: look at it, decide, take the networks for it. Nothing is fitted.

1. An estimator, and what knows one thing better than it does, look at the parts of the image with detail;
2. a judgement says what the networks are told, on the side of too little (:mod:`..blind.judgement`);
3. the correction network and the modulation of the backbone for that condition are functions of it (:mod:`.modulation`);
4. where the condition is blur alone, back-projection makes the result consistent with the given image.
"""

from __future__ import annotations

import importlib.metadata

import numpy as np

from ..blind.judgement import Findings, Networks, Wishes, examine, judge, judge_blur
from ..bundle.shipped import backbone_path, load_modulated, load_weights
from ..degradation import kernels
from ..errors import DarsrError
from ..files.adapter import Adapter
from ..images.reader import eight_bit
from .modulation import correction_weights, scales_and_shifts
from .networks import OrtNetworks

LEAST_SIDE = 32  # pixels
ROUNDS = 3  # of back-projection


def adapt(
    image: np.ndarray,
    scale: int = 2,
    *,
    amount: float = 1.0,
    denoise: float = 1.0,
    deblock: float = 1.0,
    jpeg_quality: float | None = None,
    rounds: int = ROUNDS,
    threads: int = 0,
    networks: Networks | None = None,
) -> Adapter:
    """Adapt to one image with profile ``fast`` and the default backbone, in memory.

    Args:
        image: as :func:`darsr_deploy.read_image` gives it: uint8, H x W or H x W x 3 (RGB), sides of at least 32. Of other
            pictures (16 bits, alpha) its 8-bit colours are adapted to.
        scale: 2 or 4.
        amount: the blur is taken as so many times the variance that was estimated, 0.1 to 4.
        denoise, deblock: shares of the noise and of the compression that were found to take away, 0 to 1.
        jpeg_quality: what the file's own tables say (:func:`darsr_deploy.blind.compression.read_jpeg_quality`); by default
            it is estimated from the pixels.
        rounds: of back-projection, where blur is all that happened.
        threads: of the CPU; 0 lets the runtime choose.
        networks: that look at the image; by default those of the package in ONNX Runtime.

    Returns:
        The adapter: ``facts["decision"]`` says in words what was found and done; ``save(path)`` writes it.

    Raises:
        DarsrError: the image is too small, an option is out of range, or ONNX Runtime is not installed.
    """
    if scale not in (2, 4):
        raise DarsrError(f"scale {scale}", "is not supported", "choose 2 or 4")
    try:
        wishes = Wishes(amount, denoise, deblock)
    except ValueError as error:
        raise DarsrError("option", str(error), "see darsr adapt --help") from error
    height, width = image.shape[:2]
    if min(height, width) < LEAST_SIDE:
        why = f"is {width}x{height} pixels, too small to adapt (least side {LEAST_SIDE})"
        raise DarsrError("the image", why, "enlarge it with the backbone alone")
    networks = networks or OrtNetworks(scale, threads)
    findings = examine(eight_bit(image), networks, scale, jpeg_quality)
    facts = {
        "profile": "fast",
        "source": {"height": height, "width": width},
        "versions": {"darsr": importlib.metadata.version("darsr"), **getattr(networks, "version", {})},
    }
    return build_adapter(findings, wishes, scale, rounds=rounds, facts=facts)


def build_adapter(
    findings: Findings, wishes: Wishes, scale: int, *, rounds: int = ROUNDS, facts: dict | None = None
) -> Adapter:
    """Build the adapter for what was found and wished: matrix products, so that a wish can change many times a second.

    Args:
        findings: of :func:`..blind.judgement.examine` at this scale.
        rounds: of back-projection, where blur is all that happened.
        facts: of the adapter, beside those about the decision.
    """
    judgement = judge(findings, wishes)
    condition = judgement.condition
    facts = {
        **(facts or {}),
        "chosen": judgement.chosen,
        "found": judgement.found,
        "decision": judgement.sentence,
        "steps": 0,
        "kernel_sum": 1.0,
    }
    kernel = kernels.estimated(judge_blur(findings) if condition is None else condition.covariance, scale)
    arrays, modulation, correction = {"kernel": kernel}, "", "none"
    if condition is not None:
        weights = load_modulated(scale, findings.regime)
        scales, shifts = scales_and_shifts(weights, condition)
        arrays |= {f"darm.{name}": array for name, array in correction_weights(weights, condition).items()}
        arrays |= {"modulation.scale": scales, "modulation.shift": shifts}
        facts |= {"condition": condition.to_json(), "regime": findings.regime}
        modulation, correction = weights.sha256, "network"
    path = backbone_path(scale)
    return Adapter(
        correction=correction,
        scale=scale,
        backbone=path.stem,
        backbone_sha256=load_weights(path, "backbone").sha256,
        facts=facts,
        arrays={name: np.ascontiguousarray(array, np.float32) for name, array in arrays.items()},
        rounds=rounds if condition is not None and condition.is_clean() else 0,
        modulation_sha256=modulation,
    )
