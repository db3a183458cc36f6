"""Sets with known truth: where pixels sit, what is drawn, and the way from photographs to figures."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from darsr_deploy.degradation import kernels
from darsr_deploy.degradation.covariance import shape_of
from darsr_deploy.images.arrays import read_image, write_image
from darsr_deploy.images.resample import imresize
from darsr_train.degradation import odd_kernels
from darsr_train.evaluation.degrade import KINDS, Degradation, blur_and_reduce, crop_centre, degrade, draw
from darsr_train.evaluation.sets import read_kernel
from tests.support.commands import darsr, done, names, refused, strict_json
from tests.support.shared import SHARED, needs_shared

scales = pytest.mark.parametrize("scale", [2, 4])
SIDES = {2: 12, 4: 34}


def delta(side: int, row: int, column: int) -> np.ndarray:
    kernel = np.zeros((side, side))
    kernel[row, column] = 1
    return kernel


# ---- alignment: LR pixel i sits at HR coordinate s * i + (s - 1) / 2


@scales
def test_the_middle_of_a_kernel_is_where_an_lr_pixel_sits(scale):
    """The four taps around the middle, on two ramps: every LR pixel reads its own HR coordinate."""
    side = SIDES[scale]
    middle = np.zeros((side, side))
    middle[side // 2 - 1 : side // 2 + 1, side // 2 - 1 : side // 2 + 1] = 0.25
    y, x = np.meshgrid(np.arange(96.0), np.arange(64.0), indexing="ij")
    rows, columns = (blur_and_reduce(ramp, (middle,), scale) for ramp in (y, x))
    expected_y, expected_x = (scale * np.arange(n // scale) + (scale - 1) / 2 for n in (96, 64))
    inner = slice(1, -1)  # at x4 the borders are no further than the middle taps
    np.testing.assert_allclose(rows[inner, 0], expected_y[inner], rtol=0, atol=1e-6)
    np.testing.assert_allclose(columns[0, inner], expected_x[inner], rtol=0, atol=1e-6)


@given(st.sampled_from([2, 4]), st.data())
def test_a_delta_kernel_picks_the_pixel_at_its_offset(scale, data):
    """Every tap of both kernel sizes, borders included: tap t lies t - (k - 1) / 2 from the LR pixel's place."""
    side = SIDES[scale]
    row, column = (data.draw(st.integers(0, side - 1)) for _ in range(2))
    hr = np.random.default_rng(side * row + column).uniform(0, 255, (24, 32, 3))
    result = blur_and_reduce(hr, (delta(side, row, column),), scale)
    mirrored = np.pad(hr, ((side, side), (side, side), (0, 0)), mode="symmetric")
    start = [side + int((scale - 1) / 2 - (side - 1) / 2 + tap) for tap in (row, column)]
    expected = mirrored[start[0] :: scale, start[1] :: scale][: 24 // scale, : 32 // scale]
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "none"])
@scales
def test_drawn_kernels_are_centred(kind, scale):
    """Tap noise moves DIV2KRK's a little; the other kinds sit in the middle."""
    for name in "abcdefgh":
        drawn = draw(kind, scale, 0, name)
        for kernel in drawn.kernels:
            assert kernel.shape == (SIDES[scale],) * 2
            assert kernel.sum() == pytest.approx(1, abs=1e-9) and kernel.min() > -1e-15
            shape = shape_of(kernel)
            assert max(abs(shape["down"]), abs(shape["right"])) < (0.1 if scale == 2 else 0.3)
            assert 0.2 < shape["sigma_short"] <= shape["sigma_long"] + 1e-9
        assert len(drawn.kernels) == (2 if kind == "variant" else 1)
        assert drawn.kind == kind or drawn.kind in {"other": ("motion", "disk"), "odd": odd_kernels.SHAPES}[kind]


@scales
def test_without_blur_an_image_is_reduced_as_networks_are_trained_on(photo, scale):
    hr = crop_centre(photo, scale)
    height, width = hr.shape[0] // scale, hr.shape[1] // scale
    difference = np.abs(degrade(hr, draw("none", scale, 0, "a"), scale).astype(int) - imresize(hr, height, width))
    inner = difference[2:-2, 2:-2]  # borders are mirrored otherwise
    assert inner.max() <= 1 and (inner > 0).mean() < 0.25  # MATLAB's imresize rounds between rows and columns


def test_narrow_blurs_are_even_in_their_logarithm():
    shapes = [shape_of(draw("narrow", 2, 0, str(i)).kernels[0]) for i in range(300)]
    variances = np.array([shape[name] ** 2 for shape in shapes for name in ("sigma_long", "sigma_short")])
    assert variances.min() > 0.25 and variances.max() < 1.5  # tap noise moves them a little
    assert abs(np.median(variances) - np.sqrt(0.3 * 1.3)) < 0.08


def test_x4_is_the_x2_operation_twice():
    hr = np.random.default_rng(0).uniform(0, 255, (160, 160))
    (small,), (large,) = (draw("gaussian", scale, 3, "a").kernels for scale in (2, 4))
    twice = blur_and_reduce(blur_and_reduce(hr, (small,), 2), (small,), 2)
    inner = (slice(6, -6),) * 2  # the mirrored border is that of the first operation or of both
    np.testing.assert_allclose(blur_and_reduce(hr, (large,), 4)[inner], twice[inner], rtol=0, atol=1e-9)


def test_box_blur_is_average_pooling():
    hr = np.random.default_rng(1).integers(0, 256, (16, 24, 3)).astype(float)
    box = kernels.gaussian(2, 1e6, 1e6, 0)
    import torch

    expected = F.avg_pool2d(torch.from_numpy(hr.transpose(2, 0, 1)[None]), 2)[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(blur_and_reduce(hr, (box,), 2), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
@scales
def test_a_flat_image_stays_flat_and_gray_stays_gray(kind, scale):
    drawn = draw(kind, scale, 0, "flat")
    assert (degrade(np.full((40, 48, 3), 131, np.uint8), drawn, scale) == 131).all()
    gray = np.random.default_rng(2).integers(0, 256, (40, 48)).astype(np.uint8)
    colour = degrade(np.repeat(gray[:, :, None], 3, 2), drawn, scale)
    assert degrade(gray, drawn, scale).shape == (40 // scale, 48 // scale)
    assert (colour == degrade(gray, drawn, scale)[:, :, None]).all()


def test_variant_blur_goes_from_one_kernel_to_the_other():
    hr = np.random.default_rng(3).uniform(0, 255, (32, 64))
    first, second = delta(12, 5, 5), kernels.gaussian(12, 2, 2, 0)
    ends = [blur_and_reduce(hr, (kernel,), 2) for kernel in (first, second)]
    both = blur_and_reduce(hr, (first, second), 2)
    np.testing.assert_allclose(both[:, 0], ends[0][:, 0])
    np.testing.assert_allclose(both[:, -1], ends[1][:, -1])
    share = 10 / 31
    np.testing.assert_allclose(both[:, 10], (1 - share) * ends[0][:, 10] + share * ends[1][:, 10])


def test_half_a_level_is_rounded_up_in_any_order_of_summation():
    hr = np.zeros((8, 8), np.uint8)
    hr[::2] = 1  # every 2x2 mean is one half
    assert (degrade(hr, Degradation("box", (np.full((2, 2), 0.25),)), 2) == 1).all()


# ---- what is drawn


def test_the_draw_depends_on_seed_and_name_alone():
    again, same = draw("gaussian", 2, 5, "a").kernels[0], draw("gaussian", 2, 5, "a").kernels[0]
    assert np.array_equal(again, same)
    others = [draw("gaussian", 2, 6, "a"), draw("gaussian", 2, 5, "b")]
    assert all(not np.array_equal(again, other.kernels[0]) for other in others)
    assert {draw("other", 2, 0, str(i)).kind for i in range(20)} == {"motion", "disk"}
    assert {draw("odd", 2, 0, str(i)).kind for i in range(30)} == set(odd_kernels.SHAPES)
    for wrong in (("lens", 2), ("gaussian", 3)):
        with pytest.raises(ValueError, match="expected"):
            draw(*wrong, 0, "a")


def test_shape_of_a_known_gaussian():
    found = shape_of(kernels.gaussian(34, 4.0, 2.0, 0.5))
    assert found["sigma_long"] == pytest.approx(4, rel=0.01) and found["sigma_short"] == pytest.approx(2, rel=0.01)
    assert found["angle"] == pytest.approx(np.degrees(0.5), abs=0.5) and found["down"] == found["right"] == 0


@given(st.integers(8, 60), st.integers(8, 60), st.sampled_from([2, 4]), st.none() | st.integers(4, 70))
def test_crops_are_divisible_and_central(height, width, scale, side):
    image = np.arange(height * width, dtype=np.int64).reshape(height, width)
    part = crop_centre(image, scale, side)
    assert part.shape[0] % scale == part.shape[1] % scale == 0 and part.size
    assert part.shape[0] == min(height, side or height) // scale * scale
    top, left = divmod(int(part[0, 0]), width)
    assert abs(2 * top + part.shape[0] - height) <= 1 and abs(2 * left + part.shape[1] - width) <= 1


# ---- the command


@pytest.fixture
def photos(photo, gray, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, image in (("a.png", photo), ("b.jpg", photo[::-1]), ("c.png", gray)):
        write_image(folder / name, image)
    return folder


def bytes_of(folder) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_set_is_made_whole_and_again_with_the_same_bytes(photos, tmp_path):
    result = done("degrade", photos, "-o", tmp_path / "one", "--kind", "variant", "--crop", "64", "--json")
    manifest = strict_json(result.stdout)
    assert manifest == {"folder": str(tmp_path / "one"), **json.loads((tmp_path / "one" / "manifest.json").read_text())}
    assert (manifest["kind"], manifest["scale"], manifest["seed"], manifest["crop"]) == ("variant", 2, 0, 64)
    assert [entry["name"] for entry in manifest["images"]] == ["a", "b", "c"]
    assert len(manifest["images"][0]["kernels"]) == 2
    assert names(tmp_path / "one") == {"LR", "HR", "kernel", "manifest.json"}
    assert names(tmp_path / "one" / "kernel") == {"a.npz", "b.npz", "c.npz"}
    hr, lr = (read_image(tmp_path / "one" / part / "a.png") for part in ("HR", "LR"))
    assert hr.shape == (64, 64, 3) and lr.shape == (32, 32, 3)
    assert read_image(tmp_path / "one" / "LR" / "c.png").shape == (32, 32)
    with np.load(tmp_path / "one" / "kernel" / "a.npz") as stored:
        assert stored.files == ["k0", "k1"]
        assert (degrade(hr, Degradation("variant", (stored["k0"], stored["k1"])), 2) == lr).all()
        np.testing.assert_allclose(
            read_kernel(tmp_path / "one" / "kernel" / "a.npz"), (stored["k0"] + stored["k1"]) / 2
        )
    done("degrade", photos, "-o", tmp_path / "two", "--kind", "variant", "--crop", "64")
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "two")
    done(
        "degrade", photos, "-o", tmp_path / "three", "--kind", "variant", "--crop", "64", "--seed", "1", "--limit", "1"
    )
    assert names(tmp_path / "three" / "LR") == {"a.png"}
    assert bytes_of(tmp_path / "three")["LR/a.png"] != bytes_of(tmp_path / "one")["LR/a.png"]


def test_an_image_is_degraded_the_same_way_in_any_company(photos, tmp_path):
    done("degrade", photos, "-o", tmp_path / "all")
    (photos / "a.png").unlink()
    done("degrade", photos, "-o", tmp_path / "rest")
    assert bytes_of(tmp_path / "all").items() >= {
        (name, data) for name, data in bytes_of(tmp_path / "rest").items() if name != "manifest.json"
    }


def test_several_kinds_are_several_sets(photos, tmp_path):
    result = done("degrade", photos, "-o", tmp_path / "sets", "--kind", "disk", "--kind", "motion", "--scale", "4")
    assert names(tmp_path / "sets") == {"disk_x4", "motion_x4"}
    assert len(result.stdout.splitlines()) == 2
    assert read_image(tmp_path / "sets" / "disk_x4" / "LR" / "a.png").shape == (20, 24, 3)


def test_images_and_folders_make_one_set(photos, photo, tmp_path):
    write_image(tmp_path / "single.png", photo)
    done("degrade", tmp_path / "single.png", photos, "-o", tmp_path / "set", "--limit", "2")
    assert names(tmp_path / "set" / "LR") == {"single.png", "a.png"}
    done("degrade", photos, "-o", tmp_path / "all")
    assert bytes_of(tmp_path / "set")["LR/a.png"] == bytes_of(tmp_path / "all")["LR/a.png"]


def test_what_cannot_be_degraded_is_one_line(photos, photo, tmp_path):
    refused("degrade", photos, "-o", tmp_path / "set", "--kind", "lens", name="kind lens")
    refused("degrade", photos, "-o", tmp_path / "set", "--scale", "3", name="--scale 3")
    refused("degrade", tmp_path / "nothing", "-o", tmp_path / "set", name=tmp_path / "nothing")
    assert not (tmp_path / "set").exists()
    write_image(photos / "a.jpg", photo)  # its twin a.png comes later
    write_image(photos / "tiny.png", photo[:14])
    (photos / "text.png").write_text("no image")
    result = darsr("degrade", photos, "-o", tmp_path / "set")
    assert result.exit_code == 1
    twin, text, tiny = result.stderr.splitlines()
    assert "a.png" in twin and "another input of this command has the same output" in twin
    assert text.startswith(f"error: {photos / 'text.png'}: is not an image")
    assert tiny.startswith(f"error: {photos / 'tiny.png'}: is too small for a set (least side 15)")
    assert names(tmp_path / "set" / "LR") == {"a.png", "b.png", "c.png"}
    assert "--overwrite" in refused("degrade", photos, "-o", tmp_path / "set", name=tmp_path / "set" / "manifest.json")


@pytest.mark.parametrize("kind", ["gaussian", "other", "odd"])
def test_from_photographs_to_a_gain(kind, photos, tmp_path):
    """The filter in closed form from the stored kernel beats the backbone alone: kernel, image and truth fit together."""
    (photos / "c.png").unlink()
    done("degrade", photos, "-o", tmp_path / "set", "--kind", kind, "--seed", "2")
    summary = strict_json(done("eval", tmp_path / "set", "--method", "nonblind", "--device", "cpu", "--json").stdout)
    assert [row["name"] for row in summary["images"]] == ["a", "b"] and summary["mean"]["gain"] > 0.5


@needs_shared
@pytest.mark.parametrize("kind, scale", [("gaussian_x2", 2), ("variant_x2", 2), ("other_x2", 2), ("gaussian_x4", 4)])
def test_the_development_sets_are_made_in_the_same_way(kind, scale):
    folder = SHARED / "data" / "blind" / kind
    file = sorted((folder / "kernel").glob("*.npz"))[0]
    with np.load(file) as stored:
        drawn = Degradation(kind, tuple(stored[name] for name in stored.files))
    hr, lr = (read_image(folder / part / f"{file.stem}.png") for part in ("HR", "LR"))
    difference = np.abs(degrade(hr, drawn, scale).astype(int) - lr)
    assert difference.max() <= 1 and (difference > 0).mean() < 1e-3  # disks give ties, which rounding decides
