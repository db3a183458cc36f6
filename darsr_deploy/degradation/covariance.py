"""The algebra of second moments, which describe a blur of any shape."""

from __future__ import annotations

import math

import numpy as np

from . import kernels

LEAST, LARGEST = 0.25, 8.0  # variances in HR pixels squared that 13 taps can tell apart

_ELONGATION = 2.0  # networks restore towards the average blur, so kernels fitted to their results are half as elongated


def scaled(covariance: np.ndarray, factor: float) -> np.ndarray:
    """Scale both variances by ``factor``, clamped to [LEAST, LARGEST]."""
    return from_logarithm(logarithm(covariance) + np.array([math.log(factor), 0, 0]))


def covariance_of(kernel: np.ndarray, scale: int) -> np.ndarray:
    """Return the second moments (2 x 2, order y, x) of a k x k kernel; at x4 those of the x2 kernel it is twice."""
    yy, xx, xy = kernels.second_moments(kernel)
    return np.array([[yy, xy], [xy, xx]]) / (1 if scale == 2 else 5)  # 1 + 2^2


def elongated(moments: np.ndarray) -> np.ndarray:
    """Double the elongation of second moments (2 x 2), clamped to [LEAST, LARGEST]."""
    mean, half, cross = parts_of(moments)
    half, cross = _ELONGATION * half, _ELONGATION * cross
    return limited(np.array([[mean + half, cross], [cross, mean - half]]))


def logarithm(covariance: np.ndarray) -> np.ndarray:
    """Return (mean, half difference of the axes, cross part) of the matrix logarithm of a 2 x 2 covariance."""
    variances, axes = np.linalg.eigh(limited(covariance))
    return parts_of(axes @ np.diag(np.log(variances)) @ axes.T)


def from_logarithm(parts: np.ndarray) -> np.ndarray:
    """Invert :func:`logarithm`, with variances clamped to [LEAST, LARGEST]."""
    mean, half, cross = parts
    logs, axes = np.linalg.eigh(np.array([[mean + half, cross], [cross, mean - half]]))
    return limited(axes @ np.diag(np.exp(logs)) @ axes.T)


def parts_of(matrix: np.ndarray) -> np.ndarray:
    """Return (mean, half difference of the axes, cross part) of a symmetric 2 x 2 matrix."""
    return np.array([(matrix[0, 0] + matrix[1, 1]) / 2, (matrix[0, 0] - matrix[1, 1]) / 2, matrix[0, 1]])


def limited(covariance: np.ndarray) -> np.ndarray:
    """Clamp the variances of a 2 x 2 covariance to [LEAST, LARGEST]."""
    variances, axes = np.linalg.eigh(covariance)
    return axes @ np.diag(variances.clip(LEAST, LARGEST)) @ axes.T


def shape_of(kernel: np.ndarray) -> dict[str, float]:
    """Return a kernel's standard deviations along both axes, the angle of the longer one, and the centre of mass.

    Lengths are in HR pixels, the centre (``down``, ``right``) from the middle of the kernel; the angle is in degrees
    from the x axis downwards, 0 to 180.
    """
    axis = np.arange(len(kernel)) - (len(kernel) - 1) / 2
    mass = kernel.sum()
    down, right = float(kernel.sum(1) @ axis / mass), float(kernel.sum(0) @ axis / mass)
    y, x = np.meshgrid(axis - down, axis - right, indexing="ij")
    xx, yy, xy = (float((kernel * moment).sum() / mass) for moment in (x * x, y * y, x * y))
    shorter, longer = np.linalg.eigvalsh([[xx, xy], [xy, yy]]).clip(0)
    round_ = longer - shorter < 1e-9  # has no longer axis
    angle = 0.0 if round_ else math.degrees(0.5 * math.atan2(2 * xy, xx - yy)) % 180
    values = {"sigma_long": math.sqrt(longer), "sigma_short": math.sqrt(shorter), "angle": angle}
    return {name: round(value, 4) + 0.0 for name, value in (values | {"down": down, "right": right}).items()}
