"""The most detailed part of a picture is the best of all parts, tried one by one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from darsr_deploy.images.detail import find_detailed_crops, find_detailed_square, find_largest_sum, measure_detail
from darsr_deploy.images.metrics import studio_luma

PICTURES = arrays.arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12)))


@given(PICTURES, st.integers(1, 14))
def test_the_most_detailed_square_is_the_best_of_all(picture, side):
    rows, columns = find_detailed_square(picture, side)
    y = studio_luma(picture)
    gradient = np.abs(np.diff(y, axis=0, prepend=y[:1])) + np.abs(np.diff(y, axis=1, prepend=y[:, :1]))
    sums = windows(gradient, *(min(side, length) for length in picture.shape))
    assert gradient[rows, columns].shape == tuple(min(side, length) for length in picture.shape)
    assert gradient[rows, columns].sum() == pytest.approx(sums.max())


def windows(values: np.ndarray, height: int, width: int) -> np.ndarray:
    return np.lib.stride_tricks.sliding_window_view(values, (height, width)).sum((2, 3))


@given(PICTURES, st.integers(1, 12), st.integers(1, 12))
def test_the_largest_sum_is_that_of_all_windows_tried(picture, height, width):
    """Exactly, ties included: which window is analysed decides an adapter's bytes."""
    values = picture / 4096  # as a mean of 64 x 64 pixels is: a float64 holds sums of these exactly
    sums = windows(values, min(height, values.shape[0]), min(width, values.shape[1]))
    found = find_largest_sum(values, height, width)
    if sums.max() == sums.min():
        assert found is None
    else:
        assert tuple(part.start for part in found) == np.unravel_index(sums.argmax(), sums.shape)


def test_the_crops_of_highest_contrast_come_first(photo):
    picture = photo.transpose(2, 0, 1)[None].astype(np.float32) / 255
    crops = find_detailed_crops(picture, 20, 30, 3)
    spreads = [crop.std() for crop in crops]
    assert [crop.shape for crop in crops] == [(1, 3, 20, 30)] * 3 and spreads == sorted(spreads, reverse=True)
    assert find_detailed_crops(picture, 500, 500, 3)[0].shape == picture.shape


def test_flat_crops_have_no_detail(photo):
    assert measure_detail(np.full((4, 4, 3), 9, np.uint8)) == 0 < measure_detail(photo)
