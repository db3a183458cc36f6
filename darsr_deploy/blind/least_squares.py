"""The degradation kernel between two images, in closed form: linear least squares in float64."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..degradation.reduction import phase_planes

SIDE = 13  # of the kernel


def degradation_kernel(x: np.ndarray, y: np.ndarray, scale: int, ridge: float = 1e-3) -> np.ndarray:
    """Return the 13 x 13 kernel that best reduces ``x`` to ``y``: argmin |reduce(x, k) - y|^2 + ridge |k|^2.

    Args:
        x: float32 N x C x sH x sW, an estimate of the HR image.
        y: N x C x H x W, the given LR image.
        ridge: relative to the mean energy of the image.
    """
    gram, moments = np.zeros((SIDE, SIDE, SIDE, SIDE)), np.zeros((SIDE, SIDE))
    for phases, target in zip(phase_planes(x, SIDE, scale), y.reshape(-1, *y.shape[-2:])):
        _add_equations(gram, moments, phases, target.astype(np.float64), scale)
    square = gram.reshape(SIDE**2, SIDE**2)
    weight = ridge * square.diagonal().mean() + 1e-12  # the second part keeps an all-black image solvable
    return (
        np.linalg.solve(square + weight * np.eye(len(square)), moments.ravel()).reshape(SIDE, SIDE).astype(np.float32)
    )


def _add_equations(
    gram: np.ndarray, moments: np.ndarray, phases: Mapping[tuple[int, int], np.ndarray], target: np.ndarray, scale: int
) -> None:
    """Add what one channel says: products of all pairs of taps (rows and columns of both), and of taps and the target.

    Tap ``down`` sees the rows ``scale * i + down``. Two taps that are both ``scale`` rows lower see the same pairs of rows but for
    the first and the last, so that only products with the first ``scale`` taps are summed over the whole image.
    """
    height, width = target.shape
    reach = (SIDE - 1) // scale  # low-resolution rows that a kernel reaches beyond an image
    rows = np.zeros((scale, SIDE, height + reach, width))  # by phase and tap of the column
    for (down, right), plane in phases.items():
        for tap in range(right, SIDE, scale):
            part = plane[: height + reach, tap // scale : tap // scale + width]
            rows[down, tap, : len(part)] = part
    first = rows[:, :, :height].reshape(scale * SIDE, -1)
    for step in range(reach + 1):
        moved = rows[:, :, step : step + height].reshape(scale * SIDE, -1)
        products = (first @ moved.T).reshape(scale, SIDE, scale, SIDE)
        of_target = (moved @ target.ravel()).reshape(scale, SIDE)
        for other in range(min(scale, SIDE - scale * step)):
            moments[scale * step + other] += of_target[other]
            for one in range(scale):
                _add_diagonal(gram, products[one, :, other], rows, height, one, scale * step + other)


def _add_diagonal(gram: np.ndarray, product: np.ndarray, rows: np.ndarray, height: int, upper: int, lower: int) -> None:
    """Add the products of two taps' rows, and of all pairs of taps below them that are as far apart."""
    scale = len(rows)
    while lower < SIDE:
        if upper <= lower:
            gram[upper, :, lower] += product
        if upper < lower:
            gram[lower, :, upper] += product.T
        (above, one), (below, other) = divmod(upper, scale), divmod(lower, scale)
        upper, lower = upper + scale, lower + scale
        if lower < SIDE:
            product = product - rows[one, :, above] @ rows[other, :, below].T
            product += rows[one, :, above + height] @ rows[other, :, below + height].T
