"""The whole way on a photograph whose truth is known: blur it, adapt, export, infer, compare."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from darsr_deploy.engines.ort import OrtEngine
from darsr_deploy.engines.torch_engine import TorchEngine
from darsr_deploy.engines.upscale import upscale
from darsr_deploy.errors import DarsrError
from darsr_deploy.images.arrays import read_image, write_image
from darsr_deploy.images.metrics import psnr_y
from darsr_deploy.images.resample import imresize, to_uint8
from darsr_deploy.install import install
from darsr_train.adaptation.adapt import adapt_image
from darsr_train.adaptation.options import AdaptOptions
from darsr_train.backbones import load_backbone
from darsr_train.degradation.kernels import random_gaussian
from darsr_train.degradation.reduction import reduce

from ..artefacts.cache import Source, load
from ..artefacts.model import export_onnx

_SCALE = 2


@dataclass(frozen=True)
class DemoResult:
    """Y-PSNR in dB (border 2) and the seconds of each step, in the order they are shown; files that were written."""

    psnr: dict[str, float]
    seconds: dict[str, float]
    files: dict[str, Path]


def demo_photo() -> np.ndarray:
    """A photograph that comes with scikit-image: uint8, 300 x 450 x 3.

    Raises:
        DarsrError: scikit-image is not installed.
    """
    try:
        import skimage.data
    except ImportError as error:
        raise DarsrError(
            "the demo's photograph",
            "scikit-image, which ships it, is not installed",
            f"install it: {install('train')}",
        ) from error
    return skimage.data.chelsea()[:, :450]


def degrade(photo: np.ndarray, seed: int) -> np.ndarray:
    """Blur with a random anisotropic Gaussian, keep every second pixel, round to 8 bits."""
    kernel = torch.from_numpy(random_gaussian(np.random.default_rng(seed), 16, low=1.0)).float()
    tensor = torch.from_numpy(photo.transpose(2, 0, 1)[None].astype(np.float32))
    return to_uint8(reduce(tensor, kernel, _SCALE)[0].permute(1, 2, 0).numpy())


def run_demo(folder: Path, seed: int = 0, report: Callable[[dict], None] = lambda _: None) -> DemoResult:
    """Write ``photo.png`` (blurred), ``photo.darsr``, ``photo.onnx``, ``photo_x2.png`` and ``comparison.png`` to a folder.

    The kernel is drawn from the seed and used for blurring alone: adaptation sees the blurred image only.
    """
    files = {
        name: folder / name for name in ("photo.png", "photo.darsr", "photo.onnx", "photo_x2.png", "comparison.png")
    }
    foreign = [p.name for p in folder.iterdir() if p.name not in files] if folder.is_dir() else []
    if foreign:  # photo.png is a likely name: never overwrite a user's own
        raise DarsrError(str(folder), f"holds other files ({foreign[0]})", "give an empty folder with -o")
    folder.mkdir(parents=True, exist_ok=True)
    truth = demo_photo()
    write_image(files["photo.png"], degrade(truth, seed))
    lr = read_image(files["photo.png"])
    backbone = load_backbone("edge", _SCALE)
    seconds = {}

    started = time.perf_counter()
    adapt_image(files["photo.png"], files["photo.darsr"], backbone, AdaptOptions.profile("fast", _SCALE), report=report)
    seconds["adapt"] = time.perf_counter() - started

    started = time.perf_counter()
    pipeline, spec = load(Source(adapter=files["photo.darsr"]))
    export_onnx(pipeline, files["photo.onnx"], spec)
    plain, plain_spec = load(Source(scale=_SCALE))
    seconds["export and verify"] = time.perf_counter() - started

    started = time.perf_counter()
    with OrtEngine(files["photo.onnx"]) as engine:
        seconds["load"] = time.perf_counter() - started
        started = time.perf_counter()
        adapted = upscale(engine, lr)
        seconds["infer"] = time.perf_counter() - started
    write_image(files["photo_x2.png"], adapted)

    with TorchEngine(plain, plain_spec) as engine:
        alone = upscale(engine, lr)
    images = {"bicubic": imresize(lr, *truth.shape[:2]), "backbone alone": alone, "adapted": adapted}
    write_image(files["comparison.png"], comparison({**images, "truth": truth}))
    return DemoResult({name: psnr_y(image, truth, _SCALE) for name, image in images.items()}, seconds, files)


def comparison(images: dict[str, np.ndarray], zoom: int = 3) -> np.ndarray:
    """Crops side by side, enlarged without smoothing, each under its name."""
    panels = []
    for name, image in images.items():
        height, width = image.shape[:2]
        side = min(height, width, 150)
        top, left = max(0, (height - side) // 2 - height // 8), (width - side) // 2
        crop = image[top : top + side, left : left + side]
        panel = cv2.resize(crop, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_NEAREST)
        title = np.full((36, panel.shape[1], 3), 255, np.uint8)
        cv2.putText(title, name, (8, 25), cv2.FONT_HERSHEY_SIMPLEX, 0.7, (20, 20, 20), 1, cv2.LINE_AA)
        panels.append(np.vstack([title, panel]))
    return np.hstack([np.pad(p, ((4, 4), (4, 4), (0, 0)), constant_values=255) for p in panels])
