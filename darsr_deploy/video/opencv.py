"""Videos through OpenCV, where PyAV is not installed: pictures alone, at a constant rate."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from ..errors import DarsrError
from ..install import install
from .frames import Frame, Passed, VideoInfo

_CODES = {".avi": "MJPG", ".webm": "VP90"}  # of the others: mp4v, which every build of OpenCV can write


class CvReader:
    """See :class:`.frames.Reader`. OpenCV turns the frames upright and to 8 bits."""

    def __init__(self, path: Path) -> None:
        self._path, self._capture = path, cv2.VideoCapture(str(path))
        good, frame = self._capture.read() if self._capture.isOpened() else (False, None)
        if not good or frame is None:
            raise DarsrError(str(path), "cannot be opened or decoded by OpenCV", f"try PyAV: {install('video')}")
        self._first = frame
        rate = Fraction(self._capture.get(cv2.CAP_PROP_FPS) or 25).limit_denominator(1001)
        frames = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.info = VideoInfo(frame.shape[1], frame.shape[0], rate, frames if frames > 0 else None)

    def __iter__(self) -> Iterator[Frame]:
        frame, index = self._first, 0
        while frame is not None:
            yield Frame(np.ascontiguousarray(frame[:, :, ::-1]), index, 1 / self.info.rate, 1)
            frame, index = self._capture.read()[1], index + 1

    def __enter__(self) -> CvReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._capture.release()


class CvWriter:
    """See :class:`.frames.Writer`."""

    def __init__(self, path: Path, target: Path, info: VideoInfo, say: Callable[[str], None]) -> None:
        self._path, self._target, self._count = path, target, 0
        code = cv2.VideoWriter.fourcc(*_CODES.get(path.suffix.lower(), "mp4v"))
        self._writer = cv2.VideoWriter(str(path), code, float(info.rate), (info.width, info.height))
        if not self._writer.isOpened():
            raise DarsrError(
                str(target), "OpenCV cannot write this format", f"write .mp4, or install PyAV: {install('video')}"
            )
        say(f"{target}: written by OpenCV, without the audio and at a constant rate; to keep them: {install('video')}")

    def write(self, item: Frame | Passed) -> None:
        assert isinstance(item, Frame)  # OpenCV's reader passes nothing on
        pixels = item.pixels if item.pixels.dtype == np.uint8 else (item.pixels >> 8).astype(np.uint8)
        pixels = np.repeat(pixels[:, :, None], 3, axis=2) if pixels.ndim == 2 else pixels[:, :, ::-1]
        self._writer.write(np.ascontiguousarray(pixels))
        self._count += 1

    def finish(self) -> None:
        """OpenCV says nothing about a full disk: look whether the file can be opened and holds every frame."""
        self._writer.release()
        written = cv2.VideoCapture(str(self._path))
        frames = int(written.get(cv2.CAP_PROP_FRAME_COUNT)) if written.isOpened() else 0
        written.release()
        if frames != self._count:
            why = f"could not be written (it holds {frames} of {self._count} frames)"
            raise DarsrError(str(self._target), why, "free some space or choose another place")

    def __enter__(self) -> CvWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.release()
