"""Write videos through PyAV: the codec of the source where it can be written, with its audio and subtitles."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..errors import DarsrError
from .containers import (
    FORMATS,
    WITH_ATTACHMENTS,
    WITH_CHAPTERS,
    WITH_COVERS,
    choose_encoder,
    choose_pixel_format,
    describe_hdr,
    holds,
)
from .frames import Frame, Passed, Reader, VideoInfo
from .pyav_reader import FULL, LIMITED, PIXELS, AvReader, colours
from .timeline import FrameClock

_COLORSPACE = {"bt709": 1, "bt601": 6, "bt2020": 9}  # AVColorSpace
_NO_ROOM = (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC))


class AvWriter:
    """Write what a :class:`.frames.Reader` yields. See :class:`.frames.Writer`."""

    def __init__(self, path: Path, target: Path, info: VideoInfo, reader: Reader, say: Callable[[str], None]) -> None:
        import av

        self._library, self._target, self._info = av, target, info
        same = reader if isinstance(reader, AvReader) else None
        with self._one_line():
            self._container = av.open(str(path), "w", format=FORMATS.get(path.suffix.lower()))
            self._stream = self._add_video(same, info)
            self._passed = self._add_passed(same, say)
            if same and (left := self._add_extras(same)):
                say(f"{self._target}: left out: {', '.join(left)}")
            self._last: dict[int, int] = {}  # when the last packet of a copied stream was to be decoded

    def write(self, item: Frame | Passed) -> None:
        with self._one_line():
            if isinstance(item, Passed):
                self._pass_on(item.packet)
                return
            gray = item.pixels.ndim == 2
            pixel_format = PIXELS["gray" if gray else "rgb", item.pixels.dtype.itemsize * 8]
            frame = self._library.VideoFrame.from_ndarray(item.pixels, format=pixel_format)
            options = {} if self._rgb else colours(self._info.matrix, self._info.full_range)
            frame = frame.reformat(format=self._stream.pix_fmt, **options)
            frame.pts, frame.time_base = item.pts, item.time_base
            if self._clock:
                frame.time_base = self._stream.codec_context.time_base
                self._clock.set_time(frame, item.pts * item.time_base)
            elif item.duration:
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

    def _add_video(self, source: AvReader | None, info: VideoInfo) -> Any:
        wanted = source.stream.codec_context.codec.canonical_name if source else "h264"
        rate = info.rate.limit_denominator(100_000)
        chosen = choose_encoder(self._container, wanted, rate)
        if chosen is None:
            why = f"{self._target.suffix} holds no codec that can be written"
            raise DarsrError(str(self._target), why, f"write .mp4 or .mkv: -o {self._target.with_suffix('.mp4').name}")
        codec, encoder, options = chosen
        self._hdr = describe_hdr(encoder, *source.hdr) if source else {}
        options = options | {name: ":".join(filter(None, (options.get(name), v))) for name, v in self._hdr.items()}
        stream = self._container.add_stream(encoder, rate=rate, options=options)
        stream.width, stream.height = info.width, info.height
        own = source.stream.codec_context.pix_fmt if source else None
        stream.pix_fmt = choose_pixel_format(self._library.Codec(encoder, "w"), own, info)
        self._rgb = stream.pix_fmt.startswith(("rgb", "bgr", "gbr"))
        context = stream.codec_context
        context.sample_aspect_ratio = info.aspect
        coarse = codec == "mpeg2video" or self._container.format.name == "avi"  # no finer clock than their rate
        self._clock = FrameClock(rate) if coarse else None
        context.time_base = source.stream.time_base if source and not self._clock else 1 / rate
        if codec == "mpeg4" and context.time_base.denominator > 65_535:  # the format holds no finer clock
            context.time_base = context.time_base.limit_denominator(65_535)
        stream.time_base = context.time_base
        if not self._rgb:
            context.color_range = FULL if info.full_range else LIMITED
            context.colorspace = _COLORSPACE[info.matrix]
        if source:
            context.color_primaries = source.stream.codec_context.color_primaries
            context.color_trc = source.stream.codec_context.color_trc
            self._container.metadata.update(source.container.metadata)
            stream.metadata.update({k: v for k, v in source.stream.metadata.items() if k != "rotate"})
        return stream

    def _add_passed(self, source: AvReader | None, say: Callable[[str], None]) -> dict[int, Any]:
        """Return the streams to be copied, by the index of the source's. Audio is never lost without a word."""
        passed = {}
        for stream in source.passed if source else ():
            codec = stream.codec_context.codec.canonical_name if stream.codec_context else stream.type
            if stream.codec_context and holds(self._container, codec, stream.codec_context.codec.name):
                passed[stream.index] = self._container.add_stream_from_template(stream)
                passed[stream.index].metadata.update(stream.metadata)
            elif stream.type == "audio":
                why = f"its audio ({codec}) cannot be stored in {self._target.suffix}"
                raise DarsrError(str(self._target), why, "write .mkv with -o")
            else:
                say(f"{self._target}: a subtitle track ({codec}) cannot be stored in it and is left out")
        return passed

    def _add_extras(self, source: AvReader) -> list[str]:
        """Copy chapters, covers and attachments where the container holds them; return what is left out."""
        name, left = self._container.format.name, []
        if chapters := source.container.chapters():
            if name in WITH_CHAPTERS:
                self._container.set_chapters(chapters)
            else:
                left.append(f"{len(chapters)} chapters")
        for cover in source.covers:
            if name in WITH_COVERS:
                self._passed[cover.index] = stream = self._container.add_stream_from_template(cover, opaque=True)
                stream.disposition = self._library.stream.Disposition.attached_pic
            elif name in WITH_ATTACHMENTS:
                codec = cover.codec_context.codec.canonical_name
                kind = {"mjpeg": "jpeg"}.get(codec, codec)
                self._container.add_attachment(f"cover.{kind}", f"image/{kind}", source.read_cover(cover))
            else:
                left.append("a cover picture")
        for attached in (s for s in source.container.streams if s.type == "attachment"):
            if name in WITH_ATTACHMENTS:
                self._container.add_stream_from_template(attached)
            else:
                left.append(f"the attachment {attached.metadata.get('filename', attached.index)}")
        left += [f"the video stream {stream.index}" for stream in source.further]
        if source.dynamic_hdr or (any(source.hdr) and not self._hdr):
            left.append("HDR metadata" if not self._hdr else "dynamic HDR metadata")
        return left

    def _pass_on(self, packet: Any) -> None:
        if (stream := self._passed.get(packet.stream.index)) is None:
            return
        if packet.stream.type == "audio":  # muxers refuse a time that does not grow
            least = self._last.get(stream.index, packet.dts - 1) + 1
            packet.dts = self._last[stream.index] = max(packet.dts, least)
            packet.pts = None if packet.pts is None else max(packet.pts, packet.dts)
        packet.stream = stream
        self._container.mux(packet)

    @contextlib.contextmanager
    def _one_line(self) -> Iterator[None]:
        try:
            yield
        except (self._library.error.FFmpegError, ValueError) as error:  # ValueError: what PyAV refuses by itself
            why = f"could not be written ({getattr(error, 'strerror', None) or error})"
            full = getattr(error, "errno", None) in _NO_ROOM
            hint = "free some space or choose another place" if full else "choose another format, such as -o FILE.mkv"
            raise DarsrError(str(self._target), why, hint) from error
