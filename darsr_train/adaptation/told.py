"""Profile ``fast`` with networks that are told the degradation: look at the image, decide, take the networks for it.

1. An estimator looks at the parts of the image with detail (:mod:`..blind.estimator`);
2. a judgement says what the networks are told, on the side of too little (:mod:`..blind.judgement`);
3. the correction network and the modulation of the backbone for that condition are functions of it
   (:mod:`..blind.modulation`): nothing is fitted;
4. where the condition is blur alone, back-projection makes the result consistent with the given image.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from ..backbones import Backbone
from ..blind.estimator import load_estimator
from ..blind.judgement import Wishes, examine, judge, judge_blur
from ..blind.modulation import modulated_of
from ..degradation import kernels
from .options import AdaptOptions
from .result import Result


@torch.no_grad()
def adapt_told(
    pixels: np.ndarray, backbone: Backbone, options: AdaptOptions, jpeg_quality: float | None = None
) -> Result:
    """Adapt to one image.

    Args:
        pixels: uint8, H x W or H x W x 3, sides of at least 32.
        backbone: one that has networks of its own for both regimes.
        jpeg_quality: what the file's own tables say; None where there are none.
    """
    findings = examine(pixels, load_estimator(), backbone.module, options.scale, jpeg_quality)
    judgement = judge(findings, Wishes(options.amount, options.denoise, options.deblock))
    facts = {
        "chosen": judgement.chosen,
        "found": judgement.found,
        "decision": judgement.sentence,
        "steps": 0,
        "options": replace(options, budget=None).to_json(),
        "kernel_sum": 1.0,
    }
    condition = judgement.condition
    kernel = kernels.estimated(judge_blur(findings) if condition is None else condition.covariance, options.scale)
    if condition is None:
        return Result("none", {"kernel": kernel}, facts)
    networks = modulated_of(backbone, findings.regime)
    facts |= {"condition": condition.to_json(), "regime": findings.regime}
    scales, shifts = (torch.cat(parts) for parts in networks.scales_and_shifts(networks.vector(condition)))
    correction = networks.correction(condition).state_dict()
    arrays = {f"darm.{name}": tensor.numpy() for name, tensor in correction.items()}
    arrays |= {"kernel": kernel, "modulation.scale": scales.numpy(), "modulation.shift": shifts.numpy()}
    rounds = options.rounds if condition.is_clean() else 0
    return Result("network", arrays, facts, rounds, networks.sha256)
