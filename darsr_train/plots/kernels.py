"""Blur kernels on a page: which are shown, and how on one scale of colours and of lengths."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from darsr_deploy.degradation import kernels
from darsr_deploy.degradation.covariance import covariance_of, shape_of
from darsr_deploy.files.adapter import Adapter

from .page import map_diverging


@dataclass(frozen=True)
class Shown:
    """A kernel of a page.

    Attributes:
        name: its caption.
        kernel: k x k, as :func:`darsr_train.degradation.reduction.reduce` takes it.
        error: relative error against the true kernel; None where that is not known.
    """

    name: str
    kernel: np.ndarray
    error: float | None = None


def kernels_of(adapter: Adapter) -> tuple[Shown, ...]:
    """Return an adapter's kernel; where its shape is free, with the Gaussian that ``fast`` would take it for."""
    kernel = adapter.arrays.get("kernel")
    if kernel is None or kernel.ndim != 2 or kernel.shape[0] != kernel.shape[1]:
        return ()
    estimated = Shown("estimated blur kernel", kernel)
    free = adapter.facts.get("chosen") == "fitted" or adapter.facts.get("profile") == "paper"
    gaussian = gaussian_like(kernel, adapter.scale) if free else None
    return (estimated,) if gaussian is None else (estimated, Shown("Gaussian of the same spread", gaussian))


def gaussian_like(kernel: np.ndarray, scale: int) -> np.ndarray | None:
    """Return the Gaussian of a kernel's second moments about its centre of mass; None where negative taps leave it none."""
    if kernel.sum() < 0.1:
        return None
    centre = np.array([shape_of(kernel)[name] for name in ("down", "right")])
    covariance = covariance_of(kernel, scale) - np.outer(centre, centre) * (1 if scale == 2 else 1 / 5)
    return kernels.estimated(covariance, scale) if np.linalg.eigvalsh(covariance)[0] > 0 else None


def draw_kernels(shown: tuple[np.ndarray, ...], scale: int, height: int, width: int) -> np.ndarray:
    """Draw kernels side by side as :func:`colour_kernels` does: uint8, height x (count * width) x 3."""
    pictures = colour_kernels(shown, scale)
    return np.hstack([cv2.resize(p, (width, height), interpolation=cv2.INTER_NEAREST_EXACT) for p in pictures])


def colour_kernels(shown: tuple[np.ndarray, ...], scale: int) -> list[np.ndarray]:
    """Map kernels to colours on one scale, in windows of one size around the LR pixel: uint8, 9 scale x 9 scale x 3 each.

    A window of 18 x 18 HR pixels at x2, 36 x 36 at x4, has a pixel for each tap.
    """
    middles = [_middle(kernel, 9 * scale, scale) for kernel in shown]
    reach = max(float(np.abs(kernel).max()) for kernel in middles)
    return [map_diverging(kernel, reach) for kernel in middles]


def axis_marks(side: int, scale: int) -> list[tuple[int, float]]:
    """Return the marks of a kernel's axes: distance from the LR pixel in HR pixels, and place in taps from the edge."""
    middle = _lead(side, scale) + scale / 2  # the LR pixel sits at the HR coordinate s * i + (s - 1) / 2
    step = 2 if side <= 18 else 5
    places = ((offset, middle + offset) for offset in range(-step * (side // step), side + 1, step))
    return [(offset, place) for offset, place in places if 0 <= place <= side]


def _lead(side: int, scale: int) -> int:
    """Return the taps before the one at the HR coordinate s * i, as reduce() places them."""
    return side // 2 if side % 2 else (side - scale) // 2


def _middle(kernel: np.ndarray, side: int, scale: int) -> np.ndarray:
    """Pad and crop a kernel to an even side, with the LR pixel in the middle."""
    before = _lead(side, scale) - _lead(len(kernel), scale)
    after = side - before - len(kernel)
    padded = np.pad(kernel, (max(before, 0), max(after, 0)))
    start = max(-before, 0)
    return padded[start : start + side, start : start + side]
