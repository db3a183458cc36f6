"""Probe a foreign network by running it: its scale, the sizes it takes, and the range of its values."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from darsr_deploy.errors import DarsrError
from darsr_deploy.images.arrays import to_image
from darsr_deploy.images.resample import imresize

SCALES = (2, 4)
_SIZES = ((24, 20), (17, 30))  # height and width; the second has an odd side and another ratio
_SIDE = 32  # of the LR picture whose enlargement is compared with its truth
# Against nearest neighbour, in dB. Trained networks are 3 to 19 better in their own range, and lose 1 to 3 in the other.
# SRFBN-S and a plain stack of convolutions, made for [0, 255], lose 3 to 16 in [0, 1] and are then less than 5 better.
_MIN_GAIN, _GOOD = -10.0, 6.0
_BYTES_BETTER = 2.0
_HINT = "give a network that maps N x 3 x H x W to N x 3 x sH x sW, RGB in [0, 1], s 2 or 4"

_MULTIPLES = (1, 2, 4, 8, 16, 32, 64)  # that height and width may have to be padded to

Run = Callable[[np.ndarray], np.ndarray]


class UnsupportedSize(DarsrError):
    """Raised for a network that does not take every height and width."""


def find_scale(run: Run, what: str, batches: bool = True) -> tuple[int, int]:
    """Return a network's scale, and the least multiple to pad height and width to for every size to run.

    Arguments and errors are those of :func:`probe_scale`.
    """
    first = None
    for multiple in _MULTIPLES:
        try:
            return probe_scale(_padded(run, multiple), what, batches), multiple
        except UnsupportedSize as error:
            first = first or error
    raise first


def _padded(run: Run, multiple: int) -> Run:
    """Return the same network, with height and width padded to multiples and the result cropped."""

    def padded(lr: np.ndarray) -> np.ndarray:
        height, width = lr.shape[2:]
        sr = run(np.pad(lr, ((0, 0), (0, 0), (0, -height % multiple), (0, -width % multiple)), mode="edge"))
        high, wide = height + -height % multiple, width + -width % multiple
        if multiple == 1 or sr.ndim != 4 or sr.shape[2] % high or sr.shape[3] % wide:
            return sr
        return sr[:, :, : sr.shape[2] // high * height, : sr.shape[3] // wide * width]

    return padded


def probe_scale(run: Run, what: str, batches: bool = True) -> int:
    """Return the scale of a network, 2 or 4, found on two sizes.

    Args:
        run: float32 N x 3 x H x W in [0, 1] -> N x 3 x sH x sW. Whatever it raises means that the size does not go.
        what: names the network in an error line.
        batches: whether two images at once are tried as well.

    Raises:
        DarsrError: it does not run at any size, the output is of another shape or not finite, or the scale is another.
    """
    scales = set()
    for height, width in _SIZES:
        lr = picture(height, width)
        if batches:
            lr = np.concatenate([lr, lr[:, ::-1]])
        sr = _ran(run, lr, what)
        if sr.ndim != 4 or sr.shape[:2] != lr.shape[:2]:
            raise DarsrError(what, f"gives {sr.shape} for {lr.shape}, expected {len(lr)} images of 3 channels", _HINT)
        factors = {sr.shape[2] / height, sr.shape[3] / width}
        if len(factors) > 1 or factors.pop() != sr.shape[2] // height:
            raise UnsupportedSize(
                what, f"gives {sr.shape} for {lr.shape}, which is not a whole-number enlargement", _HINT
            )
        if not np.isfinite(sr).all():
            raise DarsrError(what, f"gives NaN or infinity for a picture of {width}x{height} pixels", _HINT)
        scales.add(sr.shape[2] // height)
    scale = scales.pop()
    if scales or scale not in SCALES:
        raise DarsrError(what, f"enlarges {scale} times", "give a network for scale 2 or 4")
    return scale


def check_range(run: Run, what: str, scale: int) -> None:
    """Check that a network works in [0, 1]: its enlargement of a known picture is compared with nearest neighbour's.

    Raises:
        DarsrError: the output is another picture, or a much better one when the input is in [0, 255].
    """
    hr = picture(_SIDE * scale, _SIDE * scale)
    lr = imresize(to_image(hr), _SIDE, _SIDE).transpose(2, 0, 1)[None].astype(np.float32) / 255
    nearest = lr.repeat(scale, 2).repeat(scale, 3)
    unit, byte = run(lr), run(255 * lr) / 255
    better, byte_better = (_decibels(sr, hr, shape=True) - _decibels(nearest, hr, shape=True) for sr in (unit, byte))
    if byte_better > max(better + _BYTES_BETTER, _MIN_GAIN) and better < _GOOD:
        gains = f"{byte_better:+.1f} and {better:+.1f} dB against nearest neighbour"
        why = f"works on pictures in [0, 255], expected [0, 1] ({gains})"
    elif (found := _decibels(unit, hr)) < _decibels(nearest, hr) + _MIN_GAIN:
        why = f"does not give back a picture in [0, 1] ({found:.1f} dB): it is not trained, or wants another range"
    else:
        return
    raise DarsrError(what, why, "export it with its scaling inside, so that input and output are RGB in [0, 1]")


def picture(height: int, width: int) -> np.ndarray:
    """Draw a test picture, 1 x 3 x height x width, float32 in [0, 1]: waves and a disk's edge, different in each colour."""
    y, x = np.mgrid[:height, :width] / min(height, width)
    planes = []
    for k, (top, left, radius) in enumerate(((0.4, 0.35, 0.25), (0.55, 0.6, 0.3), (0.5, 0.45, 0.4))):
        wave = 0.5 + 0.3 * np.sin(2 * np.pi * ((k + 1) * 0.7 * y + x + 0.3 * k))
        outside = np.hypot(y - top, x - left) - radius  # in sides of the picture; the edge is 3 pixels wide
        inside = 1 / (1 + np.exp(outside * min(height, width) / 0.7))
        planes.append(wave + inside * (1 - 2 * wave))
    return np.stack(planes)[None].astype(np.float32)


def _ran(run: Run, lr: np.ndarray, what: str) -> np.ndarray:
    try:
        return run(lr)
    except Exception as error:  # every runtime raises its own
        size = f"{len(lr)} x 3 x {lr.shape[2]} x {lr.shape[3]}"
        raise UnsupportedSize(what, f"does not run on {size} ({_first_line(error)})", _HINT) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _decibels(sr: np.ndarray, hr: np.ndarray, shape: bool = False) -> float:
    """Return the PSNR of two pictures in [0, 1] without their borders; ``shape`` ignores the mean of each colour."""
    error = (sr.astype(np.float64) - hr)[..., 8:-8, 8:-8]
    if shape:
        error = error - error.mean((2, 3), keepdims=True)
    return -10 * math.log10(max(np.mean(error**2), 1e-12))
