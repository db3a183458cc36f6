"""Whole images through an engine."""

from __future__ import annotations

import numpy as np

from .engine import LEAST_SIDE, Engine
from .imaging import to_image, to_tensor
from .tiled import TiledEngine


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
    sr = engine.upscale(padded) if isinstance(engine, TiledEngine) else None
    if sr is None:  # it fits into memory as a whole
        sr = to_image(engine.run(to_tensor(padded)), gray=image.ndim == 2)
    return sr[: height * scale, : width * scale]


def pad_to_least(image: np.ndarray) -> np.ndarray:
    """Repeat the last row and column until both sides are long enough for an engine."""
    missing = [max(0, LEAST_SIDE - side) for side in image.shape[:2]]
    if not any(missing):
        return image
    return np.pad(image, [(0, missing[0]), (0, missing[1])] + [(0, 0)] * (image.ndim - 2), mode="edge")
