"""Measurement of a correction against ground truth, which is only compared with, never adapted to."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from darsr_deploy.engines.upscale import pad_to_least
from darsr_deploy.errors import DarsrError
from darsr_deploy.files.adapter import Adapter
from darsr_deploy.images.arrays import read_image, to_tensor, write_image
from darsr_deploy.images.metrics import psnr_rgb, psnr_y, shave, ssim_rgb, ssim_y
from darsr_deploy.images.resample import imresize

from ..adaptation.adapt import adapt_image
from ..adaptation.fast import camera_probability
from ..adaptation.options import AdaptOptions
from ..backbones import Backbone
from ..degradation.reduction import bicubic_table
from ..networks.prior import load_prior
from ..pipeline import Pipeline, adapted, correction_of, upscale_with
from .kernel_error import kernel_error
from .nonblind import fit_filter
from .sets import Pair, least_side, read_kernel

METHODS = ("none", "prior", "nonblind", "fast", "thorough", "paper")
NO_WORSE = 0.1  # dB: a result below the backbone alone by more than this counts as a loss
Report = Callable[[dict], None]


@dataclass(frozen=True)
class Plan:
    """How every image of a set is measured.

    Attributes:
        method: ``none`` (backbone alone), ``prior`` (the pre-trained correction network as it is, at full strength),
            ``nonblind`` (one 5x5 filter, in closed form from the true kernel), ``fast`` or ``paper`` (adaptation).
        options: for ``fast`` and ``paper``.
        with_prior: measure the prior as well.
        kernels: compare the estimated kernel with the true one (``fast`` and ``paper``).
    """

    method: str
    options: AdaptOptions | None = None
    with_prior: bool = False
    kernels: bool = False


@dataclass(frozen=True)
class Workplace:
    """Where an adaptation keeps its state, and whether to resume what is there."""

    adapter: Path
    resume: bool = False


def evaluate_image(lr_path: Path, hr_path: Path, backbone: Backbone, options: AdaptOptions | None) -> dict:
    """Adapt to one LR image and compare the result with its ground truth.

    Args:
        options: None measures the backbone alone.

    Returns:
        The row of :func:`measure`.

    Raises:
        DarsrError: an image cannot be used, or the sizes do not differ by the scale.
    """
    plan = Plan("none" if options is None else options.name, options)
    with tempfile.TemporaryDirectory() as folder:
        pair = Pair(lr_path, hr_path, Path(folder) / "none.npz")
        return measure(pair, backbone, plan, Workplace(Path(folder) / "a.darsr"))[0]


def measure(
    pair: Pair, backbone: Backbone, plan: Plan, work: Workplace, device: str = "cpu", report: Report = lambda _: None
) -> tuple[dict, dict[str, np.ndarray], tuple[np.ndarray, ...]]:
    """Super-resolve one image in every way of the plan and compare with its ground truth, inside its mask if it has one.

    Returns:
        A row (``name``, ``seconds`` to find the correction, ``chosen``, and those of :func:`compare`) and the 8-bit
        images ``bicubic``, ``backbone``, ``prior`` if planned, ``result``, ``truth``, in this order. Last the
        estimated and the true kernel, if planned: then the row has ``kernel_error`` too, and ``kernel_error_backbone`` of
        the bicubic kernel that the backbone alone assumes.

    Raises:
        DarsrError: an image cannot be used, its sizes do not fit, or the method lacks what it needs.
    """
    lr, hr = check_truth(pair.lr, pair.hr, backbone.scale)
    mask = None if pair.mask is None else read_mask(pair.mask, hr, backbone.scale)
    true = read_kernel(pair.kernel) if plan.kernels else None
    network, seconds, chosen, estimated = _corrected(pair, lr, backbone, plan, work, device, report)
    images = {"bicubic": imresize(lr, *hr.shape[:2]), "backbone": upscale_with(backbone.module, lr, device)}
    if plan.with_prior:
        images["prior"] = upscale_with(_with_prior(lr, backbone, device), lr, device)
    images["result"] = images["backbone"] if plan.method == "none" else upscale_with(network, lr, device)
    row = {"name": pair.lr.stem, "seconds": seconds, "chosen": chosen, **compare(images, hr, backbone.scale, mask)}
    images["truth"] = hr
    if true is None:
        return row, images, ()
    assumed = bicubic_table(backbone.scale).numpy()
    estimated = assumed if estimated is None else estimated
    row |= {"kernel_error": kernel_error(estimated, true), "kernel_error_backbone": kernel_error(assumed, true)}
    return row, images, (estimated, true)


def _corrected(
    pair: Pair, lr: np.ndarray, backbone: Backbone, plan: Plan, work: Workplace, device: str, report: Report
) -> tuple[nn.Module, float, str, np.ndarray | None]:
    """Return the network of the plan's method, the seconds to find the correction, what was chosen, the kernel found."""
    if plan.method == "none":
        return backbone.module, 0.0, "backbone alone", None
    if plan.method == "prior":
        return _with_prior(lr, backbone, device), 0.0, "prior", None
    if plan.method == "nonblind":
        kernel = torch.from_numpy(read_kernel(pair.kernel))
        if min(lr.shape[:2]) < 3 * backbone.scale:
            raise DarsrError(
                str(pair.lr), f"is too small for nonblind (least side {3 * backbone.scale})", "leave it out"
            )
        started = time.perf_counter()
        correction = fit_filter(torch.from_numpy(to_tensor(lr)), kernel, backbone.scale)
        seconds = time.perf_counter() - started
        return Pipeline(correction.to(device), backbone.module), seconds, "true kernel", None
    work.adapter.unlink(missing_ok=True)  # left by a run killed before it could compare: its seconds are unknown
    adapter, seconds = adapt_image(pair.lr, work.adapter, backbone, plan.options, device, work.resume, report)
    work.adapter.unlink()
    return adapted(adapter, backbone, device), seconds, adapter.facts["chosen"], adapter.arrays.get("kernel")


def _with_prior(lr: np.ndarray, backbone: Backbone, device: str) -> Pipeline:
    """Return the backbone behind the prior that ``fast`` would start from for this image."""
    prior = load_prior(backbone.scale, camera=camera_probability(lr) > 0.5)
    return Pipeline(prior.requires_grad_(False).to(device), backbone.module)


def compare(
    images: dict[str, np.ndarray], truth: np.ndarray, scale: int, mask: np.ndarray | None = None
) -> dict[str, float]:
    """Compute PSNR in dB and SSIM of 8-bit images against the truth, ``scale`` pixels dropped on each side.

    Args:
        mask: H x W, bool; only these pixels count.

    Returns:
        ``psnr_y, ssim_y, psnr_rgb, ssim_rgb`` of ``images["result"]``, the same with ``_NAME`` for every other image,
        and ``gain``: dB of Y-PSNR over ``images["backbone"]``.
    """
    row = {}
    for name in ("result", *(n for n in images if n != "result")):
        tail = "" if name == "result" else f"_{name}"
        for figure in (psnr_y, ssim_y, psnr_rgb, ssim_rgb):
            row[f"{figure.__name__}{tail}"] = figure(images[name], truth, scale, mask)
    alike = math.isinf(row["psnr_y"]) and math.isinf(row["psnr_y_backbone"])  # both equal the truth
    row["gain"] = 0.0 if alike else row["psnr_y"] - row["psnr_y_backbone"]
    return row


def average_rows(rows: list[dict]) -> dict:
    """Average every figure over the images that have it."""
    names = dict.fromkeys(key for row in rows for key, value in row.items() if isinstance(value, float))
    return {name: float(np.mean([row[name] for row in rows if name in row])) for name in names}


def check_truth(image: Path, truth: Path, scale: int) -> tuple[np.ndarray, np.ndarray]:
    """Read an LR image and its ground truth.

    Raises:
        DarsrError: one cannot be read, the sizes do not differ by the scale, or they are too small to compare.
    """
    lr, hr = read_image(image), read_image(truth)
    if hr.shape[:2] != (lr.shape[0] * scale, lr.shape[1] * scale) or hr.ndim != lr.ndim:
        sizes = (
            f"is {hr.shape[1]}x{hr.shape[0]}, expected {scale} times {lr.shape[1]}x{lr.shape[0]} in the same colours"
        )
        raise DarsrError(str(truth), sizes, "give the image's own truth, or another --scale")
    if min(hr.shape[:2]) < least_side(scale):
        raise DarsrError(str(truth), f"is too small to compare (least side {least_side(scale)})", "leave it out")
    return lr, hr


def read_mask(path: Path, hr: np.ndarray, scale: int) -> np.ndarray:
    """Read a mask: H x W, bool, true where the file is 255.

    Raises:
        DarsrError: it cannot be read, is not of the size of ``hr``, or counts no pixel that SSIM is defined for.
    """
    mask = read_image(path)
    if mask.shape[:2] != hr.shape[:2]:
        sizes = f"is {mask.shape[1]}x{mask.shape[0]}, expected {hr.shape[1]}x{hr.shape[0]}"
        raise DarsrError(str(path), sizes, "give a mask of the HR image's size")
    counted = (mask == 255) if mask.ndim == 2 else (mask == 255).all(-1)
    if not shave(counted, least_side(scale) // 2).any():
        raise DarsrError(
            str(path), "counts no pixel inside the borders", "give a mask that is 255 where a pixel counts"
        )
    return counted


def compare_with_truth(image: Path, truth: Path, adapter: Adapter, backbone: Backbone, device: str = "cpu") -> dict:
    """Compute ``psnr_y`` of an adapted image and ``psnr_y_backbone`` of the backbone alone against an HR image."""
    lr, hr = check_truth(image, truth, backbone.scale)
    result = upscale_with(adapted(adapter, backbone, device), lr, device)
    plain = upscale_with(backbone.module, lr, device)
    return {"psnr_y": psnr_y(result, hr, backbone.scale), "psnr_y_backbone": psnr_y(plain, hr, backbone.scale)}


def save_corrected(image: Path, adapter: Adapter, target: Path, device: str = "cpu") -> None:
    """Write the corrected LR image: the image the backbone is given."""
    pixels = read_image(image)
    corrected = upscale_with(correction_of(adapter).to(device), pad_to_least(pixels), device)
    write_image(target, corrected[: pixels.shape[0], : pixels.shape[1]])
