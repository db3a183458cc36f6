"""ONNX Runtime tells nobody anything, and leaves no identity on the disk, when this toolkit imports it."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx", reason="onnx (extra export) writes the model of this test")
pytest.importorskip("onnxruntime", reason="onnxruntime is an extra")

from darsr_deploy.images.arrays import write_image
from tests.support.onnx_models import onnx_model

ROOT = Path(__file__).parents[3]
RUN = """
import time
import numpy as np
from darsr_deploy.engines.ort import open_session, run_session
session = open_session("m.onnx", "m.onnx", threads=1)
run_session(session, "y", {"x": np.ones((1, 3, 4, 4), np.float32)}, "m.onnx")
time.sleep(2)  # what was to be sent would be sent a moment later
"""


@pytest.fixture
def elsewhere(tmp_path):
    """A home and a place for temporary files where nothing ever was; and a model."""
    model = onnx_model("y = Relu (x)", takes="float[n, 3, h, w] x", gives="float[n, 3, h, w] y")
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    for name, place in (
        ("HOME", "home"),
        ("TMPDIR", "tmp"),
        ("XDG_CACHE_HOME", "home/cache"),
        ("XDG_DATA_HOME", "home/data"),
    ):
        environment[name] = str(tmp_path / place)
        (tmp_path / place).mkdir(exist_ok=True, parents=True)
    return tmp_path, environment | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}


def left(folder: Path) -> list[str]:
    return sorted(
        str(path.relative_to(folder)) for top in ("home", "tmp") for path in (folder / top).rglob("*") if path.is_file()
    )


def test_no_identity_and_no_database_of_events_is_written(elsewhere):
    folder, environment = elsewhere
    (folder / "tmp" / "of-another").write_text("mine")
    (folder / "tmp" / ".ses").symlink_to("of-another")  # a link that somebody else put there is not followed
    subprocess.run([sys.executable, "-c", RUN], cwd=folder, env=environment, check=True)
    assert left(folder) == ["tmp/.ses", "tmp/of-another"] and (folder / "tmp" / "of-another").read_text() == "mine"


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_no_host_is_looked_up(elsewhere):
    folder, environment = elsewhere
    trace = ["strace", "-f", "-qq", "-e", "trace=network", "-o", str(folder / "calls")]
    subprocess.run([*trace, sys.executable, "-c", RUN], cwd=folder, env=environment, check=True)
    assert [line for line in (folder / "calls").read_text().splitlines() if "AF_INET" in line] == []


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_the_commands_ask_no_host_and_leave_no_identity(elsewhere):
    folder, environment = elsewhere
    write_image(folder / "photo.png", np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8))
    trace = ["strace", "-f", "-qq", "-e", "trace=network,openat", "-o", str(folder / "calls")]
    bench = [
        "bench",
        "photo.darsr",
        "--seconds",
        "0.1",
        "--threads",
        "1",
        "--engine",
        "ort",
        "--precision",
        "fp32",
    ]
    for words in (["adapt", "photo.png"], ["infer", "photo.png"], bench):
        command = [*trace, sys.executable, str(ROOT / "cli.py"), *words]
        subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
        calls = (folder / "calls").read_text().splitlines()
        assert any("photo." in line for line in calls), "strace sees the command's files"
        assert [line for line in calls if "AF_INET" in line] == [], words
        assert [line for line in calls if re.search(r'O_CREAT.*\.(ses|db)|\.(ses|db)".*O_CREAT', line)] == [], words
    assert not [name for name in left(folder) if name.endswith((".ses", ".db"))]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray (extra cluster) is not installed")
def test_a_cluster_of_this_machine_keeps_to_itself(elsewhere):
    """Ray asks no host, listens on the loopback interface alone, and leaves nothing, even on a machine that reports usage."""
    folder, environment = elsewhere
    write_image(folder / "photo.png", np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8))
    trace = ["strace", "-f", "-qq", "-e", "trace=connect,bind,sendto,sendmsg", "-o", str(folder / "calls")]
    command = [*trace, sys.executable, str(ROOT / "cli.py"), "upscale", "photo.png", "--cluster", "auto"]
    # Ray's sockets have short names: its own folder is below /tmp where the one for temporary files has a long name
    subprocess.run(command, cwd=folder, env=environment | {"RAY_TMPDIR": "/nowhere"}, check=True, capture_output=True)
    calls = (folder / "calls").read_text().splitlines()
    reached = {
        one for line in calls for one in re.findall(r'inet_addr\("([^"]+)"\)|inet_pton\(AF_INET6, "([^"]+)"', line)
    }
    assert reached, "strace sees what Ray says to itself"
    assert {one or other for one, other in reached} <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}, reached
    assert (folder / "photo_x2.png").exists() and left(folder) == []
