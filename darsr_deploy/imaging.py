"""Reading and writing photographs: 8-bit gray and RGB, PNG and JPEG.

Arrays are uint8, H x W (gray) or H x W x 3 (RGB, never BGR). Tensors are float32, 1 x 3 x H x W, RGB in [0, 1].
"""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np

from .atomic import write_bytes
from .errors import DarsrError
from .png_writer import write_large_png
from .resample import to_uint8

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
SUFFIXES = (".png", ".jpg", ".jpeg")
_OTHER_FORMATS = {b"BM": "BMP", b"II*\x00": "TIFF", b"MM\x00*": "TIFF", b"RIFF": "WebP", b"GIF8": "GIF"}
_JPEG_QUALITY = 95
_LARGE = 200_000_000  # values; a PNG of more is written in parts


def read_image(path: str | Path) -> np.ndarray:
    """Read an 8-bit PNG or JPEG; EXIF orientation is applied, gray stays gray.

    Returns:
        uint8, H x W or H x W x 3 (RGB).

    Raises:
        DarsrError: missing, empty, truncated, no image, or a kind of image that is not supported yet.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DarsrError(str(path), f"cannot be read ({error.strerror})", "check the name") from error
    if not data:
        raise DarsrError(str(path), "is an empty file", "give a PNG or JPEG image")
    if data.startswith(_PNG):
        _check_png(path, data)
    elif data.startswith(_JPEG):
        _check_jpeg(path, data)
    else:
        kind = next((name for magic, name in _OTHER_FORMATS.items() if data.startswith(magic)), None)
        why = f"is a {kind} file, which is not supported yet" if kind else "is not an image"
        raise DarsrError(str(path), why, "give an 8-bit PNG or JPEG")
    # These flags apply the EXIF orientation and keep gray as it is.
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH)
    except cv2.error as error:  # more pixels than the decoder allows
        raise DarsrError(
            str(path), f"cannot be decoded ({error.err})", "give a smaller or an undamaged image"
        ) from error
    if image is None:
        raise DarsrError(str(path), "cannot be decoded: the file is damaged", "copy it again from its source")
    return image if image.ndim == 2 else np.ascontiguousarray(image[:, :, ::-1])


def write_image(path: str | Path, image: np.ndarray) -> None:
    """Write a uint8 gray or RGB image as PNG or JPEG (quality 95, 4:4:4), whole or not at all.

    Raises:
        DarsrError: another suffix, a folder that cannot be written, a full disk.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise DarsrError(
            str(path), f"cannot write {path.suffix or 'a file without suffix'}", f"use one of {', '.join(SUFFIXES)}"
        )
    if path.suffix.lower() == ".png" and image.size > _LARGE:
        return write_large_png(path, image)
    options = []
    if path.suffix.lower() != ".png":
        options = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
        options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    pixels = image if image.ndim == 2 else image[:, :, ::-1]
    try:
        good, data = cv2.imencode(path.suffix.lower(), pixels, options)
    except cv2.error:  # older versions raise where newer ones return False
        good = False
    if not good:
        size = f"{image.shape[1]}x{image.shape[0]}"
        raise DarsrError(str(path), f"an image of {size} cannot be written in this format", "write a PNG")
    write_bytes(path, data.tobytes())


def to_tensor(image: np.ndarray) -> np.ndarray:
    """uint8 H x W or H x W x 3 -> float32 1 x 3 x H x W in [0, 1]; gray is repeated."""
    if image.ndim == 2:
        image = np.repeat(image[:, :, None], 3, axis=2)
    return np.ascontiguousarray(image.transpose(2, 0, 1)[None], np.float32) / np.float32(255)


def to_image(tensor: np.ndarray, gray: bool = False) -> np.ndarray:
    """float 1 x 3 x H x W in [0, 1] (clipped) -> uint8 H x W x 3, or H x W (the mean of the three) for ``gray``."""
    values = tensor[0].mean(0) if gray else tensor[0].transpose(1, 2, 0)
    return to_uint8(values.astype(np.float32) * np.float32(255))


def list_images(folder: str | Path) -> list[Path]:
    """PNG and JPEG files of a folder, sorted by name; what this toolkit wrote there (``*_x2.png``) is left out."""
    try:
        entries = sorted(Path(folder).iterdir())
    except OSError as error:
        raise DarsrError(
            str(folder), f"is not a folder that can be read ({error.strerror})", "check the name"
        ) from error
    files = [p for p in entries if p.is_file() and p.suffix.lower() in SUFFIXES]
    return [
        p for p in files if not p.name.startswith(".") and not p.stem.endswith(("_x2", "_x4", "_corrected", "_preview"))
    ]


def _check_png(path: Path, data: bytes) -> None:
    """Refuse what the decoder would silently accept (a missing end) or convert (16 bits, alpha)."""
    position = len(_PNG)
    while data[position + 4 : position + 8] != b"IEND":
        if position + 8 > len(data):
            raise DarsrError(str(path), "is truncated: the PNG has no end", "copy it again from its source")
        length, kind = struct.unpack(">I4s", data[position : position + 8])
        if position + 12 + length > len(data):
            raise DarsrError(str(path), "is truncated: the PNG has no end", "copy it again from its source")
        if kind == b"IHDR":
            depth, colour = data[position + 16], data[position + 17]
            if depth == 16 or colour in (4, 6):
                raise DarsrError(
                    str(path),
                    f"is a PNG {'of 16 bits' if depth == 16 else 'with transparency'}, which is not supported yet",
                    "save it as 8-bit gray or RGB",
                )
        if kind == b"tRNS":
            raise DarsrError(
                str(path), "is a PNG with transparency, which is not supported yet", "save it as 8-bit gray or RGB"
            )
        position += 12 + length


def _check_jpeg(path: Path, data: bytes) -> None:
    """The decoder fills a truncated JPEG with gray and only warns; look for the end marker behind the pixel data."""
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF and data[position + 1] != 0xDA:
        if data[position + 1] == 0xFF:  # fill byte
            position += 1
            continue
        position += 2 + struct.unpack(">H", data[position + 2 : position + 4])[0]
    if data.find(b"\xff\xd9", position) < 0:
        raise DarsrError(str(path), "is truncated: the JPEG has no end", "copy it again from its source")
