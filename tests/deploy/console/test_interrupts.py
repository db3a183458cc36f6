"""Ctrl-C and SIGTERM at any moment, what a killed process left, and streams that are closed."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import cli
from darsr_deploy.files.atomic import _hidden, atomic_folder, atomic_path

CLI = str(Path(cli.__file__))
# A command with a process at work, a bar and a half-written file; it says when all of that is so.
BUSY = """
import os, sys, time
from pathlib import Path

def serve(pipe):
    pipe.send(("ready", os.getpid()))
    time.sleep(600)

if __name__ == "__main__":
    sys.argv = ["darsr"]
    from darsr_deploy.console import interrupts
    interrupts.install_sigint_exit()
    import typer
    from darsr_deploy.console.command import command, progress
    from darsr_deploy.errors import DarsrError
    from darsr_deploy.files.atomic import atomic_path
    from darsr_deploy.processes import Worker

    def busy(failures = None) -> None:
        worker = Worker(serve)
        try:
            with progress("busy") as report, atomic_path("out.png") as path:
                report({"step": 1, "steps": 2})
                path.write_bytes(b"half")
                print(worker.ask(), flush=True)
                try:
                    time.sleep(600)
                except KeyboardInterrupt as error:
                    SWALLOWED
        finally:
            worker.stop()

    app = typer.Typer()
    app.command()(command(busy))
    app()
"""


def started(folder: Path, swallowed: str = "raise", **streams) -> subprocess.Popen:
    (folder / "busy.py").write_text(BUSY.replace("SWALLOWED", swallowed))
    environment = {**os.environ, "PYTHONPATH": str(Path(CLI).parent), "TERM": "xterm"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | streams
    pipes["preexec_fn"] = lambda: signal.signal(
        signal.SIGINT, signal.SIG_DFL
    )  # shells let what runs behind them ignore it
    return subprocess.Popen([sys.executable, "busy.py"], cwd=folder, env=environment, **pipes)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize(
    ("number", "code", "said"), [(signal.SIGTERM, 143, "terminated"), (signal.SIGINT, 130, "interrupted")]
)
@pytest.mark.parametrize("swallowed", ["raise", "raise ImportError('a library must be installed') from error",
                                       "raise DarsrError('onnxruntime', 'cannot be imported') from error"])  # fmt: skip
def test_a_signal_ends_everything_and_is_one_line(tmp_path, number, code, said, swallowed):
    """Whatever a library makes of the exception: an interrupted import is no missing package."""
    process = started(tmp_path, swallowed)
    worker = int(process.stdout.readline())
    assert len(list(tmp_path.glob(".out.darsr-*.png"))) == 1
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (code, "", f"{said}\n")
    assert not is_alive(worker) and {path.name for path in tmp_path.iterdir()} == {"busy.py"}


def test_the_cursor_comes_back(tmp_path):
    ours, theirs = pty.openpty()
    process = started(tmp_path, stderr=theirs)
    os.close(theirs)
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    shown = b""
    try:
        while part := os.read(ours, 4096):
            shown += part
    except OSError:  # the other end is closed
        pass
    finally:
        os.close(ours)
    assert process.wait(60) == 143 and b"\x1b[?25l" in shown
    assert shown.rindex(b"\x1b[?25h") > shown.rindex(b"\x1b[?25l") and shown.endswith(b"terminated\r\n")


def test_what_a_killed_process_left_is_removed_by_the_next_that_writes_there(tmp_path):
    process = started(tmp_path)
    worker = int(process.stdout.readline())
    (temporary,) = tmp_path.glob(".out.darsr-*.png")
    folder = tmp_path / ".b.darsr-abcdefgh"
    folder.mkdir()
    (folder / "part").touch()
    others = [tmp_path / name for name in (".out-holidays.png", ".out.darsr-abcdefgh.txt", ".other.darsr-abcdefgh.png")]
    for path in (*others, temporary, folder):
        path.touch()
        os.utime(path, (time.time() - 3600,) * 2)

    def write() -> None:
        _hidden.cache_clear()  # as in another process
        with atomic_path(tmp_path / "out.png") as path, atomic_folder(tmp_path / "b"):
            path.write_bytes(b"whole")

    write()
    assert temporary.exists() and not folder.exists()  # the first is still being written
    process.kill()
    os.kill(worker, signal.SIGKILL)  # it sleeps: others end when their parent is gone
    process.communicate(timeout=60)
    write()
    assert not temporary.exists() and all(path.exists() for path in others)
    assert (tmp_path / "out.png").read_bytes() == b"whole"


def typed(*words: str, closed: int, cwd: Path) -> subprocess.CompletedProcess:
    streams = [subprocess.DEVNULL, subprocess.PIPE, subprocess.PIPE]
    environment = {**os.environ, "DARSR_CACHE": str(cwd / "cache")}
    return subprocess.run([sys.executable, CLI, *words], stdin=streams[0], stdout=streams[1], stderr=streams[2], cwd=cwd,
                          text=True, env=environment, preexec_fn=lambda: os.close(closed))  # fmt: skip


def test_closed_streams_are_one_line_and_no_file_gets_their_numbers(tmp_path):
    ended = typed("backbone", "list", "--json", closed=1, cwd=tmp_path)
    line = "error: standard output: is closed; redirect it to a file, or to /dev/null\n"
    assert (ended.returncode, ended.stderr) == (1, line)
    ended = typed("infer", "-", "-o", "out.y4m", "--no-adapter", closed=0, cwd=tmp_path)
    assert ended.returncode == 1 and ended.stderr.count("\n") == 1 and ended.stderr.startswith("error: standard input")
    ended = typed("doctor", "--json", closed=2, cwd=tmp_path)
    assert json.loads(ended.stdout) and ended.stderr == ""
    ended = typed("infer", "missing.png", "--json", closed=2, cwd=tmp_path)
    assert ended.returncode == 1 and json.loads(ended.stdout)["errors"] and ended.stderr == ""
