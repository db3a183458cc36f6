"""The demo, as ``make demo`` runs it."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

import cli
from darsr_deploy.imaging import read_image


@pytest.mark.slow
def test_the_demo_gains_a_decibel_and_writes_its_picture(tmp_path):
    done = CliRunner().invoke(cli.app, ["demo", "-o", str(tmp_path / "demo"), "--json"])
    assert done.exit_code == 0, done.output
    answer = json.loads(done.stdout)
    assert answer["psnr_y"]["adapted"] >= answer["psnr_y"]["backbone alone"] + 1.0
    assert answer["psnr_y"]["backbone alone"] > answer["psnr_y"]["bicubic"]
    assert list(answer["seconds"]) == ["adapt", "export and verify", "load", "infer"]
    truth_size = (300, 450)
    assert read_image(tmp_path / "demo" / "photo_x2.png").shape[:2] == truth_size
    assert read_image(tmp_path / "demo" / "comparison.png").shape[1] > 4 * 400
