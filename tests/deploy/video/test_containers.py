"""Every suffix that is written can be read again, is known for a video by its content, and the rest says the way out."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from darsr_deploy.engines.upscale import upscale
from darsr_deploy.errors import DarsrError
from darsr_deploy.files.kinds import recognised
from darsr_deploy.video.frames import SUFFIXES, WRITTEN, is_video, result_suffix
from tests.support.clips import Bicubic, pictures, read, run, write_clip


@pytest.mark.parametrize("suffix", WRITTEN)
def test_what_is_written_can_be_read_again(suffix, tmp_path):
    frames = pictures(12, 64, 96)
    clip = write_clip(tmp_path / "clip.mp4", frames, space=6)
    out = tmp_path / f"out{suffix}"
    assert run(clip, out)["said"] == []
    assert recognised(out) == "video" and is_video(out)
    result = read(out)
    assert len(result) == 12
    for ours, image in zip(result, frames):
        assert np.abs(ours.pixels.astype(int) - upscale(Bicubic(), image)).mean() < 6
    times = [frame.pts * frame.time_base for frame in result]
    assert all(abs(b - a - Fraction(1, 24)) < Fraction(1, 500) for a, b in zip(times, times[1:]))
    again = run(out)
    assert again["frames"] == 12 and again["output"] == str(tmp_path / f"out_x2{suffix}")


@pytest.mark.parametrize("name", ["clip", "clip.xyz", "clip.MXF"])
def test_another_suffix_or_none_becomes_matroska(name, tmp_path):
    clip = write_clip(tmp_path / "a.mp4", pictures(3), audio=True).rename(tmp_path / name)
    row = run(clip)
    assert row["output"] == str(tmp_path / "clip_x2.mkv") and len(read(tmp_path / "clip_x2.mkv")) == 3


@pytest.mark.parametrize("suffix", [".ts", ".mts", ".m2ts"])
def test_a_transport_stream_keeps_its_sound(suffix, tmp_path):
    from tests.support.clips import audio_packets

    clip = write_clip(tmp_path / f"clip{suffix}", pictures(12), audio=True)
    run(clip)
    sound = [data for data, *_ in audio_packets(clip)]
    assert sound and [data for data, *_ in audio_packets(tmp_path / f"clip_x2{suffix}")] == sound


def test_a_rate_that_mpeg2_lacks_says_the_way_out(tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", pictures(3), times=[0, 47, 94])
    with pytest.raises(
        DarsrError, match=r"\.mpg holds no codec that can be written; write \.mp4 or \.mkv: -o out\.mp4"
    ):
        run(clip, tmp_path / "out.mpg")


def test_suffixes_of_results():
    assert all(result_suffix(clip) == clip.suffix for clip in map(_named, WRITTEN))
    assert {result_suffix(_named(suffix)) for suffix in {*SUFFIXES} - {*WRITTEN}} == {".mkv"}


def _named(suffix):
    from pathlib import Path

    return Path(f"clip{suffix}")
