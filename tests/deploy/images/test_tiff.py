"""TIFF: every layout of 16 bits is read exactly; what contradicts itself or claims too much is one line."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image

from darsr_deploy.errors import DarsrError
from darsr_deploy.images import ifd
from darsr_deploy.images.reader import read_picture, size_of
from tests.support.shared import SHARED, needs_shared

LZW, PACKBITS, DEFLATE = 5, 32773, 8


def noise(*shape: int, dtype: type = np.uint16) -> np.ndarray:
    return np.random.default_rng(1).integers(0, np.iinfo(dtype).max + 1, shape, dtype)


def lzw(data: bytes) -> bytes:
    """LZW of single bytes, as TIFF asks for it: a clear code after every 200, so that codes keep 9 bits."""
    codes = []
    for place, byte in enumerate(data):
        codes += [256, byte] if place % 200 == 0 else [byte]
    bits = "".join(f"{code:09b}" for code in [*codes, 257])
    return bytes(int(bits[i : i + 8].ljust(8, "0"), 2) for i in range(0, len(bits), 8))


def packbits(data: bytes) -> bytes:
    return b"".join(bytes([len(data[i : i + 128]) - 1]) + data[i : i + 128] for i in range(0, len(data), 128))


PACKERS = {1: bytes, LZW: lzw, PACKBITS: packbits, DEFLATE: zlib.compress}


def write(path, pixels: np.ndarray, compression: int = 1, segment: tuple[int, int] = (0, 0), **changes) -> None:
    """A little TIFF of 16 bits, H x W x samples; a segment is a tile's height and width, or (rows, 0) of strips.

    Args:
        changes: other values for tags, by their names here; None leaves one out.
    """
    names = {"width": 256, "height": 257, "bits": 258, "photometric": 262, "samples": 277, "rows": 278, "planar": 284}
    names |= {"predictor": 317, "tile_width": 322, "tile_height": 323, "depth": 32997, "format": 339, "extra": 338}
    h, w, samples = pixels.shape
    rows, columns = segment
    planes = [pixels[:, :, [c]] for c in range(samples)] if changes.get("planar") == 2 else [pixels]
    parts = []
    for plane in planes:
        for top in range(0, h, rows or h):
            for left in range(0, w, columns or w):
                part = plane[top : top + (rows or h), left : left + (columns or w)]
                if columns:
                    part = np.pad(part, [(0, rows - part.shape[0]), (0, columns - part.shape[1]), (0, 0)])
                if changes.get("predictor") == 2:
                    part = np.diff(part, axis=1, prepend=part[:, :1] * 0)
                parts.append(PACKERS[compression](part.astype("<u2").tobytes()))
    tags = {
        256: (w,),
        257: (h,),
        258: (16,) * samples,
        259: (compression,),
        262: (1 if samples < 3 else 2,),
        277: (samples,),
    }
    data, offsets = b"", []
    for part in parts:
        offsets.append(8 + len(data))
        data += part + bytes(len(part) % 2)
    if columns:
        tags |= {322: (columns,), 323: (rows,), 324: tuple(offsets), 325: tuple(map(len, parts))}
    else:
        tags |= {278: (rows or h,), 273: tuple(offsets), 279: tuple(map(len, parts))}
    for name, value in changes.items():
        tags[names[name]] = value if isinstance(value, tuple) else (value,)
    made = {code: ifd.make_tag(ifd.LONG, *values) for code, values in tags.items() if values != (None,)}
    place = 8 + len(data)
    path.write_bytes(b"II*\0" + struct.pack("<I", place) + data + ifd.build_directory(made, place))


def refusal(path) -> str:
    with pytest.raises(DarsrError) as caught:
        read_picture(path)
    line = str(caught.value)
    assert line.startswith(f"{path}: ") and len(line.splitlines()) == 1 and "; " in line
    return line


@pytest.mark.parametrize("segment", [(0, 0), (5, 0), (16, 32)], ids=["one strip", "strips", "tiles"])
@pytest.mark.parametrize("compression", PACKERS)
@pytest.mark.parametrize(
    "samples, extra", [(1, {}), (3, {}), (3, {"planar": 2}), (3, {"predictor": 2}), (4, {"extra": 2})]
)
def test_every_layout_of_16_bits(compression, segment, samples, extra, tmp_path):
    pixels = noise(37, 41, samples)
    write(tmp_path / "a.tif", pixels, compression, segment, **extra)
    assert np.array_equal(read_picture(tmp_path / "a.tif").pixels.reshape(pixels.shape), pixels)
    assert size_of(tmp_path / "a.tif") == (41, 37)


@pytest.mark.parametrize("segment", [(0, 0), (7, 0), (16, 16)], ids=["one strip", "strips", "tiles"])
@pytest.mark.parametrize("compression", PACKERS)
@pytest.mark.parametrize("samples", [1, 2])
def test_where_white_is_zero_black_is_not(compression, segment, samples, tmp_path):
    pixels = noise(20, 30, samples)
    write(tmp_path / "a.tif", pixels, compression, segment, photometric=0, extra=2 if samples == 2 else None)
    back = read_picture(tmp_path / "a.tif").pixels.reshape(pixels.shape)
    assert np.array_equal(back[:, :, 0], 65535 - pixels[:, :, 0])
    assert np.array_equal(back[:, :, 1:], pixels[:, :, 1:]), "alpha is not a colour"


@needs_shared
@pytest.mark.parametrize("name", ["miniswhite16.tif", "mw16lzw_cv.tif"])
def test_files_of_others_where_white_is_zero(name, tmp_path):
    path = SHARED / "data" / "faults" / "tiff16_miniswhite" / name
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        assert page.photometric == 0
    pixels = read_picture(path).pixels
    assert pixels.shape == (64, 96) and pixels.dtype == np.uint16
    if page.compression == 1:
        assert np.array_equal(pixels, 65535 - tifffile.imread(path))


def test_a_channel_that_is_not_said_to_be_alpha_is_dropped(tmp_path):
    pixels = noise(8, 9, 4)
    write(tmp_path / "a.tif", pixels, extra=0)
    assert np.array_equal(read_picture(tmp_path / "a.tif").pixels, pixels[:, :, :3])


# ---- what contradicts itself


@pytest.mark.parametrize(
    "changes, why",
    [
        ({"depth": 20}, "20 slices"),
        ({"samples": 4}, "4 samples a pixel, and the bits of 3"),
        ({"samples": 1, "bits": 16}, "1 samples a pixel for 3 colours"),
        ({"planar": (2,)}, "strips or tiles, and its size takes 3"),
        ({"planar": 7}, "its size cannot be"),
        ({"height": 400}, "truncated or damaged"),
        ({"width": 200}, "truncated or damaged"),
        ({"width": 0}, "its size cannot be"),
        ({"photometric": 8}, "colours (photometric interpretation 8)"),
        ({"samples": 5, "bits": 16, "photometric": 2}, "5 channels"),
        ({"bits": (16, 16, 8)}, "the bits of 3"),
        ({"format": 3}, "16-bit floating-point"),
        ({"format": 2}, "signed 16-bit integers"),
        ({"bits": 32}, "32-bit integers"),
        ({"predictor": 3}, "predictor"),
    ],
)
def test_what_is_decoded_is_what_was_declared(changes, why, tmp_path):
    write(tmp_path / "a.tif", noise(100, 100, 3), DEFLATE, **changes)
    assert why in refusal(tmp_path / "a.tif")


def test_numbers_that_are_not_read_say_which(tmp_path):
    for dtype, why in (
        (np.float32, "32-bit floating-point"),
        (np.int16, "signed 16-bit"),
        (np.uint32, "32-bit integers"),
    ):
        tifffile.imwrite(tmp_path / "a.tif", np.zeros((8, 8, 3), dtype), photometric="rgb", metadata=None)
        line = refusal(tmp_path / "a.tif")
        assert why in line and line.endswith("save it with unsigned integers of 8 or 16 bits")


def test_a_thumbnail_in_front_is_passed_over(tmp_path):
    """The first page may be a reduced copy; alone it is not the picture."""
    image = noise(16, 16, 3, dtype=np.uint8)
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(noise(4, 4, 3, dtype=np.uint8), photometric="rgb", metadata=None, subfiletype=1)
        writer.write(image, photometric="rgb", metadata=None)
    assert np.array_equal(read_picture(tmp_path / "a.tif").pixels, image)
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="rgb", metadata=None, subfiletype=1)
    line = refusal(tmp_path / "a.tif")
    assert "holds only a reduced copy (a thumbnail)" in line and "raw converter" in line


def test_a_strip_yields_no_more_than_its_pixels(tmp_path):
    """Deflate of a gigabyte in the strip of a picture of 100 x 100."""
    packer = zlib.compressobj(9)
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(64)) + packer.flush()
    made = {
        256: (100,),
        257: (100,),
        258: (16,),
        259: (8,),
        262: (1,),
        273: (8,),
        277: (1,),
        278: (100,),
        279: (len(bomb),),
    }
    tags = {code: ifd.make_tag(ifd.LONG, *values) for code, values in made.items()}
    place = 8 + len(bomb) + len(bomb) % 2
    file = b"II*\0" + struct.pack("<I", place) + bomb.ljust(place - 8, b"\0") + ifd.build_directory(tags, place)
    (tmp_path / "a.tif").write_bytes(file)
    assert read_picture(tmp_path / "a.tif").pixels.nbytes == 20_000


def test_a_tile_is_not_larger_than_the_picture(tmp_path):
    Image.fromarray(noise(16, 16, 3, dtype=np.uint8)).save(tmp_path / "a.tif", compression="tiff_deflate")
    write(tmp_path / "a.tif", noise(16, 16, 1), DEFLATE, (16, 16), tile_width=1 << 17, tile_height=1 << 15)
    assert "a tile is larger than the picture" in refusal(tmp_path / "a.tif")


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
def test_directories_come_back(order, big):
    tags = {256: ifd.make_tag(ifd.SHORT, 7), 273: ifd.make_tag(ifd.LONG, 1, 2, 3), 305: ifd.Tag(ifd.ASCII, b"darsr\0")}
    nested = {**tags, 34665: {36867: ifd.Tag(ifd.ASCII, b"2020:01:01 00:00:00\0")}}
    data = bytes(16) + ifd.build_directory(nested, 16, big)
    found, after = ifd.read_directory(data, 16, "<", big)
    assert after == 0 and {code: (tag.kind, tag.data) for code, tag in found.items() if code in tags} == {
        code: (tag.kind, tag.data) for code, tag in tags.items()
    }
    inner, _ = ifd.read_directory(data, int(found[34665].values()[0]), "<", big)
    assert inner[36867].data == b"2020:01:01 00:00:00\0"
    file = io.BytesIO()
    tifffile.imwrite(file, noise(6, 5, 3), photometric="rgb", metadata=None, byteorder=order, bigtiff=big)
    data = file.getvalue()
    found, _ = ifd.read_directory(data, ifd.read_header(data)[2], order, big)
    assert found[256].values() == (5,) and found[258].values() == (16, 16, 16)
