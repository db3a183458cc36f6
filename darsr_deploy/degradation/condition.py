"""The degradation as networks are told it: blur, noise, compression, in-camera treatment, earlier enlargement."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from . import covariance as moments

SIZE = 7  # numbers of a condition vector
MOST_NOISE = 15.0  # grey levels
LEAST_QUALITY = 20.0
LOSSLESS = 101.0  # the quality that stands for "not compressed"
MOST_ENLARGED = 4.0
_NEXT_TO_NOTHING = 0.05  # in numbers of a vector: noise of half a grey level, quality 99


@dataclass(frozen=True)
class Condition:
    """What happened to an image, in the units of its description.

    Attributes:
        covariance: 2 x 2, order y, x: second moments of the x2 blur kernel in HR pixels squared; at x4 it acts twice.
        noise: standard deviation in grey levels, before compression.
        quality: of JPEG, 1 to 100; :data:`LOSSLESS` for none.
        treated: how much of a camera's own sharpening and smoothing shows, 0 to 1.
        enlarged: the factor by which the image was enlarged before, 1 for not.
    """

    covariance: np.ndarray
    noise: float = 0.0
    quality: float = LOSSLESS
    treated: float = 0.0
    enlarged: float = 1.0

    def vector(self) -> np.ndarray:
        """Return seven numbers of about unit size, clamped to the trained range; zeros but for the blur if neutral."""
        noise = min(max(self.noise, 0.0), MOST_NOISE) / 10
        strength = (LOSSLESS - min(max(self.quality, LEAST_QUALITY), LOSSLESS)) / 40
        enlarged = math.log2(min(max(self.enlarged, 1.0), MOST_ENLARGED))
        return np.array(
            [*moments.logarithm(self.covariance), noise, strength, min(max(self.treated, 0.0), 1.0), enlarged]
        )

    def to_json(self) -> dict:
        """Return it as JSON values."""
        return {**vars(self), "covariance": self.covariance.tolist()}

    def is_clean(self) -> bool:
        """Say whether it is blur alone, so that a result may be made consistent with the image itself."""
        return bool((self.vector()[3:] < _NEXT_TO_NOTHING).all())


def neutral() -> Condition:
    """Return the condition of a clean image that was reduced bicubically."""
    return Condition(moments.LEAST * np.eye(2))
