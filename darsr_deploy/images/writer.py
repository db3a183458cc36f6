"""Arrays to image files, whole or not at all, with bit depth and colour profile."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import DarsrError
from ..files.atomic import atomic_path
from .formats import check_target
from .reader import Picture

_QUALITY = 95  # JPEG (4:4:4) and WebP
_ROWS = 256  # of a PNG, compressed at once: a large image needs no second copy of itself


def write_image(path: str | Path, image: np.ndarray, like: Picture | None = None) -> None:
    """Write an image in the format of the suffix.

    PNG, TIFF and BMP are exact; JPEG has quality 95 and 4:4:4; WebP is exact, or of quality 95 where ``like`` is not.

    Args:
        image: uint8 or uint16; H x W (gray), H x W x 2 (gray, alpha), H x W x 3 (RGB) or H x W x 4 (RGBA).
        like: the picture it was made from, whose colour profile is kept.

    Raises:
        DarsrError: another suffix, a format that cannot hold the image, a folder that cannot be written, a full disk.
    """
    path, like = Path(path), like or Picture(image)
    channels = 1 if image.ndim == 2 else image.shape[2]
    check_target(path, image.shape[0], image.shape[1], channels, image.dtype.itemsize * 8)
    write = {"png": _png, "tif": _tiff, "tiff": _tiff, "webp": _webp, "bmp": _bmp}.get(path.suffix.lower()[1:], _jpeg)
    with atomic_path(path) as temporary:
        try:
            write(temporary, image, like)
        except (MemoryError, ValueError) as error:
            why = f"an image of {image.shape[1]}x{image.shape[0]} cannot be encoded ({error or 'out of memory'})"
            raise DarsrError(str(path), why, "write another format with -o") from error


def _png(path: Path, image: np.ndarray, like: Picture) -> None:
    """PNG (ISO 15948) row by row; Pillow has no 16-bit colours, OpenCV neither gray with alpha nor profiles, and both
    copy the image."""
    height, width = image.shape[:2]
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[1 if image.ndim == 2 else image.shape[2]]
    header = struct.pack(">IIBBBBB", width, height, image.dtype.itemsize * 8, kind, 0, 0, 0)
    with open(path, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header))
        if like.icc:
            file.write(_chunk(b"iCCP", b"ICC profile\x00\x00" + zlib.compress(like.icc)))
        packer = zlib.compressobj(3)  # 6 takes twice as long for 3 % less
        for rows in _filtered(image):
            if data := packer.compress(rows):
                file.write(_chunk(b"IDAT", data))
        file.write(_chunk(b"IDAT", packer.flush()) + _chunk(b"IEND", b""))


def _filtered(image: np.ndarray) -> Iterator[bytes]:
    """Filter 3 of PNG for all rows, the best single one for photographs: less the mean of the left and the upper byte."""
    height, width = image.shape[:2]
    step = image.dtype.itemsize * (1 if image.ndim == 2 else image.shape[2])  # bytes of a pixel
    above = np.zeros(width * step, np.uint8)
    for top in range(0, height, _ROWS):
        part = np.ascontiguousarray(image[top : top + _ROWS], image.dtype.newbyteorder(">"))
        raw = part.view(np.uint8).reshape(len(part), -1)
        mean = np.concatenate([above[None], raw[:-1]]).astype(np.uint16)
        mean[:, step:] += raw[:, :-step]
        rows = np.empty((len(part), 1 + width * step), np.uint8)
        rows[:, 0] = 3
        rows[:, 1:] = raw - (mean >> 1).astype(np.uint8)
        above = raw[-1]
        yield rows.tobytes()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))


def _tiff(path: Path, image: np.ndarray, like: Picture) -> None:
    import tifffile  # Pillow has no 16-bit colours, OpenCV no profiles

    channels = 1 if image.ndim == 2 else image.shape[2]
    tifffile.imwrite(
        path,
        image,
        photometric="rgb" if channels > 2 else "minisblack",
        planarconfig="contig" if channels > 1 else None,
        extrasamples=["unassalpha"] if channels in (2, 4) else None,
        compression="zlib",
        predictor=True,
        rowsperstrip=64,
        metadata=None,
        extratags=[(34675, 7, len(like.icc), like.icc, True)] if like.icc else (),  # ICC profile, undefined bytes
    )


def _webp(path: Path, image: np.ndarray, like: Picture) -> None:
    if image.ndim == 2 or image.shape[2] == 2:
        image = _without_gray(image)  # the format has none
    options = {"lossless": True, "exact": True, "quality": 50} if like.lossless else {"quality": _QUALITY}
    Image.fromarray(image).save(path, "WEBP", icc_profile=like.icc or b"", **options)


def _jpeg(path: Path, image: np.ndarray, like: Picture) -> None:
    options = {"icc_profile": like.icc} if like.icc else {}
    Image.fromarray(image).save(path, "JPEG", quality=_QUALITY, subsampling=0, **options)


def _bmp(path: Path, image: np.ndarray, like: Picture) -> None:
    Image.fromarray(image).save(path, "BMP")


def _without_gray(image: np.ndarray) -> np.ndarray:
    """Gray (with alpha) as RGB(A) of three equal channels."""
    if image.ndim == 2:
        return np.repeat(image[:, :, None], 3, axis=2)
    return np.ascontiguousarray(image[:, :, [0, 0, 0, 1]])
