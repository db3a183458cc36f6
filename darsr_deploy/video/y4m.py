"""Read and write YUV4MPEG2, the plainest video: a line of text, then raw planes; other programs pipe it in and out."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..errors import DarsrError
from . import yuv
from .frames import STREAM, Frame, Passed, VideoInfo, guess_matrix, spread

_LONGEST_LINE = 1024
_MAX_PIXELS = 1 << 27  # of a frame: a damaged header must not fill the memory
_SAMPLED_SECONDS = 10  # a file has no index, so all of this is read
_COLOURS = {"420": "420jpeg", "mono": "gray", **{name: name for name in yuv.LAYOUTS}}
_HINT = "give YUV4MPEG2 of 8 bits, progressive, 4:2:0, 4:2:2, 4:4:4 or mono"


class Y4mReader:
    """Read 8-bit progressive streams; anything unknown in the header is an error. See :class:`.frames.Reader`."""

    lost: str | None = None  # a stream that was cut off is an error

    def __init__(self, path: Path) -> None:
        self._name = "standard input" if path == STREAM else str(path)
        try:
            self._file: BinaryIO = sys.stdin.buffer if path == STREAM else path.open("rb")
        except OSError as error:
            raise DarsrError(self._name, f"cannot be read ({error.strerror})", "check the name") from error
        self.info = self._header()

    def __iter__(self) -> Iterator[Frame]:
        for index, planes in enumerate(self._frames()):
            yield Frame(self._pixels(planes), index, 1 / self.info.rate, 1)

    def sample(self, count: int) -> list[np.ndarray]:
        """Return frames spread over the first seconds. See :class:`.frames.Reader`."""
        size = sum(height * width for height, width in self._shapes()) + len(b"FRAME\n")
        total = os.fstat(self._file.fileno()).st_size // size
        total = max(1, min(total, round(_SAMPLED_SECONDS * self.info.rate)))
        wanted, frames = spread(total, count), itertools.islice(self._frames(), total)
        return [self._pixels(planes) for index, planes in enumerate(frames) if index in wanted]

    def __enter__(self) -> Y4mReader:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not getattr(sys.stdin, "buffer", None):
            self._file.close()

    def _shapes(self) -> list[tuple[int, int]]:
        luma = self.info.height, self.info.width
        return [luma] if self.info.layout == "gray" else [luma, *[yuv.chroma_shape(*luma, self.info.layout)] * 2]

    def _frames(self) -> Iterator[list[np.ndarray]]:
        """Yield the planes of every frame."""
        index, shapes = 0, self._shapes()
        while line := self._line():
            if line.split(b" ")[0] != b"FRAME":
                raise self._bad(f"frame {index + 1} does not begin with FRAME")
            yield [self._plane(shape, index) for shape in shapes]
            index += 1

    def _pixels(self, planes: list[np.ndarray]) -> np.ndarray:
        info = self.info
        if len(planes) == 1:
            return yuv.luma_to_gray(planes[0], info.full_range)
        return yuv.to_rgb(planes, info.layout, info.matrix, info.full_range)

    def _header(self) -> VideoInfo:
        words = self._line().split(b" ")
        if words[0] != b"YUV4MPEG2":
            raise self._bad("is not a YUV4MPEG2 stream")
        fields, full = {"I": "p", "C": "420", "A": "1:1"}, False
        for word in words[1:]:
            text = word.decode("ascii", "replace")
            if text in ("XCOLORRANGE=FULL", "XCOLORRANGE=LIMITED"):
                full = text.endswith("FULL")
            elif text[:1] in ("W", "H", "F", "I", "C", "A"):
                fields[text[0]] = text[1:]
            elif text[:1] != "X" and text:  # X: comments of programs
                raise self._bad(f"its header names {text!r}, which is not known")
        try:
            width, height = int(fields["W"]), int(fields["H"])
            rate = Fraction(*map(int, fields["F"].split(":")))
            across, down = map(int, fields["A"].split(":"))
        except (KeyError, ValueError, TypeError, ZeroDivisionError) as error:
            raise self._bad("its header lacks a width, height or rate that can be used") from error
        if not (width > 0 and height > 0 and rate > 0 and width * height <= _MAX_PIXELS):
            raise self._bad(f"its header names {width}x{height} pixels at {rate} frames a second")
        if fields["I"] not in ("p", "?"):
            raise self._bad("it is interlaced")
        if fields["C"] not in _COLOURS:
            raise self._bad(f"its colours are {fields['C']}")
        aspect = Fraction(across, down) if across > 0 and down > 0 else Fraction(1)
        matrix = guess_matrix(width, height)
        return VideoInfo(width, height, rate, None, _COLOURS[fields["C"]], 8, matrix, full, aspect)

    def _line(self) -> bytes:
        """Return the next line without its end; empty at the end of the stream."""
        line = self._file.readline(_LONGEST_LINE)
        if line and not line.endswith(b"\n"):
            raise self._bad("is cut off or not a YUV4MPEG2 stream")
        return line[:-1]

    def _plane(self, shape: tuple[int, int], index: int) -> np.ndarray:
        size, data = shape[0] * shape[1], bytearray()
        while len(data) < size:  # a pipe gives what it has
            part = self._file.read(size - len(data))
            if not part:
                raise self._bad(f"ends within frame {index + 1}")
            data += part
        return np.frombuffer(data, np.uint8).reshape(shape)

    def _bad(self, why: str) -> DarsrError:
        return DarsrError(self._name, why, _HINT)


class Y4mWriter:
    """Write 8-bit frames; chroma as in a y4m source, else 4:2:0 sited as in MPEG-2, 4:2:2 or 4:4:4.

    See :class:`.frames.Writer`.
    """

    def __init__(self, path: Path, info: VideoInfo) -> None:
        self._name, self._info = "standard output" if path == STREAM else str(path), info
        self._matrix = guess_matrix(info.width, info.height)  # a stream cannot name it: what its reader will assume
        self._layout = {"420": "420mpeg2", "gray": "mono", "rgb": "444"}.get(info.layout, info.layout)
        self._file: BinaryIO = sys.stdout.buffer if path == STREAM else path.open("wb")
        header = f"YUV4MPEG2 W{info.width} H{info.height} F{info.rate.numerator}:{info.rate.denominator} Ip "
        header += f"A{info.aspect.numerator}:{info.aspect.denominator} C{self._layout} "
        self._send(header.encode() + f"XCOLORRANGE={'FULL' if info.full_range else 'LIMITED'}\n".encode())

    def write(self, item: Frame | Passed) -> None:
        if isinstance(item, Passed):
            return
        pixels, full = item.pixels, self._info.full_range
        if pixels.dtype != np.uint8:
            pixels = ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
        if self._layout == "mono":
            planes = [yuv.gray_to_luma(pixels if pixels.ndim == 2 else pixels[:, :, 1], full)]
        else:
            pixels = np.repeat(pixels[:, :, None], 3, axis=2) if pixels.ndim == 2 else pixels
            planes = yuv.from_rgb(pixels, self._layout, self._matrix, full)
        self._send(b"FRAME\n" + b"".join(plane.tobytes() for plane in planes))

    def finish(self) -> None:
        self._send(b"")
        if self._name != "standard output":
            self._file.close()

    def __enter__(self) -> Y4mWriter:
        return self

    def __exit__(self, *_: object) -> None:
        if self._name != "standard output":
            self._file.close()

    def _send(self, data: bytes) -> None:
        try:
            self._file.write(data)
            self._file.flush()
        except BrokenPipeError as error:
            # else Python complains once more when it flushes at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise DarsrError(self._name, "was closed by the program that reads it", "let it read to the end") from error
