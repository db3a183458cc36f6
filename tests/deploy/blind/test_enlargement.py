"""Pictures that were enlarged before, and those that were not."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from darsr_deploy.blind.enlargement import estimate_enlargement
from darsr_deploy.images.resample import imresize

FILTERS = {"linear": cv2.INTER_LINEAR, "cubic": cv2.INTER_CUBIC, "lanczos": cv2.INTER_LANCZOS4}


@pytest.fixture(scope="module")
def scene() -> np.ndarray:
    data = pytest.importorskip("skimage.data")
    return cv2.resize(data.astronaut(), (256, 256), interpolation=cv2.INTER_AREA)


def enlarged(scene: np.ndarray, factor: float, name: str) -> np.ndarray:
    size = tuple(round(side / factor) for side in scene.shape[1::-1])
    small = cv2.resize(scene, size, interpolation=cv2.INTER_AREA)
    return cv2.resize(small, scene.shape[1::-1], interpolation=FILTERS[name])


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("factor", [1.5, 2.0, 3.0])
def test_an_enlarged_picture_is_recognised(scene, factor, name):
    assert estimate_enlargement(enlarged(scene, factor, name)) > 1.2


@pytest.mark.parametrize("factor", [1.5, 3.0])
def test_the_rhythm_tells_the_factor(scene, factor):
    assert abs(estimate_enlargement(enlarged(scene, factor, "linear")) - factor) < 0.1


@pytest.mark.parametrize("sigma", [0, 0.5, 0.8, 1.1])
def test_a_blurred_picture_was_not_enlarged(scene, sigma):
    picture = cv2.GaussianBlur(scene, (0, 0), sigma) if sigma else scene
    assert estimate_enlargement(picture) == 1


@pytest.mark.parametrize("sigma", [1.2, 1.4, 1.6, 1.8, 2.0, 2.4])
@pytest.mark.parametrize("place", [(20, 0), (28, 16), (68, 0), (36, 96), (92, 128)])
def test_nor_was_one_that_a_soft_lens_formed(place, sigma):
    """An even Gaussian empties the upper band too, but not as steeply as interpolation does."""
    photo = pytest.importorskip("skimage.data").astronaut()[place[0] :, place[1] :]
    blurred = cv2.GaussianBlur(photo[:240, :320], (0, 0), sigma)
    assert estimate_enlargement(imresize(blurred, 120, 160)) == 1


@pytest.mark.parametrize("quality", [40, 75, 90])
def test_nor_was_one_with_blocks(scene, quality):
    _, data = cv2.imencode(".jpg", scene, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert estimate_enlargement(cv2.imdecode(data, cv2.IMREAD_COLOR)) == 1


def test_small_and_even_pictures_say_nothing():
    assert estimate_enlargement(np.zeros((40, 200, 3), np.uint8)) == 1
    assert estimate_enlargement(np.full((100, 100), 9, np.uint8)) == 1
