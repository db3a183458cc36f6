"""Every image a user has: depth, transparency and colour profile go through; what cannot be read or held is one line."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from darsr_deploy.engines.upscale import upscale
from darsr_deploy.errors import DarsrError
from darsr_deploy.files.model_spec import ModelSpec
from darsr_deploy.images.arrays import Picture, read_image, read_picture, write_image
from darsr_deploy.images.formats import check_target
from darsr_deploy.images.resample import imresize
from darsr_deploy.memory import MOST_PIXELS

ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
LAYOUTS = {"gray": (), "gray and alpha": (2,), "RGB": (3,), "RGBA": (4,)}


def noise(height: int, width: int, layout: str = "RGB", dtype: type = np.uint8) -> np.ndarray:
    """Any values, alpha from 1 up: what lies under wholly transparent pixels is a test of its own."""
    most = np.iinfo(dtype).max
    image = np.random.default_rng(1).integers(0, most + 1, (height, width, *LAYOUTS[layout]), dtype)
    if "alpha" in layout or layout == "RGBA":
        image[..., -1] = np.maximum(image[..., -1], 1)
    return image


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def refusal(path) -> str:
    with pytest.raises(DarsrError) as caught:
        read_picture(path)
    line = str(caught.value)
    assert line.startswith(f"{path}: ") and len(line.splitlines()) == 1
    assert len(line.partition("; ")[2]) > 5, f"no way out in: {line}"
    return line


class Doubling:
    """An engine that repeats every pixel: its result is known exactly."""

    spec = ModelSpec(2)
    name = provider = "test"

    def run(self, lr: np.ndarray) -> np.ndarray:
        return lr.repeat(2, axis=2).repeat(2, axis=3)


# ---- there and back


HELD = [  # what each format holds
    (suffix, layout, dtype)
    for suffix in (".png", ".tif", ".webp", ".bmp")
    for layout in LAYOUTS
    for dtype in (np.uint8, np.uint16)
    if not (dtype == np.uint16 and suffix in (".webp", ".bmp"))
    if not (suffix == ".bmp" and layout in ("gray and alpha", "RGBA"))
]


@pytest.mark.parametrize("icc", [None, ICC], ids=["no profile", "profile"])
@pytest.mark.parametrize("suffix, layout, dtype", HELD)
def test_what_is_written_is_read_back(suffix, layout, dtype, icc, tmp_path):
    image = noise(33, 21, layout, dtype)
    write_image(tmp_path / f"a{suffix}", image, Picture(image, icc))
    back = read_picture(tmp_path / f"a{suffix}")
    icc = None if suffix == ".bmp" else icc
    if suffix == ".webp" and layout.startswith("gray"):
        image = np.stack([image] * 3, axis=2) if image.ndim == 2 else image[:, :, [0, 0, 0, 1]]
    assert back.pixels.dtype == image.dtype and np.array_equal(back.pixels, image)
    assert back.icc == icc and back.lossless


@given(st.tuples(st.integers(1, 600), st.integers(1, 9)), st.sampled_from(list(LAYOUTS)), st.sampled_from(["u1", "u2"]))
@settings(max_examples=25)
def test_our_png_is_exact_for_any_size(tmp_path_factory, size, layout, dtype):
    """More rows than are compressed at once, one column, every layout."""
    path = tmp_path_factory.getbasetemp() / "any.png"
    image = noise(*size, layout, np.dtype(dtype).type)
    write_image(path, image)
    assert np.array_equal(read_picture(path).pixels, image)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_others_read_our_16_bit_files_alike(layout, tmp_path):
    """Pillow's and tifffile's own decoders as a second opinion on bytes, channel order and byte order."""
    image = noise(20, 30, layout, np.uint16)
    write_image(tmp_path / "a.tif", image)
    assert np.array_equal(tifffile.imread(tmp_path / "a.tif"), image)
    write_image(tmp_path / "a.png", image)
    with Image.open(tmp_path / "a.png") as opened:
        opened.load()
        theirs = np.asarray(opened)
    if theirs.dtype == np.uint8:  # Pillow keeps the upper byte of 16-bit colours
        image = (image >> 8).astype(np.uint8)
    assert np.array_equal(theirs[..., [0, 3]] if layout == "gray and alpha" else theirs, image)


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_deflate", "jpeg"])
def test_tiff_as_others_write_it(compression, tmp_path):
    image = noise(24, 32)
    Image.fromarray(image).save(tmp_path / "a.tif", compression=compression, icc_profile=ICC)
    back = read_picture(tmp_path / "a.tif")
    assert back.icc == ICC
    if compression != "jpeg":
        assert np.array_equal(back.pixels, image)


@pytest.mark.parametrize("options", [{}, {"byteorder": ">"}, {"planarconfig": "separate"}, {"bigtiff": True}])
def test_16_bit_tiff_as_others_write_it(options, tmp_path):
    image = noise(24, 32, "RGB", np.uint16)
    stored = image.transpose(2, 0, 1) if "planarconfig" in options else image
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", metadata=None, **options)
    assert np.array_equal(read_picture(tmp_path / "a.tif").pixels, image)


def test_premultiplied_alpha_is_divided_out(tmp_path):
    image = noise(16, 16, "RGBA", np.uint16)
    image[..., 3] |= 0x8000
    stored = image.copy()
    stored[..., :3] = (image[..., :3].astype(np.uint64) * image[..., 3:] + 32767) // 65535
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", extrasamples=["assocalpha"], metadata=None)
    assert np.abs(read_picture(tmp_path / "a.tif").pixels.astype(int) - image).max() <= 2


@pytest.mark.parametrize("quality, lossless", [(80, False), (100, True)])
def test_webp_is_as_lossless_as_its_source(quality, lossless, tmp_path):
    image = np.asarray(Image.fromarray(noise(8, 8)).resize((64, 64), Image.Resampling.BICUBIC))
    Image.fromarray(image).save(tmp_path / "a.webp", quality=quality, lossless=lossless)
    picture = read_picture(tmp_path / "a.webp")
    assert picture.lossless == lossless
    write_image(tmp_path / "b.webp", picture.pixels, picture)
    assert np.array_equal(read_picture(tmp_path / "b.webp").pixels, picture.pixels) == lossless


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_a_quality_may_be_asked_for(suffix, photo, tmp_path):
    """Also of a WebP whose source is exact, which would be exact itself."""
    sizes = []
    for quality in (30, 80, None):
        write_image(tmp_path / f"a{suffix}", photo, quality=quality)
        sizes.append((tmp_path / f"a{suffix}").stat().st_size)
    assert sizes == sorted(sizes) and sizes[0] < sizes[1] / 1.5


def test_a_jpeg_keeps_its_profile(tmp_path):
    image = noise(16, 16)
    Image.fromarray(image).save(tmp_path / "a.jpg", icc_profile=ICC)
    picture = read_picture(tmp_path / "a.jpg")
    assert picture.icc == ICC and not picture.lossless
    write_image(tmp_path / "b.jpg", picture.pixels, picture)
    assert read_picture(tmp_path / "b.jpg").icc == ICC


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind, bits", [("PNG", 8), ("PNG", 16), ("TIFF", 8), ("TIFF", 16), ("WEBP", 8)])
def test_orientation(kind, bits, orientation, tmp_path):
    image, path = noise(5, 7), tmp_path / f"a.{kind.lower()}"
    upright = [image, image[:, ::-1], image[::-1, ::-1], image[::-1], image.swapaxes(0, 1), np.rot90(image, -1)]
    upright += [image.swapaxes(0, 1)[::-1, ::-1], np.rot90(image)]
    exif = Image.Exif()
    exif[274] = orientation
    if bits == 8:
        Image.fromarray(image).save(path, kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))
    elif kind == "TIFF":
        deep = image.astype(np.uint16) * 257
        tifffile.imwrite(path, deep, photometric="rgb", metadata=None, extratags=[(274, 3, 1, orientation, True)])
    else:
        write_image(path, image.astype(np.uint16) * 257)
        data, block = path.read_bytes(), exif.tobytes().removeprefix(b"Exif\0\0")
        chunk = b"eXIf" + block
        chunk = struct.pack(">I", len(block)) + chunk + struct.pack(">I", zlib.crc32(chunk))
        path.write_bytes(data[:33] + chunk + data[33:])
    assert np.array_equal(read_image(path), upright[orientation - 1])


def test_a_palette_with_transparency(tmp_path):
    few = Image.fromarray(noise(16, 16)).quantize(16)
    few.save(tmp_path / "a.png", transparency=3)
    back = read_picture(tmp_path / "a.png").pixels
    assert np.array_equal(back, np.asarray(Image.open(tmp_path / "a.png").convert("RGBA")))
    assert set(np.unique(back[..., 3])) == {0, 255}


@pytest.mark.parametrize("mode, channels", [("L", 2), ("RGB", 4)])
def test_one_transparent_colour(mode, channels, tmp_path):
    image = Image.fromarray(noise(16, 16)).convert(mode)
    image.save(tmp_path / "a.png", transparency=image.getpixel((3, 4)))
    back = read_picture(tmp_path / "a.png").pixels
    assert back.shape == (16, 16, channels) and back[4, 3, -1] == 0 and back[..., -1].max() == 255


def test_the_adaptation_sees_8_bits_and_no_alpha(tmp_path):
    image = noise(12, 10, "RGBA")
    write_image(tmp_path / "a.png", image.astype(np.uint16) * 257)
    assert np.array_equal(read_image(tmp_path / "a.png"), image[..., :3])
    write_image(tmp_path / "a.png", image[..., [0, 3]])
    assert np.array_equal(read_image(tmp_path / "a.png"), image[..., 0])


def test_phones_second_pictures_are_passed_over(tmp_path):
    """A JPEG with a depth or gain map behind it (MPO) is its first picture."""
    first = Image.fromarray(noise(16, 16))
    first.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[first.resize((8, 8))])
    assert read_picture(tmp_path / "a.jpg").pixels.shape == (16, 16, 3)


def test_a_tiffs_thumbnail_is_no_page(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(noise(16, 16), photometric="rgb", metadata=None)
        writer.write(noise(4, 4), photometric="rgb", metadata=None, subfiletype=1)
    assert read_picture(tmp_path / "a.tif").pixels.shape == (16, 16, 3)


# ---- through an engine


@pytest.mark.parametrize("size", [(1, 1), (2, 9), (13, 7)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_depth_and_channels_stay(layout, dtype, size):
    image = noise(*size, layout, dtype)
    result = upscale(Doubling(), image)
    assert result.dtype == dtype and result.shape == (2 * size[0], 2 * size[1], *LAYOUTS[layout])
    colour = slice(None) if layout in ("gray", "RGB") else slice(0, -1)
    expected = image.repeat(2, 0).repeat(2, 1)
    assert np.array_equal(result if image.ndim == 2 else result[..., colour], expected[..., colour])


def test_alpha_is_enlarged_bicubically_whatever_the_bands():
    alpha = noise(1100, 5, "gray", np.uint16)
    result = upscale(Doubling(), np.dstack([alpha, alpha]))[..., 1]
    whole = np.clip(imresize(alpha.astype(np.float32), 2200, 10) + np.float32(0.5), 0, 65535).astype(np.uint16)
    assert np.array_equal(result, whole)


def test_colours_under_transparent_pixels_do_not_bleed():
    """A white disc on invisible black: what the network sees is white everywhere."""
    rows, columns = np.mgrid[:32, :32]
    inside = (rows - 15) ** 2 + (columns - 15) ** 2 < 100
    image = np.dstack([np.where(inside, 255, 0).astype(np.uint8)] * 4)
    assert (upscale(Doubling(), image)[..., :3] == 255).all()
    colours = image.copy()
    colours[:, :16, 0] = np.where(inside, 9, 0)[:, :16]
    seen = upscale(Doubling(), colours)[..., 0][::2, ::2]
    assert seen[15, 0] == 9 and seen[15, 31] == 255, "the nearest visible pixel gives the colour"
    assert np.array_equal(seen[inside], colours[..., 0][inside])
    assert (upscale(Doubling(), np.zeros((8, 8, 4), np.uint8)) == 0).all(), "nothing visible at all"


# ---- what is refused


@pytest.mark.parametrize(
    "data, why",
    [
        (b"GIF89a" + bytes(20), "GIF"),
        (b"\0\0\0\x18ftypcrx " + bytes(20), "camera raw"),
        (b"FUJIFILMCCD-RAW " + bytes(20), "camera raw"),
        (b"II*\0\x10\0\0\0CR\2\0" + bytes(20), "camera raw"),
        (b"8BPS" + bytes(20), "Photoshop"),
        (b"\xff\x0a" + bytes(20), "JPEG XL"),
    ],
)
def test_another_format_is_named(data, why, tmp_path):
    (tmp_path / "a.png").write_bytes(data)
    assert why in refusal(tmp_path / "a.png") and "save it as PNG" in refusal(tmp_path / "a.png")


def test_a_raw_file_is_not_its_thumbnail(tmp_path):
    Image.fromarray(noise(16, 16)).save(tmp_path / "a.nef", "TIFF")
    assert "camera raw" in refusal(tmp_path / "a.nef")
    tags = [(50706, 1, 4, b"\1\4\0\0", True)]
    tifffile.imwrite(tmp_path / "dng.tif", noise(16, 16), photometric="rgb", metadata=None, extratags=tags)
    assert "camera raw" in refusal(tmp_path / "dng.tif")


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk(kind, tmp_path):
    Image.fromarray(noise(16, 16)).convert("CMYK").save(tmp_path / "a.img", kind)
    assert "CMYK" in refusal(tmp_path / "a.img") and "convert it to RGB" in refusal(tmp_path / "a.img")


@pytest.mark.parametrize("kind, why", [("WEBP", "animated"), ("PNG", "animated"), ("TIFF", "several pages")])
def test_more_than_one_picture(kind, why, tmp_path):
    frames = [Image.fromarray(noise(16, 16)), Image.fromarray(255 - noise(16, 16))]
    frames[0].save(tmp_path / "a.img", kind, save_all=True, append_images=frames[1:])
    assert why in refusal(tmp_path / "a.img")


@pytest.mark.parametrize("dtype", [np.float32, np.uint32, np.int16])
def test_tiff_of_other_numbers(dtype, tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", noise(8, 8, "gray").astype(dtype), metadata=None)
    assert "TIFF" in refusal(tmp_path / "a.tif")


def bomb(width: int, height: int) -> bytes:
    """A PNG of one colour: 1 bit a pixel, which compress to nearly nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = bytes((width + 7) // 8 + 1)
    packer = zlib.compressobj(9)
    data = b"".join([packer.compress(rows * 100) for _ in range(height // 100)]) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def test_a_large_photograph_is_read_and_a_bomb_is_not(tmp_path):
    (tmp_path / "large.png").write_bytes(bomb(12_000, 8_000))
    assert read_picture(tmp_path / "large.png").pixels.shape == (8_000, 12_000)
    assert Image.MAX_IMAGE_PIXELS == 89_478_485, "Pillow's own limit is left as it was"
    assert 12_000 * 8_000 < MOST_PIXELS < 30_000 * 20_000
    (tmp_path / "bomb.png").write_bytes(bomb(30_000, 20_000))
    assert "30000x20000 pixels, more than" in refusal(tmp_path / "bomb.png")


@pytest.mark.parametrize(
    "name, size, channels, bits, why",
    [
        ("a.webp", (10, 16_384), 3, 8, "longest side 16383"),
        ("a.jpg", (70_000, 10), 3, 8, "longest side 65500"),
        ("a.bmp", (70_000, 10), 3, 8, "longest side 32767"),
        ("a.jpg", (10, 10), 4, 8, "no transparency"),
        ("a.bmp", (10, 10), 2, 8, "no transparency"),
        ("a.webp", (10, 10), 3, 16, "8 bits"),
        ("a.heic", (10, 10), 3, 8, "cannot write .heic"),
    ],
)
def test_the_limits_of_formats(name, size, channels, bits, why, tmp_path):
    with pytest.raises(DarsrError, match=why):
        check_target(tmp_path / name, *size, channels, bits)


# ---- damaged files

KINDS = {
    "a.png": ("PNG", {}),
    "a.jpg": ("JPEG", {}),
    "a.tif": ("TIFF", {"compression": "tiff_deflate"}),
    "b.tif": ("TIFF", {}),
    "a.webp": ("WEBP", {"lossless": True}),
    "b.webp": ("WEBP", {}),
    "a.bmp": ("BMP", {}),
}


@pytest.mark.parametrize("name, deep", [*((name, False) for name in KINDS), ("a.png", True), ("a.tif", True)])
def test_a_flipped_byte_or_a_cut_is_an_image_or_one_line(name, deep, tmp_path, capfd):
    """Anything but a crash. A PNG has checksums: its picture is the same or it is refused."""
    image, path = noise(40, 30), tmp_path / name
    kind, options = KINDS[name]
    if deep:
        image = noise(40, 30, "RGB", np.uint16)
        write_image(path, image, Picture(image, ICC))
    else:
        path.write_bytes(encoded(Image.fromarray(image), kind, icc_profile=ICC, **options))
    data, random, refused = path.read_bytes(), np.random.default_rng(2), 0
    places = [*range(min(64, len(data))), *random.integers(0, len(data), 60)]
    damaged = [data[:place] + bytes([data[place] ^ (1 << random.integers(8))]) + data[place + 1 :] for place in places]
    cuts = [data[: int(len(data) * share)] for share in (0.02, 0.2, 0.5, 0.9, 0.99)]
    for content in damaged + cuts:
        path.write_bytes(content)
        try:
            back = read_picture(path).pixels
        except DarsrError as error:
            assert str(error).startswith(str(path)) and len(str(error).splitlines()) == 1
            refused += 1
        else:
            assert name != "a.png" or np.array_equal(back, image), "another picture and nothing was said"
    assert refused > 5
    assert capfd.readouterr().err == "", "the decoders' own talk reaches the user"


# ---- a full disk


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.webp", "a.jpg", "a.bmp"])
def test_a_full_disk_leaves_nothing_half_written(name, tmp_path):
    resource = pytest.importorskip("resource", reason="limits of a process are of Unix")
    import signal

    old, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, old[1]))
        with pytest.raises(DarsrError, match=rf"{name}: could not be written"):
            write_image(tmp_path / name, noise(200, 200))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)
    assert not list(tmp_path.iterdir())
