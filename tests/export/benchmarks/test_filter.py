"""Every formulation of the correction filter computes what the plain one computes."""

from __future__ import annotations

import json
import sys

import numpy as np
import onnx
import pytest
import torch

from darsr_train.networks.darm import filter_with_taps
from export.benchmarks import filter as bench_filter
from export.benchmarks.filter import BODIES, model_of
from export.benchmarks.timing import ort_session
from export.benchmarks.timing import run as run_experiment


@pytest.mark.parametrize("name", BODIES)
def test_every_formulation_equals_the_plain_filter(name):
    model = model_of(BODIES[name]())
    onnx.checker.check_model(model, full_check=True)
    session = ort_session(model, threads=1)
    torch.manual_seed(0)
    for n, height, width in ((1, 3, 3), (2, 5, 8), (1, 31, 17)):
        x, c = torch.rand(n, 3, height, width), torch.randn(n, 13, height, width)
        got = session.run(None, {"x": x.numpy(), "c": c.numpy()})[0]
        expected = filter_with_taps(x, c).numpy()
        assert got.shape == expected.shape
        assert np.abs(got - expected).max() < 1e-6 * max(1, c.abs().sum(1).max().item())


def test_the_benchmark_has_a_row_for_each(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bench", "--sizes", "12x9", "8x7", "--threads", "1", "--repeats", "1", "--json"])
    run_experiment(bench_filter.main)
    tables = json.loads(capsys.readouterr().out)
    assert [(t["width"], t["height"]) for t in tables] == [(12, 9), (8, 7)]
    for table in tables:
        assert [row["name"] for row in table["rows"]] == [*BODIES, "PyTorch eager, 13 taps"]
        assert table["rows"][0]["times_faster"] == 1


@pytest.mark.parametrize("wrong", [["--sizes", "9"], ["--sizes", "2x9"], ["--repeats", "0"]])
def test_the_benchmark_refuses_what_it_cannot_measure(wrong, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bench", *wrong])
    with pytest.raises(SystemExit):
        run_experiment(bench_filter.main)
    assert "at least" in capsys.readouterr().err
