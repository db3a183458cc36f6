"""The tags of TIFF and EXIF: image file directories (TIFF 6.0, section 2, and BigTIFF), read and written."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

_HEADERS = {b"II*\0": ("<", False), b"MM\0*": (">", False), b"II+\0": ("<", True), b"MM\0+": (">", True)}
# Bytes of a value by type; those of a rational are two of 4 bytes.
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_FORMATS = {1: "B", 2: "B", 3: "H", 4: "I", 5: "II", 6: "b", 7: "B", 8: "h", 9: "i", 10: "ii", 11: "f", 12: "d"}
_FORMATS |= {13: "I", 16: "Q", 17: "q", 18: "Q"}
BYTE, ASCII, SHORT, LONG, RATIONAL, UNDEFINED, LONG8 = 1, 2, 3, 4, 5, 7, 16
_MOST_TAGS = 4096


@dataclass(frozen=True)
class Tag:
    """A value of a directory: its type, its bytes in little-endian order, and where they lie in the file."""

    kind: int
    data: bytes
    offset: int = 0

    @property
    def count(self) -> int:
        """The number of values."""
        return len(self.data) // _SIZES[self.kind]

    def values(self) -> tuple[int | float, ...]:
        """Return the values as numbers; a rational is two of them."""
        width = len(_FORMATS[self.kind])
        return struct.unpack(f"<{_FORMATS[self.kind][0] * (width * self.count)}", self.data)


Directory = dict[int, Tag]


def make_tag(kind: int, *values: int) -> Tag:
    """Make a tag of numbers."""
    return Tag(kind, struct.pack(f"<{_FORMATS[kind][0] * len(values)}", *values))


def read_header(data: bytes) -> tuple[str, bool, int]:
    """Return the byte order (``<`` or ``>``), whether it is a BigTIFF, and the offset of the first directory.

    Raises:
        ValueError: not a TIFF, or truncated.
    """
    try:
        order, big = _HEADERS[bytes(data[:4])]
        return order, big, struct.unpack_from(f"{order}Q" if big else f"{order}I", data, 8 if big else 4)[0]
    except (KeyError, struct.error) as error:
        raise ValueError("is not a TIFF") from error


def read_directory(data: bytes, offset: int, order: str, big: bool = False) -> tuple[Directory, int]:
    """Return the tags of the directory at an offset, and the offset of the next one (0 where there is none).

    Tags of unknown types are left out.

    Raises:
        ValueError: it does not lie within the data.
    """
    head, entry, word = ("Q", "HHQ", "Q") if big else ("H", "HHI", "I")
    inline, step = struct.calcsize(f"<{word}"), struct.calcsize(f"<{entry}{word}")
    try:
        (count,) = struct.unpack_from(order + head, data, offset)
        if count > _MOST_TAGS:
            raise ValueError("has too many tags")
        tags, place = {}, offset + struct.calcsize(f"<{head}")
        for _ in range(count):
            code, kind, number = struct.unpack_from(order + entry, data, place)
            where = place + step - inline
            place += step
            size = number * _SIZES.get(kind, 0)
            if size > inline:
                (where,) = struct.unpack_from(order + word, data, where)
            if kind not in _SIZES or code in tags:
                continue
            if where + size > len(data):
                raise ValueError("is truncated")
            tags[code] = Tag(kind, _swap(bytes(data[where : where + size]), kind, order), where)
        return tags, struct.unpack_from(order + word, data, place)[0]
    except struct.error as error:
        raise ValueError("is truncated") from error


def build_directory(tags: Mapping[int, Tag | Mapping], offset: int, big: bool = False) -> bytes:
    """Return a little-endian directory that is to lie at an offset, with its values and nested directories behind it.

    Args:
        tags: by code; a mapping is a directory of its own, which its tag then points to.
    """
    head, entry, word = ("Q", "HHQ", "Q") if big else ("H", "HHI", "I")
    inline, pointer = struct.calcsize(f"<{word}"), LONG8 if big else LONG
    table = struct.calcsize(f"<{head}") + len(tags) * struct.calcsize(f"<{entry}{word}") + inline
    entries, behind = [], bytearray()
    for code, tag in sorted(tags.items()):
        behind += bytes(-(offset + table + len(behind)) % 2)  # values begin at even offsets
        place = offset + table + len(behind)
        if isinstance(tag, Mapping):
            behind += build_directory(tag, place, big)
            tag = Tag(pointer, struct.pack(f"<{word}", place))
        elif len(tag.data) > inline:
            behind += tag.data
        value = tag.data.ljust(inline, b"\0") if len(tag.data) <= inline else struct.pack(f"<{word}", place)
        entries.append(struct.pack(f"<{entry}", code, tag.kind, tag.count) + value)
    return struct.pack(f"<{head}", len(tags)) + b"".join(entries) + bytes(inline) + bytes(behind)


def _swap(data: bytes, kind: int, order: str) -> bytes:
    """Return values in little-endian order."""
    width = struct.calcsize(f"<{_FORMATS[kind][0]}")
    if order == "<" or width == 1:
        return data
    return np.frombuffer(data, f"u{width}").byteswap().tobytes()
