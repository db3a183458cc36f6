"""Flipped bytes and full disks: one line, nothing half-written, and never another picture without a word."""

from __future__ import annotations

import contextlib
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import ImageCms
from typer.testing import CliRunner, Result

import cli
from darsr_deploy.engines.ort import OrtEngine
from darsr_deploy.errors import DarsrError
from darsr_deploy.files.adapter import Adapter
from darsr_deploy.files.coefficients import read_coefficients
from darsr_deploy.files.container import write_container
from darsr_deploy.files.model_spec import COEFFICIENTS_KIND, COEFFICIENTS_VERSION, ModelSpec
from darsr_deploy.files.onnx_bytes import check_seal, sealed
from darsr_deploy.images.arrays import Picture, read_picture, to_image, write_image

pytest.importorskip("torch", reason="adapting and running adapters needs PyTorch (extra train)")
pytest.importorskip("onnx", reason="makes models (extra export)")
pytest.importorskip("onnxruntime", reason="runs models (extra ort)")
from tests.support.onnx_models import doubling

ALONE = ("--no-adapter", "--engine", "torch")


def damaged(data: bytes, count: int = 150) -> list[bytes]:
    """Copies with one flipped bit each, in the head, in the tail and anywhere; and some that end too early."""
    random = np.random.default_rng(3)
    places = [*range(min(40, len(data))), *range(len(data) - 40, len(data)), *random.integers(0, len(data), count)]
    flipped = [data[:place] + bytes([data[place] ^ (1 << random.integers(8))]) + data[place + 1 :] for place in places]
    return flipped + [data[: int(len(data) * share)] for share in (0, 0.01, 0.3, 0.9, 0.999)]


def one_line(error: DarsrError, path: Path) -> None:
    assert str(error).startswith(str(path)) and len(str(error).splitlines()) == 1 and "; " in str(error)


@contextlib.contextmanager
def full_disk(free: int):
    """No file can grow beyond so many bytes: what a write then raises is what a full disk makes it raise."""
    resource = pytest.importorskip("resource", reason="limits of a process are of Unix")
    old, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (free, old[1]))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)


def darsr(*arguments: object) -> Result:
    result = CliRunner().invoke(cli.app, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def adapter() -> Adapter:
    """A filter that changes nothing, before the shipped backbone."""
    from darsr_train.backbones import load_backbone

    backbone = load_backbone("edge", 2)
    return Adapter("global", 2, backbone.name, backbone.sha256, {}, {"taps": np.eye(13, dtype=np.float32)[12]})


# ---- flipped bytes


def test_an_adapter(adapter, tmp_path):
    path = tmp_path / "a.darsr"
    adapter.save(path)
    whole, refused = path.read_bytes(), 0
    for data in damaged(whole):
        path.write_bytes(data)
        try:
            found = Adapter.load(path)
        except DarsrError as error:
            one_line(error, path)
            refused += 1
        else:
            assert np.array_equal(found.arrays["taps"], adapter.arrays["taps"])
            assert (found.correction, found.scale, found.rounds) == ("global", 2, 0)
    assert refused > 200


def test_a_model(tmp_path):
    path = doubling(tmp_path / "a.onnx")
    whole, lr = sealed(path.read_bytes()), np.random.default_rng(0).random((1, 3, 5, 6), np.float32)
    path.write_bytes(whole)
    with OrtEngine(path) as engine:
        expected = engine.run(lr)
    refused = 0
    for data in damaged(whole):
        path.write_bytes(data)
        try:
            with OrtEngine(path) as engine:
                result = engine.run(lr)
        except DarsrError as error:
            one_line(error, path)
            refused += 1
        else:
            assert np.array_equal(result, expected), "another picture and nothing was said"
    assert refused > 180


def test_a_seal_is_of_the_whole_file():
    import onnx

    model = onnx.helper.make_model(onnx.helper.make_graph([], "g", [], []))
    onnx.helper.set_model_props(model, {"a": "b"})
    plain = model.SerializeToString()
    check_seal("a.onnx", plain)
    check_seal("a.onnx", sealed(plain))
    read_back = onnx.load_from_string(sealed(plain))
    assert [entry.key for entry in read_back.metadata_props] == ["a", "darsr_sha256"]
    read_back.graph.name = "changed"
    for changed in (read_back.SerializeToString(), sealed(plain) + b"\x00", b"\x00" + sealed(plain)):
        with pytest.raises(DarsrError, match=r"a\.onnx: is damaged, or was changed after its export"):
            check_seal("a.onnx", changed)


def test_weights_that_are_not_numbers_are_found(photo, tmp_path, monkeypatch):
    """A runtime turns NaN into black, and a program into exit 0."""
    import onnx
    from onnx import numpy_helper

    path = doubling(tmp_path / "a.onnx")
    model = onnx.load(path)
    weight = numpy_helper.to_array(model.graph.initializer[0]).copy()
    weight.flat[3] = np.nan
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, "weight"))
    path.write_bytes(model.SerializeToString())
    with pytest.raises(DarsrError, match=r"a\.onnx: its weight 'weight' holds NaN; export it again"):
        OrtEngine(path)
    constant = onnx.helper.make_node("Constant", [], ["weight"], value=model.graph.initializer[0])
    model.graph.node.insert(0, constant)
    del model.graph.initializer[:]
    path.write_bytes(model.SerializeToString())
    with pytest.raises(DarsrError, match=r"a\.onnx: its weight 'weight' holds NaN"):
        OrtEngine(path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_result_that_is_not_of_numbers_is_an_error(value):
    result = np.full((1, 3, 4, 4), 0.5, np.float32)
    result[0, 1, 2, 3] = value
    for gray in (False, True):
        with pytest.raises(DarsrError, match="the network's result: holds NaN or infinity"):
            to_image(result, gray)


def test_a_crafted_adapter_is_an_error_and_not_a_black_picture(photo, adapter, tmp_path, monkeypatch):
    from dataclasses import replace

    monkeypatch.chdir(tmp_path)
    write_image("photo.png", photo)
    replace(adapter, arrays={"taps": np.full(13, 3e38, np.float32)}).save("photo.darsr")
    result = darsr("infer", "photo.png", "--engine", "torch")
    assert result.exit_code == 1 and "holds NaN or infinity" in result.stderr
    assert not Path("photo_x2.png").exists()


def test_the_coefficients_beside_a_model(tmp_path):
    path = tmp_path / "a.coeff.safetensors"
    coefficients = np.random.default_rng(0).random((1, 13, 4, 5), np.float32)
    digest = write_container(path, COEFFICIENTS_KIND, COEFFICIENTS_VERSION, {}, {"coeff": coefficients})
    spec = ModelSpec(2, form="filters", source_height=4, source_width=5, coefficients_sha256=digest)
    assert np.array_equal(read_coefficients(tmp_path / "a.onnx", spec), coefficients)
    for data in damaged(path.read_bytes(), 100):
        path.write_bytes(data)
        with pytest.raises(DarsrError) as caught:
            read_coefficients(tmp_path / "a.onnx", spec)
        one_line(caught.value, path)


# ---- a full disk


def test_a_full_disk_while_adapting_exporting_and_inferring(photo, adapter, built_once, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_image("photo.png", photo)
    adapter.save("given.darsr")
    darsr("export", "given.darsr", "-o", "given.onnx")  # the export that the tests share is kept on the disk too
    Path("given.onnx").unlink()
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    for words, target in (
        (("adapt", "photo.png", "--steps", 0, "--device", "cpu"), "photo.darsr"),
        (("export", "given.darsr"), "given.onnx"),
        (("infer", "photo.png", *ALONE), "photo_x2.png"),
        (("infer", "photo.png", *ALONE, "-o", "photo_x2.tif"), "photo_x2.tif"),
    ):
        with full_disk(2000):
            result = darsr(*words)
        assert result.exit_code == 1 and result.stdout == "", words
        (line,) = result.stderr.splitlines()
        assert line.startswith(f"error: {target}: could not be written") and "free some space" in line
        assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


# ---- every image, through the commands


def test_a_deep_transparent_tiff_is_adapted_to_and_enlarged(photo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    alpha = np.full(photo.shape[:2], 65535, np.uint16)
    alpha[:, :20] = 0
    image = np.dstack([photo.astype(np.uint16) * 257, alpha])
    write_image("photo.tif", image, Picture(image, icc))
    assert darsr("adapt", "photo.tif", "--steps", 0, "--device", "cpu").exit_code == 0
    facts = Adapter.load("photo.darsr").facts["source"]
    assert (facts["height"], facts["width"]) == photo.shape[:2] and len(facts["sha256"]) == 64
    result = darsr("infer", "photo.tif", "--engine", "torch")
    assert result.exit_code == 0 and result.stdout.startswith("photo.tif -> photo_x2.tif"), result.stderr
    picture = read_picture("photo_x2.tif")
    assert picture.pixels.dtype == np.uint16 and picture.pixels.shape == (160, 192, 4) and picture.icc == icc
    assert len(np.unique(picture.pixels[..., 0])) > 1000, "16 bits in name only"
    assert (picture.pixels[:, :36, 3] == 0).all() and (picture.pixels[:, 44:, 3] == 65535).all()


def test_a_target_that_cannot_hold_the_image_is_said_before_the_work(photo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_image("photo.png", photo.astype(np.uint16) * 257)
    monkeypatch.setattr("darsr_deploy.engines.upscale.upscale", lambda *_: pytest.fail("the work has begun"))
    result = darsr("infer", "photo.png", *ALONE, "-o", "photo.jpg")
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        "error: photo.jpg: JPEG holds 8 bits a channel, and the image has 16; write a PNG or TIFF with -o"
    ]
