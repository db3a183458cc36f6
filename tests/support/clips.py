"""Small clips made by PyAV, and what they become through an engine whose result is known."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from darsr_deploy.files import places
from darsr_deploy.files.model_spec import ModelSpec
from darsr_deploy.images.resample import imresize
from darsr_deploy.video.frames import Frame
from darsr_deploy.video.open_video import open_reader
from export.artefacts.subject import Source
from export.inference.video import VideoOptions, infer_video

av = pytest.importorskip("av", reason="PyAV is the extra video")


class Bicubic:
    """Enlarge bicubically: an engine whose result is known, without a network."""

    spec = ModelSpec(2)
    name = provider = "test"
    closed = False

    def __enter__(self) -> Bicubic:
        return self

    def __exit__(self, *_: object) -> None:
        self.closed = True

    def run(self, lr: np.ndarray) -> np.ndarray:
        image = lr[0].transpose(1, 2, 0)
        return imresize(image, 2 * image.shape[0], 2 * image.shape[1]).transpose(2, 0, 1)[None]


def pictures(count: int, height: int = 36, width: int = 48) -> list[np.ndarray]:
    """Return smooth colours that move."""
    rows, columns = np.mgrid[:height, :width]
    waves = [(rows / 9 + i / 3, columns / 11 - i / 4, (rows + columns) / 15 + i / 5) for i in range(count)]
    return [np.stack([127 + 100 * np.sin(w) for w in three], axis=2).astype(np.uint8) for three in waves]


def write_clip(
    path: Path,
    frames: list[np.ndarray],
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    times: list[int] | None = None,
    base: Fraction = Fraction(1, 600),
    audio: bool = False,
    space: int = 1,
    options: dict[str, str] | None = None,
    muxer: dict[str, str] | None = None,
    matrix: list[int] | None = None,
    **changes: object,
) -> Path:
    """Write a clip of RGB frames; ``times`` in units of ``base``, 24 frames a second by default.

    Args:
        options, muxer: of the encoder and of the container.
        matrix: the nine numbers of a display matrix.
        changes: attributes of the encoder.
    """
    options = ({"crf": "0"} if codec == "libx264" else {}) | (options or {})
    with av.open(str(path), "w", container_options=muxer or {}) as container:
        stream = container.add_stream(codec, rate=24, options=options)
        if matrix:
            stream.set_display_matrix(matrix)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixel_format
        stream.codec_context.time_base = stream.time_base = base
        stream.codec_context.colorspace = space
        for name, value in changes.items():
            setattr(stream.codec_context, name, value)
        sound = container.add_stream("aac", rate=8000, layout="mono") if audio else None
        for index, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            if not pixel_format.startswith(("bgr", "gbr", "gray")):
                sws = {1: 1, 6: 5}[space]
                frame = frame.reformat(format=pixel_format, src_colorspace=sws, dst_colorspace=sws)
            frame.pts, frame.time_base = times[index] if times else 25 * index, base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if sound:
            tone = (np.sin(np.arange(8000) / 5) * 9000).astype(np.int16)[None]
            block = av.AudioFrame.from_ndarray(tone, format="s16", layout="mono")
            block.sample_rate, block.pts = 8000, 0
            container.mux(sound.encode(block))
            container.mux(sound.encode(None))
    return path


def run(clip: Path, out: Path | None = None, overwrite: bool = False, **changes: object) -> dict:
    said: list[str] = []
    options = VideoOptions(lambda _: Bicubic(), Source(scale=2), say=said.append, **changes)
    return infer_video(clip, out, False, places.Targets(overwrite), options) | {"said": said}


def read(path: Path) -> list[Frame]:
    with open_reader(path) as reader:
        return [item for item in reader if isinstance(item, Frame)]


def audio_packets(path: Path) -> list[tuple]:
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        return [
            (bytes(p), p.pts * stream.time_base, p.duration * stream.time_base)
            for p in container.demux(stream)
            if p.dts is not None
        ]
