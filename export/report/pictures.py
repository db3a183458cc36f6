"""Encode the pictures of a page: lossless where there is room, else at the best quality that fits."""

from __future__ import annotations

import base64
from dataclasses import dataclass

import cv2
import numpy as np

from darsr_train.plots.page import to_rgb

_QUALITIES = (95, 92, 88, 84, 80, 75, 70, 60, 50)
_PART = 384  # sides of what is encoded to judge the size of a large picture
_LOSSLESS = 101  # OpenCV: above 100 WebP keeps every pixel


@dataclass(frozen=True)
class Album:
    """Pictures of equal size as WebP data URIs.

    Attributes:
        quality: WebP's, 0 to 100; None where the pictures are lossless.
        size: bytes of all URIs.
    """

    uris: dict[str, str]
    quality: int | None
    size: int

    def how(self) -> str:
        """Say on the page how the pixels were encoded."""
        return "lossless WebP: the very pixels" if self.quality is None else f"WebP at quality {self.quality}"


def album(images: dict[str, np.ndarray], budget: int) -> Album:
    """Encode pictures (uint8, H x W or H x W x 3, sides up to 16383) in ``budget`` bytes of the page together.

    Where even the lowest quality does not fit, that one is taken.
    """
    for quality in (_LOSSLESS, *_QUALITIES):
        # Encoding takes a second for 4 megapixels: first judge by a part.
        last = quality == _QUALITIES[-1]
        if not last and sum(_expected_size(image, quality) for image in images.values()) > 1.25 * budget:
            continue
        uris = {name: uri(image, quality) for name, image in images.items()}
        size = sum(map(len, uris.values()))
        if size <= budget:
            break
    return Album(uris, None if quality == _LOSSLESS else quality, size)


def _expected_size(image: np.ndarray, quality: int) -> float:
    """Estimate the bytes of a large picture's URI from its middle."""
    rows, columns = (slice((side - min(side, _PART)) // 2, (side + min(side, _PART)) // 2) for side in image.shape[:2])
    part = image[rows, columns]
    return len(uri(part, quality)) * image.size / part.size


def uri(image: np.ndarray, quality: int = _LOSSLESS) -> str:
    """Encode a picture (uint8, H x W or H x W x 3 RGB) as a WebP data URI; lossless by default."""
    good, data = cv2.imencode(".webp", to_rgb(image)[:, :, ::-1], [cv2.IMWRITE_WEBP_QUALITY, quality])
    if not good:
        raise ValueError(f"a picture of {image.shape} cannot be encoded")
    return "data:image/webp;base64," + base64.b64encode(data.tobytes()).decode()
