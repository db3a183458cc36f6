"""The estimator of degradations: its hand-made part, its units, its training."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from darsr_deploy.blind.estimator import FLAGS, VALUES, read_output
from darsr_deploy.degradation import covariance as moments
from darsr_deploy.degradation.condition import LOSSLESS
from darsr_deploy.images.arrays import write_image
from darsr_train.blind.estimator import Estimator, blockiness, load_estimator, save_estimator
from darsr_train.degradation.wild import compress
from darsr_train.training.crops.wild import KINDS
from darsr_train.training.estimator import EstimatorTraining, LabelledCrops, accuracy, train_estimator


def image_of(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels.transpose(2, 0, 1)[None].astype(np.float32) / 255)


def test_blocks_are_seen_wherever_the_grid_begins(photo):
    compressed = compress(photo, np.random.default_rng(0), 25)
    clean = blockiness(image_of(photo))
    for top, left in ((0, 0), (3, 5)):
        assert blockiness(image_of(compressed[top:, left:])).sum() > 1.5 * clean.sum()


def test_output_is_read_in_the_units_of_a_condition():
    output = np.zeros(2 * len(VALUES) + len(FLAGS), np.float32)
    output[0] = math.log(0.5)  # variance in LR pixels squared
    output[3], output[4], output[5] = 0.4, 0.5, 1.0
    output[2 * len(VALUES) :] = 3
    found = read_output(output, 2)
    assert np.allclose(found.condition.covariance, 2 * np.eye(2))
    assert np.allclose(read_output(output, 4).condition.covariance, 1.6 * np.eye(2))
    assert math.isclose(found.condition.noise, 4, rel_tol=1e-6)
    assert math.isclose(found.condition.quality, 81, rel_tol=1e-6)
    assert math.isclose(found.condition.enlarged, 2)
    output[2 * len(VALUES) + FLAGS.index("compressed")] = -3
    assert read_output(output, 2).condition.quality == LOSSLESS


@pytest.mark.parametrize("shape", [(32, 32), (33, 47), (64, 40)])
def test_any_size_is_judged(shape):
    output = Estimator()(torch.rand(2, 3, *shape))
    assert output.shape == (2, 2 * len(VALUES) + len(FLAGS)) and output.isfinite().all()


def test_training_resumes_to_the_same_network(tmp_path):
    data = pytest.importorskip("skimage.data")
    photographs = tmp_path / "photographs"  # a folder of their own: the learning curve is an image too
    photographs.mkdir()
    write_image(photographs / "a.png", np.ascontiguousarray(data.astronaut()[:300, :300]))
    options = EstimatorTraining(steps=4, batch=2, patch=40, save_every=2, bf16=False)
    through = train_estimator(photographs, tmp_path / "e.safetensors", options)
    assert all(p.isfinite().all() for p in through.parameters())
    stop = 2

    class Stopped(Exception):
        pass

    def report(entry: dict) -> None:
        if entry["step"] == stop + 1:
            raise Stopped

    (tmp_path / "e.checkpoint").unlink()
    with pytest.raises(Stopped):
        train_estimator(photographs, tmp_path / "e.safetensors", options, report=report)
    resumed = train_estimator(photographs, tmp_path / "e.safetensors", options, resume=True)
    for a, b in zip(through.parameters(), resumed.parameters()):
        assert torch.equal(a, b)
    save_estimator(resumed, tmp_path / "e.safetensors", {})
    image = torch.rand(1, 3, 40, 40)
    rounded = resumed.half().float()  # as the file holds it
    assert torch.allclose(load_estimator(tmp_path / "e.safetensors")(image), rounded(image), atol=1e-6)
    crops = LabelledCrops([photographs / "a.png"], options)
    table = accuracy(resumed, crops, 12)
    assert table.keys() <= set(KINDS) and sum(row["crops"] for row in table.values()) == 12


def test_truth_of_a_blur_is_that_of_its_kernel():
    assert np.allclose(moments.covariance_of(np.full((2, 2), 0.25), 2), 0.25 * np.eye(2))
