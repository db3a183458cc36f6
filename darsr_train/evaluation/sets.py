"""Test sets with ground truth.

A set is a folder with ``LR/`` and ``HR/`` of equal names, optionally ``kernel/NAME.npz`` (the true kernel) and ``mask/`` of
the same names (HR size, 255 where a pixel counts).
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from darsr_deploy.errors import DarsrError
from darsr_deploy.images.arrays import list_images, read_image

_SSIM_WINDOW = 11  # pixels
# What reading a file raises that is no NPZ, a damaged one (RuntimeError: encrypted, or of an unknown compression), or a huge one.
_NO_KERNELS = (
    *(OSError, ValueError, EOFError, TypeError, AttributeError),
    *(RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error),
)


@dataclass(frozen=True)
class Pair:
    """An LR image, its ground truth, the path its true kernel has if there is one, and its mask in a set with masks."""

    lr: Path
    hr: Path
    kernel: Path
    mask: Path | None = None


@dataclass(frozen=True)
class ImageSet:
    """A folder of pairs of one kind and scale.

    Attributes:
        name: the folder's name, or the path as given where two folders have the same name.
        scale: from the sizes of the first readable pair.
    """

    name: str
    folder: Path
    scale: int
    pairs: tuple[Pair, ...]


def least_side(scale: int) -> int:
    """Return the minimum width and height of a comparable HR image in pixels: SSIM's window and both borders."""
    return _SSIM_WINDOW + 2 * scale


def find_pairs(folder: Path) -> tuple[Pair, ...]:
    """Return the pairs of a set, sorted by name.

    Raises:
        DarsrError: a folder, an HR image or a mask is missing.
    """
    if not folder.is_dir():
        why = "is a file" if folder.exists() else "there is no such folder"
        raise DarsrError(str(folder), why, "give a folder that holds LR and HR, such as darsr degrade makes")
    if not _is_set(folder):
        raise DarsrError(
            str(folder),
            "holds neither the folders LR and HR nor folders that do",
            "give a folder of image pairs with equal names",
        )
    masks = folder / "mask" if (folder / "mask").is_dir() else None
    pairs = tuple(
        Pair(lr, folder / "HR" / lr.name, folder / "kernel" / f"{lr.stem}.npz", masks and masks / lr.name)
        for lr in list_images(folder / "LR")
    )
    if not pairs:
        raise DarsrError(str(folder / "LR"), "holds no images", "LR and HR need equal names")
    for path in (path for pair in pairs for path in (pair.hr, pair.mask) if path and not path.is_file()):
        raise DarsrError(str(path), "is missing", f"LR and {path.parent.name} need equal names")
    return pairs


def find_sets(
    folders: Iterable[Path], scale: int | None, complain: Callable[[DarsrError], None], say: Callable[[str], None]
) -> list[ImageSet]:
    """Find the sets among folders: each is a set or holds sets, whatever else it holds.

    Args:
        scale: take only sets of this scale from a folder of sets; a set given directly is measured at this scale,
            and its images fail if they do not fit.
        complain: receives the error of an unusable folder; the others are still used.
        say: receives a line for every set left out.
    """
    parts: dict[Path, tuple[Path, bool]] = {}  # by resolved path, so that no set is taken twice
    for folder in folders:
        inside = _sets_inside(folder)
        for part in inside or [folder]:
            parts.setdefault(part.resolve(), (part, bool(inside)))
    sets = []
    for part, was_inside in parts.values():
        try:
            pairs = find_pairs(part)
        except DarsrError as error:
            complain(error)
            continue
        found = _scale_of(pairs)
        if was_inside and scale is not None and found not in (None, scale):
            say(f"{part}: skipped, its scale is {found}")
            continue
        sets.append(ImageSet(part.resolve().name, part, scale or found or 2, pairs))
    names = [s.name for s in sets]
    return [s if names.count(s.name) == 1 else ImageSet(str(s.folder), s.folder, s.scale, s.pairs) for s in sets]


def read_kernel(path: Path) -> np.ndarray:
    """Read ``kernel/NAME.npz``: k x k, float64; the mean of several kernels (spatially variant blur).

    The arrays are named ``k0``, ``k1``, ... Even-sized kernels are centred between their middle taps (see
    :func:`darsr_train.degradation.reduction.reduce`).

    Raises:
        DarsrError: there is no such file, or it holds anything but square kernels of one size that sum to 1.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            kernels = [np.asarray(file[name], np.float64) for name in sorted(file.files)]
        mean = np.mean(np.stack(kernels), axis=0)
    except FileNotFoundError as error:
        raise DarsrError(
            str(path), "there is no true kernel", "make the set with darsr degrade, or measure without it"
        ) from error
    except _NO_KERNELS as error:
        raise DarsrError(
            str(path), "does not hold kernels of one size", "make the set again with darsr degrade"
        ) from error
    good = mean.ndim == 2 and mean.shape[0] == mean.shape[1] and np.isfinite(mean).all()
    if not good or abs(mean.sum() - 1) > 0.01:
        raise DarsrError(
            str(path), "does not hold square kernels that sum to 1", "make the set again with darsr degrade"
        )
    return mean


def _is_set(folder: Path) -> bool:
    return (folder / "LR").is_dir() and (folder / "HR").is_dir()


def _sets_inside(folder: Path) -> list[Path]:
    if _is_set(folder):
        return []
    try:
        return sorted(part for part in folder.iterdir() if _is_set(part))
    except OSError:  # missing or unreadable: find_pairs() reports it
        return []


def _scale_of(pairs: Iterable[Pair]) -> int | None:
    """Return 2 or 4 by the first readable pair; errors of a pair are reported when it is measured."""
    for pair in pairs:
        try:
            small, large = read_image(pair.lr).shape, read_image(pair.hr).shape
        except DarsrError:
            continue
        return next((s for s in (2, 4) if large[:2] == (small[0] * s, small[1] * s)), None)
    return None
