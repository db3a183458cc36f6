"""Videos as sequences of upright frames: the types that readers and writers share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..errors import DarsrError

WRITTEN = (
    *(".mp4", ".m4v", ".mov", ".qt", ".3gp", ".3g2", ".f4v", ".mkv", ".webm", ".avi", ".wmv", ".asf", ".flv"),
    *(".ts", ".mts", ".m2ts", ".mpg", ".mpeg", ".vob", ".m2v"),
)
SUFFIXES = (*WRITTEN, ".mxf", ".ogv", ".dv")
Y4M = ".y4m"
STREAM = Path("-")


@dataclass(frozen=True)
class VideoInfo:
    """All that a writer must know of a video to store its frames in the same way.

    Attributes:
        rate: frames a second, on average.
        frames: how many there are; None where nobody knows.
        layout: ``gray``, or how chroma is stored: ``420``, ``422``, ``444``; ``rgb`` where there is none.
        bits: of the arrays, 8 or 16 (for 9 bits or more).
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
        """Return the same for frames that are ``scale`` times as wide and high."""
        return replace(self, width=self.width * scale, height=self.height * scale)


@dataclass(frozen=True)
class Frame:
    """One picture: uint8 or uint16, H x W (gray) or H x W x 3 (RGB), upright; shown at ``pts * time_base`` seconds."""

    pixels: np.ndarray
    pts: int
    time_base: Fraction
    duration: int = 0


@dataclass(frozen=True)
class Passed:
    """A packet of audio or subtitles, which goes from a reader to its writer as it is."""

    packet: Any


class Reader(Protocol):
    """A context manager; iterated once, in the order of the file, at times that grow.

    Attributes:
        lost: after the iteration, why frames are missing at the end or in between; None where all are there.
    """

    info: VideoInfo

    @property
    def lost(self) -> str | None: ...

    def __enter__(self) -> Reader: ...

    def __exit__(self, *_: object) -> None: ...

    def __iter__(self) -> Iterator[Frame | Passed]: ...

    def sample(self, count: int) -> list[np.ndarray]:
        """Return the pixels of up to ``count`` frames spread over the video; called instead of iterating."""


class Writer(Protocol):
    """A context manager; leaving it frees what it holds, ``finish`` makes the file whole."""

    def __enter__(self) -> Writer: ...

    def __exit__(self, *_: object) -> None: ...

    def write(self, item: Frame | Passed) -> None: ...

    def finish(self) -> None: ...


def is_video(path: Path) -> bool:
    """Return whether an input is a video by its name: a file of a known suffix, or ``-``."""
    return path == STREAM or path.suffix.lower() in (*SUFFIXES, Y4M)


def result_suffix(clip: Path) -> str:
    """Return the suffix of a clip's result: its own where that can be written, else that of Matroska, which holds all."""
    return clip.suffix if clip.suffix.lower() in (*WRITTEN, Y4M) else ".mkv"


def spread(total: int, count: int) -> list[int]:
    """Return the indices in the middle of ``count`` equal parts of ``total`` items, or fewer where there are fewer."""
    count = min(total, count)
    return [(2 * part + 1) * total // (2 * count) for part in range(count)]


def guess_matrix(width: int, height: int) -> str:
    """Return the matrix of a video that does not name its own, as players guess it."""
    return "bt709" if width >= 1280 or height > 576 else "bt601"


def check_video_target(target: Path) -> None:
    """Refuse a name that no writer knows, before the work begins.

    Raises:
        DarsrError: the suffix is not one of :data:`WRITTEN`.
    """
    if target != STREAM and target.suffix.lower() not in (*WRITTEN, Y4M):
        known = ", ".join((*WRITTEN, Y4M))
        raise DarsrError(str(target), f"cannot write {target.suffix or 'a file without suffix'}", f"use one of {known}")
