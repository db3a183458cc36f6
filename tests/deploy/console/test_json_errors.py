"""With --json a command that fails says so on stdout as well, by one rule for all: the object's ``errors``."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import typer.main

import cli
from darsr_deploy.errors import DarsrError
from darsr_deploy.images.arrays import write_image
from tests.support.commands import darsr, strict_json

# Every command that has --json, and a way in which it fails; {FILE} is a file that is none of ours.
FAILING = {
    "adapt": "missing.png",
    "export": "missing.darsr",
    "upscale": "missing.png",
    "infer": "missing.png --no-adapter --engine torch",
    "bench": "missing.onnx",
    "report": "missing.darsr",
    "demo": "-o {FILE}/demo",
    "doctor": "--self-test --model missing.onnx",
    "eval": "missing",
    "degrade": "missing -o out",
    "backbone list": "",
    "backbone info": "nothing",
    "backbone import": "missing.pth",
    "backbone download": "nothing",
}


def commands_with_json() -> set[str]:
    found = set()

    def walk(command, path: list[str]) -> None:
        for name, inner in getattr(command, "commands", {}).items():
            walk(inner, [*path, name])
        if any("--json" in parameter.opts for parameter in command.params):
            found.add(" ".join(path))

    walk(typer.main.get_command(cli.app), [])
    return found


def test_no_command_is_forgotten():
    assert FAILING.keys() == commands_with_json()


@pytest.mark.parametrize("command", FAILING)
def test_a_failure_is_an_object_on_stdout_and_a_line_on_stderr(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("text")
    if command == "backbone list":  # nothing else can go wrong with it
        monkeypatch.setitem(sys.modules, "torch", None)
    words = [*command.split(), *FAILING[command].format(FILE="file").split(), "--json"]
    result = darsr(*words)
    assert result.exit_code == 1, result.output
    printed = strict_json(result.stdout)
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    errors = [DarsrError(e["what"], e["why"], e["way_out"]) for e in printed["errors"]]
    assert [f"error: {error}" for error in errors] == lines != []
    assert {path.name for path in tmp_path.iterdir()} == {"file"}  # nothing half-made


def test_several_inputs_are_a_list_whose_last_object_holds_the_failures(photo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_image(tmp_path / "a.png", photo[:20, :20])
    result = darsr("infer", "one.png", "a.png", "two.png", "--no-adapter", "--engine", "torch", "--json")
    row, failed = strict_json(result.stdout)
    assert (result.exit_code, row["input"]) == (1, "a.png")
    assert [error["what"] for error in failed["errors"]] == ["one.png", "two.png"]


def test_a_result_that_is_not_whole_keeps_what_there_is(photo, tmp_path):
    for name in ("a", "b"):
        for folder, side in (("LR", 32), ("HR", 64)):
            (tmp_path / folder).mkdir(exist_ok=True)
            write_image(tmp_path / folder / f"{name}.png", photo[:side, :side])
    (tmp_path / "LR" / "a.png").write_bytes(b"no image")
    result = darsr("eval", tmp_path, "--method", "none", "--device", "cpu", "--json")
    summary = strict_json(result.stdout)
    assert result.exit_code == 1 and [row["name"] for row in summary["images"]] == ["b"]
    assert [error["what"] for error in summary["errors"]] == [str(tmp_path / "LR" / "a.png")]


def test_wrong_usage_and_interrupts_print_nothing(tmp_path, monkeypatch):
    assert (darsr("adapt", "--json").exit_code, darsr("adapt", "--json").stdout) == (2, "")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("darsr_deploy.console.jobs.expand", interrupt)
    result = darsr("adapt", "a.png", "--json")
    assert (result.exit_code, result.stdout) == (130, "")
