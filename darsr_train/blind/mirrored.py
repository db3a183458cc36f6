"""Tell a blur kernel from its mirror image, which have the same spectrum: only the right one restores edges without ghosts.

The image is restored with both, by gradients that are mostly nothing (Krishnan, Fergus: "Fast Image Deconvolution using
Hyper-Laplacian Priors", NeurIPS 2009), and the one whose result has fewer edges is taken. The reduction is undone in closed form
(Zhao et al.: "Fast Single Image Super-Resolution using a New Analytical Solution for l2-l2 Problems", TIP 2016).
"""

from __future__ import annotations

import cv2
import numpy as np

_SYMMETRIC = 0.15  # relative difference from its mirror image up to which a kernel counts as its own
_PAD = 8  # LR pixels mirrored at the borders, since spectra know none
_ROUNDS = 12
_NOISE = 3e-3  # weight of the sharpened image beside the given one, in the closed form
_SHRINK, _POWER = 1.1e-3, 0.7  # how far gradients are shrunk, times |g| ^ (power - 1)
_STEADY = 1e-2  # weight of the previous image beside the shrunk gradients
_EDGES = 0.8  # power of the gradients that are counted


def choose_orientation(plane: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Return a kernel, its mirror image, or, where it is nearly its own, the mean of both.

    Args:
        plane: H x W, the luma of the LR image in [0, 1].
        kernel: k x k, even, of the x2 reduction.
    """
    turned = np.ascontiguousarray(kernel[::-1, ::-1])
    if np.linalg.norm(kernel - turned) <= _SYMMETRIC * np.linalg.norm(kernel):
        return (kernel + turned) / 2
    return min(kernel, turned, key=lambda k: count_edges(restore(plane, k)))


def restore(plane: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Return the x2 image, 2H x 2W, with few edges that ``kernel`` reduces to the given one (H x W, in [0, 1])."""
    y = np.pad(plane, _PAD, mode="symmetric")
    x = cv2.resize(y, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
    across, down = (np.exp(2j * np.pi * np.fft.fftfreq(side)) - 1 for side in x.shape[::-1])
    curvature = np.abs(across) ** 2 + np.abs(down[:, None]) ** 2
    for _ in range(_ROUNDS):
        gradients = [_shrunk(np.roll(x, -1, axis) - x) for axis in (1, 0)]
        divergence = sum(np.roll(g, 1, axis) - g for g, axis in zip(gradients, (1, 0)))
        spectrum = _STEADY * np.fft.fft2(x) + np.fft.fft2(divergence)
        x = _undo_reduction(y, np.fft.ifft2(spectrum / (_STEADY + curvature + 1e-3)).real, kernel)
    return x[2 * _PAD : -2 * _PAD, 2 * _PAD : -2 * _PAD]


def count_edges(x: np.ndarray) -> float:
    """Return the mean of the gradients' lengths to a power below 1, which many small edges raise, and few large ones do not."""
    inner = x[8:-8, 8:-8]
    lengths = np.hypot(np.diff(inner, axis=1)[:-1], np.diff(inner, axis=0)[:, :-1])
    return float((np.maximum(lengths, 1e-3) ** _EDGES).mean())


def _shrunk(gradient: np.ndarray) -> np.ndarray:
    size = np.abs(gradient)
    return np.sign(gradient) * np.maximum(size - _SHRINK * np.maximum(size, 1e-2) ** (_POWER - 1), 0)


def _undo_reduction(y: np.ndarray, z: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Return argmin |reduce(x, kernel) - y|^2 + noise |x - z|^2, borders periodic."""
    taps, before = np.zeros(z.shape), len(kernel) // 2 - 1
    taps[: len(kernel), : len(kernel)] = kernel
    blur = np.conj(np.fft.fft2(np.roll(taps, (-before, -before), (0, 1))))
    spread = np.zeros(z.shape)
    spread[::2, ::2] = y
    right = np.conj(blur) * np.fft.fft2(spread) + _NOISE * np.fft.fft2(z)
    quotient = _aliased(blur * right) / (_NOISE + _aliased(np.abs(blur) ** 2))
    return np.fft.ifft2((right - np.conj(blur) * np.tile(quotient, (2, 2))) / _NOISE).real


def _aliased(spectrum: np.ndarray) -> np.ndarray:
    """Return the mean of the four frequencies that every second sample cannot tell apart."""
    height, width = (side // 2 for side in spectrum.shape)
    return spectrum.reshape(2, height, 2, width).mean((0, 2))
