"""A camera's treatment, and the detector of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from skimage import data

from darsr_deploy.blind import camera_traces as traces
from darsr_deploy.blind.mlp import evaluate
from darsr_deploy.degradation import kernels
from darsr_deploy.images.resample import imresize, to_uint8
from darsr_train.degradation.camera import Camera, through_jpeg
from darsr_train.degradation.reduction import reduce
from darsr_train.networks.mlp import fit

NOTHING = Camera(zoom=1.0, noise=0.0, grain=0.0, denoising=0.0, chroma=0.0, sharpening=0.0, radius=1.0, jpeg=None)


def picture() -> np.ndarray:
    return data.chelsea()[40:240, 100:300].astype(np.float32) / 255


def developed(camera: Camera, image: np.ndarray | None = None) -> np.ndarray:
    return camera.develop(picture() if image is None else image, np.random.default_rng(0))


def test_a_camera_that_does_nothing_returns_the_image():
    np.testing.assert_allclose(developed(NOTHING), picture(), atol=1e-6)


@pytest.mark.parametrize("grain", [0.0, 0.8])
def test_noise_has_the_deviation_asked_for_at_full_brightness_and_less_in_the_dark(grain):
    camera = replace(NOTHING, noise=5.0, grain=grain)
    deviations = [255 * developed(camera, np.full((200, 200, 3), level, np.float32)).std() for level in (0.9, 0.2)]
    assert deviations[0] == pytest.approx(5 * np.sqrt(0.2 + 0.8 * 0.9), rel=0.1)
    assert deviations[1] == pytest.approx(5 * np.sqrt(0.2 + 0.8 * 0.2), rel=0.1)


def test_every_treatment_changes_the_image_in_its_own_direction():
    detail = lambda image: np.abs(np.diff(image, axis=1)).mean()  # noqa: E731
    plain = detail(picture())
    assert detail(developed(replace(NOTHING, sharpening=0.8))) > 1.1 * plain
    assert detail(developed(replace(NOTHING, zoom=1.6))) < 0.95 * plain
    assert detail(developed(replace(NOTHING, denoising=20.0))) < 0.95 * plain
    colours = developed(replace(NOTHING, chroma=2.0)) - picture()
    assert np.abs(colours).max() > 5 / 255 and np.abs(colours @ [0.299, 0.587, 0.114]).mean() < 1 / 255
    jpeg = developed(replace(NOTHING, jpeg=70))
    assert np.array_equal(to_uint8(jpeg * 255), through_jpeg(to_uint8(picture() * 255), 70))


def test_the_same_draw_gives_the_same_camera():
    assert Camera.draw(np.random.default_rng(3)) == Camera.draw(np.random.default_rng(3))


def test_the_detector_tells_blur_from_a_camera():
    """On a photograph that it was not trained on: blur alone is blur, and what cameras do on top is seen."""
    x = torch.from_numpy(data.chelsea()[:300, :440].transpose(2, 0, 1)[None].astype(np.float32))
    blurred = reduce(x, torch.from_numpy(kernels.gaussian(14, 1.6, 1.2, 0.4)).float(), 2)[0].permute(1, 2, 0).numpy()
    clean = traces.log_odds(to_uint8(blurred))
    treated = [
        traces.log_odds(to_uint8(developed(replace(NOTHING, **change), blurred / 255) * 255))
        for change in ({"noise": 4.0}, {"sharpening": 1.0, "jpeg": 80, "noise": 1.0}, {"zoom": 1.5, "noise": 2.0})
    ]
    assert clean < 0 < min(treated), (clean, treated)


@pytest.mark.parametrize("shape", [(32, 32), (127, 300), (129, 40), (400, 260)])
def test_tiles_cover_an_image_from_end_to_end(shape):
    for side in shape:
        starts = traces._starts(side)
        assert starts[0] == 0 and starts[-1] == max(0, side - traces.TILE)
        assert all(b - a <= 1.5 * traces.TILE for a, b in zip(starts, starts[1:]))
    assert np.isfinite(traces.log_odds(np.zeros((*shape, 3), np.uint8)))


def test_gray_is_treated_as_three_equal_colours():
    gray = imresize(data.camera(), 120, 130)
    assert traces.log_odds(gray) == traces.log_odds(np.repeat(gray[:, :, None], 3, axis=2))


def test_a_small_network_learns_a_curve_and_runs_without_torch():
    x = np.random.default_rng(0).uniform(-2, 2, (300, 2))
    y = np.stack([np.tanh(3 * x[:, 0]), x[:, 0] - 2 * x[:, 1]], axis=1)
    weights = fit(x, y, lambda a, b: (a - b).abs().mean(), hidden=8, steps=1200, decay=0.0)
    assert np.abs(evaluate(weights, x) - y).mean() < 0.1 < np.abs(y - y.mean(0)).mean()
    assert all(isinstance(part, np.ndarray) for part in weights.values())
