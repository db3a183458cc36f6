"""``darsr upscale``: the bytes of adapt and infer in one command, for every kind of input, and what stands in its way."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

import cli
from darsr_deploy.files.adapter import Adapter
from darsr_deploy.images.arrays import read_picture, write_image
from tests.support.commands import darsr, done, names, refused, strict_json
from tests.support.shared import SHARED, needs_shared

pytest.importorskip("torch", reason="adapting and running adapters needs PyTorch (extra train)")

ROW = {"input", "output", "engine", "provider", "seconds", "height", "width", "found", "decision"}
FAST = ("--engine", "torch", "--threads", "1")


@pytest.fixture
def desk(photo, tmp_path, monkeypatch) -> Path:
    """Three pictures: blurred, compressed, sharp."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    write_image(tmp_path / "in" / "blurred.png", cv2.GaussianBlur(photo, (0, 0), 1.2))
    write_image(tmp_path / "in" / "pressed.jpg", photo, quality=60)
    write_image(tmp_path / "in" / "sharp.webp", photo[::2, ::2])
    return tmp_path


def results(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if "_x" in path.name}


# ---- the whole way


@pytest.mark.parametrize("engine", ["auto", "torch"])
def test_the_bytes_of_adapt_and_infer(engine, desk, built_once):
    if engine == "auto":
        for module in ("onnx", "onnxscript", "onnxruntime"):
            pytest.importorskip(module, reason="ONNX Runtime and the exporter are extras of their own")
    done("upscale", "in", "-o", "out/", "--engine", engine, "--keep-adapter", "--threads", "1")
    kept = {path.name: path.read_bytes() for path in Path("in").glob("*.darsr")}
    assert kept.keys() == {"blurred.darsr", "pressed.darsr", "sharp.darsr"}
    done("adapt", "in", "--overwrite", "--threads", "1")
    done("infer", "in", "--engine", engine, "-o", "two", "--threads", "1")
    assert {name: Path("in", name).read_bytes() for name in kept} == kept
    assert results(Path("out")) == results(Path("two")) and len(results(Path("out"))) == 3


def test_options_reach_the_adapter(desk):
    steered = ("--scale", "4", "--amount", "0.8", "--denoise", "0.5", "--deblock", "0.25")
    done("upscale", "in/pressed.jpg", *steered, *FAST, "--keep-adapter")
    options = Adapter.load("in/pressed.darsr").facts["options"]
    assert (options["amount"], options["denoise"], options["deblock"], options["scale"]) == (0.8, 0.5, 0.25, 4)
    assert Image.open("in/pressed_x4.jpg").size == (384, 320)
    kept = Path("in/pressed.darsr").read_bytes()
    done("adapt", "in/pressed.jpg", *steered, "--overwrite", "--threads", "1")
    assert Path("in/pressed.darsr").read_bytes() == kept


def test_one_line_a_picture_and_nothing_else(desk):
    result = done("in/blurred.png", *FAST)
    assert result.stderr == ""
    (line,) = result.stdout.splitlines()
    assert line.startswith("in/blurred.png -> in/blurred_x2.png  blur of 2.") and ": corrected  (192x160, " in line
    assert line.endswith(" s)")
    assert names(Path("in")) == {"blurred.png", "blurred_x2.png", "pressed.jpg", "sharp.webp"}, "no adapter stays"


def test_json(desk):
    row = strict_json(done("upscale", "in/pressed.jpg", *FAST, "--json").stdout)
    assert row.keys() == ROW and row["found"]["jpeg_quality"] == 60
    assert (row["output"], row["height"], row["width"], row["engine"]) == ("in/pressed_x2.jpg", 160, 192, "torch")
    rows = strict_json(done("upscale", "in", "-o", "out", "--keep-adapter", *FAST, "--json").stdout)
    assert [Path(row["input"]).name for row in rows] == ["blurred.png", "pressed.jpg", "sharp.webp"]
    assert all(row.keys() == ROW | {"adapter"} and Path(row["adapter"]).is_file() for row in rows)


def test_several_at_a_time_give_the_same(desk):
    done("upscale", "in", "-o", "one", *FAST)
    result = darsr(
        "upscale", "in", "missing.png", "-o", "two", "--jobs", "2", "--engine", "torch", "--threads", "2", "--json"
    )
    assert result.exit_code == 1 and "missing.png: cannot be read" in result.stderr
    *rows, failed = strict_json(result.stdout)
    assert [Path(row["input"]).name for row in rows] == ["blurred.png", "pressed.jpg", "sharp.webp"], "in their order"
    assert len(failed["errors"]) == 1 and results(Path("one")) == results(Path("two"))


@pytest.mark.parametrize("place", ["darsr_deploy.engines.upscale.to_image", "darsr_deploy.files.atomic.os.replace"])
def test_interrupted(place, desk, monkeypatch):
    def interrupt(*_: object, **__: object):
        raise KeyboardInterrupt

    Path("temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(Path("temporary").resolve()))
    monkeypatch.setattr(place, interrupt)
    result = darsr("in/blurred.png", "--overwrite", *FAST)
    assert (result.exit_code, result.stdout, result.stderr) == (130, "", "interrupted\n")
    assert names(Path("in")) == {"blurred.png", "pressed.jpg", "sharp.webp"} and names(Path("temporary")) == set()


def test_a_folder_shows_files_and_the_seconds_left(desk, monkeypatch):
    """On a terminal; what is shown there is one step a picture."""
    shown = []

    @contextlib.contextmanager
    def progress(title: str):
        yield lambda entry: shown.append((title, entry))

    monkeypatch.setattr("export.commands.upscale_run.progress", progress)
    done("upscale", "in", "-o", "out", *FAST)
    assert shown == [("upscale", {"step": step, "steps": 3}) for step in range(3)]
    shown.clear()
    done("in/blurred.png", *FAST)
    assert shown == []


def test_another_backbone_says_what_was_done_too(desk):
    row = strict_json(done("in/blurred.png", "--backbone", "edge-plus", *FAST, "--json").stdout)
    assert row["decision"] in ("corrected", "nothing to correct") and row["output"] == "in/blurred_x2.png"
    done("adapt", "in/blurred.png", "--backbone", "edge-plus", "--threads", "1")
    done("infer", "in/blurred.png", "--backbone", "edge-plus", "-o", "two.png", *FAST)
    assert Path("two.png").read_bytes() == Path("in/blurred_x2.png").read_bytes()
    two = ("in/pressed.jpg", "in/sharp.webp")  # said once
    assert "installed: edge-x2" in refused(*two, "--backbone", "nothing", "-o", "out", *FAST, name="backbone nothing")


def test_neither_pytorch_nor_onnx_is_needed(desk):
    """Nor a cache: in a process of its own, in which neither is there."""
    pytest.importorskip("onnxruntime", reason="ONNX Runtime is an extra of its own")
    modules = desk / "modules"
    modules.mkdir()
    for name in ("torch", "onnx", "onnxscript", "skimage"):
        (modules / f"{name}.py").write_text(f"raise ImportError({name!r}, name={name!r})")
    paths = os.pathsep.join([str(modules), str(Path(cli.__file__).parent)])
    command = [sys.executable, cli.__file__, "in", "--jobs", "2", "--threads", "2", "-o", "out/"]
    environment = {**os.environ, "PYTHONPATH": paths, "DARSR_CACHE": str(desk / "cache")}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "") and len(ended.stdout.splitlines()) == 3
    done("upscale", "in", "-o", "here", "--threads", "1")
    assert results(Path("out")) == results(Path("here"))


# ---- pictures of all kinds


@needs_shared
def test_a_photograph_of_a_phone_keeps_what_its_file_says(tmp_path):
    source = SHARED / "data" / "train" / "photos" / "metadata-extractor_Samsung_SM-G935L__Galaxy_S7_Edge_.jpg"
    exif = Image.Exif()
    exif[271], exif[274], exif[306] = "A maker", 6, "2020:01:02 03:04:05"  # lies on its side
    with Image.open(source) as photo:
        photo.crop((200, 200, 320, 280)).save(tmp_path / "phone.jpg", quality=90, exif=exif, dpi=(300, 300))
    done(tmp_path / "phone.jpg", *FAST)
    with Image.open(tmp_path / "phone_x2.jpg") as result:
        assert result.size == (160, 240), "upright"
        kept = result.getexif()
        assert (kept[271], kept[306], kept.get(274, 1)) == ("A maker", "2020:01:02 03:04:05", 1)
        assert tuple(map(round, result.info["dpi"])) == (300, 300)


def test_sixteen_bits_stay_sixteen(photo, tmp_path):
    deep = cv2.GaussianBlur(photo, (0, 0), 1.2).astype(np.uint16) * 257 + 5
    write_image(tmp_path / "deep.tif", deep)
    done(tmp_path / "deep.tif", *FAST)
    result = read_picture(tmp_path / "deep_x2.tif").pixels
    assert result.dtype == np.uint16 and result.shape == (160, 192, 3) and len(np.unique(result % 257)) > 200
    line = refused(tmp_path / "deep.tif", "--format", "jpg", *FAST, name=tmp_path / "deep_x2.jpg")
    assert "JPEG holds 8 bits a channel, and the image has 16; write a PNG or TIFF" in line


def test_transparency_stays(photo, tmp_path):
    alpha = np.zeros(photo.shape[:2], np.uint8)
    alpha[:, 30:] = 255
    write_image(tmp_path / "cut.png", np.dstack([photo, alpha]))
    done(tmp_path / "cut.png", *FAST)
    result = read_picture(tmp_path / "cut_x2.png").pixels
    assert result.shape == (160, 192, 4) and result[80, 20, 3] == 0 and result[80, 100, 3] == 255
    line = refused(tmp_path / "cut.png", "--format", "jpg", *FAST, name=tmp_path / "cut_x2.jpg")
    assert "JPEG holds no transparency" in line


def test_a_bad_file_in_a_folder_stops_nothing_else(desk):
    Path("in/bad.png").write_bytes(b"hello")
    Path("in/tiny.png").write_bytes(Path("in/blurred.png").read_bytes())
    write_image(Path("in/tiny.png"), read_picture("in/blurred.png").pixels[:8, :8])
    result = darsr("in", "-o", "out", *FAST)
    assert result.exit_code == 1 and len(results(Path("out"))) == 3 == len(result.stdout.splitlines())
    bad, tiny = result.stderr.splitlines()
    assert bad == "error: in/bad.png: is not an image that can be read; save it as PNG, TIFF, WebP, JPEG or BMP"
    assert tiny.startswith("error: in/tiny.png: is 8x8 pixels, too small to adapt with profile fast (least side 32)")


def test_a_video(tmp_path, monkeypatch):
    pytest.importorskip("av", reason="PyAV is the extra video")
    from tests.support.clips import pictures, read, write_clip

    monkeypatch.chdir(tmp_path)
    write_clip(tmp_path / "clip.mkv", pictures(4), "ffv1", "bgr0")
    result = done("clip.mkv", *FAST)
    (line,) = result.stdout.splitlines()
    assert line.startswith("clip.mkv -> clip_x2.mkv  ") and "(96x72, 4 frames, torch, " in line
    assert len(read(tmp_path / "clip_x2.mkv")) == 4 and names(tmp_path) == {"clip.mkv", "clip_x2.mkv"}
    row = strict_json(done("clip.mkv", "--keep-adapter", "--amount", "0.5", "--overwrite", *FAST, "--json").stdout)
    assert row.keys() >= ROW | {"frames", "fps", "adapter"}
    steered = Path("clip.darsr").read_bytes()
    done("clip.mkv", "--keep-adapter", "--overwrite", *FAST)
    assert Path("clip.darsr").read_bytes() != steered
    assert "exists already" in refused("clip.mkv", *FAST, name="clip_x2.mkv")
    row = strict_json(done("clip.mkv", "--skip-existing", *FAST, "--json").stdout)
    assert row == {"input": "clip.mkv", "output": "clip_x2.mkv", "skipped": True}
    assert "can be read only once" in refused("upscale", "-", *FAST, name="standard input")


# ---- where results go, and in which format


@pytest.mark.parametrize(("word", "suffix"), [("png", ".png"), ("jpg", ".jpg"), ("webp", ".webp"), ("tiff", ".tiff")])
def test_a_format_for_all(word, suffix, desk):
    done("upscale", "in", "-o", "out", "--format", word, *FAST)
    assert {Path(name).suffix for name in results(Path("out"))} == {suffix} and len(results(Path("out"))) == 3


def test_quality(desk):
    done("upscale", "in/pressed.jpg", "in/blurred.png", "-o", "low", "--quality", "20", *FAST)
    done("upscale", "in/pressed.jpg", "in/blurred.png", "-o", "usual", *FAST)
    low, usual = results(Path("low")), results(Path("usual"))
    assert len(low["pressed_x2.jpg"]) < len(usual["pressed_x2.jpg"]) / 3
    assert low["blurred_x2.png"] == usual["blurred_x2.png"], "others of a folder stay exact"
    refused(
        "in/blurred.png", "--quality", "20", name="--quality 20: PNG is exact and has none; use --format jpg or webp"
    )


@pytest.mark.parametrize("out", ["out/", "out/deep/"])
def test_a_folder_that_does_not_exist_is_made(out, desk):
    done("in/blurred.png", "-o", out, *FAST)
    assert (desk / out / "blurred_x2.png").is_file()
    done("in/blurred.png", "in/pressed.jpg", "-o", "several", *FAST)
    assert names(desk / "several") == {"blurred_x2.png", "pressed_x2.jpg"}
    refused("missing.png", "-o", "none/", name="missing.png")
    assert not Path("none").exists(), "nothing was written into it"


def test_names_that_do_not_fit(desk):
    refused(
        "in/blurred.png",
        "-o",
        "a.png",
        "--format",
        "jpg",
        name="--format jpg: does not fit -o a.png; leave one of them out",
    )
    refused("in/blurred.png", "-o", "a.xyz", *FAST, name="a.xyz: cannot write .xyz")
    refused("in", "-o", "a.png", *FAST, name="a.png: is a file's name, and a folder is needed; give a folder's name")
    done("in/blurred.png", "-o", "a.jpeg", "--format", "jpg", *FAST)


@pytest.mark.parametrize("overwrite", [(), ("--overwrite",)], ids=["", "overwrite"])
def test_no_input_is_replaced(overwrite, desk):
    os.link("in/blurred.png", "link.png")
    before = Path("in/blurred.png").read_bytes()
    for target in ("in/blurred.png", "link.png"):
        line = refused("in/blurred.png", "-o", target, *overwrite, *FAST, name=target)
        assert "is an input of this command; choose another place with -o" in line
    assert Path("in/blurred.png").read_bytes() == before


def test_nothing_is_replaced_unasked(desk):
    Path("in/blurred_x2.png").write_bytes(b"mine")
    Path("in/pressed.darsr").write_bytes(b"mine")
    assert "--overwrite" in refused("in/blurred.png", *FAST, name="in/blurred_x2.png: exists already")
    assert "--overwrite" in refused("in/pressed.jpg", "--keep-adapter", *FAST, name="in/pressed.darsr: exists already")
    assert Path("in/blurred_x2.png").read_bytes() == Path("in/pressed.darsr").read_bytes() == b"mine"
    done("in/blurred.png", "--overwrite", *FAST)
    assert read_picture("in/blurred_x2.png").pixels.shape == (160, 192, 3)


# ---- a second run


def test_what_is_missing_is_done(desk):
    first = done("upscale", "in", *FAST)
    before = results(Path("in"))
    Path("in/pressed_x2.jpg").unlink()
    Path("in/sharp.darsr").write_bytes(b"mine")
    again = done("upscale", "in", "--skip-existing", "--keep-adapter", *FAST)
    assert len(first.stdout.splitlines()) == 3 and again.stdout.startswith("in/pressed.jpg -> in/pressed_x2.jpg")
    assert len(again.stdout.splitlines()) == 1 and results(Path("in")) == before
    assert again.stderr.splitlines() == [
        "in: passed over 2 named like results of this toolkit (blurred_x2.png); give by name what is meant",
        "2 done before and passed over (--skip-existing)",
    ]
    assert Path("in/pressed.darsr").is_file() and Path("in/sharp.darsr").read_bytes() == b"mine"


def test_nothing_is_imported_where_nothing_is_missing(desk, monkeypatch):
    done("upscale", "in/blurred.png", *FAST)
    monkeypatch.setattr("darsr_train.commands.adapt_tasks.prepare", lambda *_: pytest.fail("adapting was prepared"))
    result = done("in/blurred.png", "--skip-existing", *FAST)
    assert (result.stdout, result.stderr) == ("", "1 done before and passed over (--skip-existing)\n")


@pytest.mark.parametrize("shell", [False, True], ids=["quoted", "expanded"])
def test_a_pattern_passes_over_results(shell, desk):
    done("upscale", "in/blurred.png", *FAST)
    given = [str(path) for path in sorted(Path("in").glob("*.png"))] if shell else ["in/*.png"]
    result = done("upscale", *given, "--overwrite", *FAST)
    assert len(result.stdout.splitlines()) == 1 and len(result.stderr.splitlines()) == 1
    assert "passed over 1 named like results of this toolkit (" in result.stderr
    assert names(Path("in")) == {"blurred.png", "blurred_x2.png", "pressed.jpg", "sharp.webp"}


def test_infer_and_adapt_do_what_is_missing_too(desk):
    adapted = done("adapt", "in", "--threads", "1", "--json")
    kept = {path.name: path.read_bytes() for path in Path("in").glob("*.darsr")}
    Path("in/pressed.darsr").unlink()
    rows = strict_json(done("adapt", "in", "--skip-existing", "--threads", "1", "--json").stdout)
    assert [row.get("skipped", False) for row in rows] == [True, False, True]
    assert rows[0] == {"input": "in/blurred.png", "adapter": "in/blurred.darsr", "skipped": True}
    assert {path.name: path.read_bytes() for path in Path("in").glob("*.darsr")} == kept
    assert len(strict_json(adapted.stdout)) == 3
    done("adapt", "in", "--skip-existing", "--threads", "1", "--corrected", "seen/")
    assert len(names(Path("seen"))) == 3, "the pictures that were missing"
    done("infer", "in", "-o", "out", *FAST)
    before = results(Path("out"))
    Path("out/sharp_x2.webp").unlink()
    result = done("infer", "in", "-o", "out", "--skip-existing", *FAST)
    assert len(result.stdout.splitlines()) == 1 and results(Path("out")) == before
    assert result.stderr == "2 done before and passed over (--skip-existing)\n"
    row = strict_json(done("infer", "in/sharp.webp", "-o", "out/", "--skip-existing", *FAST, "--json").stdout)
    assert row == {"input": "in/sharp.webp", "output": "out/sharp_x2.webp", "skipped": True}
