"""The quality that decoded pixels were compressed with."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from darsr_deploy.blind.compression import estimate_quality, grid_origin, quantisation_table


@pytest.fixture(scope="module")
def scene() -> np.ndarray:
    data = pytest.importorskip("skimage.data")
    return cv2.GaussianBlur(data.astronaut()[60:260, 100:360], (0, 0), 0.7)


def through_jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    _, data = cv2.imencode(".jpg", pixels[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.ascontiguousarray(cv2.imdecode(data, cv2.IMREAD_COLOR)[:, :, ::-1])


@pytest.mark.parametrize("quality", [30, 50, 65, 75, 85])
def test_quality_is_found_to_a_step_or_two(scene, quality):
    assert abs(estimate_quality(through_jpeg(scene, quality)) - quality) <= 2


@pytest.mark.parametrize("origin", [(0, 0), (3, 0), (5, 6)])
def test_the_grid_may_begin_anywhere(scene, origin):
    decoded = through_jpeg(scene, 60)
    top, left = ((8 - start) % 8 for start in origin)
    assert abs(estimate_quality(decoded[top:, left:]) - 60) <= 2


def test_origin_of_strong_blocks(scene):
    luma = through_jpeg(scene, 20).mean(2)
    assert grid_origin(luma[3:, 6:]) == (5, 2)


def test_what_was_never_compressed_has_no_quality(scene):
    assert estimate_quality(scene) is None
    assert estimate_quality(scene[:, :, 0]) is None
    noisy = scene + np.random.default_rng(0).normal(0, 8, scene.shape)
    assert estimate_quality(noisy.clip(0, 255).astype(np.uint8)) is None
    assert estimate_quality(np.full((64, 64, 3), 77, np.uint8)) is None


def test_gray_pictures_are_judged_too(scene):
    assert abs(estimate_quality(through_jpeg(scene, 55).mean(2).round().astype(np.uint8)) - 55) <= 2


def test_tables_are_libjpegs():
    assert quantisation_table(50)[0].tolist() == [16, 11, 10, 16, 24, 40, 51, 61]
    assert quantisation_table(75)[0].tolist() == [8, 6, 5, 8, 12, 20, 26, 31]
    assert quantisation_table(25)[0, :3].tolist() == [32, 22, 20]
