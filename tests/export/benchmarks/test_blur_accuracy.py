"""The table of blur estimates: it runs what ``fast`` runs, and its columns mean what they say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from skimage import data

from darsr_deploy.degradation import covariance as moments
from darsr_deploy.images.arrays import read_image, to_tensor, write_image
from darsr_train.adaptation import fast as adapt_fast
from darsr_train.adaptation.adapt import adapt_image
from darsr_train.adaptation.options import AdaptOptions
from darsr_train.backbones import load_backbone
from darsr_train.evaluation.sets import find_pairs
from darsr_train.pipeline import pipeline_of, upscale_with
from export.benchmarks import blur_accuracy as bench_blur
from export.benchmarks.blur_accuracy import OFFSETS, Restorers, measure, table
from export.benchmarks.timing import run as run_experiment
from tests.support.commands import done


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench_blur")
    (folder / "photos").mkdir()
    write_image(folder / "photos" / "coffee.png", data.coffee()[100:356, 150:470])
    for scale in ("2", "4"):
        kinds = [option for kind in ("gaussian", "none") for option in ("--kind", kind)]
        done("degrade", folder / "photos", "-o", folder / "sets", *kinds, "--scale", scale)
    return folder / "sets"


@pytest.mark.parametrize("scale", [2, 4])
def test_as_estimated_is_what_fast_does(scale, sets, tmp_path, monkeypatch):
    monkeypatch.setattr(adapt_fast, "camera_probability", lambda pixels: 0.0)
    monkeypatch.setattr(adapt_fast, "select_candidate", lambda *_: ("adapted", "width"))
    (pair,) = find_pairs(sets / f"gaussian_x{scale}")
    backbone = replace(load_backbone("edge", scale), sha256="0" * 64)  # one without networks of its own
    adapter, _ = adapt_image(pair.lr, tmp_path / "a.darsr", backbone, AdaptOptions.profile("fast", scale))
    pixels, restorers = read_image(pair.lr), Restorers(scale)
    y = torch.from_numpy(to_tensor(pixels))
    ours = restorers.restored(y, restorers.estimate(y))
    theirs = upscale_with(pipeline_of(adapter, backbone.module), pixels)
    assert np.abs(ours.astype(int) - theirs).max() <= 1


def test_errors_are_those_of_the_estimate(sets):
    (pair,) = find_pairs(sets / "gaussian_x2")
    restorers = Restorers(2)
    row = measure(pair, restorers)
    with np.load(pair.kernel) as stored:
        truth = moments.logarithm(moments.covariance_of(stored["k0"], 2))
    estimate = moments.logarithm(restorers.estimate(torch.from_numpy(to_tensor(read_image(pair.lr)))))
    np.testing.assert_allclose(row["errors"], estimate - truth, atol=1e-4)
    assert not row["reduced"] and set(row["told"]) == {*OFFSETS, "truth"}
    assert row["told"]["truth"] > row["alone"] + 0.5
    assert len(set(row["told"].values())) == len(OFFSETS) + 1, "every way is another image"


def test_the_command_prints_a_row_for_each_set_of_the_scale(sets, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["bench_blur", str(sets), "--limit", "1"])
    run_experiment(bench_blur.main)
    out, err = capsys.readouterr()
    heads, _, gaussian, none = (line.split(" | ") for line in out.splitlines()[:4])
    assert len(heads) == len(gaussian) == len(none) and "skipped, its scale is 4" in err
    taken = heads.index("taken for only reduced")
    assert (gaussian[0], gaussian[taken]) == ("| gaussian_x2", "0")
    assert (none[0], none[taken], none[taken + 1]) == ("| none_x2", "1", "")


def test_a_set_whose_images_are_all_taken_for_reduced_has_no_errors():
    row = {"reduced": True, "errors": None, "told": dict.fromkeys([*OFFSETS, "truth"], 30.0), "alone": 31.0}
    line = table({"none": [row, row]}).splitlines()[2]
    assert line.startswith("| none | 2 | 2 |  |  | 31.00 | 30.00 ")


def test_a_folder_that_is_none_is_one_line(tmp_path, monkeypatch, capsys):
    """Also where others are good: a table with a row less would be taken for the whole."""
    monkeypatch.setattr("sys.argv", ["bench_blur", str(tmp_path / "nothing")])
    with pytest.raises(SystemExit, match=r"error: .*nothing: there is no such folder"):
        run_experiment(bench_blur.main)
    assert capsys.readouterr().out == ""


def test_what_is_missing_is_one_line(sets, tmp_path, monkeypatch):
    for name in ("LR", "HR"):
        (tmp_path / "bare" / name).mkdir(parents=True)
        write_image(
            tmp_path / "bare" / name / "a.png",
            data.coffee()[: 80 if name == "HR" else 40, : 80 if name == "HR" else 40],
        )
    monkeypatch.setattr("sys.argv", ["bench_blur", str(tmp_path / "bare")])
    with pytest.raises(SystemExit, match=r"error: .*a\.npz.*true kernel"):
        run_experiment(bench_blur.main)
