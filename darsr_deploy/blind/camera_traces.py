"""Detect in-camera processing: noise, denoising, sharpening, resampling, JPEG.

The full correction pays on clean blur; on a photograph that was denoised, sharpened or enlarged it amplifies artefacts.
Statistics of high-pass residuals, as image forensics uses them, and a small network on top tell the two apart.
"""

from __future__ import annotations

import functools
from pathlib import Path

import cv2
import numpy as np

from ..files.container import read_container
from ..files.folders import WEIGHTS
from ..images.metrics import luma
from . import mlp
from .quantiles import quantiles

TILE = 128  # side of the crops it was trained on
VERSION = 1

# High-pass filters of unit norm: the two Laplacians, and second differences along the rows and the columns.
_CROSS = np.array([[0, -1, 0], [-1, 4, -1], [0, -1, 0]], np.float32) / np.sqrt(20)
_SQUARE = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32) / 6
_ROWS = np.array([[0, 0, 0], [1, -2, 1], [0, 0, 0]], np.float32) / np.sqrt(6)
_FILTERS = (_SQUARE, _ROWS, _ROWS.T, _CROSS)
_CORRELATED = (0, 3)  # of these, how a residual relates to its neighbours counts as well
_LAGS = ((0, 1), (1, 0), (1, 1), (0, 2), (2, 0))
_BANDS = np.arange(0.05, 0.65, 0.05)  # cycles a pixel


def features(pixels: np.ndarray) -> np.ndarray:
    """Return 112 statistics of an H x W x 3 image (0 to 255, sides of at least 32)."""
    pixels = pixels.astype(np.float32)
    y = luma(pixels)
    planes = (y, pixels[..., 0] - pixels[..., 1], pixels[..., 2] - pixels[..., 1])
    activity = cv2.blur(np.abs(y - cv2.blur(y, (5, 5))), (9, 9))
    *usual, low, high = quantiles(activity, (0.1, 0.3, 0.5, 0.8, 0.3, 0.7)).astype(activity.dtype)
    flat, busy = activity <= low, activity >= high
    found = [np.log(value + 0.05) for value in usual]
    for plane in planes:
        for index, kernel in enumerate(_FILTERS):
            residual = cv2.filter2D(plane, -1, kernel)
            for part in (flat, busy):
                found += _statistics(residual, part[3:-3, 3:-3], index in _CORRELATED)
    return np.array(found + spectrum(y))


def _statistics(residual: np.ndarray, part: np.ndarray, correlated: bool) -> list[float]:
    """Return the log power in a part of the image and, if wanted, autocorrelations and peakedness."""
    h, w = residual.shape
    values = residual[3:-3, 3:-3][part]
    power = (values * values).mean() + 1e-4
    found = [np.log(power)]
    if correlated:
        for dy, dx in _LAGS:
            neighbours = residual[3 + dy : h - 3 + dy, 3 + dx : w - 3 + dx][part]
            found.append((values * neighbours).mean() / power)
        found.append(np.log((np.abs(values).mean() ** 2 + 1e-4) / power))
    return found


def spectrum(plane: np.ndarray) -> list[float]:
    """Return the log power of an H x W plane (0 to 255) in twelve frequency rings, 0.05 to 0.65 cycles a pixel."""
    taper = np.outer(np.hanning(plane.shape[0]), np.hanning(plane.shape[1]))
    power = np.abs(np.fft.fft2((plane - plane.mean()) * taper)) ** 2 / (taper**2).sum()
    radius = np.hypot(np.fft.fftfreq(plane.shape[0])[:, None], np.fft.fftfreq(plane.shape[1])[None])
    return [np.log(power[(radius >= low) & (radius < low + 0.05)].mean() + 1e-3) for low in _BANDS]


def traces_path() -> Path:
    """Return the detector's file in the package."""
    return WEIGHTS / "traces.safetensors"


def log_odds(pixels: np.ndarray) -> float:
    """Return the mean log-odds of in-camera processing over the tiles of a uint8 H x W or H x W x 3 image."""
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[:, :, None], 3, axis=2)
    tops, lefts = (_starts(side) for side in pixels.shape[:2])
    tiles = [pixels[top : top + TILE, left : left + TILE] for top in tops for left in lefts]
    return float(mlp.evaluate(_weights(), np.stack([features(tile) for tile in tiles])).mean())


@functools.cache
def _weights() -> dict[str, np.ndarray]:
    return read_container(traces_path(), "traces", VERSION, "install the package again")[1]


def _starts(side: int) -> list[int]:
    """Return where tiles start that cover a side from end to end, evenly."""
    count = -(-side // TILE)
    last = max(0, side - TILE)
    return [round(i * last / max(1, count - 1)) for i in range(count)]
