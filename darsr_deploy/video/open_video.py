"""Which reader and which writer a video gets."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

from ..errors import DarsrError
from .frames import STREAM, Y4M, Reader, VideoInfo, Writer


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
        from .pyav import AvReader

        return AvReader(path)
    from .opencv import CvReader

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
        from .pyav import AvWriter

        return AvWriter(path, target, info, reader, say)
    from .opencv import CvWriter

    return CvWriter(path, target, info, say)


def has_pyav() -> bool:
    return importlib.util.find_spec("av") is not None
