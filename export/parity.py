"""The parity gate: no file is written that does not compute what PyTorch computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from darsr_deploy.errors import DarsrError
from darsr_deploy.metrics import psnr
from darsr_deploy.ort_engine import OrtEngine
from darsr_train.pipeline import Pipeline

# Least PSNR (peak 1) of the worst test image against PyTorch in float32, by precision.
FLOORS_DB = {"fp32": 80.0}
SIZES = ((48, 64), (61, 75))  # two sizes, one of them odd
_SEED = 7


def natural_noise(height: int, width: int, seed: int = _SEED) -> np.ndarray:
    """A 1 x 3 x height x width picture in [0, 1] with the statistics of a photograph: 1/f spectrum, related colours."""
    random = np.random.default_rng(seed)
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    falloff = 1 / np.maximum(np.hypot(fy, fx), 1 / max(height, width))
    grey, *tints = (
        np.fft.irfft2(np.fft.rfft2(random.standard_normal((height, width))) * falloff, s=(height, width))
        for _ in range(4)
    )
    picture = np.stack([grey + 0.3 * tint for tint in tints])
    picture = (picture - picture.mean()) / picture.std() * 0.22 + 0.5
    return picture.clip(0, 1)[None].astype(np.float32)


def parity_db(model: str | Path, pipeline: Pipeline) -> float:
    """Worst PSNR in dB between the file in ONNX Runtime (CPU) and the pipeline in PyTorch, over :data:`SIZES`."""
    figures = []
    with OrtEngine(model) as engine, torch.no_grad():
        for height, width in SIZES:
            lr = natural_noise(height, width)
            got, expected = engine.run(lr), pipeline(torch.from_numpy(lr)).numpy()
            figures.append(psnr(got, expected, peak=1.0) if np.isfinite(got).all() else 0.0)
    return min(figures)


def require_parity(model: str | Path, pipeline: Pipeline, target: Path, floor_db: float) -> float:
    """Measure parity; values over 200 dB (equal to the last bit) are given as 200.

    Raises:
        DarsrError: below the floor, or it runs only at some sizes. The line holds the figure and the file's name.
    """
    try:
        measured = min(parity_db(model, pipeline), 200.0)
    except DarsrError as error:
        why = str(error).removeprefix(f"{model}: ").partition("; ")[0]
        raise DarsrError(
            str(target), f"the exported model does not work, so nothing was written ({why})", "use --engine torch"
        ) from error
    if measured < floor_db:
        raise DarsrError(
            str(target),
            f"the exported model differs from PyTorch: {measured:.1f} dB, at least {floor_db:.1f} dB are required, so nothing was written",
            "report this, or accept it with --floor",
        )
    return measured
