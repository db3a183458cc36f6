"""Read videos through PyAV, that is FFmpeg's libraries without its executable: upright and progressive frames."""

from __future__ import annotations

import contextlib
import itertools
from collections import deque
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DarsrError
from .frames import Frame, Passed, VideoInfo, guess_matrix, spread
from .timeline import FrameClock, Timeline
from .truncation import find_cut

_MATRICES = {1: "bt709", 5: "bt601", 6: "bt601", 7: "bt709", 9: "bt2020", 10: "bt2020"}  # AVColorSpace
_SWS = {"bt709": 1, "bt601": 5, "bt2020": 9}  # the same for swscale
_ACCURATE = 0x4 | 0x2000 | 0x4000 | 0x40000  # bicubic, chroma interpolated in full both ways, exact rounding
LIMITED, FULL = 1, 2  # AVColorRange
PIXELS = {("gray", 8): "gray", ("gray", 16): "gray16le", ("rgb", 8): "rgb24", ("rgb", 16): "rgb48le"}
WITHOUT_PTS = ("avi", "asf")  # formats that store the time of decoding alone
_LENGTH_IN_HEADER = ("flv", "asf")  # of those whose structure does not tell where the file ends
_SHORT = 300  # frames, which are decoded one after the other to choose some
_COPY_AGAIN = "copy it again from its source"


class AvReader:
    """Read the first video stream of a file, and the packets of its audio and subtitles. See :class:`.frames.Reader`.

    Raises:
        DarsrError: no video, or none that can be decoded.
    """

    def __init__(self, path: Path, say: Callable[[str], None] = lambda _: None) -> None:
        import av

        self._path, self._say, self._library = path, say, av
        with self._one_line("cannot be opened"):
            self.container = av.open(str(path), metadata_errors="replace")
        streams = [s for s in self.container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
        if not streams:
            self.container.close()
            raise DarsrError(str(path), "holds no video", "give another file")
        self.stream = streams[0]
        self.stream.thread_type = "AUTO"
        self.passed = [s for s in self.container.streams if s.type in ("audio", "subtitle")]
        self.covers = [s for s in self.container.streams.video if s not in streams]
        self.further = streams[1:]
        self._by_dts = self.container.format.name in WITHOUT_PTS
        rate = self.stream.average_rate or self.stream.guessed_rate or Fraction(25)
        if self.container.format.flags & av.format.Flags.no_timestamps.value:  # then the codec alone knows it
            rate = self.stream.codec_context.framerate or rate
        self._rate, self._clock, self._resized = rate, FrameClock(rate), False
        self._graph: Any = None  # of the filter that deinterlaces
        self._decoded_frames, self._damaged, self._end, self._broken = 0, 0, Fraction(0), ""
        self._raw = self._decoded()
        self._head = []  # up to the first frame, which alone knows how it is turned and stored
        with self._one_line("cannot be decoded"):
            for item in self._raw:
                self._head.append(item)
                if not isinstance(item, Passed):
                    break
        if not self._head or isinstance(self._head[-1], Passed):
            raise DarsrError(str(path), "holds no frame that can be decoded", _COPY_AGAIN)
        self.info = self._examine(self._head[-1])

    def __iter__(self) -> Iterator[Frame | Passed]:
        with self._one_line("cannot be decoded"):
            for item in itertools.chain(self._head, self._raw):
                yield item if isinstance(item, Passed) else self._frame(item)

    def __enter__(self) -> AvReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.container.close()

    def sample(self, count: int) -> list[np.ndarray]:
        """Return frames spread over the video: of a long one those behind a key frame. See :class:`.frames.Reader`."""
        total, length = self.info.frames or _SHORT, self.stream.duration
        if length is None and self.container.duration:
            length = int(Fraction(self.container.duration, 1_000_000) / self.stream.time_base)
        with self._one_line("cannot be decoded"):
            if total > _SHORT and length:
                found = list(self._sought(count, length))
                if len(found) > 2:
                    return found
                self.container.seek(self.stream.start_time or 0, stream=self.stream)  # it has too few key frames
            wanted = spread(min(total, _SHORT), count)
            frames = (item for item in itertools.chain(self._head, self._raw) if not isinstance(item, Passed))
            found = [self._pixels(f) for i, f in enumerate(itertools.islice(frames, wanted[-1] + 1)) if i in wanted]
        return found or [self._pixels(self._head[-1])]

    def _sought(self, count: int, length: int) -> Iterator[np.ndarray]:
        """Yield the pixels of the key frame before the middle of each part, where it is another than the last."""
        seen = set()
        for middle in spread(length, count):
            try:
                self.container.seek((self.stream.start_time or 0) + middle, stream=self.stream)
                frame = next(self.container.decode(self.stream))
            except (self._library.error.FFmpegError, StopIteration):
                continue
            if frame.pts not in seen:
                seen.add(frame.pts)
                frames = list(self._deinterlaced(frame))
                frames += self._deinterlaced(None) if self._graph else []
                self._graph = None
                yield from map(self._pixels, frames)

    def read_cover(self, stream: Any) -> bytes:
        """Return the picture file that a stream of :attr:`covers` holds."""
        with self._library.open(str(self._path)) as container:
            return next(bytes(packet) for packet in container.demux(container.streams[stream.index]) if packet.size)

    @property
    def lost(self) -> str | None:
        """Return why frames are missing, as far as the file was read; None where none are."""
        if cut := find_cut(self._path):
            return cut
        if self._broken or self._damaged:
            return self._broken or f"{self._damaged} of its packets are damaged"
        seconds = Fraction(self.container.duration or 0, 1_000_000)
        if self.container.format.name in _LENGTH_IN_HEADER and self._end < seconds * Fraction(19, 20) - 1:
            return f"is cut off: {float(self._end):.0f} of {float(seconds):.0f} seconds are there"
        return None

    def _decoded(self) -> Iterator[Any]:
        """Yield the frames as they are stored, at increasing times, and the packets to be passed on."""
        kept = {s.index for s in (*self.passed, *self.covers)}
        timeline = Timeline(self.container.format)
        waiting: deque[Fraction] = deque()  # the times of packets whose frames the decoder has not given back
        try:
            for packet in self.container.demux():
                if packet.stream.index == self.stream.index:
                    timeline.place(packet)
                    if packet.dts is not None:
                        self._end = max(self._end, packet.dts * packet.time_base)
                        waiting.extend([self._end] if self._by_dts else [])
                    for frame in self._decode(packet):
                        self._decoded_frames += 1
                        self._clock.set_time(frame, waiting.popleft() if waiting else None)
                        yield from self._deinterlaced(frame)
                elif packet.stream.index in kept and packet.size:
                    if packet.dts is None:
                        packet.dts = packet.pts = packet.pts or 0  # a cover has no time
                    timeline.place(packet)
                    yield Passed(packet)
        except self._library.error.FFmpegError as error:
            if not self._decoded_frames:
                raise
            self._broken = f"cannot be read to its end ({error.strerror})"
        if self._graph:
            yield from self._deinterlaced(None)

    def _decode(self, packet: Any) -> list:
        try:
            return packet.decode()
        except self._library.error.InvalidDataError:
            self._damaged += self._decoded_frames > 0  # a recording may begin between two keyframes
            return []

    def _deinterlaced(self, frame: Any) -> Iterator[Any]:
        """Yield a frame as it is until the first interlaced one comes; from there all go through a filter."""
        if self._graph is None:
            if not frame.interlaced_frame:
                yield frame
                return
            self._say(f"{self._path}: is interlaced; it is deinterlaced (bwdif), and the result is progressive")
            self._graph = graph = self._library.filter.Graph()
            source = graph.add_buffer(
                width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
            )
            bwdif = graph.add("bwdif", "mode=send_frame:parity=auto:deint=interlaced")
            graph.link_nodes(source, bwdif, graph.add("buffersink")).configure()
        self._graph.vpush(frame)
        with contextlib.suppress(BlockingIOError, EOFError):  # it wants another frame, or has given the last
            while True:
                yield self._graph.vpull()

    def _examine(self, frame: Any) -> VideoInfo:
        parts, name = frame.format.components, frame.format.name
        self._matrix_of_display = _display_matrix(frame, self._library)
        turned = self._matrix_of_display is not None and _is_transposed(self._matrix_of_display)
        kinds = {data.type.name: bytes(data) for data in frame.side_data}
        self.hdr = kinds.get("MASTERING_DISPLAY_METADATA"), kinds.get("CONTENT_LIGHT_LEVEL")
        self.dynamic_hdr = not {"DYNAMIC_HDR_PLUS", "DYNAMIC_HDR_VIVID", "DOVI_METADATA"}.isdisjoint(kinds)
        self._size = frame.width, frame.height
        width, height = self._size[:: -1 if turned else 1]
        self._layout = "rgb" if frame.format.is_rgb or name.startswith("gbr") else _layout(frame.format)
        self._full = frame.color_range == FULL or name.startswith("yuvj")
        self._matrix = _MATRICES.get(frame.colorspace) or guess_matrix(frame.width, frame.height)
        bits = 16 if max(part.bits for part in parts) > 8 else 8
        self._pixel_format = PIXELS["gray" if self._layout == "gray" else "rgb", bits]
        stream = self.stream
        seconds = stream.duration * stream.time_base if stream.duration and stream.time_base else None
        if seconds is None and self.container.duration:
            seconds = Fraction(self.container.duration, 1_000_000)
        frames = stream.frames or (round(seconds * self._rate) if seconds else None)
        aspect = stream.sample_aspect_ratio or Fraction(1)
        aspect = 1 / aspect if turned else aspect
        return VideoInfo(width, height, self._rate, frames, self._layout, bits, self._matrix, self._full, aspect)

    def _pixels(self, frame: Any) -> np.ndarray:
        options = {} if self._layout == "rgb" else colours(self._matrix, self._full, decoding=True)
        if (frame.width, frame.height) != self._size:
            if not self._resized:
                self._say(f"{self._path}: its size changes on the way; all frames get the size of the first")
            self._resized, (options["width"], options["height"]) = True, self._size
        pixels = frame.reformat(format=self._pixel_format, **options).to_ndarray()
        return pixels if self._matrix_of_display is None else _upright(pixels, self._matrix_of_display)

    def _frame(self, frame: Any) -> Frame:
        return Frame(self._pixels(frame), frame.pts, frame.time_base, getattr(frame, "duration", 0) or 0)

    @contextlib.contextmanager
    def _one_line(self, what: str) -> Iterator[None]:
        try:
            yield
        except self._library.error.FFmpegError as error:
            raise DarsrError(str(self._path), f"{what} ({error.strerror})", _COPY_AGAIN) from error


def colours(matrix: str, full: bool, decoding: bool = False) -> dict[str, int]:
    """Return the options of swscale that turn luma and chroma into RGB (``decoding``), or back."""
    ranges = (FULL if full else LIMITED, FULL)
    source, result = ranges if decoding else ranges[::-1]
    return {
        "src_colorspace": _SWS[matrix],
        "dst_colorspace": _SWS[matrix],
        "src_color_range": source,
        "dst_color_range": result,
        "interpolation": _ACCURATE,
    }


def _layout(pixel_format: Any) -> str:
    if len([p for p in pixel_format.components if not p.is_alpha]) < 3:
        return "gray"
    if pixel_format.components[1].width == pixel_format.components[0].width:
        return "444"
    return "422" if pixel_format.components[1].height == pixel_format.components[0].height else "420"


def _display_matrix(frame: Any, av: Any) -> tuple[int, int, int, int] | None:
    """Return a, b, c, d of x' = a x + c y, y' = b x + d y, which turn a frame upright; None where it is already."""
    data = frame.side_data.get(av.sidedata.sidedata.Type.DISPLAYMATRIX)
    if data is None:
        return None
    a, b, _, c, d = np.frombuffer(bytes(data), np.int32)[:5].tolist()
    return (a, b, c, d) if a * d != b * c else None


def _is_transposed(matrix: tuple[int, int, int, int]) -> bool:
    a, b, c, d = matrix
    return abs(b) + abs(c) > abs(a) + abs(d)


def _upright(pixels: np.ndarray, matrix: tuple[int, int, int, int]) -> np.ndarray:
    """Apply the one of the eight quarter turns and mirror images that is nearest to a display matrix."""
    a, b, c, d = matrix
    if _is_transposed(matrix):
        pixels, a, d = np.swapaxes(pixels, 0, 1), c, b
    return np.ascontiguousarray(pixels[:: 1 if d > 0 else -1, :: 1 if a > 0 else -1])
