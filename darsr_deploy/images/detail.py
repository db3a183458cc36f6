"""Where a picture has most detail: the measure of a crop, and the window of a map that holds the most."""

from __future__ import annotations

import numpy as np

from .metrics import studio_luma

Window = tuple[slice, slice]  # rows, columns


def measure_detail(crop: np.ndarray) -> float:
    """Return the mean absolute difference of neighbouring green pixels of a uint8 H x W x 3 crop."""
    green = crop[:, :, 1].astype(np.int16)
    return float(np.abs(np.diff(green, axis=0)).mean() + np.abs(np.diff(green, axis=1)).mean())


def find_detailed_square(picture: np.ndarray, side: int) -> Window:
    """Return the square of a uint8 picture with the most gradient of Y; of a smaller picture all of a side."""
    y = studio_luma(picture)
    gradient = np.abs(np.diff(y, axis=0, prepend=y[:1])) + np.abs(np.diff(y, axis=1, prepend=y[:, :1]))
    height, width = y.shape
    return find_largest_sum(gradient, side, side) or (slice(0, min(side, height)), slice(0, min(side, width)))


def find_largest_sum(values: np.ndarray, height: int, width: int) -> Window | None:
    """Return the window of an H x W map whose values sum to the most; None where all windows are alike.

    Sides longer than the map's are cut to it. Exact where sums of float64 are, as of integers.
    """
    height, width = (min(side, length) for side, length in zip((height, width), values.shape))
    total = np.pad(values.cumsum(0, np.float64).cumsum(1), ((1, 0), (1, 0)))
    sums = total[height:, width:] - total[:-height, width:] - total[height:, :-width] + total[:-height, :-width]
    if sums.max() == sums.min():
        return None
    top, left = (int(place) for place in np.unravel_index(sums.argmax(), sums.shape))
    return slice(top, top + height), slice(left, left + width)


def find_detailed_crops(picture: np.ndarray, height: int, width: int, count: int) -> list[np.ndarray]:
    """Return the 1 x 3 x height x width crops of highest contrast, on a grid of half a crop.

    They are fewer, or smaller, where the picture (1 x 3 x H x W) is small.
    """
    height, width = min(height, picture.shape[2]), min(width, picture.shape[3])
    tops = range(0, picture.shape[2] - height + 1, max(1, height // 2))
    lefts = range(0, picture.shape[3] - width + 1, max(1, width // 2))
    crops = [picture[:, :, top : top + height, left : left + width] for top in tops for left in lefts]
    return [np.ascontiguousarray(crop) for crop in sorted(crops, key=lambda c: -float(c.std()))[:count]]
