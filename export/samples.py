"""The pictures that an export is measured, calibrated and baked with."""

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
        photo: the adapted image; None where it is not at hand. Forms ``filters`` and ``global`` are made from it.
        photo_sha256: of its file.
        calibration: photographs that show an int8 model which values occur.
        origin: where the calibration comes from, in words, for the file's metadata.
    """

    photo: np.ndarray | None = None
    photo_sha256: str = ""
    calibration: tuple[np.ndarray, ...] = field(default=(), repr=False)
    origin: str = "synthetic pictures"


def gather(adapter: Path | None, image: Path | None = None, calibration: Path | None = None) -> Samples:
    """The adapted image, and the calibration set: a folder, or else the adapted image itself.

    Args:
        adapter: its image is looked for beside it and known by its sha256.
        image: the image, wherever it lies; it need not be the one that was adapted to.

    Raises:
        DarsrError: an image that cannot be read, or a folder without images.
    """
    found = image or (find_photo(adapter) if adapter is not None else None)
    photo = None if found is None else _least(to_tensor(read_image(found)), found)
    digest = "" if found is None else hash_file(found)
    if calibration is not None:
        names = list_images(calibration)
        if not names:
            raise DarsrError(
                str(calibration), f"holds no images ({', '.join(SUFFIXES)})", "give a folder with photographs"
            )
        pictures = tuple(to_tensor(read_image(name)) for name in names)
        return Samples(photo, digest, pictures, f"{len(names)} images of a folder")
    if photo is not None:
        return Samples(photo, digest, (photo,), "the adapted image" if image is None else "the given image")
    return Samples()


def find_photo(adapter: Path) -> Path | None:
    """The image an adapter was made from, where it lies beside it: one of its name whose sha256 is the recorded one."""
    source = Adapter.load(adapter).facts.get("source")
    recorded = source.get("sha256") if isinstance(source, dict) else None
    names = [adapter.stem] + [adapter.stem + suffix for suffix in SUFFIXES + tuple(s.upper() for s in SUFFIXES)]
    candidates = (adapter.with_name(name) for name in names)
    return next((p for p in candidates if recorded and p.is_file() and hash_file(p) == recorded), None)


def calibration_crops(samples: Samples) -> list[np.ndarray]:
    """Crops of the calibration pictures, all of one size, and a third as many synthetic ones.

    The synthetic ones are of strong contrast, so that a further image of the same camera with more contrast than these
    finds room in the ranges.
    """
    side = min([CALIBRATION_SIDE, *(min(p.shape[2:]) for p in samples.calibration)])
    each = max(1, min(_CROPS_OF_ONE, _CROPS_OF_ALL // max(1, len(samples.calibration))))
    crops = [crop for picture in samples.calibration for crop in find_detailed_crops(picture, side, side, each)]
    noise = [natural_noise(side, side, _SEED + 1 + i) for i in range(max(4, len(crops) // 3))]
    return crops[: 4 * _CROPS_OF_ALL] + noise[:_CROPS_OF_ALL]


def _least(picture: np.ndarray, path: Path) -> np.ndarray:
    if min(picture.shape[2:]) < 3:
        raise DarsrError(str(path), "is too small: sides of at least 3 pixels are required", "give a larger image")
    return picture
