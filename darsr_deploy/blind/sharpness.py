"""Statistics of an image's sharpness in every direction, which depend on its blur more than on the scene.

A scene's few steepest edges say how wide the blur across them is, and its mean spectrum how the blur falls off. Neither
needs a restored image, so neither shares the errors of one (:mod:`.estimate` combines them with what a restored one
says).
"""

from __future__ import annotations

import numpy as np

from .quantiles import quantiles

_DIRECTIONS = ((0, 1), (1, 2), (1, 1), (2, 1), (1, 0), (2, -1), (1, -1), (1, -2))  # (dy, dx): every 22 to 27 degrees
_LONG_LAGS = (1, 2, 3)  # multiples of a direction; of the oblique ones, which are longer, the first two
_SHARES = (0.5, 0.9, 0.99, 0.999)  # quantiles: the upper ones see the steepest edges
_QUIET = 0.3  # grey levels: below this a difference is rounding
_WINDOW, _HOP = 32, 16  # pixels of the windows whose spectra are averaged
_FLOOR = 20.0  # power of rounding to 8 bits in such a window
_HALF = 40  # of the 9 x 9 bins of a spectrum, in front of the middle one: the others repeat them
# Of the 33 frequencies from -1/2 to 1/2: three in each bin.
_BINS = [slice(0, 3), *(slice(low, low + 3) for low in range(3, 30, 4)), slice(30, 33)]

# An image as it is, mirrored left to right, transposed, and both (mirrored first): (mirror, transpose).
VIEWS = ((False, False), (True, False), (False, True), (True, True))


def viewed(array: np.ndarray, mirror: bool, transpose: bool) -> np.ndarray:
    """Return an H x W array as one of :data:`VIEWS`."""
    array = array[:, ::-1] if mirror else array
    return array.T if transpose else array


def features(luma: np.ndarray) -> np.ndarray:
    """Return 4 x 160 statistics of an H x W plane (0 to 255, sides of at least 32), a row for each of :data:`VIEWS`.

    A view has the statistics of the image, in other directions: they are measured once.
    """
    edges, curvature = ({d: measure(luma, *d) for d in _DIRECTIONS} for measure in (_edges, _curvature))
    spectra = _spectra(luma)
    rows = []
    for view in VIEWS:
        directions = [_seen(d, *view) for d in _DIRECTIONS]
        halves = [viewed(spectrum, *view).ravel()[:_HALF] for spectrum in spectra]
        rows.append(np.concatenate([*(edges[d] for d in directions), *(curvature[d] for d in directions), *halves]))
    return np.array(rows)


def _seen(direction: tuple[int, int], mirror: bool, transpose: bool) -> tuple[int, int]:
    """Return the direction in the image that is ``direction`` in its view; opposite directions are one."""
    dy, dx = direction[::-1] if transpose else direction
    dx = -dx if mirror else dx
    return (dy, dx) if (dy, dx) in _DIRECTIONS else (-dy, -dx)


def _edges(luma: np.ndarray, dy: int, dx: int) -> np.ndarray:
    """Return how much differences grow with the distance: a sharp edge is over at once, a blurred one is not."""
    lags = _LONG_LAGS if abs(dy) == abs(dx) or not dy * dx else _LONG_LAGS[:2]
    growth = np.array([_log_quantiles(_difference(luma, lag * dy, lag * dx), _SHARES) for lag in lags])
    return np.append((growth[1:] - growth[0]).ravel(), growth[0, -1])


def _curvature(luma: np.ndarray, dy: int, dx: int) -> np.ndarray:
    """Return quantiles of second differences relative to first ones."""
    before, after = (np.roll(luma, (sign * dy, sign * dx), (0, 1)) for sign in (1, -1))
    inner = (slice(4, -4), slice(4, -4))
    second, first = np.abs(before + after - 2 * luma)[inner], np.abs(before - after)[inner]
    return _log_quantiles(second, _SHARES[1:]) - _log_quantiles(first, _SHARES[1:])


def _difference(luma: np.ndarray, dy: int, dx: int) -> np.ndarray:
    h, w = luma.shape
    here = luma[max(0, dy) : h + min(0, dy), max(0, dx) : w + min(0, dx)]
    there = luma[max(0, -dy) : h + min(0, -dy), max(0, -dx) : w + min(0, -dx)]
    return np.abs(here - there)


def _log_quantiles(values: np.ndarray, shares: tuple[float, ...]) -> np.ndarray:
    return np.log(quantiles(values, shares) + _QUIET)


def _spectra(luma: np.ndarray) -> list[np.ndarray]:
    """Return the log power of 32 x 32 windows in 9 x 9 bins, averaged over the image in two ways.

    The plain mean hears the windows with most detail, the mean of logarithms all of them alike. Both are relative to
    the power at low frequencies, which is the scene's.
    """
    taper = np.hanning(_WINDOW + 2)[1:-1]
    windows = np.lib.stride_tricks.sliding_window_view(luma, (_WINDOW, _WINDOW))[::_HOP, ::_HOP]
    windows = windows.reshape(-1, _WINDOW, _WINDOW)
    windows = windows - windows.mean((1, 2), keepdims=True)
    power = np.abs(np.fft.fft2(windows * np.outer(taper, taper))) ** 2
    return [_coarse(mean) for mean in (power.mean(0), np.exp(np.log(power + 2.5 * _FLOOR).mean(0)))]


def _coarse(power: np.ndarray) -> np.ndarray:
    log = np.log(np.fft.fftshift(power) + _FLOOR)
    middle = _WINDOW // 2
    log -= log[middle - 3 : middle + 4, middle - 3 : middle + 4].mean()
    log = np.pad(log, ((0, 1), (0, 1)), mode="wrap")  # 33 x 33, point-symmetric about the middle one
    return np.array([[log[rows, columns].mean() for columns in _BINS] for rows in _BINS])
