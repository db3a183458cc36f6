"""Run every step on a photograph with known truth: blur it, adapt, export, infer, compare."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from darsr_deploy import open_engine, upscale
from darsr_deploy.degradation.kernels import random_gaussian
from darsr_deploy.errors import DarsrError
from darsr_deploy.images.arrays import read_image, write_image
from darsr_deploy.images.metrics import psnr_y
from darsr_deploy.images.resample import imresize
from darsr_deploy.install import install
from darsr_train.adaptation.adapt import adapt_image
from darsr_train.adaptation.options import AdaptOptions
from darsr_train.backbones import load_backbone
from darsr_train.evaluation.degrade import Degradation, degrade
from darsr_train.pipeline import upscale_with
from darsr_train.plots.contact_sheet import Entry, draw_sheet, join_crops

from ..artefacts.model import export_onnx
from ..artefacts.subject import Source, Subject

_SCALE = 2


@dataclass(frozen=True)
class DemoResult:
    """Y-PSNR in dB (border 2) and the seconds of each step, in the order they are shown; files that were written."""

    psnr: dict[str, float]
    seconds: dict[str, float]
    files: dict[str, Path]


def demo_photo() -> np.ndarray:
    """Return a photograph that comes with scikit-image: uint8, 300 x 450 x 3.

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


def run_demo(folder: Path, seed: int = 0, report: Callable[[dict], None] = lambda _: None) -> DemoResult:
    """Write ``photo.png`` (blurred), ``photo.darsr``, ``photo.onnx``, ``photo_x2.png`` and ``comparison.png`` to a folder.

    The kernel is drawn from the seed and used for blurring alone: adaptation sees the blurred image only.

    Raises:
        DarsrError: the folder holds other files (photo.png is a likely name: a user's own is never overwritten).
    """
    names = ("photo.png", "photo.darsr", "photo.onnx", "photo_x2.png", "comparison.png")
    photo, adapter, model, result, sheet = (folder / name for name in names)
    foreign = [path.name for path in folder.iterdir() if path.name not in names] if folder.is_dir() else []
    if foreign:
        raise DarsrError(str(folder), f"holds other files ({foreign[0]})", "give an empty folder with -o")
    folder.mkdir(parents=True, exist_ok=True)
    truth = demo_photo()
    kernel = random_gaussian(np.random.default_rng(seed), 16, low=1.0)
    write_image(photo, degrade(truth, Degradation("gaussian", (kernel,)), _SCALE))
    lr, backbone = read_image(photo), load_backbone("edge", _SCALE)
    seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def timed(step: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        seconds[step] = time.perf_counter() - started

    with timed("adapt"):
        adapt_image(photo, adapter, backbone, AdaptOptions.profile("fast", _SCALE), report=report)
    with timed("export and verify"):
        subject = Subject(Source(adapter=adapter))
        export_onnx(subject.pipeline, model, subject.spec)
    with timed("load"):
        engine = open_engine(model)
    with engine, timed("infer"):
        adapted = upscale(engine, lr)
    write_image(result, adapted)
    images = {"bicubic": imresize(lr, *truth.shape[:2]), "backbone alone": upscale_with(backbone.module, lr)}
    images |= {"adapted": adapted, "truth": truth}
    scores = {name: psnr_y(image, truth, _SCALE) for name, image in images.items() if name != "truth"}
    figures = (*(f"{score:.2f} dB" for score in scores.values()), "")
    entry = Entry("chelsea (scikit-image)", f"blurred by the kernel of seed {seed}", join_crops(images), figures)
    write_image(sheet, draw_sheet("darsr demo", "x2, Y-PSNR against the truth", tuple(images), [entry]))
    return DemoResult(scores, seconds, {name: folder / name for name in names})
