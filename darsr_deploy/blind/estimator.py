"""What the estimator network says of an image: blur, noise, compression, treatment, and how sure it is of each.

The network itself is a graph that ships with the package (``darsr_train.blind.estimator`` trains it). Blur is measured in LR
pixels, so one network serves every scale.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..degradation import covariance as moments
from ..degradation.condition import LOSSLESS, Condition
from ..files.folders import WEIGHTS

VERSION = 1
VALUES = ("width", "stretch", "cross", "noise", "compression", "enlarged")  # with a variance each
FLAGS = ("treated", "unblurred", "drawn", "compressed")
_LEAST_LOG, _MOST_LOG = -7.0, 3.0  # of the variances of the values' errors


@dataclass(frozen=True)
class Found:
    """What an image looks like: the likeliest condition, and how sure it is.

    Attributes:
        condition: the estimate.
        doubt: standard deviations of ``width, stretch, cross`` (logarithm of the covariance), ``noise`` (/10),
            ``compression`` ((101 - quality) / 40), ``enlarged`` (log2).
        unblurred, drawn, compressed: probabilities that it was only reduced, is no photograph, was compressed.
    """

    condition: Condition
    doubt: dict[str, float]
    unblurred: float
    drawn: float
    compressed: float


def read_output(output: np.ndarray, scale: int) -> Found:
    """Read one row of the network's output for an image that is to be enlarged by ``scale``."""
    values, logs = output[: len(VALUES)], output[len(VALUES) : 2 * len(VALUES)].clip(_LEAST_LOG, _MOST_LOG)
    flags = dict(zip(FLAGS, 1 / (1 + np.exp(-output[2 * len(VALUES) :].astype(np.float64)))))
    parts = values[:3] + np.array([to_kernel_units(scale), 0, 0])
    quality = LOSSLESS - 40 * max(float(values[4]), 0.0) if flags["compressed"] > 0.5 else LOSSLESS
    condition = Condition(
        covariance=moments.from_logarithm(parts),
        noise=10 * max(float(values[3]), 0.0),
        quality=quality,
        treated=float(flags["treated"]),
        enlarged=float(2 ** max(values[5], 0.0)),
    )
    doubt = {name: float(math.exp(0.5 * log)) for name, log in zip(VALUES, logs)}
    return Found(condition, doubt, *(float(flags[name]) for name in ("unblurred", "drawn", "compressed")))


def to_kernel_units(scale: int) -> float:
    """Return what to add to the logarithm of a variance in LR pixels squared for that of the x2 kernel in HR pixels."""
    return math.log(4.0 if scale == 2 else 16 / 5)  # at x4 the kernel acts twice: 1 + 2^2 of its variance


def estimator_path() -> Path:
    """Return the network's file in the package."""
    return WEIGHTS / "estimator.safetensors"
