"""What of a picture is looked at: not what somebody put around it."""

from __future__ import annotations

import numpy as np
import pytest

from darsr_deploy.blind.analysis import analysis_windows, trim_borders


@pytest.fixture(scope="module")
def scene() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)


@pytest.mark.parametrize("width", [1, 2, 9])
@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_frame_is_cut_off(scene, width, level):
    framed = np.pad(scene, ((width, width), (width, width), (0, 0)), constant_values=level)
    inner = trim_borders(framed)
    assert np.array_equal(inner, scene[2:-2, 2:-2])


@pytest.mark.parametrize("where", [(20, 0, 0, 0), (0, 20, 0, 0), (0, 0, 30, 30)])
def test_bars_are_cut_off_at_their_side_alone(scene, where):
    top, bottom, left, right = where
    barred = np.pad(scene, ((top, bottom), (left, right), (0, 0)))
    height = scene.shape[0] - 2 * bool(top) - 2 * bool(bottom)
    width = scene.shape[1] - 2 * bool(left) - 2 * bool(right)
    assert trim_borders(barred).shape == (height, width, 3)


def test_a_caption_in_a_bar_does_not_keep_it(scene):
    barred = np.pad(scene, ((0, 24), (0, 0), (0, 0)))
    barred[100:104, 50:52] = 255
    assert trim_borders(barred).shape[0] <= 104


def test_pictures_without_borders_and_flat_ones_stay_whole(scene):
    assert np.array_equal(trim_borders(scene), scene)
    flat = np.full((50, 60), 7, np.uint8)
    assert np.array_equal(trim_borders(flat), flat)


def test_a_large_picture_is_looked_at_where_it_has_detail():
    picture = np.full((1500, 2000, 3), 90, np.uint8)
    picture[700:1200, 1200:1800] = np.random.default_rng(1).integers(0, 256, (500, 600, 3))
    windows = analysis_windows(picture)
    assert len(windows) == 3 and all(w.shape == (384, 384, 3) for w in windows)
    assert windows[0].std() > 50


def test_a_small_picture_is_looked_at_whole(scene):
    (window,) = analysis_windows(scene)
    assert np.array_equal(window, scene)


def test_gray_and_even_large_pictures_are_looked_at():
    assert len(analysis_windows(np.zeros((700, 900), np.uint8))) == 3
