"""The error of an estimated kernel: none for equal and for shifted ones, more the more they differ."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from darsr_deploy.degradation import kernels
from darsr_train.evaluation.kernel_error import compare_kernels, kernel_error
from darsr_train.plots.kernels import Shown, draw_kernels


def spot(size: int, down: float, right: float, sigma: float = 1.2) -> np.ndarray:
    """A Gaussian off the middle."""
    y, x = np.meshgrid(*[np.arange(size) - (size - 1) / 2] * 2, indexing="ij")
    kernel = np.exp(-0.5 * ((y - down) ** 2 + (x - right) ** 2) / sigma**2)
    return kernel / kernel.sum()


@given(st.integers(0, 99), st.integers(0, 5), st.integers(0, 5), st.sampled_from([12, 13, 17]))
def test_shifts_by_whole_pixels_are_no_error(seed, down, right, size):
    kernel = kernels.normalised(np.random.default_rng(seed).random((7, 7)))
    moved = np.zeros((size, size))
    moved[down : down + 7, right : right + 7] = kernel
    assert kernel_error(kernel, kernel) == pytest.approx(0, abs=1e-12)
    assert kernel_error(moved, kernel) == pytest.approx(0, abs=1e-9)
    assert kernel_error(kernel, moved) == pytest.approx(0, abs=1e-9)


@given(st.floats(-1, 1), st.floats(-1, 1))
def test_shifts_by_fractions_are_no_error(down, right):
    assert kernel_error(spot(20, down, right), spot(17, 0, 0)) < 0.002  # what the pixels of so narrow a kernel alias


def test_it_grows_with_the_difference_of_widths_and_tells_shapes_apart():
    true = kernels.gaussian(16, 1.5, 1.5, 0)
    wider = [kernel_error(kernels.gaussian(16, s, s, 0), true) for s in (1.5, 1.7, 2.0, 2.5, 3.0)]
    narrower = [kernel_error(kernels.gaussian(16, s, s, 0), true) for s in (1.5, 1.3, 1.0, 0.7)]
    for errors in (wider, narrower):
        assert errors[0] < 1e-12 and np.all(np.diff(errors) > 0.05)
    long = kernels.gaussian(16, 3, 1, 0.3)
    assert kernel_error(kernels.gaussian(16, 3, 1, 0.3 + np.pi / 2), long) > kernel_error(
        kernels.gaussian(16, 3, 1, 0.6), long
    )


def test_it_is_relative_to_the_true_kernel():
    true = kernels.gaussian(14, 1.5, 1.0, 0.3)
    assert kernel_error(0 * true, true) == pytest.approx(1)
    assert kernel_error(0.9 * true, true) == pytest.approx(0.1)
    noise = np.random.default_rng(0).standard_normal(true.shape)
    noise *= 0.2 * np.linalg.norm(true) / np.linalg.norm(noise)
    assert kernel_error(true + noise, true) == pytest.approx(0.2, rel=0.5)  # the alignment is off by a little, too
    assert kernel_error(-true, true) == pytest.approx(2)  # no positive part to align by


def test_kernels_are_drawn_on_one_scale_around_their_middles():
    kernel = kernels.gaussian(12, 1.0, 1.0, 0)
    picture = draw_kernels((kernel, kernels.gaussian(20, 1.0, 1.0, 0), 0.5 * kernel), 2, 72, 72)
    assert picture.shape == (72, 216, 3) and picture.dtype == np.uint8
    first, larger, weaker = np.split(picture, 3, axis=1)
    assert np.array_equal(first, larger) and np.array_equal(first, first[::-1, ::-1])
    assert weaker.min() > first.min() and (first[:12] == 255).all()


def test_the_true_kernel_follows_those_compared_with_it():
    true, other = kernels.gaussian(12, 1.5, 1.0, 0.3), kernels.gaussian(14, 1.0, 1.0, 0)
    same, different, last = compare_kernels((Shown("a", true), Shown("b", other)), true)
    assert (same.name, same.error) == ("a", pytest.approx(0, abs=1e-12)) and different.error == kernel_error(
        other, true
    )
    assert last.name == "true blur kernel" and last.kernel is true and last.error is None
    assert [each.name for each in compare_kernels((), true)] == ["true blur kernel"]
