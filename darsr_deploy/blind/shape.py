"""The shape of a clean picture's blur: a kernel of its own where a covariance says too little, as of motion or defocus.

A small network sees the picture's mean spectrum, in which a blur's shape shows as rings, stripes and slopes, and the kernel by
least squares. A spectrum has no phase: a kernel and its mirror image look the same in it, and which of the two was found
is left open (``darsr_train.adaptation.mirrored`` decides that).
"""

from __future__ import annotations

import functools
import math
from pathlib import Path

import numpy as np

from ..degradation.reduction import reduce
from ..files.container import read_container
from ..files.folders import WEIGHTS
from ..images.metrics import luma
from .least_squares import degradation_kernel

VERSION = 1
SIDE = 14  # of a kernel, in HR pixels: even, centred between its middle taps
LEAST_SIDE = 64  # of an image, in LR pixels
_WINDOW, _HOP = 32, 16  # LR pixels of the windows whose spectra are averaged
_DETAILED = 0.75  # share of the windows, those with most contrast, that count
_FLOOR = 0.3  # power, in squared grey levels, that rounding to 8 bits leaves
VIEWS = 8  # mirrored, upside down, transposed
_INVERSE = (0, 1, 2, 3, 4, 6, 5, 7)  # the view that undoes each

Observation = tuple[np.ndarray, np.ndarray, float]
"""The mean spectrum, 31 x 31, the kernel by least squares, 12 x 12, and the logarithm of what it leaves unexplained."""


def shape_path() -> Path:
    """Return the network's file in the package."""
    return WEIGHTS / "shape-x2.safetensors"


def estimate_kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the x2 kernel that blurred a clean image, or its mirror image: float64 14 x 14, positive, sum 1.

    Args:
        x: float32 1 x 3 x 2H x 2W, the restored image in [0, 1].
        y: 1 x 3 x H x W, the given one, sides of at least 64.
    """
    spectrum, explained, rest = observe(x, y)
    weights = _weights()
    found: list[np.ndarray] = []
    for view in range(VIEWS):
        kernel = evaluate(weights, viewed(spectrum, view), viewed(explained, view), rest)
        kernel = viewed(kernel, _INVERSE[view])
        turned = kernel[::-1, ::-1]
        nearer = not found or np.square(kernel - found[0]).sum() <= np.square(turned - found[0]).sum()
        found.append(kernel if nearer else turned)
    return np.mean(found, axis=0)


def observe(x: np.ndarray, y: np.ndarray) -> Observation:
    """Return what the network is told; arguments as of :func:`estimate_kernel`."""
    kernel = degradation_kernel(x, y, 2)
    unexplained = (reduce(x, kernel, 2) - y)[..., 8:-8, 8:-8].std(dtype=np.float64) * 255
    plane = luma(y[0].transpose(1, 2, 0).astype(np.float64)) * 255
    inner = kernel[1:, 1:].astype(np.float64)  # tap 0 has no partner on the other side of the centre
    return _mean_spectrum(plane), inner / max(np.abs(inner).max(), 1e-3), math.log(unexplained + 0.05)


def _mean_spectrum(plane: np.ndarray) -> np.ndarray:
    """Return the mean logarithm of the power of windows with contrast, 31 x 31, frequency 0 in the middle, its mean removed."""
    windows = np.lib.stride_tricks.sliding_window_view(plane, (_WINDOW, _WINDOW))[::_HOP, ::_HOP]
    windows = windows.reshape(-1, _WINDOW, _WINDOW)
    windows = windows - windows.mean((1, 2), keepdims=True)
    contrast = windows.std((1, 2))
    windows = windows[contrast >= np.quantile(contrast, 1 - _DETAILED)]
    bell = np.hanning(_WINDOW + 2)[1:-1]
    power = np.abs(np.fft.fft2(windows * np.outer(bell, bell))) ** 2 / _WINDOW**2
    mean = np.fft.fftshift(np.log(power + _FLOOR).mean(0))
    return (mean - mean.mean())[1:, 1:]  # row and column 0, the highest frequency, have no partners


def evaluate(weights: dict[str, np.ndarray], spectrum: np.ndarray, explained: np.ndarray, rest: float) -> np.ndarray:
    """Return the kernel that the network sees in one view (``darsr_train.training.shape.ShapeNetwork``)."""
    half = (spectrum - weights["mean"])[:, : spectrum.shape[1] // 2 + 1]  # the other half repeats it
    values = np.concatenate([half.ravel() / weights["spread"], 2 * explained.ravel(), [rest]])
    for layer in range(3):
        out = weights[f"layers.{layer}.weight"] @ values + weights[f"layers.{layer}.bias"]
        out = out / (1 + np.exp(-out))  # SiLU
        values = out if layer == 0 else values + out
    logits = weights["layers.3.weight"] @ values + weights["layers.3.bias"]
    taps = np.exp(logits - logits.max())
    return (taps / taps.sum()).reshape(SIDE, SIDE)


def viewed(array: np.ndarray, view: int) -> np.ndarray:
    """Return an n x n array as one of the eight views of a square."""
    array = array[:, ::-1] if view & 1 else array
    array = array[::-1] if view & 2 else array
    return array.T if view & 4 else array


@functools.cache
def _weights() -> dict[str, np.ndarray]:
    arrays = read_container(shape_path(), "shape", VERSION, "install the package again")[1]
    return {name: array.astype(np.float64) for name, array in arrays.items()}
