"""The image formats: how each is recognised, what it can hold, and one clear line for all others."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

from ..errors import DarsrError
from ..files.kinds import IMAGE_SUFFIXES, RAW_SUFFIXES, another_kind

SUFFIXES = IMAGE_SUFFIXES  # that are written
HEAD = 4096  # bytes that tell a format
_WRITTEN = "PNG, TIFF, WebP, JPEG or BMP"
_AGAIN = "copy it again from its source"
_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
_TIFF = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")  # the last two are BigTIFF
_OTHERS = {
    b"GIF8": "GIF",
    b"8BPS": "Photoshop",
    b"FUJIFILMCCD-RAW": "camera raw",
    b"IIRO": "camera raw",
    b"IIRS": "camera raw",
    b"IIU\x00": "camera raw",
    b"\x00\x00\x00\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"\xff\x0a": "JPEG XL",
    b"\x00\x00\x00\x0cJXL ": "JPEG XL",
    b"v/1\x01": "OpenEXR",
    b"#?RADIANCE": "Radiance HDR",
}
_BRANDS = {b"hei": "HEIC", b"hev": "HEIC", b"mif": "HEIC", b"msf": "HEIC", b"avi": "AVIF", b"crx": "camera raw"}


@dataclass(frozen=True)
class Limits:
    """What a format holds: the longest side, bits a channel, transparency."""

    name: str
    side: int
    bits: int
    alpha: bool


_LIMITS = {
    ".png": Limits("PNG", (1 << 31) - 1, 16, True),
    ".tif": Limits("TIFF", (1 << 31) - 1, 16, True),
    ".webp": Limits("WebP", 16_383, 8, True),
    ".jpg": Limits("JPEG", 65_500, 8, False),  # of libjpeg; the format's own is 65,535
    ".bmp": Limits("BMP", 32_767, 8, False),  # alpha in it is read, but few programs do,
}
_LIMITS |= {".tiff": _LIMITS[".tif"], ".jpeg": _LIMITS[".jpg"]}


def check_target(path: Path, height: int, width: int, channels: int, bits: int) -> None:
    """Refuse a target that cannot hold an image, before the work for it begins.

    Args:
        channels: 1 gray, 2 gray and alpha, 3 RGB, 4 RGBA.
        bits: a channel, 8 or 16.

    Raises:
        DarsrError: an unknown suffix, or a format that is too narrow.
    """
    limits = _LIMITS.get(path.suffix.lower())
    if limits is None:
        what = f"cannot write {path.suffix or 'a file without suffix'}"
        raise DarsrError(str(path), what, f"use one of {', '.join(SUFFIXES)}")
    if max(height, width) > limits.side:
        why = f"an image of {width}x{height} cannot be written as {limits.name} (longest side {limits.side})"
        raise DarsrError(str(path), why, "write a PNG or TIFF with -o")
    if bits > limits.bits:
        why = f"{limits.name} holds {limits.bits} bits a channel, and the image has {bits}"
        raise DarsrError(str(path), why, "write a PNG or TIFF with -o")
    if channels in (2, 4) and not limits.alpha:
        raise DarsrError(
            str(path), f"{limits.name} holds no transparency, and the image has it", "write a PNG, TIFF or WebP with -o"
        )


def kind_of(path: Path, head: bytes) -> str:
    """Return the format by the first bytes of a file: PNG, JPEG, TIFF, WebP, BMP, AVIF or HEIC.

    Raises:
        DarsrError: another format, which the line names, or not an image.
    """
    if not head:
        raise DarsrError(str(path), "is an empty file", "give an image")
    if head.startswith(_PNG):
        return "PNG"
    if head.startswith(_JPEG):
        return "JPEG"
    if head.startswith(_TIFF):
        if path.suffix.lower() in RAW_SUFFIXES or head[8:10] == b"CR":  # many raw files are TIFFs of a small preview
            raise unsupported(path, "is a camera raw file, which is not supported")
        return "TIFF"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    if head.startswith(b"BM") and len(head) >= 26:
        return "BMP"
    kind = next((name for magic, name in _OTHERS.items() if head.startswith(magic)), None)
    if head[4:8] == b"ftyp":
        kind = _BRANDS.get(head[8:11])
        brands = head[16 : int.from_bytes(head[:4], "big")]
        if kind == "HEIC" and b"avif" in (brands[i : i + 4] for i in range(0, len(brands), 4)):
            kind = "AVIF"
        if kind in ("HEIC", "AVIF"):
            return kind
    why = f"is a {kind} file, which is not supported" if kind else "is not an image that can be read"
    raise another_kind(path, "image") or unsupported(path, why)


def check_whole(path: Path, kind: str, data: bytes) -> None:
    """Find damage that decoders pass over: a missing end, a wrong checksum, more pictures than one.

    Raises:
        DarsrError: the file is visibly truncated or damaged, or an animation.
    """
    if kind == "PNG":
        _check_png(path, data)
    elif kind == "JPEG":
        _check_jpeg(path, data)
    elif kind == "WebP" and len(data) < 8 + int.from_bytes(data[4:8], "little"):
        raise DarsrError(str(path), "is truncated: the WebP is shorter than it says", _AGAIN)


def unsupported(path: Path, why: str) -> DarsrError:
    """Return the error for a kind of image that cannot be read."""
    return DarsrError(str(path), why, f"save it as {_WRITTEN}")


def damaged(path: Path, detail: str = "") -> DarsrError:
    """Return the error for a file that its decoder gave up on."""
    return DarsrError(str(path), f"cannot be decoded: the file is truncated or damaged{detail}", _AGAIN)


def _check_png(path: Path, data: bytes) -> None:
    """Find what decoders pass over: a missing end, a wrong checksum (a decoder may stop before the last), animation."""
    position, truncated = len(_PNG), DarsrError(str(path), "is truncated: the PNG has no end", _AGAIN)
    first = True
    while data[position + 4 : position + 8] != b"IEND":
        if position + 8 > len(data):
            raise truncated
        length, kind = struct.unpack(">I4s", data[position : position + 8])
        if position + 12 + length > len(data):
            raise truncated
        content = memoryview(data)[position + 4 : position + 8 + length]
        if first != (kind == b"IHDR") or (first and length != 13):
            raise damaged(path)
        critical = not kind[0] & 0x20 or kind == b"tRNS"  # a broken comment does not harm the picture
        if critical and zlib.crc32(content) != struct.unpack_from(">I", data, position + 8 + length)[0]:
            raise damaged(path, " (a checksum of the PNG does not match)")
        if kind == b"acTL":
            raise unsupported(path, "is an animated PNG, which is not supported")
        position, first = position + 12 + length, False
    if first:
        raise damaged(path)


def _check_jpeg(path: Path, data: bytes) -> None:
    """Look for the end marker behind a JPEG's pixel data: decoders fill a truncated one with gray."""
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF and data[position + 1] != 0xDA:
        if data[position + 1] == 0xFF:  # fill byte
            position += 1
            continue
        position += 2 + struct.unpack(">H", data[position + 2 : position + 4])[0]
    if data.find(b"\xff\xd9", position) < 0:
        raise DarsrError(str(path), "is truncated: the JPEG has no end", _AGAIN)
