"""The demo, as ``make demo`` runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import cli
from darsr_deploy.images.arrays import read_image
from export.commands.demo import next_lines
from export.commands.demo_run import demo_photo


@pytest.mark.slow
def test_the_demo_gains_a_decibel_and_writes_its_picture(tmp_path):
    done = CliRunner().invoke(cli.app, ["demo", "-o", str(tmp_path / "demo"), "--json"])
    assert done.exit_code == 0, done.output
    answer = json.loads(done.stdout)
    assert answer["psnr_y"]["adapted"] >= answer["psnr_y"]["backbone alone"] + 1.0
    assert answer["psnr_y"]["backbone alone"] > answer["psnr_y"]["bicubic"]
    assert list(answer["seconds"]) == ["adapt", "export and verify", "load", "infer"]
    truth_size = demo_photo().shape[:2]
    assert read_image(tmp_path / "demo" / "photo_x2.png").shape[:2] == truth_size
    assert read_image(tmp_path / "demo" / "comparison.png").shape[1] > 4 * 216


def test_a_folder_with_files_of_the_users_own_is_refused(tmp_path):
    (tmp_path / "photo.png").write_bytes(b"mine")
    (tmp_path / "diary.txt").write_text("mine too")
    done = CliRunner().invoke(cli.app, ["demo", "-o", str(tmp_path)])
    assert done.exit_code == 1
    assert "holds other files (diary.txt); give an empty folder with -o" in done.stderr
    assert (tmp_path / "photo.png").read_bytes() == b"mine"


def test_what_to_type_next_names_files_that_exist(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    program = tmp_path / ".venv" / "bin" / "darsr"
    program.parent.mkdir(parents=True)
    program.touch()
    monkeypatch.setattr("sys.argv", [str(program), "demo"])
    lines = next_lines(Path("demo"))
    assert [line.split()[:2] for line in lines] == [
        [".venv/bin/darsr", name] for name in ("upscale", "report", "bench")
    ]
    assert {line.split()[2] for line in lines} == {"demo/photo.png", "demo/photo.darsr", "demo/photo.onnx"}
    monkeypatch.setattr("sys.argv", ["cli.py", "demo"])
    assert all(line.startswith("darsr ") for line in next_lines(Path("demo")))
