"""Random blur kernels: non-negative, of sum 1, centred between their two middle taps."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from darsr_deploy.degradation import kernels
from darsr_train.degradation.reduction import reduce

RANDOM = [kernels.random_gaussian, kernels.random_disk, kernels.random_motion, kernels.random_mixture]


def shift(kernel: np.ndarray) -> np.ndarray:
    """Centre of mass less the middle of the grid, in pixels."""
    axis = np.arange(len(kernel)) - (len(kernel) - 1) / 2
    return np.array([kernel.sum(1) @ axis, kernel.sum(0) @ axis]) / kernel.sum()


def moments(kernel: np.ndarray) -> tuple[float, float, float]:
    """Longer and shorter standard deviation in pixels, angle of the longer one in radians (0 = along x, towards +y)."""
    axis = np.arange(len(kernel)) - (len(kernel) - 1) / 2
    y, x = np.meshgrid(axis - shift(kernel)[0], axis - shift(kernel)[1], indexing="ij")
    xx, yy, xy = (float((kernel * a).sum() / kernel.sum()) for a in (x * x, y * y, x * y))
    values = np.linalg.eigvalsh([[xx, xy], [xy, yy]])
    return math.sqrt(values[1]), math.sqrt(values[0]), 0.5 * math.atan2(2 * xy, xx - yy)


@pytest.mark.parametrize("make", RANDOM, ids=lambda f: f.__name__)
@pytest.mark.parametrize("size", [16, 20])
def test_random_kernels_are_kernels(make, size):
    seen = set()
    for seed in range(40):
        kernel = make(np.random.default_rng(seed), size)
        assert kernel.shape == (size, size)
        assert kernel.min() > -1e-15  # cv2.filter2D leaves rounding errors
        assert kernel.sum() == pytest.approx(1, abs=1e-9)
        assert np.abs(shift(kernel)).max() < 0.1, f"seed {seed}"
        assert np.array_equal(kernel, make(np.random.default_rng(seed), size))
        seen.add(kernel.tobytes())
    assert len(seen) == 40


@pytest.mark.parametrize("size", [14, 20])
@pytest.mark.parametrize("angle", [0.0, 0.4, 1.2, 2.5])
def test_gaussian_has_the_given_deviations_and_angle(size, angle):
    kernel = kernels.gaussian(size, 2.0, 1.0, angle)
    longer, shorter, found = moments(kernel)
    assert np.abs(shift(kernel)).max() < 1e-9
    assert (longer, shorter) == (pytest.approx(2, rel=0.02), pytest.approx(1, rel=0.02))
    assert math.sin(found - angle) == pytest.approx(0, abs=0.01)


def test_gaussian_of_the_same_deviations_is_round():
    np.testing.assert_allclose(kernels.gaussian(12, 1.5, 1.5, 0.7), kernels.gaussian(12, 1.5, 1.5, 0.0))


@pytest.mark.parametrize("radius", [2.5, 4.0])
def test_disk_has_the_deviation_of_a_disk(radius):
    kernel = kernels.disk(20, radius, softness=0.2)
    longer, shorter, _ = moments(kernel)
    assert np.abs(shift(kernel)).max() < 1e-9
    expected = math.hypot(
        radius / 2, 1 / math.sqrt(12)
    )  # of a uniform disk along any axis, and of the pixels' own width
    np.testing.assert_allclose([longer, shorter], expected, rtol=0.03)
    np.testing.assert_allclose(kernel, kernel.T)


@pytest.mark.parametrize("angle", [0.0, 0.6, 2.0])
def test_straight_motion_lies_along_its_angle(angle):
    longer, shorter, found = moments(kernels.motion(20, 8.0, angle, 0.0, 0.5))
    assert longer == pytest.approx(math.hypot(8 / math.sqrt(12), 0.5), rel=0.05)
    assert shorter == pytest.approx(0.5, rel=0.15)
    assert math.sin(found - angle) == pytest.approx(0, abs=0.03)


def test_bent_motion_is_shorter_than_straight():
    assert moments(kernels.motion(20, 8.0, 0.3, 2.5, 0.5))[0] < 0.9 * moments(kernels.motion(20, 8.0, 0.3, 0.0, 0.5))[0]


@pytest.mark.parametrize("size", [2, 8, 12])
def test_twice_equals_reducing_two_times(size):
    kernel = np.random.default_rng(size).random((size, size))
    kernel /= kernel.sum()
    composed = kernels.twice(kernel)
    assert composed.shape == (3 * size - 2, 3 * size - 2)
    assert composed.min() >= 0 and composed.sum() == pytest.approx(1)
    np.testing.assert_allclose(
        shift(composed), 3 * shift(kernel), atol=1e-9
    )  # the second blur is seen at twice the size
    x = torch.rand(1, 3, 128, 160, dtype=torch.float64)
    single = torch.from_numpy(kernel)
    expected = reduce(reduce(x, single, 2), single, 2)
    found = reduce(x, torch.from_numpy(composed), 4)
    inner = (..., slice(8, -8), slice(8, -8))  # mirrored borders do not compose
    torch.testing.assert_close(found[inner], expected[inner], rtol=0, atol=1e-12)


def test_by_logarithm_narrow_gaussians_are_as_likely_as_wide_ones():
    random = np.random.default_rng(0)

    def widths(by_logarithm: bool) -> np.ndarray:
        drawn = [kernels.random_gaussian(random, 24, 0.5, 8.0, 0.0, by_logarithm=by_logarithm) for _ in range(200)]
        return np.array([np.mean(kernels.second_moments(kernel)[:2]) for kernel in drawn])

    evenly, by_logarithm = widths(False), widths(True)
    assert by_logarithm.min() > 0.45 and evenly.max() < 8.2
    assert np.median(by_logarithm) < 0.75 * np.median(evenly)
