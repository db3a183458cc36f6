"""doctor names what is missing and how to get it; two distributions of ONNX Runtime are said at start-up."""

from __future__ import annotations

import json
import re

import pytest
from typer.testing import CliRunner

import cli
from darsr_deploy.engines import ort as ort_engine
from darsr_deploy.install import install
from darsr_deploy.machine import doctor

runner = CliRunner()


def test_here_everything_of_the_default_way_is_found():
    done = runner.invoke(cli.app, ["doctor", "--json"])
    answer = json.loads(done.stdout)
    assert done.exit_code == 0 and answer["works"]
    assert {p["part"]: p["state"] for p in answer["parts"]}["onnxruntime"] == "ok"


def test_a_machine_with_the_base_install_only(monkeypatch):
    """Each missing part comes with the command that installs it, and the exit code says that infer cannot run."""
    heavy = {
        "torch",
        "onnx",
        "onnxscript",
        "skimage",
        "spandrel",
        "onnxruntime",
        "pynvml",
        "av",
        "starlette",
        "uvicorn",
    }
    heavy |= {"tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings"}
    find = doctor.importlib.util.find_spec
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None if name in heavy else find(name))
    monkeypatch.setattr(ort_engine, "installed_runtimes", list)
    monkeypatch.setattr(doctor, "installed_runtimes", list)
    monkeypatch.setattr(doctor.nvml, "driver_library", lambda: None)
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
        "starlette",
        "uvicorn",
        "onnxruntime",
        "av",
        "nvidia-ml-py",
        "nvidia driver",
        "tensorrt",
        "tensorrt_rtx",
    }
    assert parts["torch"]["repair"] == install("train")
    assert install("ort") in parts["onnxruntime"]["repair"]
    lines = runner.invoke(cli.app, ["doctor"]).stdout.splitlines()
    assert lines[0] == f"adapt     needs onnxruntime: {parts['onnxruntime']['repair']}"
    assert lines[1] == f"infer     needs onnxruntime: {parts['onnxruntime']['repair']}"
    assert [line.split()[0] for line in lines[:5]] == ["adapt", "infer", "export", "video", "TensorRT"]


def test_the_tasks_come_first_and_what_no_hardware_asks_for_is_left_out(monkeypatch, states):
    monkeypatch.setattr(doctor.nvml, "driver_library", lambda: None)
    monkeypatch.setattr(doctor.nvml, "on_the_bus", lambda root: False)
    shown = runner.invoke(cli.app, ["doctor"]).stdout
    lines = dict(line.split(maxsplit=1) for line in shown.split("\n\n")[0].splitlines())
    assert lines["infer"] == "ok" and lines["TensorRT"] == "no NVIDIA GPU here"
    assert "nvidia driver" in shown.splitlines()[-1] and "(--all shows them)" in shown.splitlines()[-1]
    assert "missing nvidia driver" not in shown
    everything = runner.invoke(cli.app, ["doctor", "--all"]).stdout
    assert "missing nvidia driver" in everything and "--all" not in everything
    monkeypatch.undo()
    monkeypatch.setattr(doctor.nvml, "driver_library", lambda: None)
    card = "sys/bus/pci/devices/0000:01:00.0"
    found = states({f"{card}/vendor": "0x10de\n", f"{card}/class": "0x030000\n"})
    assert found["nvidia driver"].detail == "no libcuda can be loaded" and not doctor.without_hardware(
        [*found.values()]
    )
    assert dict(doctor.summarize([*found.values()]))["TensorRT"].startswith("needs nvidia driver: with an NVIDIA GPU")
    found = states({f"{card}/vendor": "0x10ec\n"})
    assert doctor.without_hardware([*found.values()])


def test_what_is_broken_is_said_of_every_task_that_needs_it(both):
    tasks = dict(doctor.summarize(doctor.examine()))
    assert tasks["infer"].startswith("onnxruntime is broken: repair: ") and tasks["video"] == tasks["infer"]


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
    assert "broken  onnxruntime" in done.stdout and re.search(r"-> repair: .*pip uninstall", done.stdout)


@pytest.fixture
def states(tmp_path):
    """What doctor says of a tree with these files, by part."""

    def of(files: dict[str, str]) -> dict[str, doctor.Finding]:
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        return {finding.part: finding for finding in doctor.examine(tmp_path)}

    return of


def test_a_jetson_says_its_jetpack_and_power_mode(states, monkeypatch):
    find = doctor.importlib.util.find_spec
    monkeypatch.setattr(
        doctor.importlib.util, "find_spec", lambda name: None if name.startswith("tensorrt") else find(name)
    )
    found = states({"etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 1"})
    assert found["jetpack"].state == "missing" and found["jetpack"].repair == "sudo apt install nvidia-jetpack"
    assert "python3-libnvinfer" in found["tensorrt"].repair and "tensorrt_rtx" not in found
    package = "Package: nvidia-jetpack\nStatus: ok\nVersion: 6.2+b77\n"
    found = states({"var/lib/dpkg/status": package, "var/lib/nvpmodel/status": "pmode:0001"})
    assert found["jetpack"].state == "ok" and "6.2+b77" in found["jetpack"].detail
    assert "power mode 1" in found["jetpack"].detail


def test_a_driver_without_the_provider_for_it(states, monkeypatch):
    monkeypatch.setattr(doctor.nvml, "driver_library", lambda: "libcuda.so.1")
    cpu_only = doctor.Finding("onnxruntime", "infer", "ok", "1.20.0: CPUExecutionProvider")
    monkeypatch.setattr(doctor, "_runtime", lambda: cpu_only)
    found = states({})
    assert found["nvidia driver"].state == "ok"
    assert found["cuda provider"].state == "missing" and install("gpu") in found["cuda provider"].repair


def test_a_cache_that_cannot_be_written_is_said(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DARSR_CACHE", str(tmp_path / "file"))
    done = runner.invoke(cli.app, ["doctor"])
    assert "broken  cache" in done.stdout and "is no folder" in done.stdout and "export DARSR_CACHE=" in done.stdout
    if doctor.importlib.util.find_spec("torch") is not None:  # else nothing is exported here, so nothing is kept
        assert done.exit_code == 1
    assert "cannot be made" in doctor.why_not_writable(tmp_path / "file" / "below")
    assert doctor.why_not_writable(tmp_path / "new" / "deep") is None and not (tmp_path / "new").exists()


def test_a_cache_says_its_size(tmp_path, monkeypatch):
    monkeypatch.setenv("DARSR_CACHE", str(tmp_path))
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "a.onnx").write_bytes(bytes(2_500_000))
    parts = {finding.part: finding for finding in doctor.examine()}
    assert parts["cache"].detail == f"{tmp_path}: 2.5 MB in 1 files"


def test_formats_and_codecs_are_named(states):
    found = states({})
    assert found["image formats"].state == "ok" and "webp" in found["image formats"].detail
    assert found["video"].state == "missing" or "PyAV" in found["video"].detail or "OpenCV" in found["video"].detail
