"""``darsr adapt --jobs``: the same adapters, in several processes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage import data
from typer.testing import CliRunner

import cli
from darsr_deploy.images.arrays import write_image

BRIEF = ("--steps", 2, "--device", "cpu", "--json")


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for name, image in (("a", data.astronaut()[:72, 150:246]), ("c", data.coffee()[100:172, 150:246])):
        write_image(folder / f"{name}.png", np.ascontiguousarray(image))
    return folder


def adapt(*arguments: object):
    return CliRunner().invoke(cli.app, ["adapt", *map(str, arguments)])


def test_two_at_a_time_give_the_bytes_of_one_after_the_other(photos, tmp_path):
    threads = torch.get_num_threads()
    try:
        one = adapt(photos, "-o", tmp_path / "one", *BRIEF, "--threads", 1)
    finally:
        torch.set_num_threads(threads)
    shutil.copy(photos / "a.png", tmp_path / "copy.png")
    (tmp_path / "b.png").write_bytes(b"no image")
    inputs = (photos / "c.png", tmp_path / "b.png", tmp_path / "copy.png")
    two = adapt(*inputs, "-o", tmp_path / "two", *BRIEF, "--threads", 2, "--jobs", 2, "--corrected", tmp_path / "seen")
    torch.set_num_threads(threads)
    assert one.exit_code == 0 and two.exit_code == 1
    assert "b.png" in two.stderr and len(two.stderr.splitlines()) == 1
    *rows, _ = json.loads(two.stdout)  # the last object holds the failure
    assert [Path(row["input"]).name for row in rows] == ["c.png", "copy.png"], "in the order that they were given"
    for serial, parallel in (("a", "copy"), ("c", "c")):
        same = [(tmp_path / "one" / f"{serial}.darsr"), (tmp_path / "two" / f"{parallel}.darsr")]
        assert same[0].read_bytes() == same[1].read_bytes()
    assert {p.name for p in (tmp_path / "seen").iterdir()} == {"c_corrected.png", "copy_corrected.png"}
    assert {p.name for p in (tmp_path / "two").iterdir()} == {"c.darsr", "copy.darsr"}, "no state is left"


def test_a_backbone_that_cannot_be_used_is_said_once(photos, tmp_path):
    result = adapt(photos, "-o", tmp_path / "out", *BRIEF, "--backbone", "nonesuch", "--jobs", 2)
    assert result.exit_code == 1 and len(result.stderr.splitlines()) == 1 and "nonesuch" in result.stderr
