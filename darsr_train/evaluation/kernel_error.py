"""The error of an estimated blur kernel against the true one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..plots.kernels import Shown


def kernel_error(estimated: np.ndarray, true: np.ndarray) -> float:
    """Return the relative L2 error of a kernel, ``|estimated, moved - true| / |true|``: 0 for equal ones.

    The estimate is moved so that its centre of mass meets that of the true kernel, by fractions of a pixel too: where a
    kernel sits cannot be told from the LR image. So work on blind kernel estimation does: KernelGAN (Bell-Kligler et al.,
    NeurIPS 2019) moves the centre of mass to a fixed place, and FKP (Liang et al., CVPR 2021) compares taps in L2, as a
    PSNR, which depends on the number of taps; a ratio does not. Move and difference are taken in the spectrum (Parseval),
    so that a move by a fraction of a pixel smooths nothing.

    Args:
        estimated: k x k, of any k and sum; its centre of mass is that of its positive part.
        true: k x k, sum 1.
    """
    side = len(estimated) + len(true) | 1  # odd: without a highest frequency, whose phase would be ambiguous
    frequency = 2 * np.pi * np.fft.fftfreq(side)
    down, right = _centre(estimated) - _centre(true)
    move = np.exp(1j * (frequency[:, None] * down + frequency * right))
    moved, wanted = (np.fft.fft2(kernel, (side, side)) for kernel in (np.float64(estimated), np.float64(true)))
    return float(np.linalg.norm(moved * move - wanted) / np.linalg.norm(wanted))


def compare_kernels(shown: tuple[Shown, ...], true: np.ndarray) -> tuple[Shown, ...]:
    """Return kernels with their errors against the true one (k x k, sum 1), which follows them."""
    measured = (replace(each, error=kernel_error(each.kernel, true)) for each in shown)
    return (*measured, Shown("true blur kernel", true))


def _centre(kernel: np.ndarray) -> np.ndarray:
    """Return the centre of mass (y, x) of a kernel's positive part, from its first tap; the middle where there is none."""
    positive = np.maximum(np.float64(kernel), 0)
    axis = np.arange(len(kernel))
    if not positive.any():
        return np.full(2, (len(kernel) - 1) / 2)
    return np.array([positive.sum(1) @ axis, positive.sum(0) @ axis]) / positive.sum()
