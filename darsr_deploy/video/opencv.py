"""Read and write videos through OpenCV, where PyAV is not installed: pictures alone, at a constant rate."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from ..errors import DarsrError
from ..install import install
from . import yuv
from .frames import Frame, Passed, VideoInfo, guess_matrix, spread
from .truncation import find_cut

_DEEP = ("Y1", "Y3", "Y4", "G3", "G4")  # tags of pixel formats whose fourth byte is the number of bits
# Of blue, green and red: OpenCV rounds luma and chroma down, which gives gray a cast.
_ROUNDING = np.array((2, 0, 1, 0), float)
_CODES = {".avi": "MJPG", ".webm": "VP90"}  # of the others: mp4v, which every build of OpenCV can write


class CvReader:
    """Read frames, which OpenCV turns upright and to 8 bits. See :class:`.frames.Reader`."""

    def __init__(self, path: Path) -> None:
        self._path, self._capture = path, cv2.VideoCapture(str(path))
        good, frame = self._capture.read() if self._capture.isOpened() else (False, None)
        if not good or frame is None:
            raise DarsrError(str(path), "cannot be opened or decoded by OpenCV", f"try PyAV: {install('video')}")
        self._first = frame
        self._refuse_what_would_change()
        rate = Fraction(self._capture.get(cv2.CAP_PROP_FPS) or 25).limit_denominator(1001)
        frames = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.info = VideoInfo(frame.shape[1], frame.shape[0], rate, frames if frames > 0 else None)

    def _refuse_what_would_change(self) -> None:
        tag = int(self._capture.get(cv2.CAP_PROP_CODEC_PIXEL_FORMAT)).to_bytes(8, "little", signed=True)[:4]
        wide, high = (self._capture.get(name) for name in (cv2.CAP_PROP_SAR_NUM, cv2.CAP_PROP_SAR_DEN))
        why = ""
        if tag.startswith((b"P0", b"P2", b"P4")) or (tag[:2].decode("latin1") in _DEEP and tag[3] > 8):
            why = "has more than 8 bits"
        elif wide > 0 and high > 0 and wide != high:
            why = f"has pixels of {wide:.0f}:{high:.0f}"
        if why:
            raise DarsrError(str(self._path), f"{why}, which OpenCV cannot keep", f"install PyAV: {install('video')}")

    def __iter__(self) -> Iterator[Frame]:
        frame, index = self._first, 0
        while frame is not None:
            yield Frame(_to_rgb(frame), index, 1 / self.info.rate, 1)
            frame, index = self._capture.read()[1], index + 1

    def sample(self, count: int) -> list[np.ndarray]:
        """Return frames spread over the video. See :class:`.frames.Reader`."""
        frames = []
        for index in spread(self.info.frames or 1, count):
            self._capture.set(cv2.CAP_PROP_POS_FRAMES, index)
            good, frame = self._capture.read()
            frames += [_to_rgb(frame)] if good else []
        return frames or [_to_rgb(self._first)]

    @property
    def lost(self) -> str | None:
        """Return why frames are missing at the end; None where the file is whole."""
        return find_cut(self._path)

    def __enter__(self) -> CvReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._capture.release()


class CvWriter:
    """Write frames without audio. See :class:`.frames.Writer`."""

    def __init__(self, path: Path, target: Path, info: VideoInfo, say: Callable[[str], None]) -> None:
        self._path, self._target, self._count = path, target, 0
        # It writes BT.601 and names no matrix: players take the one that the size suggests.
        self._from_rgb = yuv.change_matrix(guess_matrix(info.width, info.height), "bt601")
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
        pixels = np.repeat(pixels[:, :, None], 3, axis=2) if pixels.ndim == 2 else pixels
        if self._from_rgb is not None:
            pixels = cv2.transform(pixels, self._from_rgb)
        self._writer.write(cv2.add(np.ascontiguousarray(pixels[:, :, ::-1]), _ROUNDING))
        self._count += 1

    def finish(self) -> None:
        """Check that the file can be opened and holds every frame: OpenCV says nothing about a full disk."""
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


def _to_rgb(frame: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(frame[:, :, ::-1])
