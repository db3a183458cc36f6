"""Whole images through an engine."""

from __future__ import annotations

import sys
import types

import numpy as np

from .engine import LEAST_SIDE, Engine
from .imaging import to_image, to_tensor


def upscale(engine: Engine, image: np.ndarray) -> np.ndarray:
    """Super-resolve an 8-bit image of any size.

    Args:
        image: uint8, H x W (gray, stays gray) or H x W x 3 (RGB).

    Returns:
        uint8, sH x sW or sH x sW x 3.
    """
    height, width = image.shape[:2]
    padded = pad_to_least(image)
    scale = engine.spec.scale
    sr = to_image(engine.run(to_tensor(padded)), gray=image.ndim == 2)
    return sr[: height * scale, : width * scale]


def pad_to_least(image: np.ndarray) -> np.ndarray:
    """Repeat the last row and column until both sides are long enough for an engine."""
    missing = [max(0, LEAST_SIDE - side) for side in image.shape[:2]]
    return np.pad(image, [(0, missing[0]), (0, missing[1])] + [(0, 0)] * (image.ndim - 2), mode="edge")


class _CallableModule(types.ModuleType):
    """``from darsr_deploy import upscale`` gives this module, as its function has the same name: so it can be called."""

    def __call__(self, *args: object, **kwargs: object) -> np.ndarray:
        return self.upscale(*args, **kwargs)


sys.modules[__name__].__class__ = _CallableModule
