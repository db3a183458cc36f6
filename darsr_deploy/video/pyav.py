"""Videos through PyAV: FFmpeg's libraries without its executable. Timestamps, audio and subtitles are kept."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np

from ..errors import DarsrError
from .frames import Frame, Passed, Reader, VideoInfo, guess_matrix

# The same codec where it can be written; nearly lossless where it is lossy: a result is not the place to save bits.
_ENCODERS = {
    "h264": ("libx264", {"crf": "16"}),
    "hevc": ("libx265", {"crf": "18", "x265-params": "log-level=none"}),
    "vp9": ("libvpx-vp9", {"crf": "18", "b": "0", "row-mt": "1", "cpu-used": "4"}),
    "av1": ("libsvtav1", {"crf": "20"}),
    "ffv1": ("ffv1", {"level": "3"}),
    "mjpeg": ("mjpeg", {"qmin": "1", "qmax": "2"}),
    "prores": ("prores_ks", {"profile": "hq"}),
    "mpeg4": ("mpeg4", {"qmin": "1", "qmax": "2"}),
}
_WRITTEN_AS = {"vp8": "vp9"} | dict.fromkeys(("huffyuv", "ffvhuff", "utvideo", "rawvideo", "png", "qtrle"), "ffv1")
_MATRICES = {1: "bt709", 5: "bt601", 6: "bt601", 7: "bt709", 9: "bt2020", 10: "bt2020"}  # AVColorSpace
_COLORSPACE = {"bt709": 1, "bt601": 6, "bt2020": 9}
_SWS = {"bt709": 1, "bt601": 5, "bt2020": 9}  # the same for swscale
_ACCURATE = 0x4 | 0x2000 | 0x4000 | 0x40000  # bicubic, chroma interpolated in full both ways, exact rounding
_LIMITED, _FULL = 1, 2  # AVColorRange
_PIXELS = {("gray", 8): "gray", ("gray", 16): "gray16le", ("rgb", 8): "rgb24", ("rgb", 16): "rgb48le"}


class AvReader:
    """The first video stream of a file, upright, and the packets of its audio and subtitles. See :class:`.frames.Reader`."""

    def __init__(self, path: Path) -> None:
        import av

        self._path, self._library = path, av
        with self._one_line("cannot be opened"):
            self.container = av.open(str(path))
        streams = [s for s in self.container.streams.video if not s.disposition & _attached_picture(av)]
        if not streams:
            self.container.close()
            raise DarsrError(str(path), "holds no video", "give another file")
        self.stream = streams[0]
        self.stream.thread_type = "AUTO"
        self.passed = [s for s in self.container.streams if s.type in ("audio", "subtitle")]
        self._raw = self._decoded()
        self._head = []  # up to the first frame, which alone knows how it is turned and stored
        with self._one_line("cannot be decoded"):
            for item in self._raw:
                self._head.append(item)
                if not isinstance(item, Passed):
                    break
        if not self._head or isinstance(self._head[-1], Passed):
            raise DarsrError(str(path), "holds no frame that can be decoded", "copy it again from its source")
        self.info = self._examine(self._head[-1])

    def __iter__(self) -> Iterator[Frame | Passed]:
        count = 0
        with self._one_line("cannot be decoded"):
            for source in (self._head, self._raw):
                for item in source:
                    if isinstance(item, Passed):
                        yield item
                    else:
                        yield self._frame(item, count)
                        count += 1

    def __enter__(self) -> AvReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.container.close()

    def _decoded(self) -> Iterator[object]:
        kept = {s.index for s in self.passed}
        for packet in self.container.demux():
            if packet.stream.index == self.stream.index:
                yield from packet.decode()
            elif packet.stream.index in kept and packet.dts is not None:
                yield Passed(packet)

    def _examine(self, frame) -> VideoInfo:
        parts, name = frame.format.components, frame.format.name
        self._turns = round(frame.rotation / 90) % 4
        width, height = (frame.width, frame.height)[:: -1 if self._turns % 2 else 1]
        self._layout = "rgb" if frame.format.is_rgb or name.startswith("gbr") else _layout(frame.format)
        self._full = frame.color_range == _FULL or name.startswith("yuvj")
        self._matrix = _MATRICES.get(frame.colorspace) or guess_matrix(frame.width, frame.height)
        bits = 16 if max(part.bits for part in parts) > 8 else 8
        self._pixel_format = _PIXELS["gray" if self._layout == "gray" else "rgb", bits]
        stream = self.stream
        rate = stream.average_rate or stream.guessed_rate or Fraction(25)
        seconds = stream.duration * stream.time_base if stream.duration and stream.time_base else None
        if seconds is None and self.container.duration:
            seconds = Fraction(self.container.duration, 1_000_000)
        frames = stream.frames or (round(seconds * rate) if seconds else None)
        aspect = stream.sample_aspect_ratio or Fraction(1)
        aspect = 1 / aspect if self._turns % 2 else aspect
        return VideoInfo(width, height, rate, frames, self._layout, bits, self._matrix, self._full, aspect)

    def _frame(self, frame, index: int) -> Frame:
        options = {} if self._layout == "rgb" else _colours(self._matrix, self._full, decoding=True)
        pixels = frame.reformat(format=self._pixel_format, **options).to_ndarray()
        if self._turns:
            pixels = np.ascontiguousarray(np.rot90(pixels, self._turns))
        base = frame.time_base or self.stream.time_base or 1 / self.info.rate
        pts = frame.pts if frame.pts is not None else round(index / self.info.rate / base)
        return Frame(pixels, pts, base, getattr(frame, "duration", 0) or 0)

    @contextlib.contextmanager
    def _one_line(self, what: str) -> Iterator[None]:
        try:
            yield
        except self._library.error.FFmpegError as error:
            raise DarsrError(str(self._path), f"{what} ({error.strerror})", "copy it again from its source") from error


class AvWriter:
    """The codec of the source where it can be written, else the container's own. See :class:`.frames.Writer`."""

    def __init__(self, path: Path, target: Path, info: VideoInfo, reader: Reader, say: Callable[[str], None]) -> None:
        import av

        self._library, self._target, self._info = av, target, info
        same = reader if isinstance(reader, AvReader) else None
        with self._one_line():
            self._container = av.open(str(path), "w")
            self._stream = self._add_video(same, info)
            self._passed = self._add_passed(same, say)

    def write(self, item: Frame | Passed) -> None:
        with self._one_line():
            if isinstance(item, Passed):
                self._pass_on(item.packet)
                return
            gray = item.pixels.ndim == 2
            pixel_format = _PIXELS["gray" if gray else "rgb", item.pixels.dtype.itemsize * 8]
            frame = self._library.VideoFrame.from_ndarray(item.pixels, format=pixel_format)
            options = {} if self._rgb else _colours(self._info.matrix, self._info.full_range)
            frame = frame.reformat(format=self._stream.pix_fmt, **options)
            frame.pts, frame.time_base = item.pts, item.time_base
            if item.duration:
                with contextlib.suppress(AttributeError):  # not to be set in older versions of PyAV
                    frame.duration = item.duration
            self._container.mux(self._stream.encode(frame))

    def finish(self) -> None:
        with self._one_line():
            self._container.mux(self._stream.encode(None))
            self._container.close()

    def __enter__(self) -> AvWriter:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(self._library.error.FFmpegError):  # finish has said what there is to say
            self._container.close()

    def _add_video(self, source: AvReader | None, info: VideoInfo):
        codec, encoder, options = self._choose(source)
        rate = info.rate.limit_denominator(100_000)
        stream = self._container.add_stream(encoder, rate=rate, options=options)
        stream.width, stream.height = info.width, info.height
        stream.pix_fmt = _pixel_format(self._library.Codec(encoder, "w"), source, info)
        self._rgb = stream.pix_fmt.startswith(("rgb", "bgr", "gbr"))
        context = stream.codec_context
        context.sample_aspect_ratio = info.aspect
        context.time_base = source.stream.time_base if source else 1 / rate
        if codec == "mpeg4" and context.time_base.denominator > 65_535:  # the format holds no finer clock
            context.time_base = context.time_base.limit_denominator(65_535)
        stream.time_base = context.time_base
        if not self._rgb:
            context.color_range = _FULL if info.full_range else _LIMITED
            context.colorspace = _COLORSPACE[info.matrix]
        if source:
            context.color_primaries = source.stream.codec_context.color_primaries
            context.color_trc = source.stream.codec_context.color_trc
            self._container.metadata.update(source.container.metadata)
            stream.metadata.update({k: v for k, v in source.stream.metadata.items() if k != "rotate"})
        return stream

    def _choose(self, source: AvReader | None) -> tuple[str, str, dict[str, str]]:
        wanted = source.stream.codec_context.codec.canonical_name if source else "h264"
        for codec in (_WRITTEN_AS.get(wanted, wanted), "h264", self._container.default_video_codec, "mpeg4"):
            encoder, options = _ENCODERS.get(codec, (None, None))
            if encoder in self._library.codecs_available and codec in self._container.supported_codecs:
                return codec, encoder, options
        raise DarsrError(str(self._target), "this container holds no codec that can be written", "write .mp4 or .mkv")

    def _add_passed(self, source: AvReader | None, say: Callable[[str], None]) -> dict[int, object]:
        """Streams to be copied, by the index of the source's. Audio is never lost without a word."""
        passed = {}
        for stream in source.passed if source else ():
            codec = stream.codec_context.codec.canonical_name if stream.codec_context else stream.type
            if codec in self._container.supported_codecs:
                passed[stream.index] = self._container.add_stream_from_template(stream)
                passed[stream.index].metadata.update(stream.metadata)
            elif stream.type == "audio":
                why = f"its audio ({codec}) cannot be stored in {self._target.suffix}"
                raise DarsrError(str(self._target), why, "write .mkv with -o")
            else:
                say(f"{self._target}: a subtitle track ({codec}) cannot be stored in it and is left out")
        return passed

    def _pass_on(self, packet) -> None:
        if (stream := self._passed.get(packet.stream.index)) is not None:
            packet.stream = stream
            self._container.mux(packet)

    @contextlib.contextmanager
    def _one_line(self) -> Iterator[None]:
        try:
            yield
        except self._library.error.FFmpegError as error:
            why = f"could not be written ({error.strerror})"
            raise DarsrError(str(self._target), why, "free some space or choose another place or format") from error


def _attached_picture(av) -> int:
    from av.stream import Disposition

    return Disposition.attached_pic


def _layout(pixel_format) -> str:
    if len([p for p in pixel_format.components if not p.is_alpha]) < 3:
        return "gray"
    if pixel_format.components[1].width == pixel_format.components[0].width:
        return "444"
    return "422" if pixel_format.components[1].height == pixel_format.components[0].height else "420"


def _pixel_format(codec, source: AvReader | None, info: VideoInfo) -> str:
    """The source's own pixel format, or the nearest that the encoder takes."""
    known = [f.name for f in codec.video_formats or ()]
    own = source.stream.codec_context.pix_fmt if source else None
    deep = "10le" if info.bits == 16 else ""
    layout = info.layout[:3] if info.layout.startswith("4") else info.layout  # without where chroma lies
    layouts = {"gray": ["gray"], "rgb": [f"gbrp{deep}", "bgr0", f"yuv444p{deep}"]}.get(layout, [])
    layouts += [f"yuv{layout}p{deep}", f"yuv420p{deep}", f"yuv422p{deep}", "yuv420p", "yuvj420p"]
    plain = own and own.replace("yuvj", "yuv")  # the range is told by the stream
    wanted = [own, *layouts] if codec.name == "mjpeg" else [plain, *layouts]
    return next((f for f in wanted if f in known), "yuv420p")


def _colours(matrix: str, full: bool, decoding: bool = False) -> dict[str, int]:
    """How swscale turns luma and chroma into RGB, or back."""
    ranges = (_FULL if full else _LIMITED, _FULL)
    source, result = ranges if decoding else ranges[::-1]
    return {
        "src_colorspace": _SWS[matrix],
        "dst_colorspace": _SWS[matrix],
        "src_color_range": source,
        "dst_color_range": result,
        "interpolation": _ACCURATE,
    }
