"""Blur kernels of many kinds, for training and for making test sets.

Kernels are even-sized and centred between their two middle taps, so that LR pixel i sits at HR coordinate
``s * i + (s - 1) / 2``; they are non-negative and sum to 1. Lengths and standard deviations are in HR pixels.
"""

from __future__ import annotations

import math

import cv2
import numpy as np


def _grid(size: int, fine: int = 1) -> tuple[np.ndarray, np.ndarray]:
    axis = (np.arange(size * fine) + 0.5) / fine - size / 2
    return np.meshgrid(axis, axis, indexing="ij")


def gaussian(size: int, sigma_x: float, sigma_y: float, angle: float) -> np.ndarray:
    """Return an anisotropic Gaussian with the given standard deviations, turned by ``angle`` radians."""
    y, x = _grid(size)
    along, across = x * math.cos(angle) + y * math.sin(angle), -x * math.sin(angle) + y * math.cos(angle)
    return normalised(np.exp(-0.5 * ((along / sigma_x) ** 2 + (across / sigma_y) ** 2)))


def disk(size: int, radius: float, softness: float = 0.5) -> np.ndarray:
    """Return a uniform disk (defocus) whose rim falls off over about ``softness`` px."""
    y, x = _grid(size, 4)
    fine = 1 / (1 + np.exp(np.clip((np.hypot(x, y) - radius) / (0.25 * softness), -50, 50)))
    return normalised(fine.reshape(size, 4, size, 4).mean((1, 3)))


def motion(size: int, length: float, angle: float, bend: float, thickness: float) -> np.ndarray:
    """Return camera shake: a path of the given length, curved by ``bend`` radians, drawn with a Gaussian pen."""
    t = np.linspace(-0.5, 0.5, 64)
    heading = angle + bend * t
    path = np.cumsum(np.stack([np.sin(heading), np.cos(heading)]), axis=1) * (length / len(t))
    path -= path.mean(1, keepdims=True)
    y, x = _grid(size)
    distance = (y[..., None] - path[0]) ** 2 + (x[..., None] - path[1]) ** 2
    return normalised(np.exp(-0.5 * distance / thickness**2).sum(-1))


def normalised(kernel: np.ndarray) -> np.ndarray:
    """Scale a kernel to sum 1."""
    return kernel / kernel.sum()


def random_gaussian(
    random: np.random.Generator,
    size: int,
    low: float = 0.6,
    high: float = 5.0,
    noise: float = 0.25,
    by_logarithm: bool = False,
) -> np.ndarray:
    """Draw a kernel as of DIV2KRK: variances U(low, high), any angle, taps multiplied by 1 + U(-noise, noise).

    Args:
        by_logarithm: variances even in their logarithm instead, so that narrow blurs are as likely as wide ones.
    """
    if by_logarithm:
        sx, sy = np.sqrt(np.exp(random.uniform(math.log(low), math.log(high), 2)))
    else:
        sx, sy = np.sqrt(random.uniform(low, high, 2))
    kernel = gaussian(size, sx, sy, random.uniform(0, math.pi))
    return normalised(kernel * (1 + random.uniform(-noise, noise, kernel.shape)))


def random_disk(random: np.random.Generator, size: int) -> np.ndarray:
    """Draw defocus of radius U(0.8, 4)."""
    return disk(size, random.uniform(0.8, min(4.0, size / 3)), random.uniform(0.2, 1.5))


def random_motion(random: np.random.Generator, size: int) -> np.ndarray:
    """Draw camera shake of length U(1, 9), straight or bent."""
    return motion(
        size,
        random.uniform(1, min(9.0, size / 2)),
        random.uniform(0, math.pi),
        random.normal(0, 1.2),
        random.uniform(0.4, 1.2),
    )


def random_mixture(random: np.random.Generator, size: int) -> np.ndarray:
    """Draw two kernels of any kind, one after the other or added (a sharp core in a wide halo)."""
    kinds = (random_gaussian, random_disk, random_motion)
    first, second = (kinds[random.integers(3)](random, size) for _ in range(2))
    if random.random() < 0.5:
        share = random.uniform(0.2, 0.8)
        return share * first + (1 - share) * second
    sx, sy = random.uniform(0.4, 1.0, 2)
    narrow = gaussian(size, sx, sy, random.uniform(0, math.pi))
    # The middle of an even kernel lies between taps: correlating two of them shifts by half a pixel each, hence the
    # odd-sized narrow one, resampled by averaging its neighbours.
    odd = cv2.filter2D(narrow, -1, np.full((2, 2), 0.25), anchor=(0, 0), borderType=cv2.BORDER_CONSTANT)[
        : size - 1, : size - 1
    ]
    return normalised(cv2.filter2D(first, -1, odd, borderType=cv2.BORDER_CONSTANT))


ESTIMATED_SIDE = 14  # of an estimated x2 kernel, in HR pixels; at x4 it is applied twice
NEAR_SIDE = 16  # of the kernels below
_NEAR_SPREAD = 0.1  # standard deviation of the log of their variances, and of their tilt in radians


def from_covariance(covariance: np.ndarray, shape: str, size: int = NEAR_SIDE) -> np.ndarray:
    """Return a kernel of given second moments (2 x 2, order y, x, HR pixels squared) and shape.

    ``gaussian``; ``disk``: a uniform ellipse (defocus); ``motion``: uniform along the longer axis, Gaussian across.
    """
    variances, axes = np.linalg.eigh(covariance)
    y, x = _grid(size, 3)
    short, long = ((y * axes[0, i] + x * axes[1, i]) / math.sqrt(max(variances[i], 0.12)) for i in range(2))
    if shape == "gaussian":
        fine = np.exp(-0.5 * (short**2 + long**2))
    elif shape == "disk":  # with its soft rim, a disk of this radius has variance 1 along each axis
        fine = _step(np.hypot(short, long) - 1.935)
    else:  # so has a line of this half length with soft ends
        fine = np.exp(-0.5 * short**2) * _step(np.abs(long) - 1.687)
    return normalised(fine.reshape(size, 3, size, 3).mean((1, 3)))


def estimated(covariance: np.ndarray, scale: int) -> np.ndarray:
    """Return the kernel that an estimate of the x2 blur stands for: the Gaussian, at x4 applied twice."""
    kernel = from_covariance(covariance, "gaussian", ESTIMATED_SIDE)
    return kernel if scale == 2 else twice(kernel)


def _step(distance: np.ndarray) -> np.ndarray:
    """Return 1 inside (negative distances) and 0 outside, soft over about a quarter of a standard deviation."""
    return 1 / (1 + np.exp(np.clip(8 * distance, -50, 50)))


def random_near(random: np.random.Generator, covariance: np.ndarray, other_shapes: float = 0.15) -> np.ndarray:
    """Draw a kernel near an estimated one: with the estimate's errors, and of a shape that it does not tell."""
    variances, axes = np.linalg.eigh(covariance)
    variances = variances * np.exp(random.normal(0, _NEAR_SPREAD, 2))
    tilt = random.normal(0, _NEAR_SPREAD)
    axes = axes @ np.array([[math.cos(tilt), -math.sin(tilt)], [math.sin(tilt), math.cos(tilt)]])
    shape = ("disk", "motion")[random.integers(2)] if random.random() < other_shapes else "gaussian"
    kernel = from_covariance(axes @ np.diag(variances) @ axes.T, shape)
    return normalised(kernel * (1 + random.uniform(0, 0.3) * random.uniform(-1, 1, kernel.shape)))


def second_moments(kernel: np.ndarray) -> np.ndarray:
    """Return (yy, xx, xy): variances and covariance about the centre between the middle taps, HR pixels squared."""
    y, x = _grid(kernel.shape[0])
    return np.array([(kernel * y * y).sum(), (kernel * x * x).sum(), (kernel * x * y).sum()]) / kernel.sum()


def shifted(kernel: np.ndarray, down: float, right: float) -> np.ndarray:
    """Move a kernel by fractions of a pixel (linear interpolation), sum 1."""
    matrix = np.array([[1, 0, right], [0, 1, down]])
    return normalised(cv2.warpAffine(kernel, matrix, kernel.shape[::-1], flags=cv2.INTER_LINEAR))


def twice(kernel: np.ndarray) -> np.ndarray:
    """Return the x4 kernel that equals blurring by ``kernel`` and keeping every second pixel, two times."""
    k = kernel.shape[0]
    spread = np.zeros((2 * k - 1, 2 * k - 1))
    spread[::2, ::2] = kernel
    side = 3 * k - 2
    result = np.zeros((side, side))
    for i in range(k):
        for j in range(k):
            result[i : i + 2 * k - 1, j : j + 2 * k - 1] += kernel[i, j] * spread
    return result
