"""Images as arrays, and as the tensors that networks take.

Arrays are uint8 or uint16, H x W (gray), H x W x 2 (gray, alpha), H x W x 3 (RGB, never BGR) or H x W x 4 (RGBA). Tensors
are float32, 1 x 3 x H x W, RGB in [0, 1].
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import DarsrError
from ..files.kinds import READ_SUFFIXES
from .formats import SUFFIXES
from .reader import Picture, eight_bit, read_picture
from .writer import write_image

__all__ = ["SUFFIXES", "Picture", "list_images", "read_image", "read_picture", "to_image", "to_tensor", "write_image"]
_OURS = ("_x2", "_x4", "_corrected", "_preview")


def read_image(path: str | Path) -> np.ndarray:
    """Read an image as 8-bit gray or RGB, which adaptation and metrics work on; see :func:`.eight_bit`.

    Returns:
        uint8, H x W or H x W x 3 (RGB), upright.

    Raises:
        DarsrError: as :func:`.read_picture`.
    """
    return eight_bit(read_picture(path).pixels)


def to_tensor(image: np.ndarray) -> np.ndarray:
    """Convert uint8 or uint16, H x W or H x W x 3, to float32 1 x 3 x H x W in [0, 1]; gray is repeated."""
    if image.ndim == 2:
        image = np.repeat(image[:, :, None], 3, axis=2)
    return np.ascontiguousarray(image.transpose(2, 0, 1)[None], np.float32) / np.float32(np.iinfo(image.dtype).max)


def to_image(tensor: np.ndarray, gray: bool = False, dtype: type = np.uint8) -> np.ndarray:
    """Convert float 1 x 3 x H x W (clipped to [0, 1]) to H x W x 3, or for ``gray`` to H x W, the mean; rounded half up.

    Raises:
        DarsrError: it holds NaN or infinity, which would silently become black.
    """
    values = tensor[0].mean(0) if gray else tensor[0].transpose(1, 2, 0)
    if not np.isfinite(values).all():
        why = "holds NaN or infinity: weights of the model or of the adapter are damaged"
        raise DarsrError("the network's result", why, "export it again, or make a new adapter")
    most = np.iinfo(dtype).max
    return np.clip(np.floor(values.astype(np.float32) * np.float32(most) + np.float32(0.5)), 0, most).astype(dtype)


def list_images(folder: str | Path) -> list[Path]:
    """List the image files of a folder by name, without those named like results of this toolkit (``*_x2.png``)."""
    return [path for path in _pictures(folder) if not is_named_like_result(path)]


def list_results(folder: str | Path) -> list[Path]:
    """List the image files that :func:`list_images` leaves out."""
    return [path for path in _pictures(folder) if is_named_like_result(path)]


def is_named_like_result(path: Path) -> bool:
    """Return whether a file is named like a result of this toolkit (``*_x2.png``)."""
    return path.stem.endswith(_OURS)


def stem_of_source(path: Path) -> str:
    """Return the stem of what a file named like a result was made from: ``photo`` of ``photo_x2.png``; else its own."""
    return next((path.stem.removesuffix(tail) for tail in _OURS if path.stem.endswith(tail)), path.stem)


def _pictures(folder: str | Path) -> list[Path]:
    try:
        entries = sorted(Path(folder).iterdir())
    except OSError as error:
        raise DarsrError(
            str(folder), f"is not a folder that can be read ({error.strerror})", "check the name"
        ) from error
    files = [p for p in entries if p.suffix.lower() in READ_SUFFIXES and p.is_file()]
    return [p for p in files if not p.name.startswith(".")]
