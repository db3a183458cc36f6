"""Small files that claim much: each is refused within two seconds and 300 MB, before it is decoded."""

from __future__ import annotations

import io
import json
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from darsr_deploy import memory
from darsr_deploy.errors import DarsrError
from darsr_deploy.images import ifd
from darsr_deploy.images.reader import read_picture, size_of

ROOT = Path(__file__).parent.parent.parent.parent
MEASURED = """
import json, sys, time
from pathlib import Path
from darsr_deploy.images import arrays
from darsr_deploy.errors import DarsrError
def peak():
    return next(int(line.split()[1]) / 1024 for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line)
before, started = peak(), time.perf_counter()
try:
    said = str(arrays.read_picture(sys.argv[1]).pixels.shape)
except DarsrError as error:
    said = "error: " + str(error)
seconds = time.perf_counter() - started
print(json.dumps([said, seconds, peak() - before]))
"""


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def flat_png(width: int, height: int) -> bytes:
    """16-bit RGBA, black."""
    packer, row = zlib.compressobj(9), bytes(1 + 8 * width)
    data = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 6, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def huge_webp() -> bytes:
    """A header of a lossless picture of 16,383 x 16,383."""
    content = b"\x2f" + struct.pack("<I", 16_382 | 16_382 << 14) + bytes(900)
    body = b"WEBP" + b"VP8L" + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def huge_jpeg() -> bytes:
    """A picture of 8 x 8 that says it is of 22,000 x 22,000."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "JPEG", progressive=True)
    data = bytearray(buffer.getvalue())
    place = data.index(b"\xff\xc2")
    data[place + 5 : place + 9] = struct.pack(">HH", 22_000, 22_000)
    return bytes(data)


def tiff_of(strip: bytes, **changes: int) -> bytes:
    """100 x 100 pixels of 16 bits in one strip of Deflate."""
    names = {"depth": 32997, "rows": 278, "tile_width": 322, "tile_height": 323, "bits": 258}
    values = {256: 100, 257: 100, 258: 16, 259: 8, 262: 1, 273: 8, 277: 1, 278: 100, 279: len(strip)}
    if "tile_width" in changes:
        values |= {324: values.pop(273), 325: values.pop(279)}
    values |= {names[name]: value for name, value in changes.items()}
    tags = {code: ifd.make_tag(ifd.LONG, value) for code, value in values.items()}
    place = 8 + len(strip) + len(strip) % 2
    return b"II*\0" + struct.pack("<I", place) + strip.ljust(place - 8, b"\0") + ifd.build_directory(tags, place)


def zeros(count: int) -> bytes:
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(bytes(1 << 20)) for _ in range(count >> 20)) + packer.flush()


BOMBS = {
    "strip.tif": lambda: tiff_of(zeros(1 << 30)),
    "depth.tif": lambda: tiff_of(zeros(200 << 20), depth=10_000),
    "tile.tif": lambda: tiff_of(zeros(1 << 20), tile_width=1 << 15, tile_height=1 << 15),
    "tile8.tif": lambda: tiff_of(zeros(1 << 20), tile_width=1 << 15, tile_height=1 << 15, bits=8),
    "huge.webp": huge_webp,
    "huge.jpg": huge_jpeg,
    "flat.png": lambda: flat_png(8_000, 6_000),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_at_once(name, tmp_path):
    if not Path("/proc/self/status").exists():
        pytest.skip("the peak of a process is told by Linux")
    (tmp_path / name).write_bytes(BOMBS[name]())
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, tmp_path / name], cwd=ROOT, capture_output=True, text=True, check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    said, seconds, megabytes = json.loads(done.stdout)
    assert done.stderr == ""
    assert seconds < 2 and megabytes < 300, f"{seconds:.1f} s, {megabytes:.0f} MB"
    if name == "strip.tif":  # what was declared is there, and no more of it is unpacked
        assert said == "(100, 100)"
    else:
        assert said.startswith(f"error: {tmp_path / name}: ") and "; " in said


@pytest.fixture
def png(tmp_path):
    Image.fromarray(np.zeros((300, 400, 3), np.uint8)).save(tmp_path / "a.png")
    return tmp_path / "a.png"


def test_more_pixels_than_are_allowed(png):
    with (
        memory.pixel_limit(400 * 300 - 1),
        pytest.raises(DarsrError, match=r"400x300 pixels, more than .*--max-pixels 120000"),
    ):
        read_picture(png)
    with memory.pixel_limit(400 * 300):
        assert read_picture(png).pixels.shape == (300, 400, 3) and size_of(png) == (400, 300)


def test_what_is_given_counts_more_than_what_is_likely(png, monkeypatch):
    monkeypatch.setattr(memory, "_CHEAP", 1000)
    with pytest.raises(
        DarsrError, match=r"claims 400x300 pixels in [\d,]+ bytes, which no photograph does; give --max-pixels"
    ):
        read_picture(png)
    with memory.pixel_limit(120_000):
        assert read_picture(png).pixels.shape == (300, 400, 3)


def test_more_than_the_memory_holds(png, monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda: 1_000_000)
    with pytest.raises(DarsrError, match=r"takes 0\.0 GB to decode, and 0\.0 GB of memory are free; cut it"):
        read_picture(png)


def test_the_commands_take_a_limit(png, monkeypatch):
    pytest.importorskip("torch", reason="the backbone runs in PyTorch (extra train)")
    from tests.support.commands import ALONE, done, refused

    monkeypatch.chdir(png.parent)
    for words in (("infer", "a.png", *ALONE), ("adapt", "a.png", "--device", "cpu")):
        assert "--max-pixels 120000" in refused(*words, "--max-pixels", 1000, name="a.png")
    done("infer", "a.png", *ALONE, "--max-pixels", 120_000)
    assert read_picture("a_x2.png").pixels.shape == (600, 800, 3)


def test_a_limit_ends_with_its_block(monkeypatch):
    monkeypatch.setenv("DARSR_MAX_PIXELS", "7")
    with memory.pixel_limit(9):
        assert os.environ["DARSR_MAX_PIXELS"] == "9"
    with memory.pixel_limit(None):
        assert os.environ["DARSR_MAX_PIXELS"] == "7"
