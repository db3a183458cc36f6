"""The shape of a blur: what the network is told, what it answers, and how it is trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from skimage import data

from darsr_deploy.blind import shape
from darsr_deploy.degradation import covariance as moments
from darsr_deploy.degradation import kernels
from darsr_deploy.degradation.reduction import reduce
from darsr_deploy.images.arrays import write_image
from darsr_train.blind.networks import TorchNetworks
from darsr_train.degradation.odd_kernels import random_lobes
from darsr_train.evaluation.kernel_error import kernel_error
from darsr_train.training import shape as train_shape

PHOTO = np.ascontiguousarray(data.chelsea()[:256, 60:380].transpose(2, 0, 1)[None], np.float32)


def blurred(kernel: np.ndarray) -> np.ndarray:
    """LR 1 x 3 x 128 x 160 in [0, 1], of 8 bits."""
    return (reduce(PHOTO, kernel, 2).clip(0, 255).round() / 255).astype(np.float32)


def estimated(y: np.ndarray) -> np.ndarray:
    return shape.estimate_kernel(TorchNetworks(2).restore(y).clip(0, 1), y)


@pytest.mark.parametrize(
    "kernel",
    [kernels.disk(12, 2.5), kernels.disk(12, 3.5), random_lobes(np.random.default_rng(3), 12)],
    ids=["disk", "wide disk", "lobes"],
)
def test_sees_what_no_gaussian_describes(kernel):
    found = estimated(blurred(kernel))
    assert found.shape == (14, 14) and found.min() >= 0 and found.sum() == pytest.approx(1)
    like = kernels.estimated(moments.covariance_of(kernel, 2), 2)
    error = min(kernel_error(k, kernel) for k in (found, found[::-1, ::-1]))
    assert error < 0.25 and error < 0.8 * kernel_error(like, kernel)


def test_a_gaussian_is_seen_as_one():
    kernel = kernels.gaussian(12, 1.6, 1.0, 0.4)
    assert kernel_error(estimated(blurred(kernel)), kernel) < 0.15


@pytest.mark.parametrize("view", range(1, shape.VIEWS))
def test_a_turned_picture_has_the_turned_kernel(view):
    y = blurred(kernels.motion(12, 6, 0.5, 0.8, 0.6))[..., :128]
    x = TorchNetworks(2).restore(y).clip(0, 1)
    turned = [np.stack([[shape.viewed(plane, view) for plane in image[0]]]) for image in (x, y)]
    expected = shape.viewed(shape.estimate_kernel(x, y), view)
    found = shape.estimate_kernel(*turned)
    assert min(np.abs(k - expected).max() for k in (found, found[::-1, ::-1])) < 0.01


@pytest.mark.parametrize("view", range(shape.VIEWS))
def test_every_view_is_undone(view):
    array = np.random.default_rng(0).random((5, 5))
    assert np.array_equal(shape.viewed(shape.viewed(array, view), shape._INVERSE[view]), array)
    batch = torch.from_numpy(np.stack([array] * 2))
    assert np.array_equal(train_shape._view(batch, view)[1].numpy(), shape.viewed(array, view))


def test_brightness_and_contrast_do_not_matter_to_the_spectrum():
    plane = 100 + 40 * np.random.default_rng(0).standard_normal((96, 128))
    first = shape._mean_spectrum(plane)
    assert np.allclose(first, shape._mean_spectrum(plane + 50)) and first.mean() == pytest.approx(0, abs=0.05)
    assert np.allclose(first, shape._mean_spectrum(0.7 * plane), atol=0.1), "but for the floor of rounding"
    assert np.allclose(first, first[::-1, ::-1]), "frequency 0 is in the middle"


def test_numpy_computes_what_was_trained():
    torch.manual_seed(0)
    network = train_shape.ShapeNetwork(torch.rand(31, 31), torch.tensor(1.3)).eval()
    weights = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    spectrum, explained, rest = torch.rand(31, 31), torch.rand(12, 12), torch.tensor(0.4)
    with torch.no_grad():
        expected = network(spectrum[None], explained[None], rest[None])[0]
    found = shape.evaluate(weights, spectrum.numpy(), explained.numpy(), float(rest))
    np.testing.assert_allclose(found, expected, atol=1e-7)


def test_drawn_kernels_are_kernels_of_many_kinds():
    drawn = [train_shape.draw_kernel(np.random.default_rng(seed)) for seed in range(60)]
    assert all(k.shape == (14, 14) and k.min() >= 0 and k.sum() == pytest.approx(1) for k in drawn)
    apart = [np.linalg.norm(k - kernels.estimated(moments.covariance_of(k, 2), 2)) / np.linalg.norm(k) for k in drawn]
    assert min(apart) < 0.1 and max(apart) > 0.5


def test_samples_go_on_where_they_were_interrupted_and_teach(tmp_path, monkeypatch):
    write_image(tmp_path / "photo.png", data.coffee())
    photographs, kept = [tmp_path / "photo.png"], tmp_path / "kept"
    whole = train_shape.make_samples(photographs, 24, 3, tmp_path / "other")
    monkeypatch.setattr(train_shape, "_KEEP_EVERY", 5)
    observe, left = shape.observe, iter(range(12))

    def interrupted(*given):
        next(left)  # StopIteration
        return observe(*given)

    with monkeypatch.context() as patch:
        patch.setattr(shape, "observe", interrupted)
        with pytest.raises(StopIteration):
            train_shape.make_samples(photographs, 24, 3, kept)
    assert len(np.load(kept)["rest"]) == 10
    resumed = train_shape.make_samples(photographs, 24, 3, kept)
    assert all(np.array_equal(resumed[name], whole[name]) for name in whole)
    errors = [train_shape.train(whole, steps)[1]["error"] for steps in (1, 60)]
    assert errors[1] < errors[0]


def test_the_recipe_command_writes_what_is_loaded(tmp_path, monkeypatch):
    (tmp_path / "photos").mkdir()
    write_image(tmp_path / "photos" / "a.png", data.coffee())
    out = tmp_path / "shape-x2.safetensors"
    monkeypatch.setattr(
        "sys.argv", ["shape", str(tmp_path / "photos"), "--out", str(out), "--samples", "6", "--steps", "2"]
    )
    train_shape.main()
    monkeypatch.setattr(shape, "shape_path", lambda: Path(out))
    shape._weights.cache_clear()
    try:
        assert estimated(blurred(kernels.disk(12, 2))).sum() == pytest.approx(1)
    finally:
        shape._weights.cache_clear()
