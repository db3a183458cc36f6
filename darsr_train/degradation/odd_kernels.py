"""Blur kernels that no Gaussian describes: bent paths, two lobes, polygonal apertures, long tails, shifted mixtures.

The blurs of :mod:`.kernels` are symmetric, or nearly so; these test what a method does beyond its family of kernels.
Kernels are even-sized, non-negative and sum to 1. Their centre of mass lies in the middle, between the two middle taps:
a kernel off its centre moves the picture, which no method can tell from the LR image alone, so that HR would have to move
with it. Lengths and standard deviations are in HR pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

Density = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Non-negative values at the coordinates y and x (down, right)."""

_FINE = 4  # samples per pixel along each axis
_ROUNDS = 20  # of moving the centre of mass, each closer by the share of a density that lies outside the kernel
_REACH = 4.2  # from the middle of a kernel of side 12; wider shapes would be cut off


def random_odd(random: np.random.Generator, size: int) -> tuple[str, np.ndarray]:
    """Draw one of :data:`SHAPES` and a kernel of it.

    Args:
        size: even, at least 12.

    Returns:
        The shape's name and the kernel, size x size, float64.
    """
    shape = tuple(SHAPES)[random.integers(len(SHAPES))]
    return shape, SHAPES[shape](random, size)


def random_path(random: np.random.Generator, size: int) -> np.ndarray:
    """Draw camera shake that turns sharply one to three times, at a speed of its own on every straight part."""
    turns = int(random.integers(1, 4))
    lengths = random.uniform(1.5, 5, turns + 1)
    bends = random.uniform(math.pi / 4, 0.85 * math.pi, turns) * random.choice([-1, 1], turns)
    heading = random.uniform(0, 2 * math.pi) + np.concatenate([[0], np.cumsum(bends)])
    corners = np.cumsum(lengths * np.stack([np.sin(heading), np.cos(heading)]), axis=1)
    corners = np.concatenate([np.zeros((2, 1)), corners], axis=1)
    corners -= (corners.min(1, keepdims=True) + corners.max(1, keepdims=True)) / 2
    corners *= min(1.0, _REACH / np.abs(corners).max())
    time = random.uniform(0.5, 1.5, turns + 1)  # spent on each part
    pen = random.uniform(0.4, 0.8)
    steps = np.linspace(0, 1, 25)[:-1] + 1 / 48
    parts = [
        (share / len(steps), _gaussian(*(corners[:, i] + t * (corners[:, i + 1] - corners[:, i])), pen, pen))
        for i, share in enumerate(time)
        for t in steps
    ]
    return draw_kernel(parts, size)


def random_lobes(random: np.random.Generator, size: int) -> np.ndarray:
    """Draw two separate lobes: a double exposure, or a shake that rests at both ends."""
    distance, angle, share = random.uniform(2.5, 5), random.uniform(0, 2 * math.pi), random.uniform(0.3, 0.7)
    down, right = distance * math.sin(angle) / 2, distance * math.cos(angle) / 2
    first, second = (_gaussian(s * down, s * right, *_widths(random, 0.5, 0.9)) for s in (-1, 1))
    return draw_kernel([(share, first), (1 - share, second)], size)


def random_aperture(random: np.random.Generator, size: int) -> np.ndarray:
    """Draw defocus through 5 to 8 straight blades, half of the time with a brighter or a darker rim."""
    blades, turn = int(random.integers(5, 9)), random.uniform(0, 2 * math.pi)
    rim = random.uniform(-0.6, 1.5) if random.random() < 0.5 else 0.0
    return draw_kernel([(1.0, _polygon(random.uniform(1.5, _REACH), blades, turn, rim))], size)


def random_tails(random: np.random.Generator, size: int) -> np.ndarray:
    """Draw a sharp core in a haze that falls off slowly, as fog, a filter or a smeared lens give it.

    The haze is a Moffat function, ``(1 + r^2 / a^2) ^ -b`` (Moffat, Astronomy and Astrophysics 3, 1969).
    """
    share, radius, power = random.uniform(0.3, 0.6), random.uniform(1.0, 2.5), random.uniform(1.1, 2.0)
    core = _gaussian(0, 0, *_widths(random, 0.5, 1.1))
    return draw_kernel([(1 - share, core), (share, lambda y, x: (1 + (y * y + x * x) / radius**2) ** -power)], size)


def random_mixture(random: np.random.Generator, size: int) -> np.ndarray:
    """Draw a small aperture and a Gaussian beside it: two layers of different blur."""
    offset, angle, share = random.uniform(1, 2.5), random.uniform(0, 2 * math.pi), random.uniform(0.3, 0.7)
    beside = _gaussian(offset * math.sin(angle), offset * math.cos(angle), *_widths(random, 0.5, 1.5))
    aperture = _polygon(random.uniform(1.2, 3), int(random.integers(5, 9)), random.uniform(0, 2 * math.pi), 0.0)
    return draw_kernel([(share, aperture), (1 - share, beside)], size)


def random_blobs(random: np.random.Generator, size: int) -> np.ndarray:
    """Draw two to five Gaussians anywhere: shapes without a name, to train on; none of :data:`SHAPES`."""
    places = random.uniform(-4, 4, (int(random.integers(2, 6)), 2)) * random.uniform(0.2, 1)
    parts = [(random.uniform(0.2, 1), _gaussian(*place, *_widths(random, 0.5, 1.6))) for place in places]
    return draw_kernel(parts, size)


SHAPES = {
    "path": random_path,
    "lobes": random_lobes,
    "aperture": random_aperture,
    "tails": random_tails,
    "mixture": random_mixture,
}


def draw_kernel(parts: list[tuple[float, Density]], size: int) -> np.ndarray:
    """Return the weighted sum of densities as a kernel, moved as a whole so that its centre of mass is in the middle.

    Args:
        parts: weights and densities; each density counts by its weight, whatever its own sum.
    """
    axis = (np.arange(size * _FINE) + 0.5) / _FINE - size / 2
    y, x = np.meshgrid(axis, axis, indexing="ij")
    down = right = 0.0
    for _ in range(_ROUNDS):
        planes = ((weight, density(y + down, x + right)) for weight, density in parts)
        fine = sum(weight * plane / plane.sum() for weight, plane in planes)
        fine /= fine.sum()
        down, right = down + (fine * y).sum(), right + (fine * x).sum()
    kernel = fine.reshape(size, _FINE, size, _FINE).sum((1, 3))
    return kernel / kernel.sum()


def _widths(random: np.random.Generator, low: float, high: float) -> tuple[float, float, float]:
    """Draw two standard deviations and an angle."""
    return (*random.uniform(low, high, 2), random.uniform(0, math.pi))


def _gaussian(down: float, right: float, sigma_x: float, sigma_y: float, angle: float = 0.0) -> Density:
    cosine, sine = math.cos(angle), math.sin(angle)

    def density(y: np.ndarray, x: np.ndarray) -> np.ndarray:
        y, x = y - down, x - right
        along, across = x * cosine + y * sine, y * cosine - x * sine
        return np.exp(-0.5 * ((along / sigma_x) ** 2 + (across / sigma_y) ** 2))

    return density


def _polygon(radius: float, corners: int, turn: float, rim: float) -> Density:
    """Return a regular polygon with a soft edge; ``radius`` is that of its corners, ``rim`` what is added there."""
    normals = turn + 2 * math.pi * np.arange(corners) / corners
    inner = radius * math.cos(math.pi / corners)

    def density(y: np.ndarray, x: np.ndarray) -> np.ndarray:
        beyond = np.max([y * math.sin(a) + x * math.cos(a) for a in normals], axis=0) - inner
        return (1 + rim * (y * y + x * x) / radius**2).clip(0) / (1 + np.exp(np.clip(10 * beyond, -50, 50)))

    return density
