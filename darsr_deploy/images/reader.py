"""Read image files into arrays.

Pillow decodes 8 bits, OpenCV PNG of 16 bits and :mod:`.tiff` TIFF of 16 bits, which Pillow would reduce to 8.
"""

from __future__ import annotations

import contextlib
import io
import os
import stat
import sys
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import DarsrError
from ..install import pip
from ..memory import check_decoding, free_memory
from . import tiff
from .formats import HEAD, check_whole, damaged, kind_of, unsupported
from .metadata import NO_METADATA, ORIENTATION, Metadata, declared_size, read_metadata, webp_chunks

_LOCK = threading.Lock()
_ROWS = 512
# Bytes that decoding a pixel of 8 bits takes at its peak, the result included.
_NEEDED = {"PNG": 9, "TIFF": 9, "BMP": 9, "JPEG": 14, "WebP": 20, "AVIF": 20, "HEIC": 20}
_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "YCbCr")


@dataclass(frozen=True)
class Picture:
    """An image as its file holds it.

    Attributes:
        pixels: uint8 or uint16; H x W (gray), H x W x 2 (gray, alpha), H x W x 3 (RGB) or H x W x 4 (RGBA, not
            premultiplied), upright.
        icc: the colour profile of the values; None where the file has none.
        lossless: whether the file holds its pixels exactly; a WebP made of it then does so too.
        metadata: resolution, EXIF, XMP and a PNG's colour chunks.
    """

    pixels: np.ndarray
    icc: bytes | None = None
    lossless: bool = True
    metadata: Metadata = NO_METADATA


@dataclass(frozen=True)
class _File:
    """An image file and what it declares; nothing is decoded yet."""

    path: Path
    kind: str
    data: bytes
    width: int
    height: int
    bits: int  # of a pixel
    tiff: tiff.Declared | None = None

    @property
    def deep(self) -> bool:
        """Whether a sample has 16 bits."""
        return self.tiff.bits == 16 if self.tiff else self.kind == "PNG" and self.data[24] == 16


def read_picture(path: str | Path) -> Picture:
    """Read an image with bit depth, transparency, colour profile and metadata.

    EXIF orientation is applied, gray stays gray, a palette becomes RGB or RGBA.

    Raises:
        DarsrError: missing, empty, truncated or damaged, not an image, a kind of image that is not supported, or one that
            would not fit into memory.
    """
    file = _load(Path(path))
    with _decoding(file):
        if file.tiff and file.deep:  # Pillow does not open all of these
            orientation, info = file.tiff.orientation, {}
            pixels = _upright(_decode_tiff(file.path, file.data, file.tiff), orientation)
        else:
            with _opened(file) as image:
                _check(file, image)
                info = dict(image.info)
                orientation = file.tiff.orientation if file.tiff else image.getexif().get(ORIENTATION, 1)
                pixels = _upright(_decode_png(file), orientation) if file.deep else decode_shallow(file.path, image)
        metadata = read_metadata(file.kind, file.data, info, file.tiff, orientation in (5, 6, 7, 8))
    icc = file.tiff.icc if file.tiff else info.get("icc_profile") or None
    lossless = file.kind in ("PNG", "TIFF", "BMP") or (
        file.kind == "WebP" and all(name != b"VP8 " for name, _ in webp_chunks(file.data))
    )
    return Picture(np.ascontiguousarray(pixels), icc, lossless, metadata)


def size_of(path: str | Path) -> tuple[int, int]:
    """Return width and height that an image declares, before it is turned upright; nothing is decoded.

    Raises:
        DarsrError: as :func:`read_picture`, as far as it shows without decoding.
    """
    file = _load(Path(path))
    return file.width, file.height


def eight_bit(pixels: np.ndarray) -> np.ndarray:
    """Convert an image to what adaptation works on, whose prior knows 8 bits: uint8 gray or RGB.

    16 bits are rounded; alpha is dropped, and fully transparent pixels get the colour of the nearest visible one.
    """
    from .alpha import split_alpha

    colour, _ = split_alpha(pixels)
    return colour if colour.dtype == np.uint8 else ((colour.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _load(path: Path) -> _File:
    """Read a file whose format is known, and refuse it by what it declares."""
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):  # a pipe or device may have no end
            raise DarsrError(str(path), "is a pipe or a device, not a file", "give an image")
        with open(path, "rb") as file:
            kind = kind_of(path, file.read(HEAD))
            free = free_memory()
            if free is not None and status.st_size > free // 2:
                why = f"is a file of {status.st_size / 1e9:.1f} GB, and {free / 1e9:.1f} GB of memory are free"
                raise DarsrError(str(path), why, "give a smaller image")
            file.seek(0)
            data = file.read()
    except OSError as error:
        raise DarsrError(str(path), f"cannot be read ({error.strerror})", "check the name") from error
    except ValueError as error:  # a name that no file can have
        raise DarsrError(str(path), f"cannot be read ({error})", "check the name") from error
    check_whole(path, kind, data)
    found = _declare(path, kind, data)
    pixels = found.width * found.height
    stored = -(-pixels * found.bits // 8)
    needed = stored * 5 // 2 if found.deep else pixels * _NEEDED[kind]
    check_decoding(path, found.width, found.height, stored=stored, needed=needed, file_bytes=len(data))
    return found


def _declare(path: Path, kind: str, data: bytes) -> _File:
    if kind == "TIFF":
        declared = tiff.read_declared(path, data)
        bits = declared.samples * declared.bits
        return _File(path, kind, data, declared.width, declared.height, bits, declared)
    if kind in ("AVIF", "HEIC"):
        with _decoding(_File(path, kind, data, 0, 0, 0)) as file, _opened(file) as image:
            return _File(path, kind, data, image.width, image.height, 24)
    try:
        width, height, bits = declared_size(kind, data)
        return _File(path, kind, data, width, height, bits)
    except ValueError as error:
        raise damaged(path) from error


def _opened(file: _File) -> Image.Image:
    """Open with Pillow; the picture of a TIFF that is no thumbnail."""
    if file.kind == "HEIC":
        try:
            import pillow_heif
        except ImportError as error:
            why = "is a HEIC file, and pillow-heif, which reads it, is not installed"
            raise DarsrError(str(file.path), why, f"{pip()} install pillow-heif, or save it as PNG or JPEG") from error
        pillow_heif.register_heif_opener()
    elif file.kind == "AVIF":
        from PIL import features

        if not features.check("avif"):
            why = "is an AVIF file, which this version of Pillow does not read"
            hint = f'{pip()} install "pillow>=11.3", or save it as PNG or JPEG'
            raise DarsrError(str(file.path), why, hint)
    name = {"HEIC": "HEIF"}.get(file.kind, file.kind.upper())
    image = Image.open(io.BytesIO(file.data), formats=("JPEG", "MPO") if name == "JPEG" else (name,))
    if file.tiff and file.tiff.page:
        image.seek(file.tiff.page)
    return image


@contextlib.contextmanager
def _decoding(file: _File) -> Iterator[_File]:
    """Turn whatever decoders raise into one line, and silence them.

    They write to stderr by themselves, in C; DARSR_VERBOSE lets them.
    """
    try:
        with _LOCK, warnings.catch_warnings(), _silenced():
            warnings.simplefilter("ignore")
            limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # check_decoding has a limit of its own
            try:
                yield file
            finally:
                Image.MAX_IMAGE_PIXELS = limit
    except DarsrError:
        raise
    except MemoryError as error:
        raise DarsrError(str(file.path), "does not fit into the memory", "give a smaller image") from error
    except UnidentifiedImageError as error:
        if file.kind != "TIFF":
            raise damaged(file.path) from error
        why = "is a kind of TIFF that cannot be read, or is damaged"
        raise DarsrError(str(file.path), why, "save it as PNG, or as TIFF in RGB with 8 or 16 bits") from error
    except Exception as error:  # on damaged files decoders raise whatever comes to pass
        raise damaged(file.path) from error


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    """Send the stderr of this process to nowhere."""
    if os.environ.get("DARSR_VERBOSE"):
        yield
        return
    try:
        sys.stderr.flush()
        kept, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    except (OSError, ValueError, AttributeError):  # closed, or none
        yield
        return
    try:
        os.dup2(null, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(null)


def _check(file: _File, image: Image.Image) -> None:
    """Refuse what would silently become another picture."""
    if file.kind in ("WebP", "AVIF") and getattr(image, "is_animated", False):
        raise unsupported(file.path, f"is an animated {file.kind}, which is not supported")
    if image.mode == "CMYK":
        why = f"is a {file.kind} in CMYK colours, which are not supported"
        raise DarsrError(str(file.path), why, "convert it to RGB")
    if image.size != (file.width, file.height) and (file.tiff is None or file.tiff.orientation < 5):
        found = f"{image.size[0]}x{image.size[1]}"
        raise damaged(file.path, f" (its size is {file.width}x{file.height} and its pixels are {found})")


def decode_shallow(path: Path, image: Image.Image) -> np.ndarray:
    """Decode an image that Pillow has opened, of 8 bits a channel or less, and turn it upright."""
    clear = "transparency" in image.info or image.mode in ("PA", "RGBa", "La")
    image.load()  # where Pillow turns a TIFF
    if image.getexif().get(ORIENTATION, 1) != 1:
        image = ImageOps.exif_transpose(image)
    gray = image.mode in ("1", "L", "LA", "La")
    if image.mode not in _MODES:
        raise unsupported(path, f"is an image of kind {image.mode}, which is not supported")
    alpha = clear or image.mode in ("LA", "RGBA")
    return _in_bands(image, ("LA" if alpha else "L") if gray else ("RGBA" if alpha else "RGB"))


def _in_bands(image: Image.Image, mode: str) -> np.ndarray:
    """Convert an image to a mode of 8 bits, by rows: Pillow would copy a large one twice."""
    width, height = image.size
    pixels = np.empty((height, width, len(mode)), np.uint8)  # a mode's letters are its channels
    for top in range(0, height, _ROWS):
        band = image.crop((0, top, width, min(top + _ROWS, height)))
        part = np.asarray(band if band.mode == mode else band.convert(mode))
        pixels[top : top + len(part)] = part.reshape(len(part), width, -1)
    return pixels[:, :, 0] if len(mode) == 1 else pixels


def _decode_tiff(path: Path, data: bytes, declared: tiff.Declared) -> np.ndarray:
    """Decode 16 bits, as they are stored."""
    pixels, extra = tiff.decode(path, data, declared), tiff.extra_sample(declared)
    if extra == 0:  # not said to be alpha
        pixels = pixels[:, :, :-1]
    if pixels.shape[2] == 1:
        return pixels[:, :, 0]
    return _straight(pixels) if extra == 1 else pixels


def _decode_png(file: _File) -> np.ndarray:
    """Decode with OpenCV, which knows no gray with alpha."""
    pixels = cv2.imdecode(np.frombuffer(file.data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.shape[:2] != (file.height, file.width):
        raise damaged(file.path)
    if pixels.dtype != np.uint16:
        raise unsupported(file.path, "is a kind of 16-bit PNG that cannot be read")
    if pixels.ndim == 2:
        return pixels
    for top in range(0, len(pixels), _ROWS):  # in place
        pixels[top : top + _ROWS, :, :3] = pixels[top : top + _ROWS, :, 2::-1].copy()
    return pixels[:, :, [0, 3]] if file.data[25] == 4 else pixels


def _straight(pixels: np.ndarray) -> np.ndarray:
    """Divide premultiplied colours by their alpha."""
    alpha = np.maximum(pixels[:, :, -1:], 1).astype(np.float32)
    colour = np.minimum(pixels[:, :, :-1] * (np.float32(65535) / alpha) + np.float32(0.5), 65535)
    return np.dstack([colour.astype(np.uint16), pixels[:, :, -1]])


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turn by EXIF orientation, 1 to 8: where the first row and column of the stored image belong."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels
