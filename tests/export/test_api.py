"""``import darsr``: arrays, PIL images and paths through the whole way, equal to the commands; and what is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

import darsr
from darsr_deploy.images.arrays import read_picture, write_image
from tests.support.commands import done

STEERED = {"amount": 0.7, "denoise": 0.5, "deblock": 0.25}


@pytest.fixture(scope="module")
def blurred(photo) -> np.ndarray:
    return cv2.GaussianBlur(photo[:64, :72], (0, 0), 1.4)


def test_importing_it_imports_nothing_else():
    heavy = ("PIL", "cv2", "darsr_deploy", "numpy", "onnxruntime", "torch")
    code = f"import sys, darsr; print([name for name in {heavy} if name in sys.modules], dir(darsr))"
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(darsr.__file__).parent
    )
    assert ended.stdout.startswith("[] ") and all(repr(name) in ended.stdout for name in darsr.__all__), ended


def test_every_public_name_is_there():
    assert set(darsr.__all__) <= set(dir(darsr)) and darsr.DarsrError and darsr.open_engine
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        darsr.nothing  # noqa: B018


@pytest.mark.parametrize("steered", [{}, STEERED], ids=["as found", "steered"])
def test_a_file_is_enlarged_as_by_the_commands(blurred, tmp_path, steered):
    write_image(tmp_path / "photo.jpg", blurred)
    options = [word for name, value in steered.items() for word in (f"--{name}", value)]
    done("adapt", tmp_path / "photo.jpg", *options)
    done("infer", tmp_path / "photo.jpg", "-o", tmp_path / "larger.png")
    expected = read_picture(tmp_path / "larger.png").pixels
    done("upscale", tmp_path / "photo.jpg", "-o", tmp_path / "at_once.png", *options)
    assert np.array_equal(read_picture(tmp_path / "at_once.png").pixels, expected)
    assert np.array_equal(darsr.upscale(tmp_path / "photo.jpg", **steered), expected)
    with Image.open(tmp_path / "photo.jpg") as image:  # its JPEG tables are known, as those of a file
        assert np.array_equal(np.asarray(darsr.upscale(image, **steered)), expected)
    darsr.adapt(str(tmp_path / "photo.jpg"), **steered).save(tmp_path / "own.darsr")
    assert (tmp_path / "own.darsr").read_bytes() == (tmp_path / "photo.darsr").read_bytes()


def test_arrays_keep_their_depth_and_channels(blurred):
    adapter = darsr.adapt(blurred)
    alpha = np.full(blurred.shape[:2], 90, np.uint8)
    for image in (blurred, blurred[:, :, 1], np.dstack([blurred, alpha]), np.dstack([blurred[:, :, 1], alpha])):
        for given in (image, image.astype(np.uint16) * 257, image.astype(">u2") * 257):
            result = darsr.upscale(given, adapter=adapter)
            assert result.dtype == given.dtype.newbyteorder("=")
            assert result.shape == (2 * image.shape[0], 2 * image.shape[1], *image.shape[2:])
            assert image.ndim == 2 or image.shape[2] == 3 or (result[:, :, -1] == given[0, 0, -1]).all()


def test_pil_images_keep_their_mode_profile_and_resolution(blurred, tmp_path):
    adapter = darsr.adapt(blurred)
    image = Image.fromarray(blurred)
    deep = Image.fromarray(blurred[:, :, 1].astype(np.uint16) * 257)
    modes = {"RGB": "RGB", "L": "L", "RGBA": "RGBA", "LA": "LA", "P": "RGB", "1": "L"}
    for mode, expected in modes.items():
        assert darsr.upscale(image.convert(mode), adapter=adapter).mode == expected
    assert darsr.upscale(deep, adapter=adapter).mode.startswith("I;16")
    image.save(tmp_path / "a.jpg", icc_profile=b"profile", dpi=(300, 300), exif=_turned())
    with Image.open(tmp_path / "a.jpg") as opened:
        result = darsr.upscale(opened, adapter=adapter)
    assert result.size == (2 * blurred.shape[0], 2 * blurred.shape[1])  # upright, and not to be turned again
    assert result.info["icc_profile"] == b"profile" and result.info["dpi"] == (300, 300)
    result.save(tmp_path / "b.jpg", exif=result.info["exif"])
    with Image.open(tmp_path / "b.jpg") as again:
        assert 0x0112 not in again.getexif() and again.getexif()[0x010F] == "maker"


def _turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    return exif


def test_an_open_engine_runs_as_it_is(blurred, tmp_path):
    darsr.adapt(blurred).save(tmp_path / "photo.darsr")
    done("export", tmp_path / "photo.darsr", "--split", "-o", tmp_path / "photo.bundle")
    with darsr.open_engine(tmp_path / "photo.bundle", adapter=tmp_path / "photo.darsr") as engine:
        result = darsr.upscale(blurred, engine=engine)
    assert np.array_equal(result, darsr.upscale(blurred, adapter=tmp_path / "photo.darsr"))


@pytest.mark.parametrize(
    ("image", "line"),
    [
        (
            np.zeros((40, 40, 3)),
            r"the image: is an array of float64, and uint8 or uint16 is expected; .*astype\('uint8'\)$",
        ),
        (np.zeros((40, 40), np.int32), r"the image: is an array of int32, and uint8 or uint16 is expected; "),
        (np.zeros((40, 40), bool), r"the image: is an array of bool"),
        (
            np.zeros((1, 40, 40, 3), np.uint8),
            r"the image: is an array of shape \(1, 40, 40, 3\); give H x W \(gray\), ",
        ),
        (np.zeros((3, 40, 40), np.uint8), r"the image: is an array of shape \(3, 40, 40\); give H x W \(gray\), "),
        (np.zeros((0, 40), np.uint8), r"the image: is an array of shape \(0, 40\)"),
        ([[1, 2]], r"the image: is of type list; give an array, a PIL image or a path$"),
        (np.zeros((20, 40), np.uint8), r"the image: is 40x20 pixels, too small to adapt"),
        (Image.new("CMYK", (40, 40)), r"the image: is an image of kind CMYK, which is not supported"),
        (Image.new("F", (40, 40)), r"the image: is an image of kind F, which is not supported"),
        (Image.new("I", (40, 40), -1), r"the image: holds values beyond 16 bits; give values from 0 to 65535$"),
        ("missing.png", r"missing\.png: "),
    ],
)
def test_another_kind_of_image_is_one_line(image, line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(darsr.DarsrError, match=f"^{line}"):
        darsr.upscale(image)


def test_a_truncated_pil_image_and_options_out_of_range_are_one_line(blurred, tmp_path):
    write_image(tmp_path / "whole.png", blurred)
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:-400])
    with (
        Image.open(tmp_path / "cut.png") as cut,
        pytest.raises(darsr.DarsrError, match=r"^the image: cannot be decoded \("),
    ):
        darsr.adapt(cut)
    for options, line in (
        ({"scale": 3}, "scale 3: expected 2 or 4"),
        ({"denoise": 2}, "denoise 2: expected 0 to 1"),
        ({"engine": "x"}, "engine x: "),
    ):
        with pytest.raises(darsr.DarsrError, match=line):
            darsr.upscale(blurred, **options)
