"""Every command block of the README (and of docs/) is run as a stranger would type it."""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch
from skimage import data

from darsr_deploy.degradation import kernels
from darsr_deploy.images.arrays import write_image
from darsr_deploy.images.resample import to_uint8
from darsr_train.degradation.reduction import reduce
from tests.support.onnx_models import convolutional
from tests.support.typed import typed

ROOT = Path(__file__).parent.parent
MARKS = {"network", "device", "server"}  # what a block of commands needs that a test has not, such as ```console device
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands(page: Path) -> list[str]:
    """The lines behind ``$`` in a page's console blocks; those that cannot be run here are marked: see :data:`MARKS`."""
    blocks = re.findall(r"^```console\n(.*?)^```", page.read_text(), re.S | re.M)
    return [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]


def test_there_are_commands_to_run():
    assert len(commands(ROOT / "README.md")) >= 8


def test_every_block_is_run_or_says_why_not():
    for page in PAGES:
        heads = re.findall(r"^```(.+)$", page.read_text(), re.M)
        assert all(head.split(" ")[0] in ("console", "python") for head in heads), page.name
        assert {mark for head in heads for mark in head.split(" ")[1:]} <= MARKS, page.name


def test_every_make_target_exists():
    targets = {shlex.split(c)[1] for page in PAGES for c in commands(page) if c.startswith("make ")}
    assert {"demo", "test"} <= targets
    for target in targets:
        subprocess.run(["make", "-n", target], cwd=ROOT, check=True, capture_output=True)


def test_every_picture_and_link_is_there():
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} names {target}"


def test_every_file_and_module_that_is_named_is_there():
    for page in PAGES:
        text = page.read_text()
        files = re.findall(r"`((?:darsr_train|darsr_deploy|export|tests)/[\w/.-]+)`", text)
        files += [f"{m.replace('.', '/')}.py" for m in re.findall(r"python -m\s+((?:darsr|export)[\w.]+)", text)]
        for file in files:
            assert (ROOT / file).exists(), f"{page.name} names {file}"


@pytest.fixture(scope="module")
def furnished(tmp_path_factory) -> Path:
    """What the pages assume to be there: photo.png, its truth, folders of photos, a set with LR/ and HR/, theirs.onnx, clip.mp4."""
    folder = tmp_path_factory.mktemp("desk")
    for name, truth in (
        ("photo", data.chelsea()[60:220, 120:280]),
        ("holiday/one", data.astronaut()[:140, 150:310]),
        ("holiday/two", data.coffee()[80:220, 200:360]),
    ):
        kernel = torch.from_numpy(kernels.gaussian(16, 1.8, 1.2, 0.5)).float()
        lr = to_uint8(
            reduce(torch.from_numpy(truth.transpose(2, 0, 1)[None].astype(np.float32)), kernel, 2)[0]
            .permute(1, 2, 0)
            .numpy()
        )
        for target, image in (
            (f"{name}.png", lr),
            (f"myset/LR/{Path(name).name}.png", lr),
            (f"myset/HR/{Path(name).name}.png", truth),
        ):
            (folder / target).parent.mkdir(parents=True, exist_ok=True)
            write_image(folder / target, image)
    shutil.copy(folder / "myset/HR/photo.png", folder / "truth.png")
    onnx.save(convolutional(), folder / "theirs.onnx")
    clip = cv2.VideoWriter(str(folder / "clip.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 24, (80, 80))
    for index in range(6):  # two scenes
        clip.write(np.ascontiguousarray((data.chelsea() if index < 3 else data.coffee())[60:140, 120:200, ::-1]))
    clip.release()
    (folder / "pictures").mkdir()
    for index, picture in enumerate((data.astronaut(), data.coffee())):
        write_image(folder / "pictures" / f"{index}.png", np.ascontiguousarray(picture))
    return folder


@pytest.fixture(scope="module")
def adapted(furnished, kept_exports, tmp_path_factory) -> Path:
    """The same desk after the README's first command, which the pages of docs/ go on from."""
    folder = Path(shutil.copytree(furnished, tmp_path_factory.mktemp("adapted") / "desk"))
    run("darsr adapt photo.png --steps 2", folder, kept_exports)
    return folder


def run(command: str, folder: Path, exports: Path) -> None:
    done = typed(shlex.split(command), folder, exports)
    assert done.code == 0, f"{command}\n{done.stderr}"


def python_blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.S | re.M)


def commands_to_run(page: Path) -> list[str]:
    """Those of darsr and python; the others (make, ffmpeg, docker) are not ours."""
    ours = [command for command in commands(page) if command.startswith(("darsr ", "python "))]
    if importlib.util.find_spec("tensorrt_rtx_bindings") is None:  # x86_64 alone has it
        ours = [command for command in ours if "trt-rtx" not in command.split()]
    if importlib.util.find_spec("ray") is None:
        ours = [command for command in ours if "--cluster" not in command.split()]
    return ours + [shlex.join(["python", "-c", code]) for code in python_blocks(page)]


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if commands_to_run(page)], ids=lambda p: p.name)
def test_every_command_runs(page, furnished, adapted, kept_exports, tmp_path, monkeypatch):
    """In the order of the page, in one folder. The README begins with nothing adapted."""
    desk = shutil.copytree(furnished if page.name == "README.md" else adapted, tmp_path / "desk")
    monkeypatch.setenv("DARSR_CACHE", str(desk / "cache"))
    for command in commands_to_run(page):
        run(command, desk, kept_exports)


def test_ports_of_servers_are_published_on_this_machine_alone():
    commands = [line for page in PAGES for line in page.read_text().splitlines() if line.startswith("$ docker run")]
    ports = [port for line in commands for port in re.findall(r"(?:-p|--publish)[ =](\S+)", line)]
    assert ports and all(port.startswith("127.0.0.1:") for port in ports), ports
    assert not any("--network" in line or "--net" in line for line in commands)
