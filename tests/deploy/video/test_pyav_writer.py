"""What lies beside the pictures is copied, or said in one line."""

from __future__ import annotations

import struct
from fractions import Fraction

import numpy as np
import pytest

from darsr_deploy.video.containers import describe_hdr
from tests.support.clips import av, pictures, read, run, write_clip

CHAPTERS = [
    {"id": i + 1, "start": 500 * i, "end": 500 * (i + 1), "time_base": Fraction(1, 1000), "metadata": {"title": name}}
    for i, name in enumerate(("One", "Two"))
]
COVER = pictures(1, 16, 16)[0]


def png() -> bytes:
    import cv2

    return cv2.imencode(".png", COVER)[1].tobytes()


def furnished(tmp_path, suffix):
    """Write a clip with two chapters, a cover, and in Matroska a font."""
    plain = write_clip(tmp_path / f"plain{suffix}", pictures(24), audio=True)
    path = tmp_path / f"clip{suffix}"
    with av.open(str(plain)) as source, av.open(str(path), "w") as container:
        streams = {s.index: container.add_stream_from_template(s) for s in source.streams}
        container.set_chapters(CHAPTERS)
        cover = None
        if suffix == ".mkv":
            container.add_attachment("font.ttf", "application/x-truetype-font", b"letters")
            container.add_attachment("cover.png", "image/png", png())
        else:
            cover = container.add_stream("png")
            cover.width, cover.height, cover.pix_fmt = 16, 16, "rgb24"
            cover.disposition = av.stream.Disposition.attached_pic
            picture = av.VideoFrame.from_ndarray(COVER, format="rgb24")
            picture.pts, picture.time_base = 0, Fraction(1, 24)
            container.mux(cover.encode(picture))
            container.mux(cover.encode(None))
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                container.mux(packet)
    return path


def found(path):
    with av.open(str(path)) as container:
        chapters = [(c["start"] * c["time_base"], c["metadata"].get("title")) for c in container.chapters()]
        covers = [s for s in container.streams.video if s.disposition & av.stream.Disposition.attached_pic]
        fonts = [(s.metadata["filename"], s.data) for s in container.streams if s.type == "attachment"]
        pictures_of = [next(container.decode(cover)).to_ndarray(format="rgb24") for cover in covers[:1]]
    return chapters, pictures_of, fonts


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("target", [".mp4", ".mkv"])
def test_chapters_covers_and_fonts(suffix, target, tmp_path):
    clip = furnished(tmp_path, suffix)
    row = run(clip, tmp_path / f"out{target}")
    chapters, covers, fonts = found(tmp_path / f"out{target}")
    assert chapters == [(0, "One"), (Fraction(1, 2), "Two")]
    assert len(covers) == 1 and np.array_equal(covers[0], found(clip)[1][0])
    if suffix == ".mkv" and target == ".mkv":
        assert fonts == [("font.ttf", b"letters")]
    assert row["said"] == (
        [f"{tmp_path / 'out.mp4'}: left out: the attachment font.ttf"] if (suffix, target) == (".mkv", ".mp4") else []
    )
    assert len(read(tmp_path / f"out{target}")) == 24


@pytest.mark.parametrize("target", [".mov", ".m4v"])
def test_chapters_without_the_cover(target, tmp_path):
    row = run(furnished(tmp_path, ".mp4"), tmp_path / f"out{target}")
    assert row["said"] == [f"{tmp_path / 'out'}{target}: left out: a cover picture"]
    assert len(found(tmp_path / f"out{target}")[0]) == 2


def test_what_a_container_cannot_hold_is_one_line(tmp_path):
    row = run(furnished(tmp_path, ".mkv"), tmp_path / "out.ts")
    assert row["said"] == [f"{tmp_path / 'out.ts'}: left out: 2 chapters, a cover picture, the attachment font.ttf"]


def test_further_video_streams_are_said(tmp_path):
    with av.open(str(tmp_path / "clip.mkv"), "w") as container:
        streams = [container.add_stream("ffv1", rate=24) for _ in range(2)]
        for stream in streams:
            stream.width, stream.height, stream.pix_fmt = 48, 36, "bgr0"
        for index, pixels in enumerate(pictures(3)):
            for stream in streams:
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                frame.pts, frame.time_base = index, Fraction(1, 24)
                container.mux(stream.encode(frame))
        for stream in streams:
            container.mux(stream.encode(None))
    assert run(tmp_path / "clip.mkv")["said"] == [f"{tmp_path / 'clip_x2.mkv'}: left out: the video stream 1"]


HDR = "master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50):max-cll=1000,400"


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_the_metadata_of_hdr10(suffix, tmp_path):
    clip = write_clip(
        tmp_path / f"clip{suffix}",
        pictures(3, 64, 64),
        "libx265",
        "yuv420p10le",
        options={"x265-params": f"log-level=none:{HDR}"},
        color_trc=16,
        color_primaries=9,
    )
    assert run(clip)["said"] == []
    with av.open(str(clip)) as one, av.open(str(tmp_path / f"clip_x2{suffix}")) as other:
        given, result = (
            {d.type.name: bytes(d) for d in next(c.decode(video=0)).side_data if "L" in d.type.name}
            for c in (one, other)
        )
        assert other.streams.video[0].codec_context.color_trc == 16
    for name in ("MASTERING_DISPLAY_METADATA", "CONTENT_LIGHT_LEVEL"):
        assert given[name] and describe_hdr("libx265", *_hdr(given)) == describe_hdr("libx265", *_hdr(result))
    assert describe_hdr("libx265", *_hdr(given)) == {"x265-params": HDR}
    row = run(clip, tmp_path / "out.mov")
    assert row["said"] == []


def _hdr(kinds):
    return kinds.get("MASTERING_DISPLAY_METADATA"), kinds.get("CONTENT_LIGHT_LEVEL")


def test_an_encoder_without_hdr_metadata_has_no_options():
    assert describe_hdr("ffv1", None, struct.pack("2I", 1000, 400)) == {}
