"""What darsr adapt refuses, it refuses before PyTorch is imported, and before the fit."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import cli
from darsr_deploy.errors import DarsrError
from darsr_deploy.files.places import Targets
from darsr_deploy.images.arrays import SUFFIXES, write_image
from darsr_deploy.images.reader import size_of
from tests.support.commands import refused

# PyTorch that says when it is imported, and is not there.
NO_TORCH = "import sys; sys.stderr.write('PyTorch is imported\\n'); raise ImportError('torch')"


@pytest.fixture
def desk(photo, tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_image(tmp_path / "photo.png", photo)
    write_image(tmp_path / "tiny.png", photo[:8, :8])
    Path("text.png").write_text("no image")
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "torch.py").write_text(NO_TORCH)
    return tmp_path


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("missing.png", "missing.png: cannot be read (No such file or directory)"),
        ("text.png", "text.png: is not an image"),
        ("tiny.png", "tiny.png: is 8x8 pixels, too small to adapt with profile fast (least side 32)"),
        ("photo.png --profile paper", "photo.png: is 96x80 pixels, too small to adapt with profile paper"),
        ("photo.png -o no/such/folder.darsr", "no/such/folder.darsr: its folder is missing or cannot be written"),
        ("photo.png -o tiny.png", "tiny.png: exists already"),
        ("photo.png --gt missing.png", "missing.png: cannot be read"),
        ("photo.png --from text.png", "text.png: is not a darsr adapter file"),
        ("photo.png --corrected lr.txt", "lr.txt: cannot write .txt"),
        ("photo.png --steps 3 --scale 3", "--scale 3: there are networks for 2 and 4; use --scale 2 or --scale 4"),
        ("modules", "modules: holds no images"),
    ],
)
def test_refused_without_pytorch(desk, words, said, monkeypatch):
    monkeypatch.setattr("darsr_train.commands.adapt_tasks.require_torch", lambda: pytest.fail("PyTorch was asked for"))
    refused("adapt", *words.split(), name=said)
    assert not list(desk.glob("*.darsr"))


def test_pytorch_is_not_imported(desk):
    """In a process of its own, for here PyTorch is there already."""
    paths = os.pathsep.join([str(desk / "modules"), str(Path(cli.__file__).parent)])
    command = [sys.executable, str(Path(cli.__file__)), "adapt"]
    fitted = ["photo.png", "--steps", "1", "--overwrite"]
    for words, imported, code in (
        (["tiny.png", "missing.png"], False, 1),
        (["photo.png"], False, 0),
        (fitted, True, 1),
    ):
        ended = subprocess.run(
            [*command, *words], env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True
        )
        assert ended.returncode == code and ("PyTorch is imported" in ended.stderr) == imported, ended.stderr


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="no /proc here")
def test_a_folder_in_which_no_file_can_be_made_although_permissions_allow_it(desk):
    refused(
        "adapt", "photo.png", "-o", "/proc/a.darsr", name="/proc/a.darsr: its folder is missing or cannot be written"
    )


def test_a_name_that_cannot_be(tmp_path):
    for name in ("a" * 300, "a\0b"):
        with pytest.raises(DarsrError, match="cannot be written"):
            Targets(overwrite=False).claim(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_size_is_that_of_the_picture(suffix, photo, tmp_path):
    write_image(tmp_path / f"a{suffix}", photo[:30, :50])
    assert size_of(tmp_path / f"a{suffix}") == (50, 30)
