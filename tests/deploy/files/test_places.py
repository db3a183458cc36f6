"""Results replace no input, whatever it is called, and of two programs that write one file exactly one succeeds."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from darsr_deploy.errors import DarsrError
from darsr_deploy.files.adapter import Adapter
from darsr_deploy.files.atomic import atomic_path, write_bytes
from darsr_deploy.files.hashing import hash_file
from darsr_deploy.files.places import Targets
from darsr_deploy.images.arrays import write_image

SHIPPED = hash_file(Path(__file__).parents[3] / "darsr_deploy" / "weights" / "edge-x2.safetensors")


@pytest.fixture
def desk(tmp_path, photo, monkeypatch) -> Path:
    """A photo and its adapter, each with another name by a hard and by a symbolic link."""
    monkeypatch.chdir(tmp_path)
    write_image("s.png", photo[:40, :40])
    Adapter("none", 2, "edge-x2", SHIPPED).save("a.darsr")
    for name in ("s.png", "a.darsr"):
        os.link(name, f"hard-{name}")
        os.symlink(name, f"soft-{name}")
    return tmp_path


@pytest.mark.parametrize("name", ["s.png", "./s.png", "hard-s.png", "soft-s.png"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_an_input_is_never_claimed(desk, name, overwrite):
    with pytest.raises(DarsrError, match=r"is an input of this command; choose another place with -o"):
        Targets(overwrite, ["missing.png", ".", None, "s.png"]).claim(Path(name))
    assert Targets(True, ["s.png"]).claim(Path("a.darsr")) == Path("a.darsr")


@pytest.mark.parametrize(
    "words",
    [
        "adapt s.png -o {s.png} --device cpu",
        "adapt s.png --corrected {s.png} --device cpu",
        "adapt s.png --preview {s.png} --device cpu",
        "adapt s.png --gt other.png -o {other.png} --device cpu",
        "infer s.png -o {s.png} --no-adapter --engine torch",
        "upscale s.png -o {s.png}",
        "report a.darsr -o {a.darsr}",
        "backbone import s.png -o {s.png}",
    ],
)
def test_no_command_destroys_its_input(desk, words):
    pytest.importorskip("torch", reason="these commands need PyTorch (extra train)")
    from tests.support.commands import refused

    head, _, tail = words.partition("{")
    name, _, tail = tail.partition("}")
    if name == "other.png":
        os.link("a.darsr", "keep")
        write_image("other.png", np.zeros((80, 80, 3), np.uint8))
        os.link("other.png", "hard-other.png")
        os.symlink("other.png", "soft-other.png")
    before = {path: Path(path).read_bytes() for path in os.listdir()}
    for called in (name, f"hard-{name}", f"soft-{name}"):
        line = refused(*f"{head}{called}{tail}".split(), "--overwrite", name=called)
        assert "is an input of this command" in line
        assert {path: Path(path).read_bytes() for path in os.listdir()} == before


@pytest.mark.parametrize(
    "words", ["eval . -o {}", "eval . --markdown {}", "eval . --sheet {}", "backbone train HR -o {}"]
)
def test_nor_does_one_that_takes_folders(desk, words):
    pytest.importorskip("torch", reason="these commands need PyTorch (extra train)")
    from tests.support.commands import refused

    for folder in ("LR", "HR"):
        Path(folder).mkdir()
        os.link("s.png", f"{folder}/s.png")
    before = Path("s.png").read_bytes()
    line = refused(*words.format("HR/s.png").split(), "--overwrite", name="HR/s.png")
    assert "is an input of this command" in line and Path("s.png").read_bytes() == before


def test_degraded_pictures_replace_none_of_their_sources(desk):
    pytest.importorskip("torch", reason="this command needs PyTorch (extra train)")
    from tests.support.commands import refused

    Path("HR").mkdir()
    write_image("HR/s.png", np.zeros((80, 80, 3), np.uint8))
    before = Path("HR/s.png").read_bytes()
    line = refused("degrade", "HR", "-o", ".", "--overwrite", name="HR/s.png")
    assert "is an input of this command" in line and Path("HR/s.png").read_bytes() == before


def test_export_replaces_no_adapter(desk):
    """Not by its name, which does not end as a model's does, and not by a link whose name does."""
    pytest.importorskip("torch", reason="exporting needs PyTorch (extra train)")
    pytest.importorskip("onnx", reason="exporting needs onnx (extra export)")
    from tests.support.commands import refused

    before = Path("a.darsr").read_bytes()
    os.link("a.darsr", "hard.onnx")
    os.symlink("a.darsr", "soft.onnx")
    for name in ("a.darsr", "hard.onnx", "soft.onnx"):
        refused("export", "a.darsr", "-o", name, "--overwrite", name=name)
    assert Path("a.darsr").read_bytes() == before


def test_no_video_is_destroyed(desk, monkeypatch):
    pytest.importorskip("torch", reason="the backbone runs in PyTorch (extra train)")
    import cv2

    from tests.support.commands import refused

    clip = cv2.VideoWriter("clip.mp4", cv2.VideoWriter.fourcc(*"mp4v"), 24, (32, 32))
    clip.write(np.zeros((32, 32, 3), np.uint8))
    clip.release()
    os.symlink("clip.mp4", "soft.mp4")
    before = Path("clip.mp4").read_bytes()
    for name in ("clip.mp4", "soft.mp4"):
        line = refused("infer", "clip.mp4", "-o", name, "--no-adapter", "--engine", "torch", "--overwrite", name=name)
        assert "is an input of this command" in line
    assert Path("clip.mp4").read_bytes() == before


# ---- several programs at once


def test_of_many_writers_exactly_one_succeeds(tmp_path):
    def write(number: int) -> bool:
        try:
            write_bytes(tmp_path / "a.darsr", bytes([number]) * 1000, replace=False)
        except DarsrError as error:
            assert "exists already: another program wrote it meanwhile" in str(error)
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = [number for number, done in enumerate(pool.map(write, range(32))) if done]
    assert len(won) == 1 and (tmp_path / "a.darsr").read_bytes() == bytes(won) * 1000
    assert [path.name for path in tmp_path.iterdir()] == ["a.darsr"]


def test_where_there_are_no_hard_links_it_is_the_same(tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", refuse)
    write_bytes(tmp_path / "a", b"1", replace=False)
    with pytest.raises(DarsrError, match="exists already"), atomic_path(tmp_path / "a", replace=False) as temporary:
        temporary.write_bytes(b"2")
    assert (tmp_path / "a").read_bytes() == b"1" and len(list(tmp_path.iterdir())) == 1


def test_an_adapter_that_appears_while_another_is_made_stays(desk, monkeypatch):
    from darsr_train.commands import adapt_tasks
    from tests.support.commands import refused

    real = adapt_tasks.adapt_told

    def slow(*arguments, **more):
        Path("s.darsr").write_bytes(b"of another program")
        return real(*arguments, **more)

    monkeypatch.setattr(adapt_tasks, "adapt_told", slow)
    assert "exists already" in refused("adapt", "s.png", "--device", "cpu", name="s.darsr")
    assert Path("s.darsr").read_bytes() == b"of another program"
