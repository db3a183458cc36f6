"""Write arrays to image files, whole or not at all, with bit depth, colour profile and metadata."""

from __future__ import annotations

import itertools
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import DarsrError
from ..files.atomic import atomic_path
from . import ifd
from .formats import check_target
from .metadata import (
    JPEG_EXIF,
    JPEG_XMP,
    XMP,
    XMP_KEYWORD,
    exif_with_resolution,
    resolution_tags,
    tags_of_exif,
    upright_exif,
)
from .reader import Picture

_QUALITY = 95  # JPEG (4:4:4) and WebP
_ROWS = 256  # of a PNG, compressed at once: a large image needs no second copy of itself
_STRIP_ROWS = 64  # of a TIFF
_PACKING = 3  # of zlib; 6 takes twice as long for 3 % less
_MOST_CLASSIC = 3_900_000_000  # bytes of pixels; offsets of a classic TIFF have 32 bits
_MOST_SEGMENT = 65_533  # bytes of a JPEG's segment
_SRGB = b"\x01\x0d\x00\x01"  # cICP of sRGB


def write_image(
    path: str | Path,
    image: np.ndarray,
    like: Picture | None = None,
    replace: bool = True,
    *,
    quality: int | None = None,
) -> None:
    """Write an image in the format of the suffix.

    PNG, TIFF and BMP are exact; JPEG has quality 95 and 4:4:4; WebP is exact, or of quality 95 where ``like`` is not.

    Args:
        image: uint8 or uint16; H x W (gray), H x W x 2 (gray, alpha), H x W x 3 (RGB) or H x W x 4 (RGBA).
        like: the picture it was made from, whose colour profile and metadata are kept where the format holds them; see
            :func:`lost_metadata`.
        replace: False refuses a file that has appeared meanwhile.
        quality: of JPEG and WebP, 1 to 100, instead of the above; other formats have none.

    Raises:
        DarsrError: another suffix, a format that cannot hold the image, a folder that cannot be written, a full disk.
    """
    path, like = Path(path), like or Picture(image)
    channels = 1 if image.ndim == 2 else image.shape[2]
    check_target(path, image.shape[0], image.shape[1], channels, image.dtype.itemsize * 8)
    lossy = {".webp": _webp, ".jpg": _jpeg, ".jpeg": _jpeg}
    exact = {".png": _png, ".tif": _tiff, ".tiff": _tiff, ".bmp": _bmp}
    with atomic_path(path, replace) as temporary:
        try:
            if write := lossy.get(path.suffix.lower()):
                write(temporary, image, like, quality)
            else:
                exact[path.suffix.lower()](temporary, image, like)
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
        for name, content in _png_metadata(image, like):
            file.write(_chunk(name, content))
        packer = zlib.compressobj(_PACKING)
        for rows in _filtered(image):
            if data := packer.compress(rows):
                file.write(_chunk(b"IDAT", data))
        file.write(_chunk(b"IDAT", packer.flush()) + _chunk(b"IEND", b""))


def _png_metadata(image: np.ndarray, like: Picture) -> Iterator[tuple[bytes, bytes]]:
    """Yield the chunks before the pixels, in the order that the standard asks for."""
    found = like.metadata
    yield from found.colour
    if like.icc:
        yield b"iCCP", b"ICC profile\x00\x00" + zlib.compress(like.icc)
    if found.dpi:
        yield b"pHYs", struct.pack(">IIB", *(round(value / 0.0254) for value in found.dpi), 1)
    if exif := _exif(image, like):
        yield b"eXIf", exif
    if found.xmp:
        yield b"iTXt", XMP_KEYWORD + b"\0\0\0\0\0" + found.xmp


def _exif(image: np.ndarray, like: Picture) -> bytes | None:
    """Return the source's EXIF for an image of another size."""
    exif = like.metadata.exif
    return None if exif is None else upright_exif(exif, (image.shape[1], image.shape[0]))


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
    """TIFF 6.0, or BigTIFF from 4 GB on: Deflate with horizontal differences, in strips; the directory lies at the end."""
    height, width = image.shape[:2]
    channels, bits = 1 if image.ndim == 2 else image.shape[2], image.dtype.itemsize * 8
    big = image.nbytes > _MOST_CLASSIC
    wide = ifd.LONG8 if big else ifd.LONG
    sizes, place = [], 16 if big else 8
    with open(path, "wb") as file:
        file.write(bytes(place))
        for top in range(0, height, _STRIP_ROWS):
            rows = image[top : top + _STRIP_ROWS].reshape(-1, width, channels).astype(image.dtype.newbyteorder("<"))
            rows[:, 1:] -= rows[:, :-1].copy()
            sizes.append(file.write(zlib.compress(rows.tobytes(), _PACKING)))
        offsets = [place + sum_before for sum_before in itertools.accumulate(sizes[:-1], initial=0)]
        end = place + sum(sizes)
        place = end + end % 2
        tags = _tiff_metadata(image, like) | {
            256: ifd.make_tag(ifd.LONG, width),
            257: ifd.make_tag(ifd.LONG, height),
            258: ifd.make_tag(ifd.SHORT, *[bits] * channels),
            259: ifd.make_tag(ifd.SHORT, 8),  # Deflate
            262: ifd.make_tag(ifd.SHORT, 2 if channels > 2 else 1),  # RGB, black is zero
            273: ifd.make_tag(wide, *offsets),
            277: ifd.make_tag(ifd.SHORT, channels),
            278: ifd.make_tag(ifd.LONG, _STRIP_ROWS),
            279: ifd.make_tag(wide, *sizes),
            284: ifd.make_tag(ifd.SHORT, 1),  # the channels of a pixel lie together
            317: ifd.make_tag(ifd.SHORT, 2),  # horizontal differences
        }
        if channels in (2, 4):
            tags[338] = ifd.make_tag(ifd.SHORT, 2)  # alpha, not premultiplied
        file.write(bytes(place - end) + ifd.build_directory(tags, place, big))
        file.seek(0)
        file.write(b"II+\0\x08\0\0\0" + struct.pack("<Q", place) if big else b"II*\0" + struct.pack("<I", place))


def _tiff_metadata(image: np.ndarray, like: Picture) -> dict:
    found, exif = like.metadata, _exif(image, like)
    tags = {} if exif is None else tags_of_exif(exif)
    tags |= {} if found.dpi is None else resolution_tags(found.dpi)
    tags |= {} if like.icc is None else {34675: ifd.Tag(ifd.UNDEFINED, like.icc)}
    return tags | ({} if found.xmp is None else {XMP: ifd.Tag(ifd.BYTE, found.xmp)})


def _webp(path: Path, image: np.ndarray, like: Picture, quality: int | None) -> None:
    if image.ndim == 2 or image.shape[2] == 2:
        image = _without_gray(image)  # the format has none
    options: dict = {"quality": quality or _QUALITY}
    if like.lossless and quality is None:
        options = {"lossless": True, "exact": True, "quality": 50}
    exif = _exif(image, like)
    if like.metadata.dpi:
        exif = exif_with_resolution(exif, like.metadata.dpi)
    options |= {"exif": JPEG_EXIF + exif} if exif else {}
    options |= {"xmp": like.metadata.xmp} if like.metadata.xmp else {}
    Image.fromarray(image).save(path, "WEBP", icc_profile=like.icc or b"", **options)


def _jpeg(path: Path, image: np.ndarray, like: Picture, quality: int | None) -> None:
    exif, xmp, dpi = _exif(image, like), like.metadata.xmp, like.metadata.dpi
    options: dict = {"icc_profile": like.icc} if like.icc else {}
    options |= {"dpi": tuple(round(value) for value in dpi)} if dpi else {}
    segments = [(JPEG_EXIF, exif), (JPEG_XMP, xmp)]
    contents = [head + content for head, content in segments if content and len(head + content) <= _MOST_SEGMENT]
    extra = b"".join(b"\xff\xe1" + struct.pack(">H", len(content) + 2) + content for content in contents)
    Image.fromarray(image).save(path, "JPEG", quality=quality or _QUALITY, subsampling=0, extra=extra, **options)


def _bmp(path: Path, image: np.ndarray, like: Picture) -> None:
    options = {"dpi": like.metadata.dpi} if like.metadata.dpi else {}
    Image.fromarray(image).save(path, "BMP", **options)


def lost_metadata(path: Path, like: Picture) -> str | None:
    """Return a line that says what of the source the target's format cannot hold; None where it holds all."""
    found, suffix = like.metadata, path.suffix.lower()
    colour, lost = dict(found.colour), []
    if suffix != ".png" and not like.icc and colour and b"sRGB" not in colour and colour.get(b"cICP") != _SRGB:
        lost.append(f"colour chunks ({', '.join(name.decode() for name in colour)})")
    if suffix == ".bmp":
        lost += [name for name, value in (("ICC profile", like.icc), ("EXIF", found.exif), ("XMP", found.xmp)) if value]
    elif suffix in (".jpg", ".jpeg"):
        room = ((found.exif, JPEG_EXIF, "EXIF"), (found.xmp, JPEG_XMP, "XMP"))
        lost += [name for value, head, name in room if value and len(head + value) > _MOST_SEGMENT]
    if not lost:
        return None
    return f"{path}: this format does not hold the source's {', '.join(lost)}; write a PNG with -o to keep it"


def _without_gray(image: np.ndarray) -> np.ndarray:
    """Gray (with alpha) as RGB(A) of three equal channels."""
    if image.ndim == 2:
        return np.repeat(image[:, :, None], 3, axis=2)
    return np.ascontiguousarray(image[:, :, [0, 0, 0, 1]])
