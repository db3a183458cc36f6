"""Choose the reader and the writer of a video."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..errors import DarsrError
from .frames import STREAM, Y4M, Reader, VideoInfo, Writer


def open_reader(path: Path, say: Callable[[str], None] = lambda _: None) -> Reader:
    """Open a video with PyAV where it is installed, else with OpenCV; y4m needs neither.

    Args:
        say: told about what is done to the frames, such as deinterlacing.

    Raises:
        DarsrError: missing, damaged, or no video.
    """
    if path == STREAM or path.suffix.lower() == Y4M:
        from .y4m import Y4mReader

        return Y4mReader(path)
    if not path.is_file():
        raise DarsrError(str(path), "there is no such file", "check the name")
    if has_pyav():
        from .pyav_reader import AvReader

        return AvReader(path, say)
    from .opencv import CvReader

    return CvReader(path)


def open_writer(path: Path, target: Path, info: VideoInfo, reader: Reader, say: Callable[[str], None]) -> Writer:
    """Open a writer for frames of ``info``.

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
        from .pyav_writer import AvWriter

        return AvWriter(path, target, info, reader, say)
    from .opencv import CvWriter

    return CvWriter(path, target, info, say)


def sample_frames(path: Path, count: int = 8) -> list[np.ndarray]:
    """Return up to ``count`` frames spread over a video file, one from the middle of each equal part.

    Raises:
        DarsrError: as :func:`open_reader`.
    """
    with open_reader(path) as reader:
        return reader.sample(count)


def has_pyav() -> bool:
    """Return whether PyAV is installed, without importing it."""
    return importlib.util.find_spec("av") is not None
