"""The degradation kernel between two images, in closed form: linear least squares in float64."""

from __future__ import annotations

import numpy as np

from ..degradation.reduction import phase_planes

SIDE = 13  # of the kernel
_VALUES = 1_000_000  # float64, of the equations that are held at a time


def degradation_kernel(x: np.ndarray, y: np.ndarray, scale: int, ridge: float = 1e-3) -> np.ndarray:
    """Return the 13 x 13 kernel that best reduces ``x`` to ``y``: argmin |reduce(x, k) - y|^2 + ridge |k|^2.

    Args:
        x: float32 N x C x sH x sW, an estimate of the HR image.
        y: N x C x H x W, the given LR image.
        ridge: relative to the mean energy of the image.
    """
    height, width = y.shape[-2:]
    gram, moments = np.zeros((SIDE**2, SIDE**2)), np.zeros(SIDE**2)
    at_a_time = min(height, max(1, _VALUES // (SIDE**2 * width)))
    room = np.empty(SIDE**2 * at_a_time * width)
    for phases, target in zip(phase_planes(x, SIDE, scale), y.reshape(-1, height, width)):
        for top in range(0, height, at_a_time):
            part = target[top : top + at_a_time]
            rows = room[: SIDE**2 * part.size].reshape(SIDE, SIDE, *part.shape)
            for down in range(SIDE):
                for right in range(SIDE):
                    first = top + down // scale
                    plane = phases[down % scale, right % scale][first : first + len(part)]
                    rows[down, right] = plane[:, right // scale : right // scale + width]
            equations = rows.reshape(SIDE**2, -1)
            gram += equations @ equations.T
            moments += equations @ part.ravel()
    weight = ridge * gram.diagonal().mean() + 1e-12  # the second part keeps an all-black image solvable
    return np.linalg.solve(gram + weight * np.eye(len(gram)), moments).reshape(SIDE, SIDE).astype(np.float32)
