"""The command line as users and scripts meet it: exit codes, one line for each failure, results alone on stdout."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage import data

import cli
from darsr_deploy.errors import DarsrError
from darsr_deploy.files.adapter import Adapter
from darsr_deploy.files.container import write_container
from darsr_deploy.images.arrays import read_image, write_image
from darsr_deploy.images.metrics import psnr
from darsr_deploy.images.resample import imresize
from tests.support.commands import ALONE, BRIEF, darsr, done, names, refused, strict_json
from tests.support.shared import SHARED, needs_shared

torch = pytest.importorskip("torch", reason="adapting and running adapters needs PyTorch (extra train)")

ADAPT_KEYS = {
    "input",
    "adapter",
    "scale",
    "profile",
    "backbone",
    "seconds",
    "steps",
    "chosen",
    "kernel_sum",
    "seed",
    "device",
}
INFER_KEYS = {"input", "output", "engine", "provider", "seconds", "height", "width"}


def blurred(photo: np.ndarray) -> np.ndarray:
    """Where an image shows no blur there is nothing to adapt."""
    return cv2.GaussianBlur(photo, (0, 0), 0.8)


@pytest.fixture
def image(photo, tmp_path) -> Path:
    write_image(tmp_path / "photo.png", blurred(photo))
    return tmp_path / "photo.png"


@pytest.fixture
def tiny(photo, tmp_path) -> Path:
    write_image(tmp_path / "tiny.png", photo[:8, :8])
    return tmp_path / "tiny.png"


@pytest.fixture(scope="session")
def identity() -> Adapter:
    """A filter that changes nothing, before the shipped backbone: needs no fitting, and its result is known."""
    from darsr_train.backbones import load_backbone

    backbone = load_backbone("edge", 2)
    return Adapter("global", 2, backbone.name, backbone.sha256, {}, {"taps": np.eye(13, dtype=np.float32)[12]})


@pytest.fixture(scope="session")
def fitted(photo, tmp_path_factory) -> bytes:
    """The adapter file of the photo after two steps."""
    folder = tmp_path_factory.mktemp("fitted")
    write_image(folder / "photo.png", blurred(photo))
    done("adapt", folder / "photo.png", *BRIEF)
    return (folder / "photo.darsr").read_bytes()


# ---- as typed


@pytest.mark.parametrize("engine", ["torch", "ort"])
def test_adapt_and_infer_as_typed(engine, image, photo, monkeypatch):
    if engine == "ort":
        for module in ("onnx", "onnxscript", "onnxruntime"):
            pytest.importorskip(module, reason="ONNX Runtime and the exporter are extras of their own")
    monkeypatch.chdir(image.parent)
    adapted = done("adapt", "photo.png", *BRIEF)
    assert adapted.stdout.startswith("photo.png -> photo.darsr") and len(adapted.stdout.splitlines()) == 1
    inferred = done("infer", "photo.png", "--engine", engine)
    assert inferred.stdout.startswith("photo.png -> photo_x2.png") and len(inferred.stdout.splitlines()) == 1
    assert names(image.parent) == {"photo.png", "photo.darsr", "photo_x2.png"}
    result = read_image(image.with_name("photo_x2.png"))
    assert result.shape == (160, 192, 3)
    assert psnr(imresize(result, *photo.shape[:2]), photo) > 20  # the same scene, in the same colours


def test_the_same_adapt_twice_gives_the_same_bytes(image, fitted):
    done("adapt", image, *BRIEF)
    again = image.with_name("photo.darsr")
    assert again.read_bytes() == fitted
    done("adapt", image, *BRIEF, "--seed", "1", "--overwrite")
    assert again.read_bytes() != fitted


def test_a_filter_that_changes_nothing_gives_the_backbone_alone(image, identity, tmp_path):
    identity.save(tmp_path / "photo.darsr")
    done("infer", image, "--engine", "torch", "-o", tmp_path / "with.png")
    done("infer", image, *ALONE, "-o", tmp_path / "alone.png")
    assert np.array_equal(read_image(tmp_path / "with.png"), read_image(tmp_path / "alone.png"))


def test_the_console_speaks_as_the_tests_hear_it(tmp_path):
    """Once as a process of its own: the streams and the exit code are those of the operating system."""
    command = [sys.executable, str(Path(cli.__file__)), "infer", "missing.png", "--no-adapter"]
    environment = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parent)}
    result = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    assert result.returncode == 1 and result.stdout == ""
    assert result.stderr.startswith("error: missing.png: ") and len(result.stderr.splitlines()) == 1


# ---- images that cannot be used


def test_without_steps_nothing_is_fitted_unless_another_adapter_is_gone_on_from(tmp_path, monkeypatch):
    monkeypatch.setattr("darsr_train.adaptation.fast.camera_probability", lambda pixels: 0.0)
    monkeypatch.setattr("darsr_train.adaptation.options.FIT_STEPS", 3)
    image, first, second = tmp_path / "a.png", tmp_path / "first.darsr", tmp_path / "second.darsr"
    write_image(image, cv2.GaussianBlur(data.coffee(), (0, 0), 3)[:120:2, :160:2])
    row = strict_json(done("adapt", image, "-o", first, "--threads", "1", "--json").stdout)
    assert row["steps"] == 0
    row = strict_json(done("adapt", image, "-o", second, "--from", first, "--threads", "1", "--json").stdout)
    assert row["steps"] == 3


@pytest.mark.parametrize("command", [("adapt", *BRIEF), ("infer", *ALONE)], ids=["adapt", "infer"])
@pytest.mark.parametrize("kind", ["missing", "empty", "truncated", "text", "folder of nothing"])
def test_an_image_that_cannot_be_used_is_one_line(kind, command, image):
    path = image.with_name("bad.png")
    if kind == "folder of nothing":
        path.mkdir()
    elif kind != "missing":
        path.write_bytes({"empty": b"", "truncated": image.read_bytes()[:-500], "text": b"hello\n" * 99}[kind])
    before = names(image.parent)
    line = refused(*command, path, name=path)
    expected = {
        "missing": "No such file",
        "empty": "empty",
        "truncated": "truncated",
        "text": "not an image",
        "folder of nothing": "holds no images",
    }
    assert expected[kind] in line
    assert names(image.parent) == before


def test_too_small_to_adapt_says_the_least_side_and_the_way_out(tiny):
    line = refused("adapt", tiny, *BRIEF, name=tiny)
    for part in ("8x8", "too small", "32", "--no-adapter"):
        assert part in line
    assert names(tiny.parent) == {"tiny.png"}


@pytest.mark.parametrize("size", [(8, 8), (1, 1), (1, 7), (2, 3), (33, 1)])
@pytest.mark.parametrize("colours", ["gray", "rgb"])
def test_the_backbone_alone_takes_any_size_and_gray_stays_gray(size, colours, photo, gray, tmp_path):
    image = {"gray": gray, "rgb": photo}[colours][: size[0], : size[1]]
    write_image(tmp_path / "a.png", image)
    done("infer", tmp_path / "a.png", *ALONE)
    assert read_image(tmp_path / "a_x2.png").shape == (2 * size[0], 2 * size[1], *image.shape[2:])


def test_gray_stays_gray_when_adapted(gray, tmp_path):
    write_image(tmp_path / "a.png", gray)
    done("adapt", tmp_path / "a.png", *BRIEF, "--corrected", tmp_path / "corrected.png")
    done("infer", tmp_path / "a.png", "--engine", "torch")
    assert read_image(tmp_path / "corrected.png").shape == gray.shape
    assert read_image(tmp_path / "a_x2.png").shape == (160, 192)


def test_a_tiny_image_with_an_adapter_of_another(tiny, identity, tmp_path):
    """Also below the three pixels that the correction filter needs."""
    identity.save(tmp_path / "a.darsr")
    write_image(tmp_path / "dot.png", read_image(tiny)[:1, :2])
    for name, shape in (("tiny", (16, 16, 3)), ("dot", (2, 4, 3))):
        done("infer", tmp_path / f"{name}.png", "--adapter", tmp_path / "a.darsr", "--engine", "torch", "--corrected")
        assert read_image(tmp_path / f"{name}_x2.png").shape == shape
        assert np.array_equal(read_image(tmp_path / f"{name}_corrected.png"), read_image(tmp_path / f"{name}.png"))


# ---- adapters that cannot be used


def test_no_adapter_beside_the_image(image):
    line = refused("infer", image, "--engine", "torch", name=image)
    assert "darsr adapt" in line and "--no-adapter" in line


@pytest.mark.parametrize("fault", ["missing", "flipped", "version", "kind", "scale", "backbone", "shape"])
def test_an_adapter_that_cannot_be_used_is_one_line(fault, image, identity, fitted):
    path = image.with_name("a.darsr")
    identity.save(path)
    more: tuple[str, ...] = ()
    if fault == "missing":
        path.unlink()
    elif fault == "flipped":
        data = bytearray(fitted)
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    elif fault == "version":
        write_container(path, "adapter", 99, {}, {})
    elif fault == "kind":
        write_container(path, "backbone", 1, {}, {})
    elif fault == "scale":
        more = ("--scale", "4")
    elif fault == "backbone":
        Adapter("global", 2, identity.backbone, "0" * 64, {}, identity.arrays).save(path)
    elif fault == "shape":
        Adapter(
            "network",
            2,
            identity.backbone,
            identity.backbone_sha256,
            {},
            {"darm.head.weight": np.zeros((8, 3, 3, 3), np.float32)},
        ).save(path)
    before = names(image.parent)
    line = refused("infer", image, "--adapter", path, "--engine", "torch", *more, name=path)
    expected = {
        "missing": "No such file",
        "flipped": "damaged",
        "version": "version 99",
        "kind": "is a backbone, not an adapter",
        "scale": "for scale 2, asked for 4",
    }
    assert expected.get(fault, {"backbone": "another edge-x2", "shape": "cannot be built"}.get(fault)) in line
    assert names(image.parent) == before


# ---- outputs


@pytest.mark.parametrize("command", [("adapt", *BRIEF), ("infer", *ALONE)], ids=["adapt", "infer"])
def test_an_output_that_cannot_be_written_is_one_line(command, image):
    """Below a regular file: file modes mean nothing to root."""
    target = image / "below" / ("out.darsr" if command[0] == "adapt" else "out.png")
    refused(*command, image, "-o", target, name=target)
    assert names(image.parent) == {"photo.png"}


def test_a_place_that_cannot_be_written_is_said_before_the_work(image, monkeypatch):
    """Adapting may take hours; that its result has nowhere to go can be known at once."""
    monkeypatch.setattr("darsr_train.adaptation.adapt.adapt_fast", lambda *_: pytest.fail("the work was begun"))
    refused("adapt", image, *BRIEF, "-o", image / "below" / "out.darsr", name=image / "below" / "out.darsr")


def test_several_into_a_folder_that_cannot_be_made(image):
    refused("infer", image.parent, *ALONE, "-o", image / "below", name=image / "below")
    assert names(image.parent) == {"photo.png"}


def test_an_output_of_an_unknown_format_is_one_line(image):
    assert ".png" in refused("infer", image, *ALONE, "-o", image.with_suffix(".xyz"), name=image.with_suffix(".xyz"))


def test_nothing_is_overwritten_unasked(image, fitted, tmp_path):
    out, adapter = tmp_path / "photo_x2.png", tmp_path / "photo.darsr"
    out.write_bytes(b"mine")
    adapter.write_bytes(b"mine too")
    assert "--overwrite" in refused("infer", image, *ALONE, name=out)
    assert "--overwrite" in refused("adapt", image, *BRIEF, name=adapter)
    assert (out.read_bytes(), adapter.read_bytes()) == (b"mine", b"mine too")
    done("infer", image, *ALONE, "--overwrite")
    done("adapt", image, *BRIEF, "--overwrite")
    assert read_image(out).shape == (160, 192, 3) and adapter.read_bytes() == fitted


@pytest.mark.parametrize("command", ["adapt", "infer"])
def test_nor_is_a_corrected_image(command, image, fitted, tmp_path):
    corrected = tmp_path / "photo_corrected.png"
    corrected.write_bytes(b"mine")
    if command == "infer":
        (tmp_path / "photo.darsr").write_bytes(fitted)
        result = darsr("infer", image, "--engine", "torch", "--corrected")
    else:
        result = darsr("adapt", image, *BRIEF, "--corrected", corrected)
    assert corrected.read_bytes() == b"mine"
    assert result.exit_code == 1 and "--overwrite" in result.stderr


def test_the_corrected_image_has_the_size_of_the_input(image, photo, tmp_path):
    done("adapt", image, *BRIEF, "--corrected", tmp_path / "c.png")
    done("infer", image, "--engine", "torch", "--corrected")
    theirs = read_image(tmp_path / "c.png")
    assert theirs.shape == photo.shape and psnr(theirs, photo) > 20
    assert np.array_equal(read_image(tmp_path / "photo_corrected.png"), theirs)


def test_a_corrected_image_needs_an_adapter(image):
    """Said before the work: a failure whose output stands there all the same is refused when it is tried again."""
    refused("infer", image, *ALONE, "--corrected", name="--corrected")
    assert names(image.parent) == {"photo.png"}


def test_a_name_as_long_as_the_file_system_allows(photo, tmp_path):
    """photo_x2.png is then too long."""
    name = "p" * 251 + ".png"
    write_image(tmp_path / name, photo[:8, :8])
    refused("infer", tmp_path / name, *ALONE, name=tmp_path)
    done("infer", tmp_path / name, *ALONE, "-o", tmp_path / "out.png")
    refused("infer", tmp_path / ("p" * 300), *ALONE, name=tmp_path)


def test_a_name_that_is_no_text(photo, tmp_path):
    """Names on Linux are bytes; one that is no UTF-8 is printed somehow, and the rest is done."""
    folder = tmp_path / "folder"
    folder.mkdir()
    write_image(folder / "z.png", photo[:8, :8])
    try:
        write_image(folder / os.fsdecode(b"caf\xe9.png"), photo[:8, :8])
    except (OSError, DarsrError):
        pytest.skip("this file system takes only names that are text")
    done("infer", folder, *ALONE, "-o", tmp_path / "out")
    assert len(names(tmp_path / "out")) == 2


# ---- several inputs


@pytest.fixture
def folder(photo, gray, tmp_path) -> Path:
    """Two good images and, between them, a bad one; and a result of an earlier run."""
    folder = tmp_path / "folder"
    folder.mkdir()
    write_image(folder / "a.png", photo[:40, :36])
    write_image(folder / "c.jpg", gray[:34, :50])
    (folder / "b.png").write_bytes((folder / "a.png").read_bytes()[:-100])
    (folder / "a_x4.png").write_bytes(b"not looked at")
    return folder


def test_a_bad_image_does_not_stop_the_others(folder, tmp_path):
    result = darsr("infer", folder, *ALONE, "-o", tmp_path / "out")
    assert result.exit_code == 1
    passed_over, line = result.stderr.splitlines()
    assert passed_over.startswith(f"{folder}: passed over 1 ") and "a_x4.png" in passed_over
    assert line.startswith(f"error: {folder / 'b.png'}: is truncated")
    assert len(result.stdout.splitlines()) == 2
    assert names(tmp_path / "out") == {"a_x2.png", "c_x2.jpg"}
    assert read_image(tmp_path / "out" / "c_x2.jpg").shape == (68, 100)


def test_adapters_of_a_folder_lie_beside_the_images_and_are_used(folder):
    result = darsr("adapt", folder, *BRIEF)
    assert result.exit_code == 1 and result.stderr.count("error: ") == 1
    assert {n for n in names(folder) if "darsr" in n} == {"a.darsr", "c.darsr"}
    (folder / "b.png").unlink()
    rows = strict_json(done("infer", folder, "--engine", "torch", "--json").stdout)
    assert [Path(row["output"]).name for row in rows] == ["a_x2.png", "c_x2.jpg"]


def test_each_failure_is_listed(folder, identity):
    identity.save(folder / "c.darsr")
    result = darsr("infer", folder, "--engine", "torch")
    assert result.exit_code == 1 and len(result.stdout.splitlines()) == 1
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert [line.split(": ")[1] for line in errors] == [str(folder / "a.png"), str(folder / "b.png")]


def test_an_empty_folder_does_not_stop_the_others(image, tmp_path):
    (tmp_path / "empty").mkdir()
    result = darsr("infer", tmp_path / "empty", image, *ALONE)
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"error: {tmp_path / 'empty'}: holds no images")
    assert (tmp_path / "photo_x2.png").is_file()


def test_two_images_of_one_name_do_not_become_one_output(photo, tmp_path):
    """Not even with --overwrite: that is about files of earlier runs."""
    for name, part in (("one", photo[:20, :20]), ("two", photo[:20, 20:40])):
        (tmp_path / name).mkdir()
        write_image(tmp_path / name / "photo.png", part)
    result = darsr("infer", tmp_path / "one", tmp_path / "two", *ALONE, "-o", tmp_path / "out", "--overwrite", "--json")
    *rows, failed = strict_json(result.stdout)
    assert len(rows) == len(names(tmp_path / "out")) == 1 and failed.keys() == {"errors"}


def test_the_truth_belongs_to_one_image(image, folder):
    (folder / "a_x4.png").unlink()
    refused("adapt", image, folder, "--gt", image, *BRIEF, name="--gt")
    refused("adapt", folder, "--gt", image, *BRIEF, name="--gt")
    assert not list(folder.glob("*.darsr"))


# ---- what scripts read


def test_json_of_adapt(image, photo, tmp_path, monkeypatch):
    # small crops of photographs may pass for a camera's, which are not fitted
    monkeypatch.setattr("darsr_train.adaptation.fast.camera_probability", lambda pixels: 0.0)
    write_image(tmp_path / "truth.png", imresize(photo, 160, 192))
    result = done("adapt", image, *BRIEF, "--seed", "3", "--gt", tmp_path / "truth.png", "--json")
    row = strict_json(result.stdout)
    assert row.keys() == ADAPT_KEYS | {"psnr_y", "psnr_y_backbone"}
    assert (row["input"], row["adapter"]) == (str(image), str(tmp_path / "photo.darsr"))
    assert (row["scale"], row["profile"], row["steps"], row["seed"], row["device"]) == (2, "fast", 2, 3, "cpu")
    assert 20 < row["psnr_y_backbone"] < 60 and 0.5 < row["kernel_sum"] < 1.5
    assert result.stderr == ""  # no bar where stderr is no terminal


def test_the_truth_changes_nothing_but_the_report(image, photo, fitted, tmp_path):
    write_image(tmp_path / "truth.png", imresize(photo, 160, 192)[::-1])
    without = strict_json(done("adapt", image, *BRIEF, "--json", "-o", tmp_path / "a.darsr").stdout)
    assert without.keys() == ADAPT_KEYS
    done("adapt", image, *BRIEF, "--gt", tmp_path / "truth.png")
    assert (tmp_path / "photo.darsr").read_bytes() == fitted


def test_a_truth_of_another_size_is_one_line(image):
    """Said before the work, which may take hours."""
    assert "expected 2 times 96x80" in refused("adapt", image, *BRIEF, "--gt", image, name=image)
    assert names(image.parent) == {"photo.png"}


def test_json_of_infer(image):
    row = strict_json(done("infer", image, *ALONE, "--json").stdout)
    assert row.keys() == INFER_KEYS
    assert (row["engine"], row["provider"], row["height"], row["width"]) == ("torch", "cpu", 160, 192)
    assert Path(row["output"]).is_file() and row["seconds"] > 0


def test_json_of_a_folder_is_a_list_of_what_was_done(folder, tmp_path):
    result = darsr("infer", folder, *ALONE, "-o", tmp_path / "out", "--json")
    assert result.exit_code == 1
    *rows, failed = strict_json(result.stdout)
    assert [Path(row["input"]).name for row in rows] == ["a.png", "c.jpg"]
    assert failed.keys() == {"errors"} and [error["what"] for error in failed["errors"]] == [str(folder / "b.png")]
    (folder / "b.png").unlink()
    (folder / "c.jpg").unlink()
    rows = strict_json(done("infer", folder, *ALONE, "-o", tmp_path / "out", "--overwrite", "--json").stdout)
    assert isinstance(rows, list) and len(rows) == 1  # a folder is a list, also of one image


def test_infinity_is_no_json(photo, tmp_path):
    """The bicubic of a flat image is exact: its PSNR is infinite, and what stands on stdout must still be JSON."""
    for name, side in (("LR", 16), ("HR", 32)):
        (tmp_path / name).mkdir()
        write_image(tmp_path / name / "flat.png", np.full((side, side, 3), 128, np.uint8))
    summary = strict_json(done("eval", tmp_path, "--method", "none", "--device", "cpu", "--json").stdout)
    assert summary["images"][0].keys() >= {"name", "psnr_y", "ssim_y", "psnr_y_backbone", "psnr_y_bicubic", "seconds"}


def test_an_image_too_small_to_measure_is_one_line(photo, tmp_path):
    """SSIM needs a window of 11 pixels."""
    for name, side in (("LR", 4), ("HR", 8)):
        (tmp_path / name).mkdir()
        write_image(tmp_path / name / "a.png", photo[:side, :side])
    result = darsr("eval", tmp_path, "--method", "none", "--device", "cpu")
    assert result.exit_code == 1 and result.stdout == ""
    assert all(line.startswith("error: ") for line in result.stderr.splitlines())


def test_no_bar_where_stderr_is_no_terminal(image, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # as set by many build services; rich takes it for a terminal
    assert done("adapt", image, *BRIEF).stderr == ""


# ---- interrupted


@pytest.mark.parametrize("place", ["darsr_train.adaptation.adapt.adapt_fast", "darsr_deploy.files.atomic.os.fsync"])
def test_interrupted_while_adapting(place, image, monkeypatch):
    def interrupt(*_: object, **__: object):
        raise KeyboardInterrupt

    monkeypatch.setattr(place, interrupt)
    result = darsr("adapt", image, *BRIEF)
    assert (result.exit_code, result.stdout, result.stderr) == (130, "", "interrupted\n")
    assert names(image.parent) == {"photo.png"}


@pytest.mark.parametrize(
    "place",
    [
        "darsr_deploy.engines.upscale.to_image",
        "darsr_deploy.files.atomic.os.fsync",
        "darsr_deploy.files.atomic.os.replace",
    ],
)
def test_interrupted_while_inferring(place, image, monkeypatch):
    def interrupt(*_: object, **__: object):
        raise KeyboardInterrupt

    old = image.with_name("photo_x2.png")
    old.write_bytes(b"old")
    monkeypatch.setattr(place, interrupt)
    result = darsr("infer", image, *ALONE, "--overwrite")
    assert (result.exit_code, result.stdout, result.stderr) == (130, "", "interrupted\n")
    assert names(image.parent) == {"photo.png", "photo_x2.png"} and old.read_bytes() == b"old"


# ---- wrong usage, and options that cannot be


@pytest.mark.parametrize(
    "arguments",
    [
        ("adapt",),
        ("infer",),
        ("nonsense",),
        ("adapt", "a.png", "--nonsense"),
        ("adapt", "a.png", "--steps", "-1"),
        ("adapt", "a.png", "--steps", "many"),
        ("adapt", "a.png", "--threads", "-1"),
        ("infer", "a.png", "--no-adapter", "--adapter", "a.darsr"),
        ("infer", "a.png", "--no-adapter", "--model", "a.onnx"),
        ("infer", "a.png", "--adapter", "a.darsr", "--model", "a.onnx"),
        ("backbone", "info"),
    ],
    ids=" ".join,
)
def test_wrong_usage_is_exit_2(arguments):
    result = darsr(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Usage:" in result.stderr


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (("--profile", "slow"), "fast, thorough, paper"),
        (("--scale", "3"), "2 and 4"),
        (("--backbone", "nothing"), "installed: edge-x2"),
        (("--device", "tpu"), "auto, cpu, cuda"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else value,
)
def test_a_value_that_cannot_be_lists_those_that_can(more, named, image):
    result = darsr("adapt", image, *BRIEF, *more)
    assert result.exit_code in (1, 2) and result.stdout == ""
    assert named in result.stderr
    assert names(image.parent) == {"photo.png"}


def test_an_engine_or_provider_that_is_not_known(image):
    assert "auto, ort, trt, trt-rtx, torch" in refused(
        "infer", image, "--no-adapter", "--engine", "trtx", name="engine trtx"
    )
    assert "cpu, cuda" in refused("infer", image, *ALONE, "--provider", "tpu", name="provider tpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_device_that_is_not_there_is_never_silently_another(image):
    refused("adapt", image, "--steps", "2", "--device", "cuda", name="device cuda")
    refused("infer", image, *ALONE, "--provider", "cuda", name="provider cuda")
    assert names(image.parent) == {"photo.png"}


def test_a_model_file_that_is_none(image, tmp_path):
    model = tmp_path / "a.onnx"
    pytest.importorskip("onnxruntime", reason="ONNX Runtime is an extra of its own")
    assert "no such file" in refused("infer", image, "--model", model, name=model)
    model.write_bytes(b"no model")
    assert "cannot load" in refused("infer", image, "--model", model, name=model)
    refused("infer", image, "--model", model, "--engine", "torch", name=model)


def test_an_exported_model_runs_and_says_what_it_is(image, identity, tmp_path):
    for module in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(module, reason="ONNX Runtime and the exporter are extras of their own")
    identity.save(tmp_path / "photo.darsr")
    row = strict_json(done("export", tmp_path / "photo.darsr", "--json").stdout)
    assert row.keys() >= {
        "model",
        "format",
        "precision",
        "form",
        "bytes",
        "sha256",
        "parity_psnr_db",
        "parity_floor_db",
    }
    model = tmp_path / "photo.onnx"
    assert (row["model"], row["format"], row["form"], row["bytes"]) == (
        str(model),
        "onnx",
        "global",
        model.stat().st_size,
    )
    assert "--overwrite" in refused("export", tmp_path / "photo.darsr", name=model)
    done("infer", image, "--model", model, "-o", tmp_path / "ort.png")
    done("infer", image, "--engine", "torch", "-o", tmp_path / "torch.png")
    difference = read_image(tmp_path / "ort.png").astype(int) - read_image(tmp_path / "torch.png")
    assert np.abs(difference).max() <= 1  # the same but for rounding
    assert "4" in refused("infer", image, "--model", model, "--scale", "4", name=model)  # never silently another scale


def test_export_of_what_is_no_adapter(image, tmp_path):
    refused("export", image, name=image)
    refused("export", tmp_path / "missing.darsr", name=tmp_path / "missing.darsr")
    assert names(tmp_path) == {"photo.png"}


# ---- backbones


def test_backbones_are_listed_and_described():
    rows = strict_json(done("backbone", "list", "--json").stdout)
    assert "edge-x2" in {row["name"] for row in rows}
    assert len(done("backbone", "list").stdout.splitlines()) == len(rows)
    for name in ("edge", "edge-x2"):
        facts = strict_json(done("backbone", "info", name, "--json").stdout)
        assert {**facts, "installed": True} == next(row for row in rows if row["name"] == "edge-x2")
        assert facts["parameters"] > 0 and facts["macs_per_lr_pixel"] > 0 and len(facts["sha256"]) == 64
    assert facts["sha256"] in done("backbone", "info", "edge").stdout
    assert "edge-x2" in refused("backbone", "info", "nothing", name="backbone nothing")


class Trap:
    """Unpickling it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def __reduce__(self) -> tuple:
        return os.mkdir, (self.folder,)


def saved(thing: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(thing, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "kind",
    ["missing", "empty", "garbage", "text", "pickle", "torch", "list", "other tensors", "wrong shapes", "truncated"],
)
def test_weights_that_cannot_be_used_are_one_line(kind, tmp_path):
    file, trap = tmp_path / "w.pth", tmp_path / "executed"
    good = saved({"out.0.weight": torch.zeros(4)})
    contents = {
        "empty": b"",
        "garbage": np.random.default_rng(0).bytes(5000),
        "text": b"These are no weights.\n" * 20,
        "pickle": pickle.dumps(Trap(trap)),
        "torch": saved({"out.0.weight": Trap(trap)}),
        "list": saved([torch.zeros(3)]),
        "other tensors": saved({"conv.weight": torch.zeros(3)}),
        "wrong shapes": saved({"out.0.weight": torch.zeros(1, 1, 6, 6)}),
        "truncated": good[: len(good) // 2],
    }
    if kind != "missing":
        file.write_bytes(contents[kind])
    before = names(tmp_path)
    refused("backbone", "import", file, name=file)
    assert names(tmp_path) == before, "code in the file was executed, or something was written"


@given(st.binary(max_size=60), st.sampled_from([b"", b"\x80\x02", b"PK\x03\x04"]))
def test_no_bytes_crash_the_import_of_weights(tmp_path_factory, data, magic):
    from darsr_train.backbones import import_weights

    source = tmp_path_factory.getbasetemp() / "any.pth"
    source.write_bytes(magic + data)
    with pytest.raises(DarsrError):
        import_weights(source, source.with_name("never.safetensors"))


@needs_shared
def test_published_weights_are_imported_once(tmp_path):
    file, target = SHARED / "weights" / "SRFBN-S_x2_BI.pth", tmp_path / "srfbn.safetensors"
    facts = strict_json(done("backbone", "import", file, "-o", target, "--json").stdout)
    assert (facts["file"], facts["architecture"], facts["scale"]) == (str(target), "srfbn-s", 2)
    assert strict_json(done("backbone", "info", target, "--json").stdout)["sha256"] == facts["sha256"]
    assert "--overwrite" in refused("backbone", "import", file, "-o", target, name=target)


def test_the_version_is_that_of_the_package():
    import importlib.metadata

    assert done("--version").stdout == f"{importlib.metadata.version('darsr')}\n"
