"""Videos as sequences of upright frames: what readers and writers have in common, and which of them is used."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import numpy as np

from .errors import DarsrError

SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".mts", ".m2ts", ".mpg", ".mpeg", ".wmv", ".flv")
Y4M = ".y4m"
STREAM = Path("-")


@dataclass(frozen=True)
class VideoInfo:
    """What a writer must know of a video to store its frames in the same way.

    Attributes:
        rate: frames a second, on average.
        frames: how many there are; None where nobody knows.
        layout: ``gray``, or how chroma is stored: ``420``, ``422``, ``444``; ``rgb`` where there is none.
        bits: of the arrays, 8 or 16 (what has 9 bits or more).
        matrix: ``bt601``, ``bt709`` or ``bt2020``: from RGB to luma and chroma.
        full_range: luma from 0 to 255 instead of 16 to 235.
        aspect: width of a pixel over its height.
    """

    width: int
    height: int
    rate: Fraction
    frames: int | None = None
    layout: str = "420"
    bits: int = 8
    matrix: str = "bt709"
    full_range: bool = False
    aspect: Fraction = Fraction(1)

    def enlarged(self, scale: int) -> VideoInfo:
        return replace(self, width=self.width * scale, height=self.height * scale)


@dataclass(frozen=True)
class Frame:
    """uint8 or uint16, H x W (gray) or H x W x 3 (RGB), upright; shown at ``pts * time_base`` seconds."""

    pixels: np.ndarray
    pts: int
    time_base: Fraction
    duration: int = 0


@dataclass(frozen=True)
class Passed:
    """What goes from a reader to its writer as it is: a packet of audio or subtitles."""

    packet: object


class Reader(Protocol):
    """A context manager; iterated once, in the order of the file."""

    info: VideoInfo

    def __iter__(self) -> Iterator[Frame | Passed]: ...


class Writer(Protocol):
    """A context manager; leaving it frees what it holds, ``finish`` makes the file whole."""

    def write(self, item: Frame | Passed) -> None: ...

    def finish(self) -> None: ...


def is_video(path: Path) -> bool:
    """Whether an input is a video, by its name: a file of a known suffix, or ``-``."""
    return path == STREAM or path.suffix.lower() in (*SUFFIXES, Y4M)


def guess_matrix(width: int, height: int) -> str:
    """The matrix of a video that does not name its own, as players guess it."""
    return "bt709" if width >= 1280 or height > 576 else "bt601"


def open_reader(path: Path) -> Reader:
    """PyAV where it is installed, else OpenCV; y4m needs neither.

    Raises:
        DarsrError: missing, damaged, or no video.
    """
    if path == STREAM or path.suffix.lower() == Y4M:
        from .y4m import Y4mReader

        return Y4mReader(path)
    if not path.is_file():
        raise DarsrError(str(path), "there is no such file", "check the name")
    if has_pyav():
        from .video_av import AvReader

        return AvReader(path)
    from .video_cv import CvReader

    return CvReader(path)


def open_writer(path: Path, target: Path, info: VideoInfo, reader: Reader, say: Callable[[str], None]) -> Writer:
    """A writer for frames of ``info``.

    Args:
        path: the file to be written now (of the target's suffix), or ``-``.
        target: its name when it is whole, which messages use.
        reader: whose audio and subtitles are kept where both sides can.
        say: told what is not kept.

    Raises:
        DarsrError: a container that cannot hold this.
    """
    if path == STREAM or path.suffix.lower() == Y4M:
        from .y4m import Y4mWriter

        return Y4mWriter(path, info)
    if has_pyav():
        from .video_av import AvWriter

        return AvWriter(path, target, info, reader, say)
    from .video_cv import CvWriter

    return CvWriter(path, target, info, say)


def check_video_target(target: Path) -> None:
    """Refuse a name that no writer knows, before the work begins."""
    if target != STREAM and target.suffix.lower() not in (*SUFFIXES, Y4M):
        known = ", ".join((*SUFFIXES, Y4M))
        raise DarsrError(str(target), f"cannot write {target.suffix or 'a file without suffix'}", f"use one of {known}")


def has_pyav() -> bool:
    return importlib.util.find_spec("av") is not None
