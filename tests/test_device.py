"""A device: ONNX Runtime alone, neither PyTorch nor onnx nor scikit-image. ``adapt`` and ``infer`` work there as anywhere."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

import darsr_deploy
from darsr_deploy.errors import DarsrError
from darsr_deploy.files.adapter import Adapter
from darsr_deploy.images.arrays import read_image
from tests.deploy.adaptation.test_adapt import photo

ROOT = Path(__file__).parent.parent
BLOCKED = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {missing}:
            raise ImportError(f"No module named {{name}}")

sys.meta_path.insert(0, Missing())
sys.argv[0] = "darsr"
from export.cli import app
app()
"""
HEAVY = ("torch", "onnx", "onnxscript", "skimage", "spandrel")


@pytest.fixture
def desk(tmp_path) -> Path:
    cv2.imwrite(str(tmp_path / "photo.jpg"), photo()[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 70])
    cv2.imwrite(str(tmp_path / "clean.png"), photo()[:, :, ::-1])
    return tmp_path


def on_a_device(desk: Path, *words: object, missing: tuple[str, ...] = HEAVY) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", BLOCKED.format(missing=missing), *map(str, words)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=desk, env=env, capture_output=True, text=True)


def test_adapt_and_infer(desk):
    for name, decision in (("photo.jpg", "JPEG 70: corrected"), ("clean.png", "corrected")):
        adapted = on_a_device(desk, "adapt", name)
        assert adapted.returncode == 0 and decision in adapted.stdout, adapted.stderr
        inferred = on_a_device(desk, "infer", name)
        assert inferred.returncode == 0, inferred.stderr
        result = read_image(desk / f"{Path(name).stem}_x2{Path(name).suffix}")
        assert result.shape == (192, 240, 3)
    alone = on_a_device(desk, "infer", "clean.png", "--no-adapter", "--scale", 4)
    assert alone.returncode == 0 and read_image(desk / "clean_x4.png").shape == (384, 480, 3), alone.stderr


def test_jobs_and_a_folder(desk):
    done = on_a_device(desk, "adapt", ".", "-o", "adapters", "--jobs", 2)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (desk / "adapters").iterdir()) == ["clean.darsr", "photo.darsr"]


def test_what_needs_pytorch_says_so_in_one_line(desk):
    for words in (["--steps", "2"], ["--budget", "1"], ["--backbone", "edge-plus"]):
        done = on_a_device(desk, "adapt", "clean.png", *words)
        assert done.returncode == 1 and "needs PyTorch, which is not installed" in done.stderr
        assert len(done.stderr.splitlines()) == 1 and not (desk / "clean.darsr").exists()


def test_a_scene_of_a_clip_is_adapted_to(desk):
    pytest.importorskip("av")
    from darsr_deploy.video.frames import is_video
    from tests.support.clips import pictures, write_clip

    clip = write_clip(desk / "clip.mkv", pictures(4), "ffv1", "bgr0")
    done = on_a_device(desk, "infer", clip, "--readapt", "scene")
    assert done.returncode == 0 and is_video(desk / "clip_x2.mkv"), done.stderr


def test_an_adapter_file_opens_without_an_export(tmp_path):
    pixels = photo()
    darsr_deploy.adapt(pixels).save(tmp_path / "a.darsr")
    with darsr_deploy.open_engine(tmp_path / "a.darsr", engine="ort") as engine:
        assert darsr_deploy.upscale(engine, pixels).shape == (192, 240, 3) and engine.spec.scale == 2
    with pytest.raises(DarsrError, match="is an adapter itself"):
        darsr_deploy.open_engine(tmp_path / "a.darsr", tmp_path / "a.darsr")
    other = Adapter(**{**vars(Adapter.load(tmp_path / "a.darsr")), "backbone_sha256": "0" * 64})
    other.save(tmp_path / "b.darsr")
    with pytest.raises(DarsrError, match="needs a backbone or networks that do not come with this version"):
        darsr_deploy.open_engine(tmp_path / "b.darsr")
