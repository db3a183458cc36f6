"""Reading and writing images: what is not read exactly is refused in one line, what is written is whole."""

from __future__ import annotations

import errno
import io
import os
import stat
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageOps

from darsr_deploy.errors import DarsrError
from darsr_deploy.files.atomic import atomic_path, write_bytes, write_text
from darsr_deploy.images.arrays import list_images, read_image, to_image, to_tensor, write_image


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def refusal(path) -> str:
    """The one line with which an image is refused; it names the file and, behind a semicolon, a way out."""
    with pytest.raises(DarsrError) as caught:
        read_image(path)
    line = str(caught.value)
    assert line.startswith(f"{path}: ") and len(line.splitlines()) == 1
    assert len(line.partition("; ")[2]) > 5, f"no way out in: {line}"
    return line


@pytest.fixture(scope="module")
def png(photo) -> bytes:
    return encoded(Image.fromarray(photo), "PNG")


@pytest.fixture(scope="module")
def jpeg(photo) -> bytes:
    return encoded(Image.fromarray(photo), "JPEG", quality=90)


# ---- what is read


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 1), (7, 3, 3), (5, 9), (80, 1, 3)])
def test_png_round_trip_is_exact(shape, tmp_path):
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    write_image(tmp_path / "a.png", image)
    back = read_image(tmp_path / "a.png")
    assert back.dtype == np.uint8 and np.array_equal(back, image) and back.shape == shape


def test_colours_are_rgb_as_another_program_sees_them(photo, tmp_path):
    Image.fromarray(photo).save(tmp_path / "theirs.png")
    assert np.array_equal(read_image(tmp_path / "theirs.png"), photo)
    write_image(tmp_path / "ours.png", photo)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "ours.png")), photo)


def test_jpeg_is_close_and_keeps_the_order_of_colours(photo, tmp_path):
    write_image(tmp_path / "a.jpg", photo)
    back = read_image(tmp_path / "a.jpg").astype(int)
    # Quality 95 without chroma subsampling. A swap of red and blue would be off by tens of levels on this photo.
    assert np.abs(back - photo).mean() < 2
    assert np.abs(back[:, :, ::-1] - photo).mean() > 10


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".JPEG", ".PNG"])
def test_gray_stays_gray(suffix, gray, tmp_path):
    write_image(tmp_path / f"a{suffix}", gray)
    assert read_image(tmp_path / f"a{suffix}").shape == gray.shape
    with Image.open(tmp_path / f"a{suffix}") as image:
        assert image.mode == "L"


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation, mode, photo, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(photo).convert(mode).save(tmp_path / "a.jpg", exif=exif, quality=95)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "a.jpg"))).astype(int)
    ours = read_image(tmp_path / "a.jpg")
    assert ours.shape == expected.shape
    assert np.abs(ours - expected).mean() < 1  # two JPEG decoders


def test_exif_orientation_of_a_png_is_applied(photo, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(photo).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read_image(tmp_path / "a.png"), np.rot90(photo, -1))


def test_a_palette_becomes_rgb(photo, tmp_path):
    few = Image.fromarray(photo).quantize(32)
    few.save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png"), np.asarray(few.convert("RGB")))


def test_one_bit_becomes_gray(gray, tmp_path):
    Image.fromarray(gray).convert("1").save(tmp_path / "a.png")
    back = read_image(tmp_path / "a.png")
    assert back.shape == gray.shape and set(np.unique(back)) == {0, 255}


def test_the_content_decides_not_the_suffix(jpeg, photo, tmp_path):
    (tmp_path / "a.png").write_bytes(jpeg)  # many a "PNG" from the web is a JPEG
    assert read_image(tmp_path / "a.png").shape == photo.shape


def test_bytes_behind_the_end_are_harmless(png, jpeg, photo, tmp_path):
    for name, data in {"a.png": png, "a.jpg": jpeg}.items():
        (tmp_path / name).write_bytes(data + b"appended by a camera")
        assert read_image(tmp_path / name).shape == photo.shape


# ---- what is refused


def test_a_missing_file(tmp_path):
    assert "No such file" in refusal(tmp_path / "a.png")


def test_a_folder(tmp_path):
    assert "directory" in refusal(tmp_path)


def test_an_empty_file(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    assert "empty" in refusal(tmp_path / "a.png")


@pytest.mark.parametrize("data", [b"I am a text\n" * 30, b"\x00" * 100, b"\x89PN", b"\xff\xd8", b"%PDF-1.4"])
def test_no_image(data, tmp_path):
    (tmp_path / "a.png").write_bytes(data)
    assert "not an image" in refusal(tmp_path / "a.png")


# Cuts at a fraction of the file, and by bytes from its end: PNG ends with an IEND of 12 bytes, JPEG with a marker of 2.
@pytest.mark.parametrize("cut", [0.01, 0.1, 0.3, 0.5, 0.9, 0.99, -20, -13, -12, -9])
def test_a_truncated_png(cut, png, tmp_path):
    (tmp_path / "a.png").write_bytes(png[: int(len(png) * cut) if cut > 0 else cut])
    assert "truncated" in refusal(tmp_path / "a.png")


@pytest.mark.parametrize("cut", [0.05, 0.1, 0.3, 0.5, 0.9, 0.99, -20, -2, -1])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_truncated_jpeg(cut, progressive, photo, tmp_path):
    data = encoded(Image.fromarray(photo), "JPEG", progressive=progressive)
    (tmp_path / "a.jpg").write_bytes(data[: int(len(data) * cut) if cut > 0 else cut])
    assert "truncated" in refusal(tmp_path / "a.jpg")


def test_the_end_of_a_thumbnail_is_not_the_end_of_the_jpeg(jpeg, photo, tmp_path):
    inner = encoded(Image.fromarray(photo[:16, :16]), "JPEG")
    data = jpeg[:2] + b"\xff\xfe" + struct.pack(">H", len(inner) + 2) + inner + jpeg[2:]
    (tmp_path / "a.jpg").write_bytes(data)
    assert read_image(tmp_path / "a.jpg").shape == photo.shape
    (tmp_path / "a.jpg").write_bytes(data[:-200])
    assert "truncated" in refusal(tmp_path / "a.jpg")


def test_a_damaged_png_is_not_silently_another_picture(png, photo, tmp_path):
    """Every chunk of a PNG has a checksum: a flipped byte in the pixel data can be told."""
    start = png.index(b"IDAT") + 4
    for position in np.linspace(start + 10, len(png) - 20, 12).astype(int):
        data = bytearray(png)
        data[position] ^= 0x20
        (tmp_path / "a.png").write_bytes(data)
        try:
            image = read_image(tmp_path / "a.png")
        except DarsrError:
            continue
        assert np.array_equal(image, photo), f"byte {position} of {len(png)} changed the picture and nothing was said"


def test_an_absurd_size_in_the_header_is_one_line(png, tmp_path):
    """The decoder has a limit on pixels and raises an error of its own beyond it."""
    header = b"IHDR" + struct.pack(">II", 200_000, 200_000) + png[24:29]
    (tmp_path / "a.png").write_bytes(png[:12] + header + struct.pack(">I", zlib.crc32(header)) + png[33:])
    refusal(tmp_path / "a.png")


@given(st.binary(max_size=300), st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"\xff\xd8\xff\xda"]))
def test_any_bytes_give_an_image_or_one_line(tmp_path_factory, data, magic):
    path = tmp_path_factory.getbasetemp() / "any.png"
    path.write_bytes(magic + data)
    try:
        assert read_image(path).dtype == np.uint8
    except DarsrError as error:
        assert str(path) in str(error)


# ---- what is written


@pytest.mark.parametrize("name", ["a.gif", "a.heic", "a", "a.png.bak"])
def test_an_unknown_suffix_is_refused_with_the_known_ones(name, photo, tmp_path):
    with pytest.raises(DarsrError, match=r"cannot write.*\.png, \.jpg"):
        write_image(tmp_path / name, photo)
    assert not list(tmp_path.iterdir())


def test_more_pixels_than_a_jpeg_can_hold(tmp_path):
    with pytest.raises(DarsrError, match=r"70000x1.*PNG"):
        write_image(tmp_path / "a.jpg", np.zeros((1, 70_000), np.uint8))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("parent", ["missing", "file"])
def test_a_folder_that_cannot_be_written(parent, photo, tmp_path):
    (tmp_path / "file").write_text("no folder")  # not by file modes: they mean nothing to root
    with pytest.raises(DarsrError, match=r"a\.png: cannot write there"):
        write_image(tmp_path / parent / "a.png", photo)


def test_files_get_the_usual_mode(tmp_path):
    old = os.umask(0o027)
    try:
        write_bytes(tmp_path / "ours", b"1")
        (tmp_path / "usual").write_bytes(b"1")
    finally:
        os.umask(old)
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("ours", "usual")]
    assert modes == [0o640, 0o640]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, OSError(errno.ENOSPC, "No space left on device")])
def test_an_interrupted_write_leaves_the_old_file_alone(error, tmp_path):
    target = tmp_path / "a.png"
    target.write_bytes(b"old")
    expected = DarsrError if isinstance(error, OSError) else error
    with pytest.raises(expected), atomic_path(target) as temporary:
        temporary.write_bytes(b"half of the ne")
        raise error
    assert target.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_while_it_is_written_the_old_file_stands(tmp_path):
    target = tmp_path / "a.png"
    target.write_bytes(b"old")
    with atomic_path(target) as temporary:
        temporary.write_bytes(b"new")
        assert target.read_bytes() == b"old"
        # In the same folder: from another file system it could not be renamed.
        assert temporary.suffix == ".png" and temporary.parent == tmp_path
    assert target.read_bytes() == b"new"
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_a_folder_is_not_replaced_by_a_file(tmp_path):
    (tmp_path / "a.png").mkdir()
    with pytest.raises(DarsrError, match=r"a\.png"):
        write_bytes(tmp_path / "a.png", b"1")
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_text_is_utf8(tmp_path):
    write_text(tmp_path / "a.txt", "4×5 ä\n")
    assert (tmp_path / "a.txt").read_bytes() == "4×5 ä\n".encode()


# ---- folders and tensors


def test_a_folder_is_scanned_without_what_this_toolkit_wrote(tmp_path):
    wanted = ["Z.PNG", "a.png", "b.jpg", "c.jpeg", "d.tif", "e.tiff", "f.webp", "g.bmp", "x2.png"]
    unwanted = [
        "a_x2.png",
        "b_x4.jpg",
        "a_corrected.png",
        "a_preview.png",
        ".hidden.png",
        ".a-x81.png",
        "a.darsr",
        "a.txt",
        "a.gif",
    ]
    for name in wanted + unwanted:
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "folder.png").mkdir()
    assert [p.name for p in list_images(tmp_path)] == wanted


@given(
    arrays(
        np.uint8,
        st.one_of(
            st.tuples(st.integers(1, 9), st.integers(1, 9)), st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))
        ),
    )
)
def test_tensors_and_back_is_exact(image):
    tensor = to_tensor(image)
    assert tensor.shape == (1, 3, *image.shape[:2]) and tensor.dtype == np.float32
    assert tensor.min() >= 0 and tensor.max() <= 1
    assert np.array_equal(to_image(tensor, gray=image.ndim == 2), image)


def test_what_lies_outside_is_clipped():
    tensor = np.array([-0.5, 0.0, 0.5, 1.0, 1.5], np.float32).reshape(1, 1, 1, 5).repeat(3, 1)
    assert to_image(tensor)[0, :, 0].tolist() == [0, 0, 128, 255, 255]
