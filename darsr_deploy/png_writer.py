"""PNG files written row by row: an image of hundreds of megapixels without a second copy of it in memory.

OpenCV encodes into memory, which for a large image is as much as the image itself, several times over. The format: W3C,
"Portable Network Graphics (PNG) Specification".
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np

from .atomic import atomic_path

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOUR = {1: 0, 2: 4, 3: 2, 4: 6}  # PNG's colour type by channels: gray, gray and alpha, RGB, RGBA
_UP = 2  # each row less the one above it
_BLOCK = 1 << 22  # bytes of pixels at a time
# Fast: photographs hardly get smaller with more.
_LEVEL = 1


def write_large_png(path: str | Path, image: np.ndarray) -> None:
    """Write an image, whole or not at all.

    Args:
        image: uint8 or uint16, H x W or H x W x C with C of 1 to 4 (gray, gray and alpha, RGB, RGBA); any strides.

    Raises:
        DarsrError: a folder that cannot be written, a full disk.
    """
    height, width = image.shape[:2]
    channels = image.shape[2] if image.ndim == 3 else 1
    depth, stored = (16, ">u2") if image.dtype == np.uint16 else (8, "u1")
    rows_at_once = max(1, _BLOCK // (width * channels * depth // 8))
    with atomic_path(path) as temporary, open(temporary, "wb") as file:

        def chunk(kind: bytes, data: bytes) -> None:
            file.write(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)))

        file.write(_SIGNATURE)
        chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, _COLOUR[channels], 0, 0, 0))
        packer = zlib.compressobj(_LEVEL)
        above = np.zeros((1, width * channels * depth // 8), np.uint8)
        for top in range(0, height, rows_at_once):
            block = np.ascontiguousarray(image[top : top + rows_at_once], stored)
            block = block.view(np.uint8).reshape(len(block), -1)
            filtered = np.empty((len(block), block.shape[1] + 1), np.uint8)
            filtered[:, 0] = _UP
            np.subtract(block, np.concatenate([above, block[:-1]]), out=filtered[:, 1:])
            above = block[-1:]
            if data := packer.compress(filtered.data):
                chunk(b"IDAT", data)
        chunk(b"IDAT", packer.flush())
        chunk(b"IEND", b"")
