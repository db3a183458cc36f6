"""What int8 costs against the truth: at most 0.2 dB."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from darsr_deploy.engines.ort import OrtEngine
from darsr_deploy.engines.upscale import upscale
from darsr_deploy.images.arrays import read_image, write_image
from darsr_deploy.images.metrics import psnr_y
from darsr_train.adaptation.adapt import adapt_image
from darsr_train.adaptation.options import AdaptOptions
from darsr_train.backbones import load_backbone
from darsr_train.evaluation.degrade import degrade, draw
from export.artefacts.model import export_onnx
from export.artefacts.subject import Source, Subject
from tests.support.shared import SHARED, needs_shared

MOST_DB = 0.2
BLIND = SHARED / "data" / "blind" / "gaussian_x2"


def qualities(lr: Path, truth: np.ndarray, adapter: Path, steps: int | None) -> dict[str, float]:
    """Y-PSNR against the truth by precision, of an image that is adapted to first."""
    adapt_image(lr, adapter, load_backbone("edge", 2), AdaptOptions.profile("fast", 2, steps=steps))
    subject = Subject(Source(adapter=adapter), image=lr)
    found = {}
    for precision in ("fp32", "int8"):
        model = adapter.with_name(f"{precision}.onnx")
        export_onnx(subject.pipeline, model, subject.spec.extended(precision=precision), samples=subject.samples)
        with OrtEngine(model) as engine:
            found[precision] = psnr_y(upscale(engine, read_image(lr)), truth, 2)
    print(lr.name, {name: round(value, 3) for name, value in found.items()})
    return found


def test_int8_on_a_photograph_that_comes_with_a_package(tmp_path):
    data = pytest.importorskip("skimage.data", reason="scikit-image (extra train) brings the photographs")
    truth = np.ascontiguousarray(data.chelsea()[60:220, 100:300])
    write_image(tmp_path / "a.png", degrade(truth, draw("gaussian", 2, 0, "a"), 2))
    figures = qualities(tmp_path / "a.png", truth, tmp_path / "a.darsr", steps=2)
    assert figures["int8"] >= figures["fp32"] - MOST_DB


@needs_shared
@pytest.mark.slow
@pytest.mark.parametrize("name", ["bsd_001.png", "bsd_004.png", "bsd_007.png"])
def test_int8_on_blurred_photographs(name, tmp_path):
    figures = qualities(BLIND / "LR" / name, read_image(BLIND / "HR" / name), tmp_path / "a.darsr", steps=None)
    assert figures["int8"] >= figures["fp32"] - MOST_DB
