"""Resolution, EXIF, XMP and a PNG's colour chunks go from source to result; what a format cannot hold is said."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms, features
from PIL import __version__ as pillow_version

from darsr_deploy.images import ifd
from darsr_deploy.images.metadata import Metadata, upright_exif
from darsr_deploy.images.reader import Picture, read_picture
from darsr_deploy.images.writer import lost_metadata, write_image
from tests.support.shared import SHARED, needs_shared

XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6" dc:creator="me"/></x:xmpmeta>'
HDR = {b"cICP": b"\x09\x10\x00\x01", b"mDCV": bytes(range(24)), b"cLLI": bytes(range(8))}
GAMMA = {b"gAMA": struct.pack(">I", 100_000), b"cHRM": struct.pack(">8I", *range(1, 9))}
SRGB = {b"sRGB": b"\0", b"gAMA": struct.pack(">I", 45_455)}

# These tests read and write with Pillow what the toolkit reads and writes itself.
needs_pillow_11 = pytest.mark.skipif(
    int(pillow_version.split(".")[0]) < 11,
    reason="this Pillow loses parts of EXIF and the XMP of a JPEG (11 keeps them)",
)


needs_avif = pytest.mark.skipif(not features.check("avif"), reason="this Pillow does not read AVIF (11.3 and later do)")


def noise(dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(1).integers(0, np.iinfo(dtype).max + 1, (24, 36, 3), dtype)


def exif() -> Image.Exif:
    """As a camera writes it: with a date, a lens's length, a place, a note of the maker, and the size of the picture."""
    found = Image.Exif()
    found[0x010F], found[0x0112], found[0x8298], found[0x011A] = "Cam", 6, "(c) me", 240.0
    found.get_ifd(0x8769).update({0x9003: "2020:01:01 00:00:00", 0x920A: 50.0, 0x927C: b"maker's note", 0xA002: 36})
    found.get_ifd(0x8769)[0xA005] = {1: "R98", 0x1001: 36}  # of the standard for files of cameras, with the width again
    found.get_ifd(0x8825).update({1: "N", 2: (52.0, 31.0, 0.0)})
    found[0x9C9B], found[0x4746] = "Title".encode("utf-16-le"), 4  # of Windows: title and rating
    return found


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_with(path: Path, pixels: np.ndarray, chunks: dict[bytes, bytes]) -> Path:
    write_image(path, pixels)
    data = path.read_bytes()
    path.write_bytes(data[:33] + b"".join(chunk(kind, content) for kind, content in chunks.items()) + data[33:])
    return path


def chunks_of(path: Path) -> dict[bytes, bytes]:
    data, position, found = path.read_bytes(), 8, {}
    while position < len(data):
        length, kind = struct.unpack(">I4s", data[position : position + 8])
        found[kind] = data[position + 8 : position + 8 + length]
        position += 12 + length
    return found


def result(source: Path, target: Path) -> Path:
    """The source twice as large, in the format of the target."""
    picture = read_picture(source)
    pixels = picture.pixels.repeat(2, 0).repeat(2, 1)
    write_image(target, pixels if target.suffix in (".png", ".tif") else pixels.astype(np.uint8), picture)
    return target


# ---- the colour chunks of PNG


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16], ids=["8 bits", "16 bits"])
@pytest.mark.parametrize("chunks", [HDR, GAMMA, SRGB], ids=["HDR", "gamma", "sRGB"])
def test_how_colours_are_meant_stays_in_a_png(chunks, dtype, tmp_path):
    source = png_with(tmp_path / "a.png", noise(dtype), chunks)
    found = chunks_of(result(source, tmp_path / "b.png"))
    assert {kind: found.get(kind) for kind in chunks} == chunks
    assert list(found).index(b"IDAT") > max(list(found).index(kind) for kind in chunks), "before the pixels"
    assert lost_metadata(tmp_path / "b.png", read_picture(source)) is None


@pytest.mark.parametrize("suffix", [".jpg", ".tif", ".webp", ".bmp"])
def test_where_they_are_lost_one_line_says_so(suffix, tmp_path):
    target = tmp_path / f"b{suffix}"
    for chunks, why in ((HDR, "colour chunks (cICP, mDCV, cLLI)"), (GAMMA, "colour chunks (gAMA, cHRM)")):
        line = lost_metadata(target, read_picture(png_with(tmp_path / "a.png", noise(), chunks)))
        assert line.startswith(f"{target}: ") and why in line and "\n" not in line
    assert lost_metadata(target, read_picture(png_with(tmp_path / "a.png", noise(), SRGB))) is None, (
        "sRGB is meant anyway"
    )


# ---- resolution


def resolution(path: Path) -> tuple[float, float]:
    with Image.open(path) as image:
        if path.suffix == ".webp":
            return float(image.getexif()[282]), float(image.getexif()[283])
        return tuple(float(value) for value in image.info["dpi"])


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp", ".bmp"])
@pytest.mark.parametrize("source", ["PNG", "JPEG", "TIFF"])
def test_resolution_stays(source, suffix, tmp_path):
    Image.fromarray(noise()).save(tmp_path / "a.img", source, dpi=(300, 240))
    found = resolution(result(tmp_path / "a.img", tmp_path / f"b{suffix}"))
    assert found == pytest.approx((300, 240), abs=0.02)


def test_resolution_is_turned_with_the_picture(tmp_path):
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(noise()).save(tmp_path / "a.jpg", dpi=(300, 240), exif=turned)
    assert read_picture(tmp_path / "a.jpg").metadata.dpi == (240, 300)


def test_without_a_resolution_none_is_made_up(tmp_path):
    for suffix in (".png", ".jpg", ".tif"):
        write_image(tmp_path / f"a{suffix}", noise())
        assert read_picture(tmp_path / f"a{suffix}").metadata == Metadata()
    told = Image.Exif()
    told[0x010F] = "Cam"
    Image.fromarray(noise()).save(tmp_path / "b.jpg", exif=told)
    assert read_picture(tmp_path / "b.jpg").metadata.dpi is None
    told[0x011A], told[0x011B], told[0x0128] = 4294967295.0, 1e9, 2  # what nobody means
    Image.fromarray(noise()).save(tmp_path / "c.webp", exif=told.tobytes())
    assert read_picture(result(tmp_path / "c.webp", tmp_path / "d.png")).metadata.dpi is None


# ---- EXIF and XMP


@needs_pillow_11
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
@pytest.mark.parametrize("source", ["PNG", "JPEG", "TIFF", "WEBP", pytest.param("AVIF", marks=needs_avif)])
def test_exif_stays_but_for_the_orientation(source, suffix, tmp_path):
    Image.fromarray(noise()).save(tmp_path / "a.img", source, exif=exif().tobytes())
    with Image.open(result(tmp_path / "a.img", tmp_path / f"b{suffix}")) as image:
        found = image.getexif()
        assert image.size == (48, 72), "turned"
        assert (found[0x010F], found[0x8298]) == ("Cam", "(c) me") and found.get(0x0112, 1) == 1
        camera, place = found.get_ifd(0x8769), found.get_ifd(0x8825)
        assert (camera[0x9003], float(camera[0x920A]), camera[0x927C]) == ("2020:01:01 00:00:00", 50, b"maker's note")
        assert camera[0xA002] == 48, "the width is that of the result"
        if source != "TIFF":  # in which Pillow writes a pointer that leads elsewhere
            assert found.get_ifd(0xA005) == {1: "R98", 0x1001: 48}
        assert bytes(found[0x9C9B]) == "Title".encode("utf-16-le") and found[0x4746] == 4
        assert place[1] == "N" and tuple(map(float, place[2])) == (52, 31, 0)


def described(path: Path) -> dict:
    """What EXIF says of a file but for orientation, thumbnail, sizes, and how pixels are stored; by Pillow."""
    storage = {*range(254, 260), 262, 273, 274, *range(277, 280), 284, 317, 338, 531, 700, 34665, 34675, 34853, 40965}
    with Image.open(path) as image:
        exif = image.getexif()
        found = {(0, code): value for code, value in exif.items() if code not in storage}
        for place in (0x8769, 0x8825, 0xA005):
            inner = exif.get_ifd(place).items()
            found |= {(place, c): value for c, value in inner if c not in (0xA002, 0xA003, 0xA005, 0x1001, 0x1002)}
    return {where: str(value).rstrip("\0") for where, value in found.items()}


@needs_pillow_11
@needs_shared
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
def test_files_of_cameras_keep_all_of_it(suffix, tmp_path):
    """Whatever of the development data has EXIF: each tag, the colour profile, XMP and the resolution."""
    files = [
        SHARED / "data" / "faults" / "dpi_exif" / "exif.jpg",
        *(SHARED / "data" / "train" / "photos").glob("*.jp*g"),
    ]
    checked = 0
    for path in files:
        with Image.open(path) as image:
            if not image.getexif():
                continue
            profile = image.info.get("icc_profile")
        picture = read_picture(path)
        target = tmp_path / f"result{suffix}"
        write_image(target, picture.pixels[:40, :30], picture)
        expected, found = described(path), described(target)
        if suffix != ".tif":  # there the resolution is the file's own
            assert found.items() >= expected.items(), path.name
        else:
            assert {k: v for k, v in expected.items() if k[1] not in (282, 283, 296)}.items() <= found.items(), (
                path.name
            )
        back = read_picture(target)
        assert back.icc == profile and back.metadata.xmp == picture.metadata.xmp
        assert back.metadata.dpi == pytest.approx(picture.metadata.dpi, abs=0.02)
        with Image.open(target) as image:
            assert image.getexif().get(274, 1) == 1 and not image.getexif().get_ifd(1), "upright, without a thumbnail"
        checked += 1
    assert checked


@needs_pillow_11
def test_what_went_through_a_tiff_is_still_all_there(tmp_path):
    Image.fromarray(noise()).save(tmp_path / "a.jpg", exif=exif().tobytes())
    through = result(result(tmp_path / "a.jpg", tmp_path / "b.tif"), tmp_path / "c.jpg")
    assert described(through) == described(tmp_path / "a.jpg")


def test_a_resolution_that_only_exif_tells_is_kept_and_turned(tmp_path):
    told = Image.Exif()
    told[0x0112], told[0x011A], told[0x011B], told[0x0128], told[0x010F] = 6, 300.0, 240.0, 2, "Cam"
    Image.fromarray(noise()).save(tmp_path / "a.webp", exif=told.tobytes())
    assert read_picture(tmp_path / "a.webp").metadata.dpi == (240, 300)
    for suffix in (".png", ".tif", ".jpg", ".webp"):
        assert resolution(result(tmp_path / "a.webp", tmp_path / f"b{suffix}")) == pytest.approx((240, 300), abs=0.02)
        with Image.open(tmp_path / f"b{suffix}") as image:
            assert (image.getexif()[282], image.getexif()[283]) == (240, 300)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
@pytest.mark.parametrize("source", ["PNG", "JPEG", "TIFF", "WEBP", pytest.param("AVIF", marks=needs_avif)])
def test_the_colour_profile_stays(source, suffix, tmp_path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    Image.fromarray(noise()).save(tmp_path / "a.img", source, icc_profile=profile)
    with Image.open(result(tmp_path / "a.img", tmp_path / f"b{suffix}")) as image:
        assert image.info["icc_profile"] == profile


@pytest.mark.parametrize("place", ["empty pointer", "beyond the end", "itself"])
def test_damaged_directories_within_exif_harm_nothing(place, tmp_path):
    inner = {0x9003: ifd.Tag(ifd.ASCII, b"2020:01:01 00:00:00\0"), 0xA005: ifd.make_tag(ifd.LONG, 9999)}
    tags = {271: ifd.Tag(ifd.ASCII, b"Cam\0"), 34665: inner}
    if place == "empty pointer":
        tags[34853] = ifd.Tag(ifd.LONG, b"")
    data = b"II*\0\x08\0\0\0" + ifd.build_directory(tags, 8)
    if place == "itself":
        data = data.replace(struct.pack("<I", 9999), struct.pack("<I", 8))
    picture = Picture(noise(), metadata=Metadata(exif=data))
    for suffix in (".tif", ".png", ".jpg", ".webp"):
        write_image(tmp_path / f"a{suffix}", picture.pixels, picture)
        read_picture(tmp_path / f"a{suffix}")


@needs_pillow_11
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
@pytest.mark.parametrize("source", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_xmp_stays(source, suffix, tmp_path):
    write_image(tmp_path / f"a.{source.lower()}", noise(), Picture(noise(), metadata=Metadata(xmp=XMP)))
    path = result(tmp_path / f"a.{source.lower()}", tmp_path / f"b{suffix}")
    assert read_picture(path).metadata.xmp == XMP.replace(b'"6"', b'"1"'), "but for the orientation"
    with Image.open(path) as image:
        image.load()
        theirs = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp") or image.tag_v2[700]
    assert (theirs if isinstance(theirs, bytes) else theirs.encode()) == XMP.replace(b'"6"', b'"1"')


def test_packed_xmp_of_a_png(tmp_path):
    text = b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(XMP)
    assert read_picture(png_with(tmp_path / "a.png", noise(), {b"iTXt": text})).metadata.xmp.startswith(b"<x:xmpmeta")


@needs_pillow_11
def test_16_bit_tiff_keeps_all_of_it(tmp_path):
    data = upright_exif(exif().tobytes().removeprefix(b"Exif\0\0"))
    picture = Picture(noise(np.uint16), b"profile", metadata=Metadata((300, 300), data, XMP))
    write_image(tmp_path / "a.tif", picture.pixels, picture)
    back = read_picture(result(tmp_path / "a.tif", tmp_path / "b.tif"))
    assert back.pixels.dtype == np.uint16 and back.icc == b"profile"
    assert back.metadata.dpi == (300, 300) and b"(c) me" in back.metadata.exif and b"maker's note" in back.metadata.exif
    assert np.array_equal(tifffile.imread(tmp_path / "b.tif"), back.pixels)


def test_the_thumbnail_goes(tmp_path):
    """It would be that of the source: small, and not turned."""
    plain = exif().tobytes().removeprefix(b"Exif\0\0")
    first = struct.unpack_from("<I" if plain[:2] == b"II" else ">I", plain, 4)[0]
    order = "<" if plain[:2] == b"II" else ">"
    count = struct.unpack_from(f"{order}H", plain, first)[0]
    inner = io.BytesIO()
    Image.fromarray(noise()[:8, :8]).save(inner, "JPEG")
    second, data = len(plain), bytearray(plain)
    struct.pack_into(f"{order}I", data, first + 2 + 12 * count, second)
    thumbnail = struct.pack(f"{order}HHHIIHHIII", 2, 513, 4, 1, second + 30, 514, 4, 1, len(inner.getvalue()), 0)
    data += thumbnail + inner.getvalue()
    cleaned = upright_exif(bytes(data))
    assert b"\xff\xd8\xff" not in cleaned and b"(c) me" in cleaned
    found = Image.Exif()
    found.load(cleaned)
    assert found[0x8298] == "(c) me" and not found.get_ifd(1)


@given(st.binary(max_size=80), st.booleans())
def test_damaged_exif_is_left_out(data, headed):
    head = b"II*\0\x08\0\0\0" if headed else b""
    cleaned = upright_exif(head + data, (4, 5))
    assert cleaned is None or len(cleaned) <= len(head + data)


def test_what_is_too_long_for_a_jpeg_is_said(tmp_path):
    picture = Picture(noise(), metadata=Metadata(xmp=b"<x/>" * 20_000))
    write_image(tmp_path / "a.jpg", picture.pixels, picture)
    assert read_picture(tmp_path / "a.jpg").metadata.xmp is None
    assert "does not hold the source's XMP" in lost_metadata(tmp_path / "a.jpg", picture)
    assert lost_metadata(tmp_path / "a.webp", picture) is None
