"""``darsr doctor --self-test``: on a fake GPU, and what it says where something is missing or wrong."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

import cli
from export.commands import self_test
from tests.support.gpu import LIBRARIES, install, model_file, uninstall

runner = CliRunner()


@pytest.fixture
def model(tmp_path, monkeypatch):
    monkeypatch.setenv("DARSR_STATE", str(tmp_path / "state"))
    for name in ("_WARM_UP_SECONDS", "_SECONDS"):
        monkeypatch.setattr(self_test, name, 0.01)
    return model_file(tmp_path / "model.onnx")


def rows(model) -> tuple[int, dict[tuple[str, str], dict]]:
    done = runner.invoke(cli.app, ["doctor", "--self-test", "--json", "--model", str(model)])
    told = json.loads(done.stdout)
    assert ("errors" in told[-1]) == (done.exit_code == 1)
    return done.exit_code, {(row["engine"], row["shapes"]): row for row in told if "errors" not in row}


@pytest.mark.parametrize("library", [LIBRARIES[0], LIBRARIES[3]], ids=lambda p: p[0])
def test_what_is_there_is_built_compared_and_timed(model, monkeypatch, library):
    machine = install(monkeypatch, *library)
    code, found = rows(model)
    assert code == 0 and found["ort", "any"]["state"] == "ran"
    for shapes in ("static", "dynamic"):
        row = found[library[0], shapes]
        assert row["state"] == "ran" and row["parity_psnr_db"] == 200 and row["runs"] >= 10
        assert list(row["device_ms"]) == ["upload", "compute", "download"] and row["end_to_end_ms"][0] > 0
        assert f"{library[1]} on Fake RTX (sm_89), driver for CUDA 13.0" in row["detail"]
    assert {row["state"] for row in found.values()} == {"ran", "missing"}
    assert machine.driver.left_over() == {}


def test_what_is_wrong_is_said_and_the_exit_code_shows_it(model, monkeypatch):
    machine = install(monkeypatch, *LIBRARIES[0])
    machine.trt.error = 0.1
    code, found = rows(model)
    assert code == 1 and found["trt", "static"]["state"] == "failed"
    assert "differs from ONNX Runtime: 20.0 dB" in found["trt", "static"]["detail"]
    machine.driver.count = 0
    assert "the driver sees 0" in rows(model)[1]["trt", "dynamic"]["detail"]


def test_what_is_missing_is_named_with_the_command(model, monkeypatch):
    uninstall(monkeypatch)
    done = runner.invoke(cli.app, ["doctor", "--self-test", "--model", str(model)])
    assert done.exit_code == 0, done.stderr
    assert "missing trt-rtx" in done.stdout and 'pip install "tensorrt-rtx-cu13-bindings' in done.stdout


def test_no_gpu_is_built_only(model, monkeypatch):
    machine = install(monkeypatch, *LIBRARIES[3])
    machine.driver.count = 0
    code, found = rows(model)
    assert code == 0 and found["trt-rtx", "static"]["state"] == "built"
    assert "not run: device 0 was asked for" in found["trt-rtx", "static"]["detail"]
