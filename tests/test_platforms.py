"""Where the system is not Linux: what only Linux has is hidden from processes, in which the toolkit must work all the same."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from darsr_deploy.images.arrays import read_image, write_image
from tests.support import not_linux

ROOT = Path(__file__).parent.parent
CODE = [path for folder in ("darsr_deploy", "darsr_train", "export") for path in (ROOT / folder).rglob("*.py")]

CHECK_HIDDEN = """
import os, signal
from pathlib import Path
assert not hasattr(os, "fork") and not hasattr(signal, "pthread_sigmask")
try:
    import fcntl
except ImportError:
    pass
else:
    raise AssertionError("fcntl is there")
try:
    Path("/proc/meminfo").read_text()
except FileNotFoundError:
    pass
else:
    raise AssertionError("/proc is there")
"""
FACTS = """
from darsr_deploy.bench.worker import peak_memory_mb
from darsr_deploy.machine.energy import Meter
from darsr_deploy.machine.facts import facts, state, usable_cores
from darsr_deploy.memory import free_memory
assert free_memory() is None and peak_memory_mb() is None and usable_cores() >= 1
assert facts()["ram_mb"] is None and state()["load"] is None and Meter(gpu=False).source is None
"""
FILES = """
import sys
from pathlib import Path
from darsr_deploy.errors import DarsrError
from darsr_deploy.files import atomic
assert atomic.fcntl is None
atomic.write_text("a.txt", "one")
atomic.write_text("a.txt", "two")
try:
    atomic.write_bytes("a.txt", b"three", replace=False)
except DarsrError:
    pass
else:
    raise AssertionError("it was replaced")
with atomic.atomic_folder("folder") as folder:
    (folder / "b.txt").write_text("b")
assert Path("a.txt").read_text() == "two" and {p.name for p in Path().iterdir()} == {"a.txt", "folder"}
"""
PROCESSES = """
from darsr_deploy.processes import Worker
from tests.test_platforms import answer
if __name__ == "__main__":
    worker = Worker(answer, 20)
    assert worker.ask(22) == 42
    worker.stop()
"""


def answer(pipe, first: int) -> None:
    """Run in a process of the test above."""
    assert not hasattr(os, "fork")
    pipe.send(("done", first + pipe.recv()[0]))


@pytest.fixture
def elsewhere(tmp_path):
    """Return a function that runs Python code, or a command, where Linux is hidden; for its child processes too."""
    hidden, folder = tmp_path / "hidden", tmp_path / "here"
    hidden.mkdir()
    folder.mkdir()
    shutil.copy(not_linux.__file__, hidden / "sitecustomize.py")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(hidden), str(ROOT)]), "OMP_NUM_THREADS": "1"}

    def run(*words: str | Path) -> str:
        command = [sys.executable, *map(str, words)]
        ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    run.folder = folder
    return run


@pytest.mark.parametrize("code", [FACTS, FILES], ids=["facts", "files"])
def test_what_is_not_there_is_done_without(elsewhere, code):
    elsewhere("-c", CHECK_HIDDEN + code)


def test_processes_are_started(elsewhere):
    (elsewhere.folder.parent / "main.py").write_text(PROCESSES)
    elsewhere(elsewhere.folder.parent / "main.py")


@pytest.mark.slow
def test_the_whole_way(elsewhere, photo):
    """Adapt two images at a time, infer one, and ask the doctor."""
    for name in ("a", "b"):
        write_image(elsewhere.folder / f"{name}.png", photo[:48, :64])
    elsewhere(ROOT / "cli.py", "adapt", "a.png", "b.png", "--jobs", "2", "--threads", "2")
    row = json.loads(elsewhere(ROOT / "cli.py", "infer", "a.png", "--json"))
    assert (row["height"], row["width"]) == (96, 128)
    assert read_image(elsewhere.folder / "a_x2.png").dtype == np.uint8
    assert "parts" in json.loads(elsewhere(ROOT / "cli.py", "doctor", "--json"))


def test_modules_that_only_posix_has_are_imported_where_they_may_be_missing():
    """Inside ``try`` or ``contextlib.suppress``."""
    bare = []
    for path in CODE:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        guarded = {
            id(inner) for node in ast.walk(tree) if isinstance(node, (ast.Try, ast.With)) for inner in ast.walk(node)
        }
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            if id(node) not in guarded and {*not_linux.MODULES, "termios", "tty", "pty"} & set(names):
                bare.append(f"{path.relative_to(ROOT)}, line {node.lineno}")
    assert not bare, bare
