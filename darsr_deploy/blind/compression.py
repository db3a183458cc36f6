"""The JPEG quality of a picture: from the tables of its file, or from its pixels alone.

DCT coefficients of decoded pixels lie on multiples of the steps that they were quantised with.
After Fan, de Queiroz: "Identification of bitmap compression history: JPEG detection and quantizer estimation" (IEEE TIP 2003),
with whole tables of libjpeg's quality scale instead of single steps, and a search for where the 8 x 8 grid begins.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
from PIL import Image

_LUMA_TABLE = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
)  # ITU-T T.81, annex K.1
_LUMA = np.array([0.299, 0.587, 0.114])
_QUALITIES = np.arange(20, 96)  # above, steps are as small as the rounding of pixels
_PLACES = [(0, 1), (1, 0), (1, 1), (0, 2), (2, 0), (1, 2), (2, 1), (2, 2), (0, 3), (3, 0)]  # of the coefficients used
_NEARLY_LOSSLESS = 99.0  # above, a table hardly takes anything away
_LEAST_COUNT = 40  # coefficients that are not quantised to zero
_LEAST_SCORE = 0.5  # mean cosine: 1 where all lie on multiples, 0 where none does
_AS_GOOD = 0.93  # of the best score: half the steps explain a picture as well as the steps themselves


def estimate_quality(pixels: np.ndarray) -> float | None:
    """Return the quality (20 to 95, libjpeg's scale) that a uint8 picture was last compressed with; None if none is seen.

    Args:
        pixels: H x W or H x W x 3, sides of at least 32.
    """
    luma = pixels.astype(np.float64) if pixels.ndim == 2 else pixels[:, :, :3] @ _LUMA
    best: float | None = None
    for top, left in dict.fromkeys(((0, 0), grid_origin(luma))):
        quality = _quality_at(luma[top:, left:])
        best = quality if best is None or (quality is not None and quality < best) else best
    return best


def grid_origin(luma: np.ndarray) -> tuple[int, int]:
    """Return the row and column (0 to 7) where the 8 x 8 grid most likely begins."""
    return _phase(luma.T), _phase(luma)


def _phase(plane: np.ndarray) -> int:
    step = np.abs(plane[:, 1:-2] - plane[:, 2:-1])
    around = 0.5 * (np.abs(plane[:, :-3] - plane[:, 1:-2]) + np.abs(plane[:, 2:-1] - plane[:, 3:]))
    excess = np.clip(step - around, -8, 8).mean(0)
    excess = excess[: len(excess) // 8 * 8].reshape(-1, 8).mean(0)
    return int(excess.argmax() + 2) % 8  # difference i is between columns i + 1 and i + 2


def _quality_at(luma: np.ndarray) -> float | None:
    height, width = (side // 8 * 8 for side in luma.shape)
    blocks = luma[:height, :width].reshape(height // 8, 8, width // 8, 8).transpose(0, 2, 1, 3).reshape(-1, 8, 8) - 128
    transform = _transform()
    coefficients = transform @ blocks @ transform.T
    values = np.stack([coefficients[:, u, v] for u, v in _PLACES], 1)  # blocks, places
    size, scores = np.abs(values), np.zeros(len(_QUALITIES))
    for index, quality in enumerate(_QUALITIES):
        table = quantisation_table(int(quality))
        steps = np.array([table[place] for place in _PLACES])
        counted = (size > 0.7 * steps) & (steps > 2)
        if counted.sum() >= _LEAST_COUNT:
            scores[index] = np.cos((2 * np.pi * values / steps)[counted]).mean()
    if scores.max() < _LEAST_SCORE:
        return None
    return float(_QUALITIES[np.flatnonzero(scores >= _AS_GOOD * scores.max())[0]])


def quantisation_table(quality: int) -> np.ndarray:
    """Return libjpeg's luminance table of a quality, 8 x 8."""
    percent = 5000 / quality if quality < 50 else 200 - 2 * quality
    return np.clip(np.floor((_LUMA_TABLE * np.floor(percent) + 50) / 100), 1, 255)


@functools.cache
def _transform() -> np.ndarray:
    """Return the orthonormal DCT-II of 8 samples as a matrix."""
    k, n = np.meshgrid(np.arange(8), np.arange(8), indexing="ij")
    matrix = 0.5 * np.cos((2 * n + 1) * k * np.pi / 16)
    matrix[0] /= np.sqrt(2)
    return matrix


def read_jpeg_quality(path: str | Path) -> float | None:
    """Return the quality (1 to 99, on libjpeg's scale) that a JPEG file's luminance table stands for.

    None for other formats, for files that cannot be read, and where the table hardly takes anything away.
    """
    try:
        with Image.open(path) as image:
            tables = getattr(image, "quantization", None) if image.format in ("JPEG", "MPO") else None
    except (OSError, ValueError, SyntaxError):  # a reader for the pixels says what is wrong with the file
        return None
    return quality_of(tables[0]) if tables and 0 in tables else None


def quality_of(table: list[int]) -> float | None:
    """Return the quality that a luminance table of 64 entries stands for: libjpeg's scaling, inverted on its sum."""
    percent = 100 * sum(table) / float(_LUMA_TABLE.sum())
    quality = (200 - percent) / 2 if percent <= 100 else 5000 / percent
    return max(1.0, quality) if quality < _NEARLY_LOSSLESS else None
