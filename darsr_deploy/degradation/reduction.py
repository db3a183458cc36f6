"""Blur and reduce an image by a kernel in NumPy and OpenCV, with mirrored borders.

The same as :mod:`darsr_train.degradation.reduction` computes with PyTorch, up to float rounding.
"""

from __future__ import annotations

import functools

import cv2
import numpy as np

from ..images.resample import resize_taps


def reduce(x: np.ndarray, kernel: np.ndarray, scale: int) -> np.ndarray:
    """Blur and subsample so that output pixel i sits at input coordinate ``scale * i + (scale - 1) / 2``.

    Every one of the phases is correlated at the low resolution, with every ``scale``-th tap of the kernel.

    Args:
        x: float32 N x C x H x W, H and W divisible by ``scale``.
        kernel: k x k; an odd one is padded by k // 2 before, an even one is centred between its middle taps.

    Returns:
        float32 N x C x H/s x W/s.
    """
    height, width = (side // scale for side in x.shape[-2:])
    planes = []
    for phases in phase_planes(x, len(kernel), scale):
        total = np.zeros((height, width), np.float32)
        for (down, right), part in phases.items():
            taps = np.ascontiguousarray(kernel[down::scale, right::scale], np.float32)
            total += cv2.filter2D(part, -1, taps, anchor=(0, 0), borderType=cv2.BORDER_CONSTANT)[:height, :width]
        planes.append(total)
    return np.stack(planes).reshape(*x.shape[:2], height, width)


def phase_planes(x: np.ndarray, side: int, scale: int) -> list[dict[tuple[int, int], np.ndarray]]:
    """Return every channel of N x C x H x W, mirrored for a kernel of a side, as its ``scale * scale`` phases."""
    before = side // 2 if side % 2 else (side - scale) // 2
    margins = (before, side - scale - before) * 2
    padded = [cv2.copyMakeBorder(plane, *margins, cv2.BORDER_REFLECT) for plane in x.reshape(-1, *x.shape[-2:])]
    places = [(down, right) for down in range(scale) for right in range(scale)]
    return [{place: np.ascontiguousarray(p[place[0] :: scale, place[1] :: scale]) for place in places} for p in padded]


@functools.cache
def bicubic_table(scale: int) -> np.ndarray:
    """Return antialiased bicubic reduction as one float32 kernel: 8 x 8 at scale 2, 16 x 16 at scale 4."""
    _, weights = resize_taps(64 * scale, 64, "replicate")
    row = weights[32][weights[32] != 0].astype(np.float32)  # far from the borders all rows are equal
    return np.outer(row, row)
