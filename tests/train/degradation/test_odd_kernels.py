"""Kernels that no Gaussian describes: non-negative, of sum 1, centre of mass in the middle; and odd indeed."""

from __future__ import annotations

import numpy as np
import pytest

from darsr_deploy.degradation import kernels
from darsr_deploy.degradation.covariance import shape_of
from darsr_train.degradation import odd_kernels
from darsr_train.evaluation.kernel_error import kernel_error


@pytest.mark.parametrize("shape", odd_kernels.SHAPES)
@pytest.mark.parametrize("size", [12, 16])
def test_every_shape_gives_kernels(shape, size):
    seen = set()
    for seed in range(12):
        kernel = odd_kernels.SHAPES[shape](np.random.default_rng(seed), size)
        assert kernel.shape == (size, size) and kernel.dtype == np.float64
        assert kernel.min() >= 0 and kernel.sum() == pytest.approx(1, abs=1e-12)
        found = shape_of(kernel)
        assert max(abs(found["down"]), abs(found["right"])) < 0.02, f"seed {seed}"
        assert found["sigma_short"] > 0.5 and found["sigma_long"] < 4
        assert kernel[1:-1, 1:-1].sum() > 0.9, f"seed {seed} is cut off"
        assert np.array_equal(kernel, odd_kernels.SHAPES[shape](np.random.default_rng(seed), size))
        seen.add(kernel.tobytes())
    assert len(seen) == 12


@pytest.mark.parametrize("shape, least", [("path", 0.3), ("lobes", 0.5), ("aperture", 0.15), ("tails", 0.3)])
def test_no_gaussian_of_the_same_moments_is_near(shape, least):
    def distance(kernel: np.ndarray) -> float:
        yy, xx, xy = kernels.second_moments(kernel)
        return kernel_error(kernels.from_covariance(np.array([[yy, xy], [xy, xx]]), "gaussian"), kernel)

    drawn = [odd_kernels.SHAPES[shape](np.random.default_rng(seed), 12) for seed in range(12)]
    assert np.mean([distance(kernel) for kernel in drawn]) > least
    assert distance(kernels.gaussian(16, 1.5, 0.9, 0.4)) < 0.06  # the measure itself: pixels have a width


def test_lobes_are_two_and_a_path_turns():
    two = odd_kernels.random_lobes(np.random.default_rng(1), 12)
    inner = two[1:-1, 1:-1]
    around = [
        np.roll(two, step, (0, 1))[1:-1, 1:-1] for step in [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if i or j]
    ]
    assert ((inner > np.max(around, axis=0)) & (inner > 0.2 * two.max())).sum() == 2
    path = odd_kernels.random_path(np.random.default_rng(5), 12)
    assert kernel_error(path[::-1, ::-1], path) > 0.5, "a straight path is its own half turn"


def test_every_shape_is_drawn_about_as_often():
    random = np.random.default_rng(0)
    names = [odd_kernels.random_odd(random, 12)[0] for _ in range(50)]
    assert min(names.count(shape) for shape in odd_kernels.SHAPES) >= 4


def test_the_whole_is_centred_not_its_parts():
    """A density that lies to one side is moved; two of them keep their distance."""
    spot = [lambda y, x, at=at: np.exp(-0.5 * ((y - 1) ** 2 + (x - at) ** 2) / 0.5) for at in (2, 5)]
    kernel = odd_kernels.draw_kernel([(1, spot[0]), (3, spot[1])], 16)
    found = shape_of(kernel)
    assert max(abs(found["down"]), abs(found["right"])) < 1e-3
    expected = np.sqrt(0.5 + 3 / 16 * 3**2)  # of two equal spots at that distance, a quarter of the weight in one
    assert found["sigma_long"] == pytest.approx(expected, rel=0.02)
