"""What an image file says beside its pixels: declared size, resolution, EXIF, XMP and the colour chunks of PNG."""

from __future__ import annotations

import contextlib
import re
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from . import ifd
from .tiff import Declared

COLOUR_CHUNKS = (b"cICP", b"mDCV", b"cLLI", b"sRGB", b"gAMA", b"cHRM")  # in the order that PNG asks for
XMP_KEYWORD = b"XML:com.adobe.xmp"  # of the iTXt chunk in a PNG
JPEG_EXIF, JPEG_XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
ORIENTATION, X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT, XMP, EXIF_IFD, GPS_IFD = 274, 282, 283, 296, 700, 34665, 34853
_THUMBNAIL, _THUMBNAIL_BYTES, _INTEROPERABILITY = 513, 514, 40965
_SIZES = {ifd.SHORT: "H", ifd.LONG: "I"}
# Of the image, in IFD0, the EXIF directory and the one of interoperability within it.
_WIDTHS, _HEIGHTS = (256, 40962, 4097), (257, 40963, 4098)
DESCRIPTION = 270
_RESOLUTION = {X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT}
# What a TIFF says of its picture: document, description, make, model, page, software, date, artist, host, rating, copyright,
# IPTC, and the title, comment, author, keywords and subject of Windows.
DESCRIPTIVE = {269, DESCRIPTION, 271, 272, 285, 305, 306, 315, 316, 18246, 18249, 33432, 33723, *range(40091, 40096)}
DESCRIPTIVE |= _RESOLUTION
# What the first directory of EXIF says of how pixels are stored, of the thumbnail, of a raw file's sensor, and what is kept apart.
_STORAGE = {*range(254, 270), *range(273, 282), *range(284, 293), 301, 317, *range(320, 348), *range(512, 522)} - {
    269,
    285,
}
_STORAGE |= {*range(529, 533), XMP, 34675, *range(50706, 50800), EXIF_IFD, GPS_IFD, _INTEROPERABILITY}
_SHAPE = b'{"shape"'  # begins a description by tifffile: the size of the very file
_MOST_TEXT = 16 << 20  # bytes of XMP, unpacked
Tags = dict[int, "ifd.Tag | Tags"]  # with directories within directories


@dataclass(frozen=True)
class Metadata:
    """What a result takes over from its source.

    Attributes:
        dpi: horizontal and vertical resolution of the upright image.
        exif: a TIFF structure, as it follows ``Exif\\0\\0`` in a JPEG: upright, without its thumbnail.
        xmp: a packet.
        colour: chunks of a PNG that say how its values are meant, by name.
    """

    dpi: tuple[float, float] | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    colour: tuple[tuple[bytes, bytes], ...] = ()


NO_METADATA = Metadata()


def declared_size(kind: str, data: bytes) -> tuple[int, int, int]:
    """Return width, height and bits a pixel that a PNG, JPEG, WebP or BMP declares.

    Raises:
        ValueError: the file ends before it declares them, or is another.
    """
    try:
        if kind == "PNG":
            width, height, bits, colour = struct.unpack_from(">IIBB", data, 16)
            return width, height, bits * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(colour, 4)
        if kind == "JPEG":
            frames = (content for marker, content in jpeg_segments(data) if marker in _FRAMES)
            bits, height, width, components = struct.unpack_from(">BHHB", next(frames))
            return width, height, bits * components
        if kind == "BMP":
            size = struct.unpack_from("<I", data, 14)[0]
            width, height = struct.unpack_from("<hh" if size == 12 else "<ii", data, 18)
            return abs(width), abs(height), max(8, struct.unpack_from("<H", data, 24 if size == 12 else 28)[0])
        for name, content in webp_chunks(data):
            if name == b"VP8X":
                width, height = (int.from_bytes(content[place : place + 3], "little") + 1 for place in (4, 7))
                return width, height, 32
            if name == b"VP8L":
                packed = struct.unpack_from("<I", content, 1)[0]
                return (packed & 16383) + 1, (packed >> 14 & 16383) + 1, 32
            if name == b"VP8 ":
                width, height = struct.unpack_from("<HH", content, 6)
                return width & 16383, height & 16383, 24
    except (struct.error, StopIteration) as error:
        raise ValueError("declares no size") from error
    raise ValueError("declares no size")


_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # start of frame of every coding process


def png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield name and content of every chunk before the end of a PNG, but for its pixels."""
    position, name = 8, b""
    while name != b"IEND" and position + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, position)
        if name != b"IDAT":
            yield name, data[position + 8 : position + 8 + length]
        position += 12 + length


def jpeg_segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield marker and content of every segment of a JPEG before its pixels."""
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF and data[position + 1] != 0xDA:
        if data[position + 1] == 0xFF:  # fill byte
            position += 1
            continue
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        yield data[position + 1], data[position + 4 : position + 2 + length]
        position += 2 + length


def webp_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield name and content of every chunk of a WebP; of pixels the first bytes alone."""
    position = 12
    while position + 8 <= len(data):
        name, length = data[position : position + 4], int.from_bytes(data[position + 4 : position + 8], "little")
        yield name, data[position + 8 : position + 8 + (length if name in (b"EXIF", b"XMP ") else min(length, 16))]
        position += 8 + length + length % 2


def read_metadata(kind: str, data: bytes, info: Mapping, declared: Declared | None, turned: bool) -> Metadata:
    """Collect what a result takes over; what is damaged of it is left out.

    Args:
        info: what Pillow found.
        declared: the picture of a TIFF.
        turned: whether rows become columns as the image is turned upright.
    """
    dpi, exif, xmp, colour = info.get("dpi"), info.get("exif"), info.get("xmp"), {}
    if kind == "PNG":
        exif = None
        for name, content in png_chunks(data):
            if name in COLOUR_CHUNKS:
                colour[name] = content
            elif name == b"eXIf":
                exif = content
            elif name == b"iTXt" and content.startswith(XMP_KEYWORD + b"\0"):
                xmp = _international_text(content)
    elif kind == "JPEG":
        per_inch = {1: 1.0, 2: 2.54}.get(info.get("jfif_unit", 0))  # Pillow makes up 72 dpi where nothing says any
        dpi = tuple(per_inch * value for value in info["jfif_density"]) if per_inch else None
        segments = [content for marker, content in jpeg_segments(data) if marker == 0xE1]
        exif, xmp = (
            next((s[len(head) :] for s in segments if s.startswith(head)), None) for head in (JPEG_EXIF, JPEG_XMP)
        )
    elif declared is not None:
        tags = declared.tags
        exif, xmp, dpi = _exif_of_tiff(data, tags), tags[XMP].data if XMP in tags else None, _dpi_of(tags)
    if isinstance(xmp, bytes):
        xmp = re.sub(rb"(tiff:Orientation(?:=[\"']|>))\d", rb"\g<1>1", xmp)
    exif = upright_exif(exif.removeprefix(JPEG_EXIF), turned=turned) if isinstance(exif, bytes) else None
    dpi = _plausible(dpi[::-1] if turned and isinstance(dpi, tuple) else dpi)
    if dpi is None and exif is not None:
        dpi = _plausible(_dpi_of(tags_of_exif(exif)))
    return Metadata(dpi, exif, xmp if isinstance(xmp, bytes) else None, tuple(colour.items()))


def upright_exif(exif: bytes, size: tuple[int, int] | None = None, turned: bool = False) -> bytes | None:
    """Return EXIF with orientation 1, without its thumbnail, and for an image of a size (width, height) if given.

    With ``turned`` rows have become columns: both resolutions change places. It is changed in place, so that a maker's notes, which may hold offsets, stay valid. None where it is damaged.
    """
    try:
        order, _, first = ifd.read_header(exif)
        tags, second = ifd.read_directory(exif, first, order)
        nested = _nested(exif, tags, EXIF_IFD, order)
        deepest = nested.get(_INTEROPERABILITY, {})
        changed, values = bytearray(exif), {ORIENTATION: 1}
        if size is not None:
            values |= {**dict.fromkeys(_WIDTHS, size[0]), **dict.fromkeys(_HEIGHTS, size[1])}
        for code, tag in [*tags.items(), *nested.items(), *(deepest.items() if isinstance(deepest, dict) else ())]:
            if code in values and isinstance(tag, ifd.Tag) and tag.kind in _SIZES and tag.count == 1:
                value = min(values[code], 65535) if tag.kind == ifd.SHORT else values[code]
                struct.pack_into(order + _SIZES[tag.kind], changed, tag.offset, value)
        if turned and {X_RESOLUTION, Y_RESOLUTION} <= tags.keys():
            x, y = tags[X_RESOLUTION], tags[Y_RESOLUTION]
            if x.kind == y.kind == ifd.RATIONAL and x.count == y.count == 1:
                for to, source in ((x, y), (y, x)):
                    changed[to.offset : to.offset + 8] = exif[source.offset : source.offset + 8]
        if second:
            thumbnail, _ = ifd.read_directory(exif, second, order)
            struct.pack_into(f"{order}I", changed, first + 2 + 12 * struct.unpack_from(f"{order}H", exif, first)[0], 0)
            if {_THUMBNAIL, _THUMBNAIL_BYTES} <= thumbnail.keys():
                start, length = (int(thumbnail[code].values()[0]) for code in (_THUMBNAIL, _THUMBNAIL_BYTES))
                changed[start : start + length] = b"" if start + length >= len(exif) else bytes(length)
            ifd.read_directory(bytes(changed), first, order)  # that it still is one
        return bytes(changed)
    except (ValueError, struct.error, IndexError):
        return None


def tags_of_exif(exif: bytes) -> Tags:
    """Return what EXIF says, as tags of a TIFF: all but how pixels are stored, with the EXIF and GPS directories."""
    try:
        order, _, first = ifd.read_header(exif)
        tags, _ = ifd.read_directory(exif, first, order)
        return {code: tag for code, tag in tags.items() if code not in _STORAGE} | _all_nested(exif, tags, order)
    except ValueError:
        return {}


def exif_with_resolution(exif: bytes | None, dpi: tuple[float, float]) -> bytes:
    """Return EXIF that says a resolution, for a format that has no other place for it; what says one stays as it is."""
    tags = {} if exif is None else tags_of_exif(exif)
    if exif is not None and {X_RESOLUTION, Y_RESOLUTION} <= tags.keys():
        return exif
    return b"II*\0\x08\0\0\0" + ifd.build_directory({**tags, **resolution_tags(dpi)}, 8)


def resolution_tags(dpi: tuple[float, float]) -> ifd.Directory:
    """Return the three tags of a resolution."""
    x, y = (ifd.make_tag(ifd.RATIONAL, *_ratio(value)) for value in dpi)
    return {X_RESOLUTION: x, Y_RESOLUTION: y, RESOLUTION_UNIT: ifd.make_tag(ifd.SHORT, 2)}


def _ratio(value: float) -> tuple[int, int]:
    """Return a resolution as a fraction; what a PNG's whole pixels per metre make of 300 dpi is 300 again."""
    return (round(value), 1) if abs(value - round(value)) < 0.02 else (round(value * 1000), 1000)


def _exif_of_tiff(data: bytes, tags: ifd.Directory) -> bytes | None:
    try:
        order, big, _ = ifd.read_header(data)
        found = {code: tags[code] for code in DESCRIPTIVE if code in tags} | _all_nested(data, tags, order, big)
    except ValueError:
        return None
    if DESCRIPTION in tags and tags[DESCRIPTION].data.startswith(_SHAPE):
        del found[DESCRIPTION]
    if not found.keys() - _RESOLUTION:
        return None
    return b"II*\0\x08\0\0\0" + ifd.build_directory(found, 8)


def _all_nested(data: bytes, tags: ifd.Directory, order: str, big: bool = False) -> Tags:
    nested = {code: _nested(data, tags, code, order, big) for code in (EXIF_IFD, GPS_IFD)}
    return {code: inner for code, inner in nested.items() if inner}


def _nested(data: bytes, tags: ifd.Directory, code: int, order: str, big: bool = False) -> Tags:
    """Return the directory that a tag points to, with that of interoperability within it; empty where there is none."""
    if code not in tags:
        return {}
    inner: Tags = dict(_pointed_to(data, tags[code], order, big))
    pointer = inner.pop(_INTEROPERABILITY, None)
    if isinstance(pointer, ifd.Tag):
        with contextlib.suppress(ValueError):  # it names a standard and little more: what is damaged of it is left out
            deepest: Tags = dict(_pointed_to(data, pointer, order, big))
            deepest.pop(_INTEROPERABILITY, None)
            inner[_INTEROPERABILITY] = deepest
    return inner


def _pointed_to(data: bytes, pointer: ifd.Tag, order: str, big: bool) -> ifd.Directory:
    offsets = pointer.values()
    if not offsets:
        raise ValueError("points nowhere")
    return ifd.read_directory(data, int(offsets[0]), order, big)[0]


def _plausible(dpi: object) -> tuple[float, float] | None:
    """Return a resolution as two numbers; None where it is none that anybody means."""
    try:
        x, y = (float(value) for value in dpi)  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        return None
    return (x, y) if 0 < x < 1e6 and 0 < y < 1e6 and (x, y) != (1, 1) else None


def _dpi_of(tags: Mapping) -> tuple[float, float] | None:
    try:
        unit = int(tags[RESOLUTION_UNIT].values()[0]) if RESOLUTION_UNIT in tags else 2
        (x, dx), (y, dy) = (tags[code].values()[:2] for code in (X_RESOLUTION, Y_RESOLUTION))
        return {2: (x / dx, y / dy), 3: (2.54 * x / dx, 2.54 * y / dy)}.get(unit)
    except (AttributeError, KeyError, ValueError, IndexError, ZeroDivisionError):
        return None


def _international_text(content: bytes) -> bytes | None:
    """Return the text of a PNG's iTXt chunk, unpacked."""
    try:
        packed, method = content[len(XMP_KEYWORD) + 1], content[len(XMP_KEYWORD) + 2]
        text = content[len(XMP_KEYWORD) + 3 :].split(b"\0", 2)[2]
        if packed and method == 0:
            text = zlib.decompressobj().decompress(text, _MOST_TEXT)
        return text
    except (IndexError, zlib.error):
        return None
