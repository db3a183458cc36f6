"""Bicubic resampling against MATLAB's images and Pillow; PSNR and SSIM by their properties."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from darsr_deploy.images.arrays import read_image
from darsr_deploy.images.metrics import LUMA, luma, psnr, psnr_y, shave, ssim_y, studio_luma
from darsr_deploy.images.resample import cubic, imresize, pillow_bicubic, resize_taps, to_uint8
from tests.support.shared import SHARED, needs_shared

SIDE = st.integers(1, 40)
SEED = st.integers(0, 2**32 - 1)
# Pairs that MATLAB made; small ones, colour and gray, both scales.
PAIRS = ["Set5/image_SRF_2/img_003_SRF_2", "Set5/image_SRF_2/img_005_SRF_2", "Set14/image_SRF_2/img_003_SRF_2"]
PAIRS += ["Set5/image_SRF_4/img_003_SRF_4", "Set5/image_SRF_4/img_005_SRF_4", "Set14/image_SRF_4/img_003_SRF_4"]


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


# ---- resampling


@needs_shared
@pytest.mark.parametrize("pair", PAIRS)
def test_reduces_like_matlab(pair):
    hr, lr = (read_image(SHARED / "data" / "standard" / f"{pair}_{which}.png") for which in ("HR", "LR"))
    ours = imresize(hr, *lr.shape[:2])
    assert ours.shape == lr.shape
    difference = np.abs(ours.astype(int) - lr)
    share = (difference <= 1).mean()
    assert share >= 0.999, (
        f"{share:.5f} of the pixels are within a grey level, the largest difference is {difference.max()}"
    )
    # Not merely close: a plain bicubic is not equal anywhere near as often.
    assert (difference == 0).mean() > 0.98


@given(SIDE, SIDE, st.sampled_from(["replicate", "drop"]))
def test_weights_sum_to_one_and_indices_are_inside(n_in, n_out, edge):
    indices, weights = resize_taps(n_in, n_out, edge)
    assert indices.shape == weights.shape and len(weights) == n_out
    assert np.allclose(weights.sum(1), 1, atol=1e-12)
    assert indices.min() >= 0 and indices.max() < n_in


def test_an_unknown_edge_is_refused():
    with pytest.raises(ValueError, match="mirror"):
        resize_taps(4, 2, "mirror")


def test_the_kernel_interpolates():
    assert np.array_equal(cubic(np.array([0.0, 1.0, -1.0, 2.0, -2.0, 7.0])), [1, 0, 0, 0, 0, 0])
    x = np.linspace(0, 1, 33)
    assert np.allclose(sum(cubic(x + shift) for shift in range(-2, 3)), 1)  # partition of unity


@given(SIDE, SIDE, SIDE, SIDE, st.integers(0, 255), st.booleans())
def test_a_constant_image_stays_constant(h, w, height, width, value, pillow):
    resize = pillow_bicubic if pillow else imresize
    result = resize(np.full((h, w, 3), value, np.uint8), height, width)
    assert result.shape == (height, width, 3) and result.dtype == np.uint8
    assert (result == value).all()


@given(SEED, SIDE, SIDE)
def test_the_same_size_is_the_same_image(seed, h, w):
    image = noise(seed, h, w, 3)
    assert np.array_equal(imresize(image, h, w), image)
    assert np.array_equal(pillow_bicubic(image, h, w), image)
    assert np.allclose(imresize(image / 255.0, h, w), image / 255.0, atol=1e-12)


@given(SEED, SIDE, SIDE, SIDE, SIDE)
def test_flips_and_transposes_pass_through(seed, h, w, height, width):
    image = noise(seed, h, w) / 255.0
    result = imresize(image, height, width)
    assert np.allclose(imresize(image[::-1], height, width), result[::-1], atol=1e-10)
    assert np.allclose(imresize(image[:, ::-1], height, width), result[:, ::-1], atol=1e-10)
    assert np.allclose(imresize(image.T, width, height), result.T, atol=1e-10)


@given(SEED, SIDE, SIDE, SIDE, SIDE)
def test_linear_and_channel_by_channel(seed, h, w, height, width):
    image = noise(seed, h, w, 3) / 255.0
    result = imresize(image, height, width)
    assert np.allclose(imresize(3 * image - 1, height, width), 3 * result - 1, atol=1e-10)
    assert np.allclose(np.dstack([imresize(image[:, :, c], height, width) for c in range(3)]), result, atol=1e-10)


@pytest.mark.parametrize("scale", [2, 4])
def test_a_ramp_stays_a_ramp_off_the_border(scale):
    """Cubic convolution reproduces straight lines, and output i lies at input scale * i + (scale - 1) / 2."""
    ramp = np.tile(np.arange(64.0), (8, 1))
    reduced = imresize(ramp, 8 // scale, 64 // scale)
    expected = scale * np.arange(64 // scale) + (scale - 1) / 2
    assert np.allclose(reduced[0, 2:-2], expected[2:-2])


def test_floats_keep_their_dtype_and_are_not_clipped():
    edge = np.repeat(np.array([0, 0, 1, 1], np.float32)[None], 4, 0)
    result = imresize(edge, 8, 8)
    assert result.dtype == np.float32
    assert result.min() < 0 and result.max() > 1  # bicubic overshoots


def by_pillow(image: np.ndarray, height: int, width: int) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC)).astype(int)


@given(SEED, SIDE, SIDE, SIDE, st.booleans(), st.booleans())
def test_one_axis_is_resized_like_pillow(seed, h, w, side, tall, gray):
    image = noise(seed, *((h, w) if gray else (h, w, 3)))  # noise: the hardest image there is
    size = (side, w) if tall else (h, side)
    assert np.abs(pillow_bicubic(image, *size) - by_pillow(image, *size)).max() <= 1


@given(SEED, st.integers(8, 40), st.integers(8, 40), st.sampled_from([2, 4]), st.booleans())
def test_both_axes_are_resized_like_pillow(seed, h, w, scale, enlarge):
    """As this project does it: rectangles are enlarged, squares reduced. Elsewhere the order of the two passes depends on Pillow's version."""
    image = noise(seed, h, w, 3) if enlarge else noise(seed, h * scale, h * scale, 3)
    size = (h * scale, w * scale) if enlarge else (h, h)
    difference = np.abs(pillow_bicubic(image, *size) - by_pillow(image, *size))
    # Pillow computes with fixed-point weights: a level of difference after the first pass may grow to two in the second.
    assert difference.max() <= 2
    assert (difference == 0).mean() > 0.9


def test_rounding_is_half_up_and_clips():
    assert to_uint8(np.array([-3.0, 0.49, 0.5, 1.5, 2.5, 254.5, 300.0])).tolist() == [0, 0, 1, 2, 3, 255, 255]


# ---- metrics


def test_psnr_of_equal_images_is_infinite(photo):
    assert psnr(photo, photo.copy()) == math.inf
    assert psnr_y(photo, photo.copy(), 2) == math.inf


@pytest.mark.parametrize("difference", [1, 5, 255])
def test_psnr_of_a_known_difference(difference):
    black = np.zeros((4, 5, 3), np.uint8)
    assert psnr(black, black + np.uint8(difference)) == pytest.approx(20 * math.log10(255 / difference))
    assert psnr(black / 1.0, black + difference / 255, peak=1.0) == pytest.approx(20 * math.log10(255 / difference))


def test_psnr_does_not_wrap_around(photo):
    """200 - 10 and 10 - 200 are equally far apart, also in uint8."""
    other = photo[::-1].copy()
    assert psnr(photo, other) == psnr(other, photo) == pytest.approx(psnr(photo.astype(float), other.astype(float)))


def test_other_shapes_are_refused(photo, gray):
    for other in (photo[:-1], gray):
        with pytest.raises(ValueError, match=r"80, 96, 3"):
            psnr(photo, other)


def test_luma_has_studio_range():
    ends = np.array([[[0, 0, 0], [255, 255, 255]]], np.uint8)
    assert np.allclose(studio_luma(ends), [[16, 235]])
    primaries = studio_luma(255 * np.eye(3, dtype=np.uint8)[None])[0] - 16
    assert primaries.sum() == pytest.approx(219) and primaries[1] > primaries[0] > primaries[2]  # green, red, blue


def test_luma_keeps_range_and_precision():
    assert luma(np.ones((1, 1, 3), np.float32)).dtype == np.float32
    assert luma(np.eye(3)[None])[0].tolist() == LUMA.tolist() and LUMA.sum() == pytest.approx(1)


@given(SEED)
def test_luma_of_gray_is_that_of_equal_channels(seed):
    gray = noise(seed, 6, 7)
    assert np.allclose(studio_luma(gray), studio_luma(np.dstack([gray] * 3)))
    assert studio_luma(gray).min() >= 16 and studio_luma(gray).max() <= 235 + 1e-9


@pytest.mark.parametrize("border", [2, 4])
def test_the_border_does_not_count(border, photo):
    other = photo.copy()
    other[:border] = other[-border:] = 0
    other[:, :border] = other[:, -border:] = 0
    assert psnr_y(photo, other, border) == math.inf
    assert psnr_y(photo, other, border - 1) < 40
    assert shave(photo, 0).shape == photo.shape


def test_ssim_by_its_properties(photo):
    flat = np.full_like(photo, 128)
    dull = (photo * 0.5 + 64).astype(np.uint8)
    assert ssim_y(photo, photo.copy(), 2) == pytest.approx(1)
    assert ssim_y(photo, dull, 2) == pytest.approx(ssim_y(dull, photo, 2))
    assert ssim_y(photo, flat, 2) < ssim_y(photo, dull, 2) < 0.99
