"""Sets of images whose truth is known: folders with ``LR/`` and ``HR/`` of equal names, optionally ``kernel/NAME.npz``."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from darsr_deploy.errors import DarsrError
from darsr_deploy.images.arrays import list_images, read_image

_SSIM_WINDOW = 11  # pixels


@dataclass(frozen=True)
class Pair:
    """An LR image, its truth, and where its true kernel lies if there is one."""

    lr: Path
    hr: Path
    kernel: Path


@dataclass(frozen=True)
class ImageSet:
    """A folder of pairs of one kind and scale.

    Attributes:
        name: the folder's, or the path as given where two folders have the same name.
        scale: found from the sizes of the first pair that can be read.
    """

    name: str
    folder: Path
    scale: int
    pairs: tuple[Pair, ...]


def least_side(scale: int) -> int:
    """Least width and height of a truth that can be compared with, in pixels: SSIM's window and both borders."""
    return _SSIM_WINDOW + 2 * scale


def image_pairs(folder: Path) -> tuple[Pair, ...]:
    """The pairs of a set, by name.

    Raises:
        DarsrError: a folder or a partner is missing.
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
    pairs = tuple(
        Pair(lr, folder / "HR" / lr.name, folder / "kernel" / f"{lr.stem}.npz") for lr in list_images(folder / "LR")
    )
    missing = [pair.hr for pair in pairs if not pair.hr.is_file()]
    if missing or not pairs:
        raise DarsrError(
            str(missing[0] if missing else folder / "LR"),
            "is missing" if missing else "holds no images",
            "LR and HR need equal names",
        )
    return pairs


def find_sets(
    folders: Iterable[Path], scale: int | None, complain: Callable[[DarsrError], None], say: Callable[[str], None]
) -> list[ImageSet]:
    """The sets among folders: each is one, or holds some (its other contents are not looked at).

    Args:
        scale: only sets of this scale are taken from a folder of sets; a set that was given itself must be of it,
            which is noticed at its images.
        complain: gets what is wrong with a folder; the others are still taken.
        say: gets what was left out.
    """
    parts: dict[Path, tuple[Path, bool]] = {}  # none is taken twice
    for folder in folders:
        inside = _sets_inside(folder)
        for part in inside or [folder]:
            parts.setdefault(part.resolve(), (part, bool(inside)))
    sets = []
    for part, was_inside in parts.values():
        try:
            pairs = image_pairs(part)
        except DarsrError as error:
            complain(error)
            continue
        found = _scale_of(pairs)
        if was_inside and scale is not None and found not in (None, scale):
            say(f"{part}: left out, it is of scale {found}")
            continue
        sets.append(ImageSet(part.resolve().name, part, scale or found or 2, pairs))
    names = [s.name for s in sets]
    return [s if names.count(s.name) == 1 else ImageSet(str(s.folder), s.folder, s.scale, s.pairs) for s in sets]


def true_kernel(path: Path) -> np.ndarray:
    """The kernel of a file ``kernel/NAME.npz``: k x k, float64; the mean where it holds several (spatially variant blur).

    The arrays are named ``k0``, ``k1``, ... Even-sized kernels are centred between their middle taps (see
    :func:`darsr_train.degradation.reduction.reduce`).

    Raises:
        DarsrError: no such file, or anything but square kernels of one size that sum to 1.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            kernels = [np.asarray(file[name], np.float64) for name in sorted(file.files)]
        mean = np.mean(np.stack(kernels), axis=0)
    except FileNotFoundError as error:
        raise DarsrError(
            str(path), "there is no true kernel", "make the set with darsr degrade, or measure what needs none"
        ) from error
    except (OSError, ValueError, EOFError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise DarsrError(str(path), "holds no kernels of one size", "make the set again with darsr degrade") from error
    good = mean.ndim == 2 and mean.shape[0] == mean.shape[1] and np.isfinite(mean).all()
    if not good or abs(mean.sum() - 1) > 0.01:
        raise DarsrError(str(path), "holds no square kernels that sum to 1", "make the set again with darsr degrade")
    return mean


def _is_set(folder: Path) -> bool:
    return (folder / "LR").is_dir() and (folder / "HR").is_dir()


def _sets_inside(folder: Path) -> list[Path]:
    if _is_set(folder):
        return []
    try:
        return sorted(part for part in folder.iterdir() if _is_set(part))
    except OSError:  # no folder, or one that cannot be read: image_pairs() says so
        return []


def _scale_of(pairs: Iterable[Pair]) -> int | None:
    """2 or 4 by the first pair that can be read; what is wrong with a pair is said when it is measured."""
    for pair in pairs:
        try:
            small, large = read_image(pair.lr).shape, read_image(pair.hr).shape
        except DarsrError:
            continue
        return next((s for s in (2, 4) if large[:2] == (small[0] * s, small[1] * s)), None)
    return None
