"""The curve of profile ``paper`` goes on where it was stopped, and its table is of what was kept."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage import data

from darsr_deploy.images.arrays import write_image
from darsr_deploy.images.resample import imresize
from darsr_train.adaptation import checkpoint
from darsr_train.adaptation.options import AdaptOptions
from darsr_train.backbones import Backbone, EdgeSR
from darsr_train.evaluation.sets import Pair
from export.benchmarks import paper_curve
from export.benchmarks.paper_curve import measure, table

OPTIONS = AdaptOptions.profile("paper", 2, steps=4, batch=1, crop=16, dsem_steps=1)


@pytest.fixture
def pair(tmp_path) -> Pair:
    truth = np.ascontiguousarray(data.coffee()[100:240, 150:290])
    for name, image in (("lr.png", imresize(truth, 70, 70)), ("hr.png", truth)):
        write_image(tmp_path / name, image)
    return Pair(tmp_path / "lr.png", tmp_path / "hr.png", tmp_path / "none.npz")


@pytest.fixture
def backbone(monkeypatch) -> Backbone:
    alone = {"psnr_y_backbone": 25.0, "psnr_y": 27.0}
    monkeypatch.setattr(paper_curve, "evaluate_image", lambda *args: alone)
    torch.manual_seed(0)
    return Backbone(EdgeSR(2, channels=8, blocks=1).eval().requires_grad_(False), "tiny", "edge", 2, "")


def without_times(found: dict) -> dict:
    curve = [{key: value for key, value in row.items() if key != "seconds"} for row in found["curve"]]
    return found | {"curve": curve, "seconds": None}


def test_a_curve_that_was_stopped_goes_on_to_the_same_rows(pair, backbone, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "_EVERY_SECONDS", 0.0)
    for name in ("whole", "stopped"):
        (tmp_path / name).mkdir()
    whole = measure(pair, backbone, OPTIONS, tmp_path / "whole")
    assert [row["step"] for row in whole["curve"]] == [1, 2, 3, 4] and len(whole["cycles"]) == 4
    real, calls = paper_curve.psnr_y, []

    def stop(*images) -> float:
        calls.append(images)
        if len(calls) == 7:
            raise KeyboardInterrupt
        return real(*images)

    monkeypatch.setattr(paper_curve, "psnr_y", stop)
    with pytest.raises(KeyboardInterrupt):
        measure(pair, backbone, OPTIONS, tmp_path / "stopped")
    resumed = measure(pair, backbone, OPTIONS, tmp_path / "stopped")
    assert 7 < len(calls) < 7 + 4 * 3, "up to three of a step: the iterate, the average, and that at its best strength"
    assert without_times(resumed) == without_times(whole)
    assert measure(pair, backbone, OPTIONS, tmp_path / "stopped") == resumed, "what is done is read"


def test_the_table_is_of_the_averages_and_of_what_was_kept():
    curve = [
        {"step": step, "seconds": 30.0, "iterate": 20.0 + step, "judged": 20.0 + step / 2} for step in range(1, 11)
    ]
    image = {"set": "gaussian_x2", "name": "one", "backbone": 24.0, "fast": 27.0, "kept": 25.5, "seconds": 300.0}
    assert table([image | {"curve": curve}], 10).splitlines()[2:] == [
        "| `gaussian_x2` one | 24.00 | 20.50 | 21.00 | 22.50 | 23.50 | 25.00 | 25.50 | +1.50 | 30.00 | 27.00 | 5 |",
        "| mean | 24.00 | 20.50 | 21.00 | 22.50 | 23.50 | 25.00 | 25.50 | +1.50 | 30.00 | 27.00 | 5 |",
    ]
