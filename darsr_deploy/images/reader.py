"""Image files to arrays. Pillow reads what has 8 bits; OpenCV and tifffile the 16 bits that Pillow would reduce to 8."""

from __future__ import annotations

import contextlib
import io
import logging
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps

from ..errors import DarsrError
from .formats import check_size, damaged, kind_of, png_header, unsupported

# tags of EXIF and TIFF
_NEW_SUBFILE, _BITS, _PHOTOMETRIC, _ORIENTATION, _EXTRA_SAMPLES, _SAMPLE_FORMAT = 254, 258, 262, 274, 338, 339
_PLANAR, _DNG = 284, 50706
_SENSOR = (32803, 34892)  # photometric interpretations: colour filter array, linear raw
_LOCK = threading.Lock()
_ROWS = 512


@dataclass(frozen=True)
class Picture:
    """An image as its file holds it.

    Attributes:
        pixels: uint8 or uint16; H x W (gray), H x W x 2 (gray, alpha), H x W x 3 (RGB) or H x W x 4 (RGBA, not
            premultiplied), upright.
        icc: the colour profile that the values are meant in; None where the file has none.
        lossless: whether the file holds its pixels exactly; what is written as WebP then does so too.
    """

    pixels: np.ndarray
    icc: bytes | None = None
    lossless: bool = True


def read_picture(path: str | Path) -> Picture:
    """Read PNG, TIFF, WebP, JPEG or BMP with bit depth, transparency and colour profile.

    EXIF orientation is applied, gray stays gray, a palette becomes RGB or RGBA.

    Raises:
        DarsrError: missing, empty, truncated or damaged, no image, or a kind of image that is not supported.
    """
    path = Path(path)
    data = _bytes(path)
    kind = kind_of(path, data)
    try:
        with _quiet(), Image.open(io.BytesIO(data), formats=(kind.upper(),)) as image:
            check_size(path, *image.size)
            bits = _check(path, kind, image, data)
            icc = image.info.get("icc_profile") or None
            lossless = not (kind == "JPEG" or (kind == "WebP" and b"VP8 " in _webp_chunks(data)))
            pixels = _deep(path, kind, image, data) if bits == 16 else _shallow(path, image)
    except DarsrError:
        raise
    except MemoryError as error:
        raise DarsrError(str(path), "does not fit into the memory", "give a smaller image") from error
    except Image.UnidentifiedImageError as error:
        if kind != "TIFF":
            raise damaged(path) from error
        why = "is a kind of TIFF that cannot be read, or is damaged"
        raise unsupported(path, why) from error
    except Exception as error:  # on damaged files decoders raise whatever comes to pass
        raise damaged(path) from error
    return Picture(np.ascontiguousarray(pixels), icc, lossless)


def size_of(path: str | Path) -> tuple[int, int]:
    """Width and height as the header of an image has them, before it is turned upright; nothing is decoded.

    Raises:
        DarsrError: missing, empty, visibly truncated or no image.
    """
    path = Path(path)
    data = _bytes(path)
    kind = kind_of(path, data)
    try:
        with _quiet(), Image.open(io.BytesIO(data), formats=(kind.upper(),)) as image:
            return image.size
    except Exception:  # what exactly is wrong with it is for read_picture to say
        picture = read_picture(path)
        return picture.pixels.shape[1], picture.pixels.shape[0]


def _bytes(path: Path) -> bytes:
    try:
        if path.is_char_device():  # /dev/zero has no end
            raise DarsrError(str(path), "is a device, not a file", "give an image")
        return path.read_bytes()
    except OSError as error:
        raise DarsrError(str(path), f"cannot be read ({error.strerror})", "check the name") from error


def eight_bit(pixels: np.ndarray) -> np.ndarray:
    """What the adaptation sees, whose prior and tests for a camera's traces know 8 bits: uint8 gray or RGB.

    16 bits are rounded; alpha is dropped, and the colours that it hid entirely are those of the nearest visible pixel.
    """
    from .alpha import split_alpha

    colour, _ = split_alpha(pixels)
    return colour if colour.dtype == np.uint8 else ((colour.astype(np.uint32) + 128) // 257).astype(np.uint8)


# cv2.utils.logging does not exist in 4.8, cv2.setLogLevel does nothing in 5.0
_log_level = cv2.utils.logging.setLogLevel if hasattr(cv2.utils, "logging") else cv2.setLogLevel


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Pillow without its own limit on pixels (there is :func:`check_size`) and both libraries without talk of theirs."""
    with _LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        level = _log_level(0)
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit
            _log_level(level)


def _check(path: Path, kind: str, image: Image.Image, data: bytes) -> int:
    """Refuse what would become another picture without a word; returns the bits a channel, 8 or 16."""
    if kind == "PNG":
        return 16 if png_header(data)[0] == 16 else 8
    if kind == "WebP" and getattr(image, "n_frames", 1) > 1:
        raise unsupported(path, "is an animated WebP, which is not supported")
    if image.mode == "CMYK":
        raise DarsrError(str(path), f"is a {kind} in CMYK colours, which are not supported", "convert it to RGB")
    if kind != "TIFF":
        return 8
    tags = image.tag_v2
    if _DNG in tags or tags.get(_PHOTOMETRIC) in _SENSOR or tags.get(_NEW_SUBFILE, 0) & 1:
        raise unsupported(path, "is a camera raw file, which is not supported")
    bits, formats = tags.get(_BITS, (1,)), tags.get(_SAMPLE_FORMAT, (1,))
    if max(bits) > 16 or 8 < max(bits) < 16 or set(formats) != {1}:
        raise unsupported(path, f"is a TIFF of {max(bits)}-bit {'integers' if set(formats) == {1} else 'values'}")
    if _pages(image) > 1:
        raise DarsrError(str(path), "is a TIFF of several pages", "save the page you want as a file of its own")
    return 16 if max(bits) == 16 else 8


def _pages(image: Image.Image) -> int:
    """Pages of a TIFF without the reduced copies of the first that some programs add."""
    count = 0
    for index in range(min(getattr(image, "n_frames", 1), 16)):
        image.seek(index)
        count += not image.tag_v2.get(_NEW_SUBFILE, 0) & 1
    image.seek(0)
    return count


def _shallow(path: Path, image: Image.Image) -> np.ndarray:
    clear = "transparency" in image.info or image.mode in ("PA", "RGBa", "La")
    image.load()  # where Pillow turns a TIFF
    if image.getexif().get(_ORIENTATION, 1) != 1:
        image = ImageOps.exif_transpose(image)
    gray = image.mode in ("1", "L", "LA", "La")
    if image.mode not in ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "YCbCr"):
        raise unsupported(path, f"is an image of kind {image.mode}, which is not supported")
    alpha = clear or image.mode in ("LA", "RGBA")
    wanted = ("LA" if alpha else "L") if gray else ("RGBA" if alpha else "RGB")
    return _in_bands(image, wanted)


def _in_bands(image: Image.Image, mode: str) -> np.ndarray:
    """An image in a mode of 8 bits as an array; by rows, because Pillow would copy a large one twice."""
    width, height = image.size
    pixels = None
    for top in range(0, height, _ROWS):
        band = image.crop((0, top, width, min(top + _ROWS, height)))
        part = np.asarray(band if band.mode == mode else band.convert(mode))
        pixels = np.empty((height, *part.shape[1:]), np.uint8) if pixels is None else pixels
        pixels[top : top + len(part)] = part
    return pixels


def _deep(path: Path, kind: str, image: Image.Image, data: bytes) -> np.ndarray:
    """16 bits a channel."""
    orientation = image.getexif().get(_ORIENTATION, 1)
    if kind == "PNG":
        pixels = _by_opencv(path, kind, data)
        return _upright(pixels[:, :, [0, 3]] if png_header(data)[1] == 4 else pixels, orientation)
    contiguous = image.tag_v2.get(_PLANAR, 1) == 1
    pixels = _by_tifffile(data)
    if pixels is not None:
        pixels = _upright(pixels if contiguous else pixels.transpose(1, 2, 0), orientation)
    elif contiguous:
        pixels = _by_opencv(path, kind, data)  # which has turned it
    else:  # OpenCV takes planes for pixels
        raise unsupported(path, "is a compressed 16-bit TIFF of separate planes, which is not supported")
    associated = image.tag_v2.get(_EXTRA_SAMPLES, (0,))[0] == 1
    return _straight(pixels) if associated and pixels.shape[2:] in ((2,), (4,)) else pixels


def _by_opencv(path: Path, kind: str, data: bytes) -> np.ndarray:
    """RGB or RGBA or gray; OpenCV knows no gray with alpha."""
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise damaged(path)
    if pixels.dtype != np.uint16:
        raise unsupported(path, f"is a kind of 16-bit {kind} that cannot be read")
    return pixels if pixels.ndim == 2 else pixels[:, :, [2, 1, 0, 3][: pixels.shape[2]]]


def _by_tifffile(data: bytes) -> np.ndarray | None:
    """The first page as it is stored; None where its compression needs more than tifffile alone (LZW, for one)."""
    import tifffile

    logging.getLogger("tifffile").addHandler(logging.NullHandler())  # else its warnings reach stderr
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages[0]
        if page.compression not in (1, 8, 32946):  # none, deflate
            return None
        return page.asarray()


def _straight(pixels: np.ndarray) -> np.ndarray:
    """Colours that are stored multiplied by alpha, divided by it again."""
    alpha = np.maximum(pixels[:, :, -1:], 1).astype(np.float32)
    colour = np.minimum(pixels[:, :, :-1] * (np.float32(65535) / alpha) + np.float32(0.5), 65535)
    return np.dstack([colour.astype(np.uint16), pixels[:, :, -1]])


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """EXIF orientation 1 to 8: where the first row and column of the stored image belong."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def _webp_chunks(data: bytes) -> list[bytes]:
    """Names of the chunks of a WebP: ``VP8 `` is lossy, ``VP8L`` lossless."""
    names, position = [], 12
    while position + 8 <= len(data):
        names.append(data[position : position + 4])
        length = int.from_bytes(data[position + 4 : position + 8], "little")
        position += 8 + length + length % 2
    return names
