"""Transparency, for networks that take colours only."""

from __future__ import annotations

import cv2
import numpy as np

from .resample import imresize

_ROWS = 512  # of alpha, enlarged at once
_REACH = 4  # rows of context on each side of a band; bicubic needs 2


def split_alpha(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Split an image into colour, H x W or H x W x 3, and alpha, H x W, or None.

    Fully transparent pixels hold any colour, mostly black, which a network would mix into the visible edge: they get the
    colour of the nearest visible pixel.
    """
    if pixels.ndim == 2 or pixels.shape[2] == 3:
        return pixels, None
    colour = np.ascontiguousarray(pixels[:, :, 0] if pixels.shape[2] == 2 else pixels[:, :, :3])
    alpha = np.ascontiguousarray(pixels[:, :, -1])
    hidden = alpha == 0
    if hidden.any() and not hidden.all():
        _, nearest = cv2.distanceTransformWithLabels(
            hidden.astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
        )
        source = np.zeros(nearest.max() + 1, np.int64)  # label -> index of its visible pixel
        visible = np.flatnonzero(~hidden)
        source[nearest.ravel()[visible]] = visible
        flat = colour.reshape(hidden.size, -1)
        flat[hidden.ravel()] = flat[source[nearest[hidden]]]
    return colour, alpha


def enlarge_alpha(alpha: np.ndarray, scale: int) -> np.ndarray:
    """Enlarge alpha bicubically, H x W -> sH x sW of the same dtype, in bands of rows."""
    height, width = alpha.shape
    most = np.iinfo(alpha.dtype).max
    result = np.empty((height * scale, width * scale), alpha.dtype)
    padded = np.pad(alpha, ((_REACH, _REACH), (0, 0)), mode="edge")
    for top in range(0, height, _ROWS):
        rows = min(_ROWS, height - top)
        band = padded[top : top + rows + 2 * _REACH].astype(np.float32)
        large = imresize(band, len(band) * scale, width * scale)[_REACH * scale : (_REACH + rows) * scale]
        result[top * scale : (top + rows) * scale] = np.clip(large + np.float32(0.5), 0, most)
    return result


def with_alpha(colour: np.ndarray, alpha: np.ndarray | None) -> np.ndarray:
    """Join colour and alpha: the inverse of :func:`split_alpha`."""
    return colour if alpha is None else np.dstack([colour, alpha])
