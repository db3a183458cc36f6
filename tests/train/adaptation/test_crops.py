"""The crop map is a probability that favours edges; the crops are what they say, and repeatable."""

from __future__ import annotations

import numpy as np
import pytest
from skimage import data

from darsr_deploy.images.resample import pillow_bicubic
from darsr_train.adaptation.published.crops import CropSampler, crop_map, top_left, usable


def addresses(height: int, width: int) -> np.ndarray:
    """An image whose red and green say where a pixel is; blue makes edges."""
    rows, columns = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    blue = 255 * ((rows // 9 + columns // 7) % 2)
    return np.stack([rows, columns, blue], axis=2).astype(np.uint8)


def as_bytes(crops: np.ndarray) -> np.ndarray:
    """N x 3 x h x w in [0, 1] -> N x h x w x 3 of 8 bits."""
    return np.rint(crops.transpose(0, 2, 3, 1) * 255).astype(np.uint8)


def textured(side: int, first: int, last: int) -> np.ndarray:
    """A flat image with texture in one square (more than 3 % of the pixels, all that the map counts)."""
    image = np.full((side, side, 3), 100, np.uint8)
    image[first:last, first:last] = np.random.default_rng(0).integers(0, 256, (last - first, last - first, 3))
    return image


PHOTO = np.ascontiguousarray(data.astronaut()[:150, 150:320])


# --- The map ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "image", [PHOTO, addresses(80, 120), np.zeros((90, 70, 3), np.uint8)], ids=["photo", "pattern", "black"]
)
@pytest.mark.parametrize("crop", [16, 32])
def test_map_is_a_probability(image, crop):
    chance = crop_map(image, crop)
    assert chance.shape == image.shape[:2]
    assert chance.min() >= 0
    assert chance.sum() == pytest.approx(1, abs=1e-9)


def test_constant_image_has_a_uniform_map():
    chance = crop_map(np.full((60, 80, 3), 77, np.uint8), 16)
    np.testing.assert_allclose(chance, 1 / chance.size)


@pytest.mark.parametrize("crop", [16, 32])
def test_centres_keep_half_a_crop_from_the_border(crop):
    chance = crop_map(PHOTO, crop)
    allowed = chance[crop // 2 : -crop // 2, crop // 2 : -crop // 2]
    assert allowed.sum() == pytest.approx(1, abs=1e-9)
    assert (allowed > 0).mean() > 0.1


def test_map_favours_edges():
    chance = crop_map(textured(120, 40, 80), 16)
    assert chance[48:72, 48:72].mean() > 3 * chance.mean()
    assert chance[8:26, 8:26].max() < 1e-6 * chance.max(), "far from every edge"


def test_map_ignores_gradients_at_the_border():
    image = np.full((90, 90, 3), 100, np.uint8)
    image[:3] = 255
    np.testing.assert_allclose(crop_map(image, 16), 1 / image[:, :, 0].size)


def test_map_follows_a_turn_of_the_image():
    np.testing.assert_allclose(
        crop_map(np.ascontiguousarray(PHOTO.transpose(1, 0, 2)), 16), crop_map(PHOTO, 16).T, atol=1e-9
    )


@pytest.mark.parametrize(
    "centre, crop, side, expected",
    [(50, 16, 100, 42), (51, 16, 100, 42), (3, 16, 100, 0), (99, 16, 100, 84), (99, 16, 101, 84), (5, 20, 20, 0)],
)
def test_top_left_is_clamped_and_even(centre, crop, side, expected):
    assert top_left(centre, crop, side) == expected


# --- The crops -------------------------------------------------------------------------------------------------------


def sampler(image: np.ndarray, scale: int, augment: bool) -> CropSampler:
    return CropSampler.of(image, scale, 32, augment)


def test_samples_depend_on_seed_and_step_alone():
    one, other = sampler(PHOTO, 2, True), sampler(PHOTO.copy(), 2, True)
    other.sample(3, 0, 4)  # what was drawn before must not count
    for name, crops in one.sample(3, 7, 4).items():
        assert np.array_equal(crops, other.sample(3, 7, 4)[name])
    for seed, step in ((3, 8), (4, 7)):
        assert not np.array_equal(one.sample(3, 7, 4)["x"], one.sample(seed, step, 4)["x"])
    first = one.sample(3, 7, 4)["x"]
    assert len({crop.tobytes() for crop in first}) > 1, "crops of one batch are drawn apart"


@pytest.mark.parametrize("scale", [2, 4])
def test_shapes_and_range(scale):
    crops = sampler(PHOTO[:148, :168], scale, True).sample(0, 0, 3)
    small = 32 // scale
    assert {name: c.shape for name, c in crops.items()} == {
        "x": (3, 3, 32, 32),
        "y": (3, 3, small, small),
        "b": (3, 3, small, small),
        "u": (3, 3, 32, 32),
    }
    for crop in crops.values():
        assert crop.dtype == np.float32
        assert crop.min() >= 0 and crop.max() <= 1
        np.testing.assert_allclose(crop * 255, np.rint(crop * 255), atol=1e-4)  # 8-bit values


@pytest.mark.parametrize("scale", [2, 4])
def test_without_augmentation_crops_are_verbatim_and_even_aligned(scale):
    image = addresses(120, 160)
    drawn = set()
    for step in range(8):
        crops = sampler(image, scale, augment=False).sample(0, step, 4)
        for name in ("x", "y"):
            for crop in as_bytes(crops[name]):
                top, left = int(crop[0, 0, 0]), int(crop[0, 0, 1])
                assert top % 2 == 0 and left % 2 == 0
                assert np.array_equal(crop, image[top : top + crop.shape[0], left : left + crop.shape[1]])
                drawn.add((name, top, left))
    assert len(drawn) > 20, "crops come from many places"


@pytest.mark.parametrize("scale", [2, 4])
def test_b_and_u_are_pillows_bicubic_of_x_and_y(scale):
    crops = {name: as_bytes(c) for name, c in sampler(PHOTO[:148, :168], scale, augment=False).sample(0, 0, 4).items()}
    small = 32 // scale
    for x, b, y, u in zip(*(crops[name] for name in "xbyu")):
        assert np.array_equal(b, pillow_bicubic(x, small, small))
        assert np.array_equal(u, pillow_bicubic(y, 32, 32))


def orientation(crop: np.ndarray) -> tuple[bool, bool]:
    """(mirrored, transposed) of a crop of :func:`addresses`."""
    transposed = crop[0, 0, 0] != crop[0, 1, 0]  # the row number changes along a row
    upright = crop.transpose(1, 0, 2) if transposed else crop
    return bool(upright[0, 0, 1] > upright[0, 1, 1]), bool(transposed)


def turned(crop: np.ndarray, mirrored: bool, transposed: bool) -> np.ndarray:
    crop = crop[:, ::-1] if mirrored else crop
    return crop.transpose(1, 0, 2) if transposed else crop


def test_augmentation_turns_x_b_y_and_u_of_a_sample_alike():
    image = addresses(120, 160)
    seen = []
    for step in range(8):
        crops = {name: as_bytes(c) for name, c in sampler(image, 2, augment=True).sample(1, step, 4).items()}
        for x, b, y, u in zip(*(crops[name] for name in "xbyu")):
            turn = orientation(x)
            assert orientation(y) == turn
            originals = []
            for crop in (x, y):
                top, left = int(crop[..., 0].min()), int(crop[..., 1].min())
                originals.append(image[top : top + len(crop), left : left + len(crop)])
                assert np.array_equal(crop, turned(originals[-1], *turn))
            assert np.array_equal(b, turned(pillow_bicubic(originals[0], 16, 16), *turn))
            assert np.array_equal(u, turned(pillow_bicubic(originals[1], 32, 32), *turn))
            seen.append(turn)
    assert len(set(seen)) == 4, "both turns happen, apart and together"


def test_crops_come_from_where_the_map_says():
    image = textured(160, 90, 138)
    crops = sampler(image, 2, augment=False).sample(0, 0, 32)
    for name in ("x", "y"):
        assert (crops[name].std((1, 2, 3)) > 0).all(), f"{name}: a crop does not touch the only texture"


# --- What of the image is used ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale, height, width", [(2, 60, 76), (4, 60, 76), (2, 61, 75), (4, 63, 79)])
def test_usable_cuts_the_border_and_to_multiples_of_the_scale(scale, height, width):
    image = addresses(height, width)
    inner = usable(image, scale)
    assert inner.shape == ((height - 20) // scale * scale, (width - 20) // scale * scale, 3)
    assert np.array_equal(inner, image[10 : 10 + inner.shape[0], 10 : 10 + inner.shape[1]])


def test_usable_makes_gray_images_rgb():
    gray = addresses(60, 70)[:, :, 1]
    inner = usable(gray, 2)
    assert inner.shape == (40, 50, 3)
    assert all(np.array_equal(inner[:, :, c], gray[10:50, 10:60]) for c in range(3))
