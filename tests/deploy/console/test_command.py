"""What all commands share: nothing left behind, and Ctrl-C as early as it can be heard."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import cli
from darsr_deploy.console.command import make_folder
from darsr_deploy.errors import DarsrError
from darsr_deploy.images.arrays import write_image
from export.artefacts.parity import require_floor
from tests.support.commands import ALONE, BRIEF, darsr, done, names, refused

# Stands for Typer, which the command line imports first, and is interrupted there.
INTERRUPTED = "import os, signal, time; os.kill(os.getpid(), signal.SIGINT); time.sleep(60)"


@pytest.fixture
def two(photo, tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        write_image(tmp_path / f"{name}.png", photo[:40, :40])
    return tmp_path


def started_with(folder: Path, handler: str) -> subprocess.CompletedProcess:
    (folder / "typer.py").write_text(INTERRUPTED)
    code = f"import signal, sys; signal.signal(signal.SIGINT, {handler}); sys.argv = ['darsr', 'doctor']; import cli"
    paths = os.pathsep.join([str(folder), str(Path(cli.__file__).parent)])
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_interrupted_while_it_starts(tmp_path):
    """No traceback; the operating system delivers the signal in the middle of the first heavy import."""
    ended = started_with(tmp_path, "signal.default_int_handler")
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "interrupted\n")


def test_who_handles_interrupts_otherwise_keeps_that(tmp_path):
    ended = started_with(tmp_path, "lambda *_: sys.exit(7)")
    assert ended.returncode == 7


def test_a_folder_that_stays_empty_is_gone_again(two, monkeypatch):
    def interrupt(*_: object, **__: object):
        raise KeyboardInterrupt

    monkeypatch.setattr("darsr_train.adaptation.adapt.adapt_fast", interrupt)
    assert darsr("adapt", "a.png", "b.png", "-o", "new/adapters", "--corrected", "new/lr", *BRIEF).exit_code == 130
    assert names(two) == {"a.png", "b.png"}
    Path("mine").mkdir()  # an empty folder that was there stays
    assert darsr("adapt", "a.png", "b.png", "-o", "mine", *BRIEF).exit_code == 130
    assert names(two) == {"a.png", "b.png", "mine"}


def test_a_folder_with_results_stays(two):
    Path("b.png").write_bytes(b"no image")
    assert darsr("infer", "a.png", "b.png", "-o", "new/results", *ALONE).exit_code == 1
    assert names(two / "new/results") == {"a_x2.png"}


@pytest.mark.parametrize(
    "command", ["infer a.png b.png --no-adapter -o q.png", "adapt a.png b.png -o q.darsr", "infer . -o q.MP4"]
)
def test_several_inputs_do_not_go_into_what_looks_like_a_file(two, command):
    target = command.split()[-1]
    assert "a folder is needed" in refused(*command.split(), name=target)
    assert names(two) == {"a.png", "b.png"}


def test_a_folder_may_be_called_like_a_file_if_it_is_there(two):
    Path("results.png").mkdir()
    make_folder(Path("results.png"))
    with pytest.raises(DarsrError, match=r"a\.png: is a file's name"):
        make_folder(Path("a.png"))


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("infer a.png --no-adapter -o a.txt", "a.txt: cannot write .txt"),
        ("infer a.png --no-adapter -o name", "name: cannot write a file without suffix"),
        ("infer a.png --no-adapter --scale 3", "--scale 3: there are networks for 2 and 4; use --scale 2 or --scale 4"),
        ("infer /dev/zero --no-adapter", "/dev/zero: is a pipe or a device, not a file"),
        ("eval a.png", "a.png: is a file; give a folder that holds LR and HR"),
        ("eval missing", "missing: there is no such folder"),
        ("eval folder", "folder: holds neither the folders LR and HR"),
    ],
)
def test_odd_arguments_are_one_line(two, command, said, monkeypatch):
    monkeypatch.setenv("DARSR_CACHE", str(two / "cache"))
    Path("folder").mkdir()
    refused(*command.split(), name=said)
    assert names(two) == {"a.png", "b.png", "folder"}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("more", [[], ["--json"]])
def test_results_that_do_not_fit_on_the_disk_are_one_line_and_exit_1(more):
    with open("/dev/full", "w") as full:
        command = [sys.executable, str(Path(cli.__file__)), "doctor", *more]
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert ended.returncode == 1
    assert ended.stderr == "error: output: could not be written (No space left on device); free some space\n"


def test_a_floor_that_nothing_reaches_says_what_is_usual():
    with pytest.raises(
        DarsrError, match=r"at least 200\.0 dB are required.*; leave out --floor, or lower it: .* 80 dB$"
    ):
        require_floor(140.0, "fp32", Path("a.onnx"), 200.0)
    with pytest.raises(DarsrError, match=r"; report this, or accept it with a lower --floor$"):
        require_floor(60.0, "fp32", Path("a.onnx"), 80.0)


def test_a_finished_eval_leaves_its_results_alone(two, photo):
    for folder, side in (("LR", 32), ("HR", 64)):
        Path("set", folder).mkdir(parents=True)
        write_image(Path("set", folder, "a.png"), photo[:side, :side])
    command = ("eval", "set", "--method", "none", "--device", "cpu", "--out", "r.json", "--sheet", "s.png")
    done(*command)
    assert names(two) == {"a.png", "b.png", "set", "r.json", "s.png"}
    done(*command, "--resume")  # the crops are measured again
    assert names(two) == {"a.png", "b.png", "set", "r.json", "s.png"}
