"""Tell whether a video file was cut off, by the sizes that its own structure names."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

_BOXES = (b"ftyp", b"moov", b"moof", b"mdat", b"free", b"skip", b"wide", b"styp", b"sidx", b"uuid", b"meta", b"pnot")
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"


def find_cut(path: Path) -> str | None:
    """Return ``is cut off: it has N of M bytes`` for MP4, MOV, Matroska, WebM and AVI that end too early; else None."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(8)
        file.seek(0)
        if head[:4] == _EBML:
            end = _end_of_matroska(file)
        elif head[:4] == b"RIFF":
            length = int.from_bytes(head[4:], "little")
            end = length + 8 if 0 < length < (1 << 32) - 1 else 0  # some programs write no size
        else:
            end = _end_of_boxes(file, size)
    return f"is cut off: it has {size} of {end} bytes" if end > size + 1 else None  # 1: padding


def _end_of_boxes(file: BinaryIO, size: int) -> int:
    """Return where the last box of MP4 or MOV ends; 0 for another format."""
    end = 0
    while end < size:
        file.seek(end)
        head = file.read(16)
        if head[4:8] not in _BOXES:  # another format, or something that a program added behind
            break
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if length < 8:  # 0: to the end of the file
            break
        end += length
    return end


def _end_of_matroska(file: BinaryIO) -> int:
    """Return where the segment ends; 0 where it does not say, as in a live recording."""
    for wanted in (_EBML, _SEGMENT):
        if file.read(4) != wanted:
            return 0
        first = file.read(1)
        if not first or not first[0]:
            return 0
        more = 8 - first[0].bit_length()
        length = int.from_bytes(first + file.read(more), "big") - (1 << (7 * more + 7))
        if length == (1 << (7 * more + 7)) - 1:  # all ones: not known
            return 0
        end = file.seek(length, 1)
    return end
