"""A clip that was cut off is said so, and its frames never get the name of a result."""

from __future__ import annotations

import pytest

from darsr_deploy.errors import DarsrError
from darsr_deploy.video import open_video
from darsr_deploy.video.truncation import find_cut
from tests.support.clips import av, pictures, read, run, write_clip

MUXERS = {".mkv": {}, ".webm": {}, ".avi": {}, ".mov": {"movflags": "faststart"}, ".mp4": {"movflags": "faststart"}}


def clip_of(tmp_path, suffix, count=24):
    codec = "libvpx-vp9" if suffix == ".webm" else "libx264"
    return write_clip(tmp_path / f"clip{suffix}", pictures(count), codec, audio=suffix != ".webm", muxer=MUXERS[suffix])


def cut(path, share=0.6):
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])


@pytest.mark.parametrize("suffix", MUXERS)
def test_what_is_there_is_kept_apart(suffix, tmp_path):
    clip = clip_of(tmp_path, suffix)
    assert find_cut(clip) is None
    cut(clip)
    with pytest.raises(
        DarsrError, match=r"is cut off: it has \d+ of \d+ bytes; (\d+) frames are there, kept in"
    ) as caught:
        run(clip)
    assert f"clip_x2.incomplete{suffix}" in str(caught.value)
    assert {p.name for p in tmp_path.iterdir()} == {clip.name, f"clip_x2.incomplete{suffix}"}
    frames = len(read(tmp_path / f"clip_x2.incomplete{suffix}"))
    assert 0 < frames < 24 and f"; {frames} frames are there" in str(caught.value)


def test_an_older_incomplete_file_stays(tmp_path):
    clip = clip_of(tmp_path, ".mkv")
    cut(clip)
    (tmp_path / "clip_x2.incomplete.mkv").write_bytes(b"old")
    with pytest.raises(DarsrError, match=r"clip_x2\.incomplete2\.mkv"):
        run(clip)
    assert (tmp_path / "clip_x2.incomplete.mkv").read_bytes() == b"old"


def test_opencv_says_it_too(tmp_path, monkeypatch):
    clip = clip_of(tmp_path, ".mp4")
    cut(clip)
    monkeypatch.setattr(open_video, "has_pyav", lambda: False)
    with pytest.raises(DarsrError, match="is cut off: it has"):
        run(clip)
    assert not (tmp_path / "clip_x2.mp4").exists()


def test_damage_in_the_middle_loses_frames_not_the_run(tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", pictures(24), gop_size=1)
    data = bytearray(clip.read_bytes())
    with av.open(str(clip)) as container:
        places = [packet.pos for packet in container.demux(video=0) if packet.size]
    data[places[12] : places[12] + 40] = bytes([255]) * 40
    clip.write_bytes(data)
    with pytest.raises(DarsrError, match="1 of its packets are damaged; 23 frames are there"):
        run(clip)
    assert len(read(tmp_path / "clip_x2.incomplete.mp4")) == 23
    assert not (tmp_path / "clip_x2.mp4").exists()


@pytest.mark.parametrize(
    "data", [b"", b"RIFF", b"\x1a\x45\xdf\xa3", b"\x1a\x45\xdf\xa3\x80\x18\x53\x80\x67\x01" + b"\xff" * 7]
)
def test_what_tells_no_size_is_not_cut(data, tmp_path):
    (tmp_path / "a").write_bytes(data)
    assert find_cut(tmp_path / "a") is None
