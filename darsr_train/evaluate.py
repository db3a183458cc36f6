"""Measuring adaptation on images whose truth is known. The truth is compared with, never adapted to."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from darsr_deploy.adapter import Adapter
from darsr_deploy.errors import DarsrError
from darsr_deploy.imaging import list_images, read_image, to_image, to_tensor, write_image
from darsr_deploy.metrics import psnr_y, ssim_y
from darsr_deploy.resample import imresize
from darsr_deploy.upscale import pad_to_least

from .adapt import adapt_image
from .backbones import Backbone
from .config import AdaptOptions
from .pipeline import correction_of, pipeline_of

_SSIM_WINDOW = 11  # pixels


def image_pairs(folder: Path) -> list[tuple[Path, Path]]:
    """(LR, HR) files of equal names in ``folder/LR`` and ``folder/HR``.

    Raises:
        DarsrError: a folder or a partner is missing.
    """
    if not (folder / "LR").is_dir() or not (folder / "HR").is_dir():
        raise DarsrError(
            str(folder), "does not hold the folders LR and HR", "give a folder of image pairs with equal names"
        )
    pairs = [(lr, folder / "HR" / lr.name) for lr in list_images(folder / "LR")]
    missing = [hr for _, hr in pairs if not hr.is_file()]
    if missing or not pairs:
        raise DarsrError(
            str(missing[0] if missing else folder / "LR"),
            "is missing" if missing else "holds no images",
            "LR and HR need equal names",
        )
    return pairs


def upscale_with(network: nn.Module, image: np.ndarray, device: str = "cpu") -> np.ndarray:
    """8-bit result of a network (N x 3 x H x W in [0, 1] in and out) on an 8-bit image."""
    with torch.inference_mode():
        lr = torch.from_numpy(to_tensor(image)).to(device, memory_format=torch.channels_last)
        return to_image(network(lr).float().cpu().numpy(), gray=image.ndim == 2)


def evaluate_image(
    lr_path: Path,
    hr_path: Path,
    backbone: Backbone,
    options: AdaptOptions | None,
    device: str = "cpu",
    report: Callable[[dict], None] = lambda _: None,
) -> dict:
    """Adapt to one LR image and compare with its truth.

    Args:
        options: None measures the backbone alone.

    Returns:
        ``{name, psnr_y, ssim_y, psnr_y_backbone, ssim_y_backbone, psnr_y_bicubic, seconds, chosen}``.

    Raises:
        DarsrError: an image cannot be used, or the two sizes do not differ by the scale.
    """
    scale = backbone.scale
    lr, hr = check_truth(lr_path, hr_path, scale)
    plain = upscale_with(backbone.module, lr, device)
    row = {"name": lr_path.stem, "seconds": 0.0, "chosen": "backbone alone"}
    result = plain
    if options is not None:
        with tempfile.TemporaryDirectory() as folder:
            adapter, row["seconds"] = adapt_image(
                lr_path, Path(folder) / "a.darsr", backbone, options, device, report=report
            )
        result = upscale_with(pipeline_of(adapter, backbone.module).to(device), lr, device)
        row["chosen"] = adapter.facts["chosen"]
    for name, image in (("", result), ("_backbone", plain), ("_bicubic", imresize(lr, *hr.shape[:2]))):
        row[f"psnr_y{name}"] = psnr_y(image, hr, scale)
        row[f"ssim_y{name}"] = ssim_y(image, hr, scale)
    return row


def mean_of(rows: list[dict]) -> dict:
    """Mean of every figure over the images."""
    return {key: float(np.mean([row[key] for row in rows])) for key in rows[0] if isinstance(rows[0][key], float)}


def check_truth(image: Path, truth: Path, scale: int) -> tuple[np.ndarray, np.ndarray]:
    """Read an LR image and its truth.

    Raises:
        DarsrError: one cannot be read, the sizes do not differ by the scale, or they are too small to compare.
    """
    lr, hr = read_image(image), read_image(truth)
    if hr.shape[:2] != (lr.shape[0] * scale, lr.shape[1] * scale) or hr.ndim != lr.ndim:
        sizes = (
            f"is {hr.shape[1]}x{hr.shape[0]}, expected {scale} times {lr.shape[1]}x{lr.shape[0]} in the same colours"
        )
        raise DarsrError(str(truth), sizes, "give the image's own truth, or another --scale")
    if min(hr.shape[:2]) < _SSIM_WINDOW + 2 * scale:
        raise DarsrError(str(truth), f"is too small to compare (least side {_SSIM_WINDOW + 2 * scale})", "leave it out")
    return lr, hr


def truth_figures(image: Path, truth: Path, adapter: Adapter, backbone: Backbone, device: str = "cpu") -> dict:
    """``psnr_y`` of an adapted image and ``psnr_y_backbone`` of the backbone alone, against a true HR image."""
    lr, hr = check_truth(image, truth, backbone.scale)
    adapted = upscale_with(pipeline_of(adapter, backbone.module).to(device), lr, device)
    plain = upscale_with(backbone.module, lr, device)
    return {"psnr_y": psnr_y(adapted, hr, backbone.scale), "psnr_y_backbone": psnr_y(plain, hr, backbone.scale)}


def save_corrected(image: Path, adapter: Adapter, target: Path, device: str = "cpu") -> None:
    """Write the corrected LR image, which looks as if it had been downscaled bicubically."""
    pixels = read_image(image)
    corrected = upscale_with(correction_of(adapter).to(device), pad_to_least(pixels), device)
    write_image(target, corrected[: pixels.shape[0], : pixels.shape[1]])
