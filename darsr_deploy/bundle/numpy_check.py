"""The correction of a small picture in NumPy: what a runtime must give once an adapter's weights were bound to its graph.

Written after the equations alone, in float64, and for nothing but comparing: it needs no runtime, so that a device which has
TensorRT alone can tell whether the weights that it bound are those that compute.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..errors import DarsrError
from ..files.model_spec import FLOORS_DB
from ..images.metrics import psnr
from .graphs import STAGES
from .weights import TAP_OFFSETS

TEST_SIZE = (12, 13)  # LR pixels


def small_picture(height: int = TEST_SIZE[0], width: int = TEST_SIZE[1]) -> np.ndarray:
    """Return waves and noise, float32 1 x 3 x H x W in [0, 1], with no symmetry that would hide swapped weights."""
    rows, columns = np.mgrid[:height, :width]
    waves = [0.5 + 0.3 * np.sin(0.9 * rows + k) * np.cos(0.7 * columns - k) for k in range(3)]
    noise = np.random.default_rng(5).uniform(-0.1, 0.1, (3, height, width))
    return np.clip(np.stack(waves) + noise, 0, 1).astype(np.float32)[None]


def corrected(lr: np.ndarray, weights: Mapping[str, np.ndarray]) -> np.ndarray:
    """Compute the correction network of 13 taps and its filter.

    Args:
        lr: 1 x 3 x H x W.
        weights: as of :func:`.weights.correction_weights`.

    Returns:
        float64 1 x 3 x H x W.
    """
    features = _convolve(lr[0].astype(np.float64), weights, "head")
    for stage in range(STAGES):
        for layer in ("first", "second"):
            features = np.maximum(_convolve(features, weights, f"stages.{stage}.{layer}"), 0)
        squeezed = np.maximum(_convolve(features.mean((1, 2), keepdims=True), weights, f"stages.{stage}.squeeze"), 0)
        features = features / (1 + np.exp(-_convolve(squeezed, weights, f"stages.{stage}.excite")))
    return filtered(lr, _convolve(features, weights, "tail")[None])


def filtered(lr: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
    """Filter 1 x 3 x H x W by 1 x 13 x H x W (or x 1 x 1) point-symmetric taps: float64 1 x 3 x H x W."""
    height, width = lr.shape[2:]
    padded = np.pad(lr.astype(np.float64), [(0, 0), (0, 0), (2, 2), (2, 2)], mode="reflect")

    def shift(dy: int, dx: int) -> np.ndarray:
        return padded[:, :, 2 + dy : 2 + dy + height, 2 + dx : 2 + dx + width]

    result = coefficients[:, 12:] * shift(0, 0)
    for tap, (dy, dx) in enumerate(TAP_OFFSETS[:12]):
        result = result + coefficients[:, tap : tap + 1] * (shift(dy, dx) + shift(-dy, -dx))
    return result


def require_bound(got: np.ndarray, expected: np.ndarray, precision: str, what: str) -> None:
    """Compare what a runtime made of the test image.

    Raises:
        DarsrError: below the minimum PSNR of the precision: the runtime computes with other weights than were bound.
    """
    measured = psnr(got, expected, peak=1.0) if np.isfinite(got).all() else 0.0
    if measured < FLOORS_DB[precision]:
        why = f"its correction is not what was computed after binding it ({measured:.1f} dB, at least "
        why += f"{FLOORS_DB[precision]:.1f} dB are required)"
        raise DarsrError(what, why, "use --engine ort, and report this")


def _convolve(value: np.ndarray, weights: Mapping[str, np.ndarray], layer: str) -> np.ndarray:
    """Convolve C x H x W to C' x H x W, zeros outside."""
    kernel, bias = (weights[f"{layer}.{part}"].astype(np.float64) for part in ("weight", "bias"))
    rim, (height, width) = kernel.shape[-1] // 2, value.shape[1:]
    padded = np.pad(value, [(0, 0), (rim, rim), (rim, rim)])
    result = bias[:, None, None] + np.zeros((1, height, width))
    for dy in range(kernel.shape[2]):
        for dx in range(kernel.shape[3]):
            result += np.tensordot(kernel[:, :, dy, dx], padded[:, dy : dy + height, dx : dx + width], 1)
    return result
