"""Whole images through an engine."""

from __future__ import annotations

import numpy as np

from ..images.alpha import enlarge_alpha, split_alpha, with_alpha
from ..images.arrays import to_image, to_tensor
from .base import LEAST_SIDE, Engine
from .tiled import TiledEngine

_ROWS = 256  # of the result, converted at a time


def upscale(engine: Engine, image: np.ndarray) -> np.ndarray:
    """Super-resolve an image of any size; bit depth and channels stay as they are.

    Colours go through the engine, alpha is enlarged bicubically.

    Args:
        image: uint8 or uint16; H x W (gray), H x W x 2 (gray, alpha), H x W x 3 (RGB) or H x W x 4 (RGBA).

    Returns:
        The same dtype; sH x sW, and the same channels.
    """
    height, width = image.shape[:2]
    scale = engine.spec.scale
    colour, alpha = split_alpha(image)
    padded = pad_to_least(colour)
    sr = engine.upscale(padded) if isinstance(engine, TiledEngine) else None
    if sr is None:  # it fits into memory as a whole
        sr = np.empty((scale * padded.shape[0], scale * padded.shape[1], *colour.shape[2:]), image.dtype)
        sr.fill(0)  # its memory is taken now: a run shall not fail at its end
        result = engine.run(to_tensor(padded))
        for top in range(0, len(sr), _ROWS):  # in parts: the whole in float32 once more would be gigabytes
            part = result[:, :, top : top + _ROWS]
            sr[top : top + _ROWS] = to_image(part, gray=colour.ndim == 2, dtype=image.dtype.type)
    sr = sr[: height * scale, : width * scale]
    return with_alpha(sr, None if alpha is None else enlarge_alpha(alpha, scale))


def pad_to_least(image: np.ndarray) -> np.ndarray:
    """Repeat the last row and column until both sides are long enough for an engine."""
    missing = [max(0, LEAST_SIDE - side) for side in image.shape[:2]]
    if not any(missing):
        return image
    return np.pad(image, [(0, missing[0]), (0, missing[1])] + [(0, 0)] * (image.ndim - 2), mode="edge")
