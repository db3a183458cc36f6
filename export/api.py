"""Enlarge images from Python: ``darsr.upscale`` and ``darsr.adapt``."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TypeAlias, overload

import numpy as np
from PIL import Image, ImageOps

from darsr_deploy.engines import upscale as engines
from darsr_deploy.engines.base import Engine
from darsr_deploy.errors import DarsrError
from darsr_deploy.files.adapter import Adapter
from darsr_deploy.images.arrays import read_picture, write_image
from darsr_deploy.images.reader import decode_shallow
from darsr_train.adaptation.inputs import check_size
from darsr_train.runtime import checked_options, open_networks

from .artefacts.subject import Source
from .inference.session import open_engine

Named: TypeAlias = "str | os.PathLike[str]"
_KEPT = ("icc_profile", "dpi", "exif")  # of a PIL image, for whoever saves the result
_ARRAYS = "H x W (gray), H x W x 2 (gray, alpha), H x W x 3 (RGB) or H x W x 4 (RGBA)"


@overload
def upscale(
    image: Image.Image,
    scale: int = ...,
    amount: float | None = ...,
    denoise: float | None = ...,
    deblock: float | None = ...,
    engine: str | Engine = ...,
    *,
    adapter: Adapter | Named | None = ...,
) -> Image.Image: ...
@overload
def upscale(
    image: np.ndarray | Named,
    scale: int = ...,
    amount: float | None = ...,
    denoise: float | None = ...,
    deblock: float | None = ...,
    engine: str | Engine = ...,
    *,
    adapter: Adapter | Named | None = ...,
) -> np.ndarray: ...
def upscale(image, scale=2, amount=None, denoise=None, deblock=None, engine="auto", *, adapter=None):
    """Adapt to an image and enlarge it, as ``darsr upscale`` does.

    Args:
        image: an array, uint8 or uint16, H x W (gray), H x W x 2 (gray, alpha), H x W x 3 (RGB) or H x W x 4 (RGBA); a PIL
            image; or the path of a file. EXIF orientation is applied.
        scale: 2 or 4.
        amount: sharpen less (down to 0.1) or more (up to 4) than 1.
        denoise: share of the noise that was found to take away, 0 to 1; 1 by default.
        deblock: share of JPEG's blocks and ringing to take away, 0 to 1; 1 by default.
        engine: ``auto`` (ONNX Runtime if installed, else PyTorch), ``ort``, ``trt``, ``trt-rtx`` or ``torch``; or an engine that
            is open, which runs as it is: nothing is adapted, and the scale is its own.
        adapter: what :func:`adapt` returned, or an adapter file, to run instead of adapting to this image.

    Returns:
        The image at sH x sW: a PIL image for a PIL image, else an array of the same dtype and channels.

    Raises:
        DarsrError: an image of another kind, or too small to adapt to; an option out of range; a library that is missing.
    """
    pixels = _pixels_of(image)
    if not isinstance(engine, str):
        return _like(image, engines.upscale(engine, pixels))
    if adapter is None:
        adapter = adapt(image, scale, amount=amount, denoise=denoise, deblock=deblock)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image.darsr" if isinstance(adapter, Adapter) else Path(adapter)
        if isinstance(adapter, Adapter):
            adapter.save(path)
        with open_engine(Source(path, scale=scale), engine, tile=None) as opened:
            return _like(image, engines.upscale(opened, pixels))


def adapt(
    image: np.ndarray | Image.Image | Named,
    scale: int = 2,
    *,
    amount: float | None = None,
    denoise: float | None = None,
    deblock: float | None = None,
) -> Adapter:
    """Adapt to an image with profile ``fast``; parameters and errors as of :func:`upscale`.

    Returns:
        The adapter: ``save(path)`` writes the file that ``darsr infer --adapter`` and :func:`open_engine` take, ``facts``
        says what was found and decided.
    """
    from darsr_train.adaptation.told import adapt_told

    options = checked_options("fast", scale, amount=amount, denoise=denoise, deblock=deblock)
    with tempfile.TemporaryDirectory() as folder:
        file, quality = Path(folder) / "image.png", None
        if isinstance(image, (str, os.PathLike)):
            file = Path(image)
        else:
            pixels = _pixels_of(image)
            check_size(Path("the image"), pixels.shape[1], pixels.shape[0], options)
            write_image(file, pixels)
            quality = _jpeg_quality(image)
        return adapt_told(file, Path(folder) / "image.darsr", options, open_networks(scale), jpeg_quality=quality)[0]


def _pixels_of(image: np.ndarray | Image.Image | Named) -> np.ndarray:
    if isinstance(image, (str, os.PathLike)):
        return read_picture(Path(image)).pixels
    if isinstance(image, Image.Image):
        return _decode(image)
    if not isinstance(image, np.ndarray):
        raise DarsrError("the image", f"is of type {type(image).__name__}", "give an array, a PIL image or a path")
    if image.dtype.kind != "u" or image.dtype.itemsize > 2:
        why, hint = (
            f"is an array of {image.dtype}",
            "values 0 to 1 become uint8 by (255 * image).round().astype('uint8')",
        )
        raise DarsrError("the image", f"{why}, and uint8 or uint16 is expected", hint)
    if image.ndim not in (2, 3) or image.shape[2:] not in ((), (2,), (3,), (4,)) or not image.size:
        raise DarsrError("the image", f"is an array of shape {image.shape}", f"give {_ARRAYS}")
    return np.ascontiguousarray(image, image.dtype.newbyteorder("="))


def _decode(image: Image.Image) -> np.ndarray:
    try:
        upright = ImageOps.exif_transpose(image)
    except (OSError, SyntaxError, ValueError) as error:  # the file is read now
        raise DarsrError("the image", f"cannot be decoded ({error})", "check its file") from error
    if image.mode != "I" and not image.mode.startswith("I;16"):
        return decode_shallow(Path("the image"), upright)
    values = np.asarray(upright)
    if values.min() < 0 or values.max() > np.iinfo(np.uint16).max:
        raise DarsrError("the image", "holds values beyond 16 bits", "give values from 0 to 65535")
    return values.astype(np.uint16)


def _jpeg_quality(image: np.ndarray | Image.Image) -> float | None:
    """Return what the tables of a JPEG say, which a PIL image keeps until it is changed into another."""
    from darsr_deploy.blind.compression import quality_of

    tables = getattr(image, "quantization", None)
    return quality_of(tables[0]) if tables and 0 in tables else None


def _like(image: np.ndarray | Image.Image | Named, pixels: np.ndarray) -> np.ndarray | Image.Image:
    if not isinstance(image, Image.Image):
        return pixels
    result, info = Image.fromarray(pixels), ImageOps.exif_transpose(image).info
    result.info.update({name: info[name] for name in _KEPT if name in info})
    return result
