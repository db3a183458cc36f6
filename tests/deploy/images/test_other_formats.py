"""AVIF, HEIC and MPO are read where the libraries can; what is no regular file or no image is refused at once, quietly."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from darsr_deploy.errors import DarsrError
from darsr_deploy.images.arrays import read_picture, write_image

ROOT = Path(__file__).parent.parent.parent.parent
READ = "import sys; from darsr_deploy.images.arrays import read_picture\ntry: read_picture(sys.argv[1])\nexcept Exception as e: print(e)"
needs_avif = pytest.mark.skipif(not features.check("avif"), reason="this Pillow does not read AVIF (11.3 and later do)")


def refusal(path) -> str:
    with pytest.raises(DarsrError) as caught:
        read_picture(path)
    line = str(caught.value)
    assert line.startswith(f"{path}: ") and len(line.splitlines()) == 1 and "; " in line
    return line


@needs_avif
def test_avif_is_read(photo, tmp_path):
    Image.fromarray(photo).save(tmp_path / "a.avif", quality=95)
    assert np.abs(read_picture(tmp_path / "a.avif").pixels.astype(int) - photo).mean() < 3
    data = (tmp_path / "a.avif").read_bytes()
    (tmp_path / "a.avif").write_bytes(data[: len(data) // 2])
    assert "truncated or damaged" in refusal(tmp_path / "a.avif")
    frames = [Image.fromarray(photo), Image.fromarray(photo[::-1].copy())]
    frames[0].save(tmp_path / "a.avif", save_all=True, append_images=frames[1:])
    assert "animated AVIF" in refusal(tmp_path / "a.avif")


def test_avif_that_pillow_cannot_read_says_what_can(tmp_path, monkeypatch):
    (tmp_path / "a.avif").write_bytes(b"\0\0\0\x18ftypmif1\0\0\0\0mif1avif" + bytes(20))
    monkeypatch.setattr(features, "check", lambda name: False)
    assert 'install "pillow>=11.3"' in refusal(tmp_path / "a.avif")


def test_heic_without_its_reader_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(20))
    line = refusal(tmp_path / "a.heic")
    assert (
        "is a HEIC file, and pillow-heif, which reads it, is not installed; " in line and "install pillow-heif" in line
    )


def test_heic_is_read_where_its_reader_is_installed(photo, tmp_path):
    heif = pytest.importorskip("pillow_heif", reason="reads HEIC (optional)")
    heif.from_pillow(Image.fromarray(photo)).save(tmp_path / "a.heic", quality=95)
    assert np.abs(read_picture(tmp_path / "a.heic").pixels.astype(int) - photo).mean() < 3


def test_of_an_mpo_the_first_picture_is_read(photo, tmp_path):
    first = Image.fromarray(photo)
    first.save(tmp_path / "a.mpo", "MPO", save_all=True, append_images=[first.resize((8, 8))])
    assert read_picture(tmp_path / "a.mpo").pixels.shape == photo.shape


@needs_avif
@pytest.mark.parametrize("suffix", [".avif", ".mpo"])
def test_the_result_of_what_is_not_written_is_a_png(suffix, photo, tmp_path, monkeypatch):
    pytest.importorskip("torch", reason="the backbone runs in PyTorch (extra train)")
    from tests.support.commands import ALONE, done

    monkeypatch.chdir(tmp_path)
    Image.fromarray(photo).save(f"photo{suffix}")
    done("infer", f"photo{suffix}", *ALONE)
    assert read_picture("photo_x2.png").pixels.shape == (160, 192, 3)


# ---- what is no image


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    if not hasattr(os, "mkfifo"):
        pytest.skip("named pipes are of Unix")
    os.mkfifo(tmp_path / "a.png")
    assert "is a pipe or a device, not a file" in refusal(tmp_path / "a.png")
    assert "is a pipe or a device" in refusal(Path("/dev/zero"))


def test_a_large_file_of_another_kind_is_not_read_whole(tmp_path):
    """3 GB of a film: its first bytes tell that it is none."""
    with open(tmp_path / "clip.mxf", "wb") as file:
        file.write(b"\x06\x0e\x2b\x34\x02\x05\x01\x01")
        file.truncate(3 << 30)
    started = time.perf_counter()
    assert "is not an image that can be read" in refusal(tmp_path / "clip.mxf")
    assert time.perf_counter() - started < 0.5


@pytest.mark.parametrize("name", ["a.tif", "b.tif", "a.png", "a.jpg"])
def test_decoders_do_not_talk_beside_the_one_line(name, photo, tmp_path):
    path = tmp_path / name
    if name == "b.tif":
        Image.fromarray(photo).save(path, compression="tiff_lzw")
    else:
        write_image(path, photo if name == "a.jpg" else photo.astype(np.uint16) * 257)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 40] = bytes(40)
    path.write_bytes(data)
    quiet = subprocess.run([sys.executable, "-c", READ, path], cwd=ROOT, capture_output=True, text=True)
    assert quiet.returncode == 0 and quiet.stderr == ""
    assert len(quiet.stdout.splitlines()) <= 1


def test_stderr_is_as_it_was_after_reading(photo, tmp_path, capfd):
    write_image(tmp_path / "a.tif", photo)
    read_picture(tmp_path / "a.tif")
    os.write(2, b"still here")
    assert capfd.readouterr().err == "still here"
