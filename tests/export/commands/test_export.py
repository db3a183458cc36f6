"""``darsr export`` and ``darsr infer`` with precisions and forms, as typed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from darsr_deploy.files.adapter import Adapter
from darsr_deploy.images.arrays import read_image, write_image
from export.artefacts import parity
from export.samples import find_photo, gather
from tests.support.commands import BRIEF, darsr, done, names, refused, strict_json

pytestmark = pytest.mark.usefixtures("built_once")


@pytest.fixture(scope="module")
def _adapted(photo, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("adapted")
    write_image(folder / "photo.png", photo)
    done("adapt", folder / "photo.png", *BRIEF)
    return folder


@pytest.fixture
def adapted(_adapted, tmp_path, monkeypatch) -> Path:
    """A folder, the working one, with photo.png and its adapter of kind network."""
    for name in ("photo.png", "photo.darsr"):
        (tmp_path / name).write_bytes((_adapted / name).read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_precision_gives_the_same_picture(adapted):
    pictures = {}
    for precision in ("fp32", "fp16", "int8"):
        row = strict_json(
            done("infer", "photo.png", "--precision", precision, "-o", f"{precision}.png", "--json").stdout
        )
        assert row["engine"] == "ort"
        pictures[precision] = read_image(Path(f"{precision}.png")).astype(int)
    differences = {p: np.abs(pictures[p] - pictures["fp32"]) for p in ("fp16", "int8")}
    print({p: f"grey levels: largest {d.max()}, mean {d.mean():.3f}" for p, d in differences.items()})
    assert differences["fp16"].max() <= 1
    assert 0 < differences["int8"].max() <= 32 and differences["int8"].mean() < 1  # none at all would be float32


def test_a_precision_that_an_engine_lacks_is_said_in_one_line(adapted):
    assert "has no bfloat16" in refused("infer", "photo.png", "--precision", "bf16", name="precision bf16")
    assert "--engine ort" in refused(
        "infer", "photo.png", "--precision", "fp16", "--engine", "torch", name="precision fp16"
    )
    assert "fp32, fp16, bf16, int8" in refused("infer", "photo.png", "--precision", "fp8", name="precision fp8")
    done("export", "photo.darsr", "--precision", "bf16")
    assert "cannot run precision bf16" in refused(
        "infer", "photo.png", "--model", "photo_bf16.onnx", name="photo_bf16.onnx"
    )


def test_models_of_every_form_run(adapted):
    done("infer", "photo.png", "-o", "network.png")
    for form, most in (("filters", 1), ("global", 60)):
        row = strict_json(done("export", "photo.darsr", "--form", form, "--precision", "fp16", "--json").stdout)
        assert (row["form"], row["precision"], row["model"]) == (form, "fp16", f"photo_{form}_fp16.onnx")
        assert {"macs_per_lr_pixel", "psnr_from_network_db"} <= row.keys()
        done("infer", "photo.png", "--model", row["model"], "--precision", "fp16", "-o", f"{form}.png")
        difference = read_image(Path(f"{form}.png")).astype(int) - read_image(Path("network.png"))
        assert np.abs(difference).max() <= most
    write_image(Path("other.png"), read_image(Path("photo.png"))[:-1])
    assert "filters of one image" in refused(
        "infer", "other.png", "--model", "photo_filters_fp16.onnx", name="photo_filters_fp16.onnx"
    )
    line = refused(
        "infer",
        "photo.png",
        "--model",
        "photo_filters_fp16.onnx",
        "--precision",
        "int8",
        "-o",
        "x.png",
        name="photo_filters_fp16.onnx",
    )
    assert "precision fp16, asked for int8" in line


def test_the_image_is_found_by_its_content(adapted, photo):
    assert find_photo(Path("photo.darsr")) == Path("photo.png")
    write_image(Path("photo.png"), photo[::-1])  # another picture of that name
    assert find_photo(Path("photo.darsr")) is None
    assert "--image" in refused("export", "photo.darsr", "--form", "global", name="form global")
    assert names(adapted) == {"photo.png", "photo.darsr"}
    assert gather(Path("photo.png"), given=True).photo.shape == (1, 3, *photo.shape[:2])


def test_calibration_on_a_folder_and_on_nothing(adapted, photo):
    Path("set").mkdir()
    assert "holds no images" in refused(
        "export", "photo.darsr", "--precision", "int8", "--calibration", "set", name="set"
    )
    write_image(Path("set/a.png"), photo)
    row = strict_json(done("export", "photo.darsr", "--precision", "int8", "--calibration", "set", "--json").stdout)
    assert row["calibration"] == "1 images of a folder"
    Path("photo.png").unlink()
    result = darsr("export", "photo.darsr", "--precision", "int8", "-o", "blind.onnx", "--floor", "20", "--json")
    assert result.exit_code == 0 and "calibrating on synthetic pictures" in result.stderr
    assert strict_json(result.stdout)["calibration"] == "synthetic pictures"


def test_a_lower_floor_tells_the_loss(adapted, monkeypatch):
    monkeypatch.setitem(parity.FLOORS_DB, "int8", 90)  # more than 8 bits can reach
    line = refused("export", "photo.darsr", "--precision", "int8", name="photo_int8.onnx")
    assert "90.0 dB are required" in line and "dB of quality" in line
    assert names(adapted) == {"photo.png", "photo.darsr"}
    result = darsr("export", "photo.darsr", "--precision", "int8", "--floor", "30", "--json")
    assert result.exit_code == 0 and "expect to lose about 0." in result.stderr
    assert strict_json(result.stdout)["parity_floor_db"] == 30


@pytest.mark.parametrize("part", ["facts", "array"])
def test_a_part_of_an_adapter_that_is_not_known_is_refused(adapted, part):
    adapter = Adapter.load("photo.darsr")
    if part == "facts":
        adapter.facts["backprojection"] = {"rounds": 3}
    else:
        adapter.arrays["backprojection.kernel"] = np.zeros((13, 13), np.float32)
    adapter.save("photo.darsr")
    for command in (("export", "photo.darsr"), ("infer", "photo.png", "--engine", "torch")):
        assert "backprojection" in refused(*command, name="photo.darsr")


def test_a_form_that_the_kind_does_not_have(adapted):
    adapter = Adapter.load("photo.darsr")
    Adapter(
        "global", 2, adapter.backbone, adapter.backbone_sha256, {}, {"taps": np.eye(13, dtype=np.float32)[12]}
    ).save("g.darsr")
    assert "of kind global" in refused("export", "g.darsr", "--form", "filters", name="g.darsr")
    assert strict_json(done("export", "g.darsr", "--form", "global", "--json").stdout)["form"] == "global"


def test_outputs_that_are_refused_by_their_names(adapted):
    before = Path("photo.darsr").read_bytes()
    line = refused(
        "export", "photo.darsr", "-o", "p.trt", name="p.trt: does not end in .onnx, by which infer knows a model"
    )
    assert line.endswith("; use -o p.onnx, or --format trt or trt-rtx for an engine")
    refused("export", "photo.darsr", "-o", "p.engine", name="p.engine: does not end in .onnx")
    line = refused("export", "photo.darsr", "-o", "p.onnx", "--format", "trt", name="p.onnx: does not end in .engine")
    assert line.endswith("; use -o p.engine, or --format onnx for a model")
    line = refused(
        "export", "photo.darsr", "-o", "p.onnx", "--split", name="p.onnx: is a file's name, and a bundle is a"
    )
    assert line.endswith("folder; use -o p.bundle")
    again = ("export", "photo.darsr", "-o", "photo.darsr", "--overwrite")
    assert "does not end in .onnx" in refused(*again, name="photo.darsr")
    assert "is an input of this command" in refused(*again, "--split", name="photo.darsr")
    assert Path("photo.darsr").read_bytes() == before and names(adapted) == {"photo.png", "photo.darsr"}


def test_a_folder_for_the_model_is_made(adapted):
    done("export", "photo.darsr", "-o", "models/")
    assert names(adapted / "models") == {"photo.onnx"}
