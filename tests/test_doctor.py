"""doctor names what is missing and how to get it; two distributions of ONNX Runtime are said at start-up."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

import cli
from darsr_deploy import doctor, ort_engine

runner = CliRunner()


def test_here_everything_of_the_default_way_is_found():
    done = runner.invoke(cli.app, ["doctor", "--json"])
    answer = json.loads(done.stdout)
    assert done.exit_code == 0 and answer["works"]
    assert {p["part"]: p["state"] for p in answer["parts"]}["onnxruntime"] == "ok"


def test_a_machine_with_the_base_install_only(monkeypatch):
    """Each missing part comes with the command that installs it, and the exit code says that infer cannot run."""
    heavy = {"torch", "onnx", "onnxscript", "skimage", "spandrel", "onnxruntime"}
    find = doctor.importlib.util.find_spec
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None if name in heavy else find(name))
    monkeypatch.setattr(ort_engine, "installed_runtimes", list)
    monkeypatch.setattr(doctor, "installed_runtimes", list)
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    done = runner.invoke(cli.app, ["doctor", "--json"])
    parts = {p["part"]: p for p in json.loads(done.stdout)["parts"]}
    assert done.exit_code == 1
    assert {name for name, p in parts.items() if p["state"] == "missing" and p["repair"]} == {
        "torch",
        "scikit-image",
        "onnx",
        "onnxscript",
        "spandrel",
        "onnxruntime",
    }
    assert parts["torch"]["repair"] == 'pip install "darsr[train]"'
    assert "darsr[ort]" in parts["onnxruntime"]["repair"]


@pytest.fixture
def both(monkeypatch):
    names = lambda: ["onnxruntime", "onnxruntime-gpu"]  # noqa: E731
    monkeypatch.setattr(ort_engine, "installed_runtimes", names)
    monkeypatch.setattr(doctor, "installed_runtimes", names)


def test_two_distributions_are_said_at_start_up(both, tmp_path):
    done = runner.invoke(cli.app, ["infer", str(tmp_path / "none.png"), "--no-adapter"])
    assert "warning: onnxruntime and onnxruntime-gpu are both installed" in done.stderr
    assert "pip uninstall -y onnxruntime onnxruntime-gpu" in done.stderr


def test_doctor_calls_two_distributions_broken(both):
    done = runner.invoke(cli.app, ["doctor"])
    assert done.exit_code == 1
    assert "broken  onnxruntime" in done.stdout and "-> repair: pip uninstall" in done.stdout
