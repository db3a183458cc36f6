"""Times that go back, jump or are missing: every frame still comes at its time, and nothing ends the run."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from darsr_deploy.errors import DarsrError
from tests.support.clips import audio_packets, av, pictures, read, run, write_clip

STEP = Fraction(1, 24)
B_FRAMES = {"bf": "3", "x264-params": "b-adapt=0"}


def times(path):
    return [frame.pts * frame.time_base for frame in read(path)]


def assert_even(found, count, tolerance=Fraction(1, 500)):
    assert len(found) == count
    assert all(abs(after - before - STEP) <= tolerance for before, after in zip(found, found[1:])), found


@pytest.mark.parametrize("suffix", [".avi", ".asf", ".wmv"])
@pytest.mark.parametrize("audio", [False, True])
def test_b_frames_where_only_the_time_of_decoding_is_stored(suffix, audio, tmp_path):
    frames = pictures(24)
    clip = write_clip(
        tmp_path / f"clip{suffix}", frames, audio=audio, base=STEP, times=list(range(24)), options=B_FRAMES
    )
    assert run(clip)["frames"] == 24
    assert_even(times(clip)[2:], 22)
    result = read(tmp_path / f"clip_x2{suffix}")
    assert_even([f.pts * f.time_base for f in result][2:], 22)
    for before, after in zip(frames, result):  # in the order in which they are shown
        assert np.abs(after.pixels[::2, ::2].astype(int) - before).mean() < 12
    with av.open(str(tmp_path / f"clip_x2{suffix}")) as container:
        assert not any(frame.pict_type == av.video.frame.PictureType.B for frame in container.decode(video=0))


@pytest.mark.parametrize("audio", [False, True])
def test_two_recordings_joined(audio, tmp_path):
    one = write_clip(tmp_path / "one.ts", pictures(24), audio=audio)
    (tmp_path / "clip.ts").write_bytes(one.read_bytes() * 2)
    for target in (None, tmp_path / "out.mp4"):
        row = run(tmp_path / "clip.ts", target)
        found = times(tmp_path / (target or "clip_x2.ts"))
        assert row["frames"] == 48 and len(found) == 48
        gaps = [after - before for before, after in zip(found, found[1:])]
        assert sorted(gaps)[0] > 0.03 and sorted(gaps)[-1] < 0.3  # its sound is longer than its pictures
        if audio:
            starts = [start for _, start, _ in audio_packets(tmp_path / (target or "clip_x2.ts"))]
            assert starts == sorted(starts) and len(starts) == 2 * len(audio_packets(one))


def test_a_restart_far_ahead_leaves_no_gap(tmp_path):
    for name, start in (("one.ts", 0), ("two.ts", 600 * 3600)):
        write_clip(tmp_path / name, pictures(24), times=[start + 25 * i for i in range(24)])
    (tmp_path / "clip.ts").write_bytes((tmp_path / "one.ts").read_bytes() + (tmp_path / "two.ts").read_bytes())
    run(tmp_path / "clip.ts")
    assert_even(times(tmp_path / "clip_x2.ts"), 48, Fraction(1, 10))


def test_without_a_container_the_codec_tells_the_rate(tmp_path):
    clip = write_clip(tmp_path / "clip.m2v", pictures(12), "mpeg2video", base=STEP, times=list(range(12)))
    run(clip)
    assert_even(times(tmp_path / "clip_x2.m2v"), 12)


def test_an_error_of_the_writer_is_not_a_full_disk(tmp_path, monkeypatch):
    from darsr_deploy.video import pyav_writer

    def fail(*_: object) -> None:
        raise av.error.ArgumentError(22, "Invalid argument")

    clip = write_clip(tmp_path / "clip.mkv", pictures(4), audio=True)
    monkeypatch.setattr(pyav_writer.AvWriter, "_pass_on", fail)
    with pytest.raises(DarsrError, match=r"could not be written \(Invalid argument\); choose another format"):
        run(clip)
