"""The covariance of an image's blur, estimated from a first restoration and from the image itself.

Second moments come from the kernel that best reduces the restored image to the given one, in closed form. A small
network on statistics of that kernel and of the image's sharpness removes the bias of such estimates; a second one on
the same numbers recognises images that were only reduced. The narrower a blur, the larger the error: a soft scene looks
like one.
"""

from __future__ import annotations

import functools
import math
from pathlib import Path

import numpy as np

from ..degradation.covariance import LEAST, elongated, from_logarithm, logarithm, parts_of
from ..degradation.reduction import bicubic_table, reduce
from ..files.container import read_container
from ..files.folders import WEIGHTS
from ..images.metrics import luma
from . import mlp, sharpness
from .least_squares import degradation_kernel

VERSION = 2
# The signs of (mean, half difference, cross part) of the covariance in each view.
SIGNS = np.array([[1, 1, 1], [1, 1, -1], [1, -1, 1], [1, -1, -1]])
_MOST = 1.0  # largest change of a logarithm of a variance by the network
# Overestimating the blur over-sharpens, which costs more PSNR than underestimating it. Subtracted from the logarithm of
# the width.
_CAUTION = {2: 0.15, 4: 0.2}
_DOUBT, _SURE, _DOUBTFUL = 0.4, -3.0, 0.0  # more, rising between two log-odds that the image was only reduced


def blur_path(scale: int) -> Path:
    """Return the file in the package that holds both networks of a scale."""
    return WEIGHTS / f"blur-x{scale}.safetensors"


def estimate_covariance(x: np.ndarray, y: np.ndarray, scale: int) -> np.ndarray:
    """Estimate the second moments (2 x 2, order y, x, HR pixels squared) of the x2 kernel that blurred ``y``.

    At x4 that kernel acts twice. Both variances are :data:`LEAST` where the image seems only reduced.

    Args:
        x: float32 1 x 3 x sH x sW, the restored image in [0, 1].
        y: 1 x 3 x H x W, the given one, sides of at least 32.
    """
    found, first = observe(x, y, scale)
    odds = only_reduced(found, scale)
    if odds > 0:
        return LEAST * np.eye(2)
    change = (mlp.evaluate(_weights("correction", scale), found) * SIGNS).mean(0).clip(-_MOST, _MOST)
    return from_logarithm(logarithm(first) + change - np.array([caution(odds, scale), 0, 0]))


def caution(odds: float, scale: int) -> float:
    """Return by how much an estimate is narrowed, in the logarithm of the variance.

    Args:
        odds: log odds that the image was only reduced, of :func:`only_reduced`.
    """
    return _CAUTION[scale] + _DOUBT * min(max((odds - _SURE) / (_DOUBTFUL - _SURE), 0.0), 1.0)


def only_reduced(found: np.ndarray, scale: int) -> float:
    """Return the log-odds that an image was only reduced bicubically, from its features (see :func:`observe`)."""
    return float(mlp.evaluate(_weights("reduced", scale), found).mean())


def observe(x: np.ndarray, y: np.ndarray, scale: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the features of a restored and a given image, and the covariance by least squares.

    At x4 the restored image is reduced bicubically by 2 first, from which the given one is one blur away: of 1 + 1/4 of
    the x2 kernel's variance, the second pass, and the first one seen at half the resolution.

    Returns:
        Features, 4 x n, of the views of :mod:`.sharpness`; covariance of the x2 kernel, 2 x 2.
    """
    if scale == 4:
        x = reduce(x, bicubic_table(2), 2)
    kernel = degradation_kernel(x, y, 2)
    unexplained = (reduce(x, kernel, 2) - y)[..., 8:-8, 8:-8].std(ddof=1, dtype=np.float64) * 255
    of_all = [kernel.sum(dtype=np.float64), math.log(unexplained + 0.05)]
    part = _symmetric(kernel)
    brightness = (luma(y[0].transpose(1, 2, 0).astype(np.float64)) * 255).astype(np.float32)
    of_kernel = np.array([[*of_all, *_of_kernel(sharpness.viewed(part, *view))] for view in sharpness.VIEWS])
    first = elongated(_moments(part)) / (1 if scale == 2 else 1.25)
    return np.hstack([of_kernel, sharpness.features(brightness)]), first


def _of_kernel(part: np.ndarray) -> list[float]:
    moments = _moments(part)
    return [
        *parts_of(moments),
        *parts_of(_moments(part * _near())),
        *logarithm(elongated(moments)),
        part[5:7, 5:7].sum(),
        math.log(max(part.max(), 1e-3)),
        -part[part < 0].sum(),
        *part[2:6, 2:10].ravel(),
    ]


def _symmetric(kernel: np.ndarray) -> np.ndarray:
    """Return the point-symmetric part, 12 x 12 with sum 1, of a 13 x 13 kernel centred at tap 6.5."""
    part = kernel.astype(np.float64)[1:, 1:]  # tap 0 has no partner on the other side of the centre
    part = 0.5 * (part + part[::-1, ::-1])
    if part.sum() < 0.1:  # a black image
        part = np.zeros_like(part)
        part[5:7, 5:7] = 0.25
    return part / part.sum()


def _offsets() -> tuple[np.ndarray, np.ndarray]:
    axis = np.arange(12) - 5.5
    return np.meshgrid(axis, axis, indexing="ij")


def _near() -> np.ndarray:
    """Return a Gaussian window of standard deviation 2: taps far from the centre are mostly noise."""
    ys, xs = _offsets()
    return np.exp(-(ys * ys + xs * xs) / 8)


def _moments(part: np.ndarray) -> np.ndarray:
    ys, xs = _offsets()
    total = part.sum() if part.sum() > 0.1 else 1.0
    yy, xx, xy = ((part * moment).sum() / total for moment in (ys * ys, xs * xs, xs * ys))
    return np.array([[yy, xy], [xy, xx]])


@functools.cache
def _weights(network: str, scale: int) -> dict[str, np.ndarray]:
    """Return the weights of ``correction`` or ``reduced``."""
    arrays = read_container(blur_path(scale), "blur", VERSION, "install the package again")[1]
    prefix = f"{network}."
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
