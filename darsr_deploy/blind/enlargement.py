"""Was a picture enlarged before? Interpolation leaves a rhythm, or an empty upper band where the rhythm is too even.

A pixel between two old ones is an average of more of them, so second differences are smaller there, periodically: Gallagher,
"Detection of linear and cubic interpolation in JPEG compressed images" (CRV 2005). At a factor of exactly 2 all new pixels
are alike and only the band is left, which ends more steeply than any lens ends it.
"""

from __future__ import annotations

import cv2
import numpy as np

from .quantiles import quantiles

_PEAK, _SUM_OF_PEAKS = 3.3, 7.2  # of a rhythm's spectrum, in units of its median: of each axis, and of both
_SAME = 0.005  # cycles a pixel: how near to each other the peaks of both axes must lie
_LOWEST = 0.2  # cycles a pixel: slower rhythms are the scene's
_GRID_OF_BLOCKS = 0.008  # distance from a multiple of 1/8, where JPEG's own rhythm lies, in cycles a pixel
_WINDOW = 64  # pixels of the windows whose spectra are averaged
_END = {2: 2.35, 4: 3.0}  # fall of the log power from 0.375 to 0.47 cycles a pixel; blurs of x4 images are wider
_EXCESS = 0.1  # of that fall over what a lens would show that falls as much from 0.19 to 0.31 cycles a pixel
_EMPTY = -2.2  # log power at 0.47 cycles a pixel up to which rounding to 8 bits (-2.5) is all that is there
_RISE = -1.2  # no lens lets through more of finer detail
_EDGE = 3.4  # fall of the log power within 1/16 cycles a pixel, in both axes
_FALL_OF_THREE = 3.4  # fall of the log power from 0.06 to 0.19 cycles a pixel that tells factor 3 from factor 1.5


def estimate_enlargement(pixels: np.ndarray, scale: int = 2) -> float:
    """Return the factor by which a uint8 picture was enlarged before; 1 if nothing of it is seen.

    Args:
        scale: that it is to be enlarged by now, 2 or 4.
    """
    luma = pixels.astype(np.float32) if pixels.ndim == 2 else _mean_colour(pixels)
    if min(luma.shape) < _WINDOW:
        return 1.0
    planes = (luma, luma.T)
    spectra = np.array([_spectrum(plane) for plane in planes])
    (first, place), (second, other) = (_rhythm(plane) for plane in planes)
    if abs(place - other) < _SAME and min(first, second) > _PEAK and first + second > _SUM_OF_PEAKS:
        fall = (spectra[:, 4] - spectra[:, 12]).mean()
        return float(1 / place if fall > _FALL_OF_THREE else 1 / (1 - place))
    end, middle = (spectra[:, 24] - spectra[:, 30]).mean(), (spectra[:, 12] - spectra[:, 20]).mean()
    emptied = end > _END[scale] and end - _fall_behind_lens(middle) > _EXCESS and spectra[:, 30].mean() < _EMPTY
    if end < _RISE or emptied:
        return 2.0
    falls = spectra[:, 6:29] - spectra[:, 10:33]
    if falls.max(1).min() > _EDGE:
        return float(32 / (8 + falls.mean(0).argmax()))  # the middle of the edge is where the old picture's band ended
    return 1.0


def _fall_behind_lens(middle: float) -> float:
    """Return the fall of the log power from 0.375 to 0.47 cycles a pixel that goes with one from 0.19 to 0.31 behind a lens.

    A Gaussian's log power falls by the square of the frequency, a scene's by twice its logarithm.
    """
    at = np.array([12, 20, 24, 30]) / 64
    of_lens, of_scene = np.diff(at**2)[[0, 2]], np.diff(2 * np.log(at))[[0, 2]]
    return float((middle - of_scene[0]) * of_lens[1] / of_lens[0] + of_scene[1])


def _mean_colour(pixels: np.ndarray) -> np.ndarray:
    mean = pixels[:, :, 0].astype(np.float32)
    mean += pixels[:, :, 1]
    mean += pixels[:, :, 2]
    mean /= 3
    return mean


def _rhythm(plane: np.ndarray) -> tuple[float, float]:
    """Return the highest peak in the spectrum of the columns' mean second differences, and its frequency."""
    second = np.multiply(plane[:, 1:-1], 2)
    np.subtract(plane[:, 2:], second, out=second)  # in place: of a large picture every copy counts
    second += plane[:, :-2]
    np.abs(second, out=second)
    np.minimum(second, float(quantiles(second, (0.95,))[0]) + 1e-3, out=second)
    means = np.log(second.mean(0) + 0.05)
    means = (means - cv2.blur(means[None], (15, 1))[0]) * np.hanning(len(means))
    power = np.abs(np.fft.rfft(means))
    frequency = np.arange(len(power)) / len(means)
    power = power / (quantiles(power[frequency > 0.1], (0.5,))[0] + 1e-9)
    from_blocks = np.abs(frequency * 8 - np.round(frequency * 8)) / 8
    power[(frequency < _LOWEST) | (from_blocks < _GRID_OF_BLOCKS)] = 0
    return float(power.max()), float(frequency[power.argmax()])


def _spectrum(plane: np.ndarray) -> np.ndarray:
    """Return the mean log power of windows along the rows at multiples of 1/64 cycles a pixel: 33 numbers."""
    taper = np.hanning(_WINDOW)
    starts = range(0, plane.shape[1] - _WINDOW + 1, _WINDOW // 2)
    power = np.zeros(_WINDOW // 2 + 1)
    for start in starts:
        windows = np.ascontiguousarray(plane[:, start : start + _WINDOW])
        spectra = np.fft.rfft((windows - windows.mean(1, keepdims=True)) * taper, axis=1)
        power += (spectra.real**2 + spectra.imag**2).mean(0)
    return np.log(power / len(starts) / (taper**2).sum() + 1e-3)
