"""Antialiased bicubic resampling: MATLAB's ``imresize`` and Pillow's ``BICUBIC``.

Super-resolution backbones are trained on images reduced by MATLAB's; OpenCV's and PyTorch's plain bicubic do not
antialias. Arrays are H x W or H x W x C, of any range.
"""

from __future__ import annotations

import math

import numpy as np

# Keys' cubic convolution kernel, a = -0.5: "Cubic convolution interpolation for digital image processing", 1981.
_A = -0.5


def cubic(x: np.ndarray) -> np.ndarray:
    """Evaluate Keys' cubic convolution kernel with a = -0.5, zero outside (-2, 2)."""
    x = np.abs(x)
    inner = (_A + 2) * x**3 - (_A + 3) * x**2 + 1
    outer = _A * x**3 - 5 * _A * x**2 + 8 * _A * x - 4 * _A
    return np.where(x <= 1, inner, np.where(x < 2, outer, 0.0))


def resize_taps(n_in: int, n_out: int, edge: str = "replicate") -> tuple[np.ndarray, np.ndarray]:
    """Return source indices and weights of a one-dimensional bicubic resize from ``n_in`` to ``n_out`` samples.

    When reducing, the kernel is widened by n_in / n_out (antialiasing).

    Args:
        edge: ``replicate`` repeats the border sample, as MATLAB does; ``drop`` leaves out taps beyond the border, as
            Pillow does.

    Returns:
        ``(indices, weights)``, both n_out x taps; every row of weights sums to 1.
    """
    ratio = n_in / n_out
    stretch = max(ratio, 1.0)
    centre = (np.arange(n_out) + 0.5) * ratio - 0.5
    taps = math.ceil(4 * stretch) + 2
    left = np.floor(centre - 2 * stretch).astype(np.int64)
    indices = left[:, None] + np.arange(taps)[None]
    weights = cubic((centre[:, None] - indices) / stretch)
    if edge not in ("replicate", "drop"):
        raise ValueError(f"edge is {edge!r}; expected 'replicate' or 'drop'")
    if edge == "drop":
        weights = np.where((indices >= 0) & (indices < n_in), weights, 0.0)
    indices = np.clip(indices, 0, n_in - 1)
    weights /= weights.sum(1, keepdims=True)
    used = np.abs(weights).max(0) > 0
    return indices[:, used], weights[:, used]


def _resize_axis(image: np.ndarray, n_out: int, axis: int, edge: str) -> np.ndarray:
    indices, weights = resize_taps(image.shape[axis], n_out, edge)
    shape = [1] * image.ndim
    shape[axis] = n_out
    result = np.zeros((), image.dtype)
    for tap in range(indices.shape[1]):
        weight = weights[:, tap].reshape(shape).astype(image.dtype)
        result = result + weight * np.take(image, indices[:, tap], axis)
    return result


def imresize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize like MATLAB's ``imresize(image, [height width])``: bicubic, antialiased when reducing.

    ``uint8`` images are rounded to 8 bits after each of the two passes, as MATLAB does; float images keep their dtype
    and are neither rounded nor clipped.
    """
    eight_bit = image.dtype == np.uint8
    # the axis that shrinks most goes first, as in MATLAB
    for axis in sorted((0, 1), key=lambda a: (height, width)[a] / image.shape[a]):
        values = image.astype(np.float32) if eight_bit else image
        values = _resize_axis(values, (height, width)[axis], axis, "replicate")
        image = to_uint8(values) if eight_bit else values
    return image


def pillow_bicubic(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize a ``uint8`` image like Pillow's ``BICUBIC``: width first, rounded to 8 bits after each of the two passes.

    Exact where Pillow, with fixed-point weights, is off by one level in a few pixels of 10,000.
    """
    wide = to_uint8(_resize_axis(image.astype(np.float64), width, 1, "drop"))
    return to_uint8(_resize_axis(wide.astype(np.float64), height, 0, "drop"))


def to_uint8(values: np.ndarray) -> np.ndarray:
    """Round half up and clip to 0..255."""
    return np.clip(np.floor(values + 0.5), 0, 255).astype(np.uint8)
