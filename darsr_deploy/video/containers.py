"""What video containers can hold, and how each codec is written."""

from __future__ import annotations

import struct
from fractions import Fraction
from typing import Any

from .frames import VideoInfo

# The same codec where it can be written; nearly lossless where it is lossy: a result is not the place to save bits.
_ENCODERS: dict[str, tuple[str, dict[str, str]]] = {
    "h264": ("libx264", {"crf": "16"}),
    "hevc": ("libx265", {"crf": "18", "x265-params": "log-level=none"}),
    "vp9": ("libvpx-vp9", {"crf": "18", "b": "0", "row-mt": "1", "cpu-used": "4"}),
    "av1": ("libsvtav1", {"crf": "20"}),
    "ffv1": ("ffv1", {"level": "3"}),
    "mjpeg": ("mjpeg", {"qmin": "1", "qmax": "2"}),
    "prores": ("prores_ks", {"profile": "hq"}),
    "mpeg4": ("mpeg4", {"qmin": "1", "qmax": "2"}),
    "mpeg2video": ("mpeg2video", {"qmin": "1", "qmax": "2"}),  # only where nothing better can be held
}
_WRITTEN_AS = {"vp8": "vp9"} | dict.fromkeys(("huffyuv", "ffvhuff", "utvideo", "rawvideo", "png", "qtrle"), "ffv1")
FORMATS = {".qt": "mov", ".mpg": "vob", ".mpeg": "vob", ".vob": "vob"}  # where FFmpeg's own guess is none or worse
_WITHOUT_B_FRAMES = ("avi", "asf")  # they store no time of showing: frames must come in that order
# What muxers hold that do not answer FFmpeg's question.
_PROGRAM_STREAM = {"mpeg2video", "mpeg1video", "mp2", "mp3", "ac3", "dts", "pcm_dvd", "dvd_subtitle"}
_HELD = {
    "mpegts": _PROGRAM_STREAM - {"pcm_dvd", "dvd_subtitle"}
    | {"h264", "hevc", "mpeg4", "aac", "aac_latm", "eac3", "opus", "dvb_subtitle", "dvb_teletext", "hdmv_pgs_subtitle"},
    "vob": _PROGRAM_STREAM,
}
WITH_CHAPTERS = ("mp4", "mov", "ipod", "matroska", "webm")
WITH_COVERS = ("mp4",)
WITH_ATTACHMENTS = ("matroska",)
_MPEG2_RATES = [Fraction(r) for r in (24, 25, 30, 50, 60)] + [Fraction(r * 1000, 1001) for r in (24, 30, 60)]


def holds(container: Any, *names: str) -> bool:
    """Return whether an output container of PyAV can hold a codec, by any of its names."""
    return not {*container.supported_codecs, *_HELD.get(container.format.name, ())}.isdisjoint(names)


def choose_encoder(container: Any, wanted: str, rate: Fraction) -> tuple[str, str, dict[str, str]] | None:
    """Return a codec, its encoder and the encoder's options; None where the container holds none that can be written.

    Args:
        container: of PyAV, open for writing.
        wanted: the codec of the source.
    """
    import av

    own = () if wanted == "mpeg2video" else (_WRITTEN_AS.get(wanted, wanted),)
    for codec in (*own, "h264", container.default_video_codec, "mpeg4"):
        encoder, options = _ENCODERS.get(codec, ("", {}))
        if encoder not in av.codecs_available or not holds(container, codec):
            continue
        if codec == "mpeg2video" and rate not in _MPEG2_RATES:
            continue
        if container.format.name in _WITHOUT_B_FRAMES and codec in ("h264", "hevc"):
            params = options.get("x265-params")
            options = options | ({"x265-params": f"{params}:bframes=0"} if params else {"bf": "0"})
        return codec, encoder, options
    return None


def choose_pixel_format(codec: Any, own: str | None, info: VideoInfo) -> str:
    """Return the source's ``own`` pixel format, or the nearest that the encoder takes."""
    known = [f.name for f in codec.video_formats or ()]
    deep = "10le" if info.bits == 16 else ""
    layout = info.layout[:3] if info.layout.startswith("4") else info.layout  # without where chroma lies
    layouts = {"gray": ["gray"], "rgb": [f"gbrp{deep}", "bgr0", f"yuv444p{deep}"]}.get(layout, [])
    layouts += [f"yuv{layout}p{deep}", f"yuv420p{deep}", f"yuv422p{deep}", "yuv420p", "yuvj420p"]
    own = own or ""
    own = own if codec.name == "mjpeg" else own.replace("yuvj", "yuv")  # the range is told by the stream
    return next((f for f in (own, *layouts) if f in known), "yuv420p")


def describe_hdr(encoder: str, mastering: bytes | None, light: bytes | None) -> dict[str, str]:
    """Return the encoder's options for the static metadata of HDR10; none where it takes none.

    Args:
        mastering: FFmpeg's AVMasteringDisplayMetadata: red, green, blue and white (x, y), least and greatest luminance.
        light: FFmpeg's AVContentLightMetadata: the greatest levels of a pixel and of a frame's mean, in cd/m2.
    """
    names = {"libx265": ("master-display", "max-cll"), "libx264": ("mastering-display", "cll")}.get(encoder)
    if not names:
        return {}
    found = []
    if mastering:
        *numbers, has_primaries, has_luminance = struct.unpack("22i", mastering[:88])
        values = [Fraction(n, d) if d else Fraction(0) for n, d in zip(numbers[::2], numbers[1::2])]
        if has_primaries and has_luminance:
            red, green, blue, white = ([round(v * 50_000) for v in values[i : i + 2]] for i in (0, 2, 4, 6))
            least, most = (round(v * 10_000) for v in values[8:])
            points = "".join(f"{n}({x},{y})" for n, (x, y) in zip(("G", "B", "R", "WP"), (green, blue, red, white)))
            found.append(f"{names[0]}={points}L({most},{least})")
    if light:
        found.append("{}={},{}".format(names[1], *struct.unpack("2I", light[:8])))
    return {f"{encoder[3:]}-params": ":".join(found)} if found else {}
