"""Run one adapter for its page: pictures of every method, filters, figures against the truth."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from darsr_deploy.engines.upscale import pad_to_least
from darsr_deploy.errors import DarsrError
from darsr_deploy.files.adapter import Adapter
from darsr_deploy.images.arrays import SUFFIXES, read_image
from darsr_deploy.images.detail import find_detailed_square, find_largest_sum
from darsr_deploy.images.resample import imresize
from darsr_train.adaptation.result import Curve, read_curves
from darsr_train.evaluation.kernel_error import compare_kernels
from darsr_train.evaluation.measure import check_truth, compare
from darsr_train.evaluation.sets import read_kernel
from darsr_train.pipeline import load_pipeline, upscale_with
from darsr_train.plots.kernels import Shown, kernels_of
from darsr_train.plots.page import to_rgb
from darsr_train.plots.preview import assemble_filters

from ..samples import find_photo

_MOST_PIXELS = 4_200_000  # of an enlarged picture; of a larger one its middle is shown
Place = tuple[slice, slice]  # rows, columns


@dataclass(frozen=True)
class Subject:
    """One adapter and one image.

    Attributes:
        pictures: uint8, sH x sW or sH x sW x 3: ``bicubic``, ``backbone`` (alone), ``adapted``, and ``truth`` if given.
        lr_size: rows, columns of the whole LR image; ``whole`` tells whether the pictures show all of it.
        filters: as :class:`darsr_train.plots.preview_page.Findings` has them.
        scores: PSNR in dB and SSIM by picture, ``{"adapted": {"psnr_y": ..., "ssim_y": ...}}``; empty without a truth.
        true_kernel: k x k, sum 1; None where it was not given.
    """

    path: Path
    image: Path
    adapter: Adapter
    pictures: dict[str, np.ndarray]
    lr_size: tuple[int, int]
    whole: bool
    filters: np.ndarray | None
    curves: dict[str, Curve]
    scores: dict[str, dict[str, float]]
    true_kernel: np.ndarray | None = None

    @property
    def unchanged(self) -> bool:
        """Return whether adapting changed no pixel."""
        return np.array_equal(self.pictures["backbone"], self.pictures["adapted"])

    @property
    def kernels(self) -> tuple[Shown, ...]:
        """Return the adapter's kernel and what it is compared with."""
        shown = kernels_of(self.adapter)
        return shown if self.true_kernel is None else compare_kernels(shown, self.true_kernel)

    def distinct_pictures(self) -> dict[str, np.ndarray]:
        """Return the pictures without the adapted one where that is the backbone's."""
        return {name: p for name, p in self.pictures.items() if name != "adapted" or not self.unchanged}


def look_at(
    path: Path,
    image: Path | None = None,
    truth: Path | None = None,
    backbone: str | None = None,
    device: str = "cpu",
    *,
    kernel: Path | None = None,
) -> Subject:
    """Run an adapter on its image, or on another one of the same camera and blur.

    Args:
        image: the image, or a folder with one of the adapter's name; by default the adapted one, beside the adapter.
        truth: the true HR image, or a folder with one of the image's name.
        kernel: the true kernel, as ``darsr degrade`` writes it, or a folder with one of the image's name.

    Raises:
        DarsrError: a file is missing, or of another size or scale.
    """
    pipeline, adapter, found = load_pipeline(path, backbone, None, device)
    curves = read_curves(adapter.facts, str(path))
    image = _named(image, path) if image is not None else find_photo(path)
    if image is None:
        raise DarsrError(str(path), "the image it was made from does not lie beside it", "name it with --image")
    true_kernel = read_kernel(_named(kernel, image, (".npz",), "kernel")) if kernel is not None else None
    lr, hr = read_image(image), None
    if truth is not None:
        lr, hr = check_truth(image, _named(truth, image), adapter.scale)
    size, scale = lr.shape[:2], adapter.scale
    window = middle(size, _MOST_PIXELS // scale**2)
    lr = lr[window]
    height, width = lr.shape[:2]
    padded, large = pad_to_least(lr), (height * scale, width * scale)
    pictures = {"bicubic": imresize(lr, *large)}
    for name, network in (("backbone", found.module), ("adapted", pipeline)):
        pictures[name] = upscale_with(network, padded, device)[: large[0], : large[1]]
    filters = assemble_filters(pipeline.correction, padded, device)
    if filters is not None and filters.shape[0] > 1:
        filters = filters[:height, :width]
    if hr is not None:
        pictures["truth"] = hr[tuple(slice(scale * s.start, scale * s.stop) for s in window)]
    whole, scores = lr.shape[:2] == size, _scores(pictures, scale)
    return Subject(path, image, adapter, pictures, size, whole, filters, curves, scores, true_kernel)


def middle(size: tuple[int, int], most: int) -> Place:
    """Return the middle of an image, of the same proportions and at most ``most`` pixels; all of a smaller one."""
    shrink = min(1.0, math.sqrt(most / (size[0] * size[1])))
    parts = [max(1, int(side * shrink)) for side in size]
    starts = [(side - part) // 2 for side, part in zip(size, parts)]
    return tuple(slice(start, start + part) for start, part in zip(starts, parts))


def places(pictures: dict[str, np.ndarray], side: int) -> dict[str, Place]:
    """Return squares worth a closer look: the most detailed, and the one that adapting changes most, if elsewhere."""
    best = pictures.get("truth", pictures["adapted"])
    found = {"most detail": find_detailed_square(best, side)}
    change = np.abs(pictures["adapted"].astype(np.float32) - pictures["backbone"].astype(np.float32))
    rows, columns = found["most detail"]
    height, width = rows.stop - rows.start, columns.stop - columns.start
    changed = find_largest_sum(to_rgb(change).sum(2), height, width)
    if changed is not None:
        down, right = (abs(place.start - other.start) for place, other in zip(changed, found["most detail"]))
        if down >= height // 2 or right >= width // 2:
            found["changed most"] = changed
    return found


def _scores(pictures: dict[str, np.ndarray], scale: int) -> dict[str, dict[str, float]]:
    if "truth" not in pictures:
        return {}
    images = {"result": pictures["adapted"], "backbone": pictures["backbone"], "bicubic": pictures["bicubic"]}
    row = compare(images, pictures["truth"], scale)
    tails = {"bicubic": "_bicubic", "backbone": "_backbone", "adapted": ""}
    return {
        name: {figure: row[f"{figure}{tail}"] for figure in ("psnr_y", "ssim_y", "psnr_rgb", "ssim_rgb")}
        for name, tail in tails.items()
    }


def _named(given: Path, like: Path, suffixes: Collection[str] = SUFFIXES, kind: str = "image") -> Path:
    """Return a file as it is, and of a folder the one of the same name, whichever of the suffixes it has."""
    if not given.is_dir():
        return given
    stems = (like.stem, like.name)  # photo.png.darsr belongs to photo.png
    found = sorted(
        p
        for p in given.iterdir()
        if p.suffix.lower() in suffixes and (p.stem in stems or p.name == like.stem) and p.is_file()
    )
    if not found:
        raise DarsrError(str(given), f"holds no {kind} named {like.stem}", "name the file itself")
    return found[0]
