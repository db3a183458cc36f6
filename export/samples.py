"""Pictures for the parity check, calibration and baked forms of an export."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from darsr_deploy.errors import DarsrError
from darsr_deploy.files.adapter import Adapter
from darsr_deploy.files.hashing import hash_file
from darsr_deploy.images.arrays import SUFFIXES, list_images, read_image, to_tensor
from darsr_deploy.images.detail import find_detailed_crops
from darsr_deploy.images.synthetic import natural_noise

CALIBRATION_SIDE = 96  # pixels of a calibration crop
_CROPS_OF_ONE = 12
_CROPS_OF_ALL = 48
_SEED = 7


@dataclass(frozen=True)
class Samples:
    """Pictures, each float32 1 x 3 x H x W in [0, 1].

    Attributes:
        photo: the adapted image; None if it is not available. Forms ``filters`` and ``global`` are made from it.
        photo_sha256: of its file.
        calibration: photographs that show an int8 model which values occur.
        origin: where the calibration comes from, in words, for the file's metadata.
    """

    photo: np.ndarray | None = None
    photo_sha256: str = ""
    calibration: tuple[np.ndarray, ...] = field(default=(), repr=False)
    origin: str = "synthetic pictures"


def gather(photo: Path | None, *, given: bool = False, calibration: Path | None = None) -> Samples:
    """Read the adapted image and the calibration set: a folder, or else the adapted image itself.

    Args:
        photo: the image; it need not be the one that was adapted to where it was ``given`` by the user.

    Raises:
        DarsrError: an image that cannot be read, or a folder without images.
    """
    pixels = None if photo is None else _require_sides(to_tensor(read_image(photo)), photo)
    digest = "" if photo is None else hash_file(photo)
    if calibration is not None:
        names = list_images(calibration)
        if not names:
            raise DarsrError(
                str(calibration), f"holds no images ({', '.join(SUFFIXES)})", "give a folder with photographs"
            )
        pictures = tuple(to_tensor(read_image(name)) for name in names)
        return Samples(pixels, digest, pictures, f"{len(names)} images of a folder")
    if pixels is not None:
        return Samples(pixels, digest, (pixels,), "the given image" if given else "the adapted image")
    return Samples()


def find_photo(path: Path, adapter: Adapter | None = None) -> Path | None:
    """Find the image that an adapter was made from beside it: one of its name whose sha256 is the recorded one.

    Args:
        adapter: the file's content, where it is loaded already.
    """
    source = (adapter or Adapter.load(path)).facts.get("source")
    recorded = source.get("sha256") if isinstance(source, dict) else None
    names = [path.stem] + [path.stem + suffix for suffix in SUFFIXES + tuple(s.upper() for s in SUFFIXES)]
    candidates = (path.with_name(name) for name in names)
    return next((p for p in candidates if recorded and p.is_file() and hash_file(p) == recorded), None)


def calibration_crops(samples: Samples) -> list[np.ndarray]:
    """Cut crops from the calibration pictures, all of one size, and add a third as many synthetic ones.

    The synthetic ones are of strong contrast, so that a further image of the same camera with more contrast than these
    finds room in the ranges.
    """
    side = min([CALIBRATION_SIDE, *(min(p.shape[2:]) for p in samples.calibration)])
    each = max(1, min(_CROPS_OF_ONE, _CROPS_OF_ALL // max(1, len(samples.calibration))))
    crops = [crop for picture in samples.calibration for crop in find_detailed_crops(picture, side, side, each)]
    noise = [natural_noise(side, side, _SEED + 1 + i) for i in range(max(4, len(crops) // 3))]
    return crops[: 4 * _CROPS_OF_ALL] + noise[:_CROPS_OF_ALL]


def _require_sides(picture: np.ndarray, path: Path) -> np.ndarray:
    if min(picture.shape[2:]) < 3:
        raise DarsrError(str(path), "is too small: sides of at least 3 pixels are required", "give a larger image")
    return picture
