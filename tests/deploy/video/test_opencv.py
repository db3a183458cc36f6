"""Without PyAV: colours stay, and what OpenCV would change without a word is refused."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from darsr_deploy.errors import DarsrError
from darsr_deploy.video import open_video, yuv
from tests.support.clips import pictures, read, run, write_clip


@pytest.fixture
def without_pyav(monkeypatch):
    monkeypatch.setattr(open_video, "has_pyav", lambda: False)


@pytest.mark.parametrize(
    "pixel_format, codec, changes, why",
    [
        ("yuv420p", "libx264", {"sample_aspect_ratio": Fraction(32, 27)}, "has pixels of 32:27"),
        (
            "yuv420p10le",
            "libx265",
            {"options": {"x265-params": "log-level=none"}, "color_trc": 16},
            "has more than 8 bits",
        ),
        ("yuv444p10le", "ffv1", {}, "has more than 8 bits"),
        ("gray10le", "ffv1", {}, "has more than 8 bits"),
        ("gbrp10le", "ffv1", {}, "has more than 8 bits"),
    ],
)
def test_what_opencv_cannot_keep_is_refused(pixel_format, codec, changes, why, tmp_path, without_pyav):
    clip = write_clip(tmp_path / "clip.mkv", pictures(2, 64, 64), codec, pixel_format, **changes)
    with pytest.raises(DarsrError, match=rf"clip\.mkv: {why}.*which OpenCV cannot keep; install PyAV: .*av>="):
        run(clip)
    assert [p.name for p in tmp_path.iterdir()] == ["clip.mkv"]


@pytest.mark.parametrize("size", [(64, 96), (360, 640)])  # the second becomes BT.709 by its size
@pytest.mark.parametrize("colour", [(128, 128, 128), (40, 40, 40), (220, 220, 220), (170, 70, 90), (60, 150, 80)])
def test_colours_stay(colour, size, tmp_path, without_pyav, monkeypatch):
    clip = write_clip(tmp_path / "clip.mp4", [np.full((*size, 3), colour, np.uint8)] * 3, space=6)
    run(clip)
    monkeypatch.undo()
    for path in (clip, tmp_path / "clip_x2.mp4"):  # as a player would show them
        mean = read(path)[0].pixels.mean((0, 1))
        assert np.abs(mean - colour).max() <= 2, (path.name, mean)


@pytest.mark.parametrize("colour", [(170, 70, 90), (60, 150, 80)])
def test_the_matrix_that_a_large_video_names(colour, tmp_path, without_pyav):
    path = write_clip(tmp_path / "clip.mp4", [np.full((720, 1280, 3), colour, np.uint8)] * 2, space=1)
    assert np.abs(read(path)[0].pixels.mean((0, 1)) - colour).max() <= 4


def test_changing_the_matrix_there_and_back():
    assert yuv.change_matrix("bt601", "bt601") is None
    there, back = yuv.change_matrix("bt601", "bt709"), yuv.change_matrix("bt709", "bt601")
    assert np.allclose(there @ back, np.eye(3)) and np.allclose(there @ [9, 9, 9], [9, 9, 9])
    planes = yuv.from_rgb(np.full((2, 2, 3), (150, 80, 100), np.uint8), "444", "bt709", False)
    wrong = yuv.to_rgb(planes, "444", "bt601", False)[0, 0]
    assert np.abs(there @ wrong - (150, 80, 100)).max() < 2
