"""The estimate of an image's blur: least squares, statistics of sharpness, and the network that corrects the one by both."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import data

from darsr_deploy.blind import blur, sharpness
from darsr_deploy.blind.mlp import evaluate
from darsr_deploy.degradation import covariance as moments
from darsr_deploy.degradation import kernels
from darsr_deploy.files.container import read_container
from darsr_deploy.images.arrays import write_image
from darsr_train.backbones import load_backbone
from darsr_train.degradation.reduction import bicubic_table, reduce
from darsr_train.networks.mlp import fit
from darsr_train.networks.prior import load_prior
from darsr_train.training import blur as train_blur
from darsr_train.training.blur import samples


def photograph(name: str, scale: int = 2) -> torch.Tensor:
    """HR 1 x 3 x 240 x 300, at x4 300 x 400; none of these is among the training photographs."""
    height, width = (240, 300) if scale == 2 else (300, 400)
    part = getattr(data, name)()[:height, 40 : 40 + width]
    return torch.from_numpy(part.transpose(2, 0, 1)[None].astype(np.float32)) / 255


PHOTO = photograph("chelsea")


def turned(variances: tuple[float, float], angle: float) -> np.ndarray:
    axes = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return axes @ np.diag(variances) @ axes.T


def blurred(covariance: np.ndarray, photo: torch.Tensor = PHOTO, scale: int = 2) -> torch.Tensor:
    kernel = torch.from_numpy(kernels.estimated(covariance, scale)).float()
    return (reduce(photo, kernel, scale).clamp(0, 1) * 255).round() / 255


@torch.no_grad()
def restored(y: torch.Tensor, scale: int = 2) -> torch.Tensor:
    return load_backbone("edge", scale).module(load_prior(scale)(y)).clamp(0, 1)


def estimate(x: torch.Tensor, y: torch.Tensor, scale: int) -> np.ndarray:
    return blur.estimate_covariance(x.numpy(), y.numpy(), scale)


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Of two covariances: of their kernels, relative to the second."""
    a, b = (kernels.from_covariance(c, "gaussian") for c in (a, b))
    return np.linalg.norm(a - b) / np.linalg.norm(b)


BLURS = [turned(*blur) for blur in [((3.0, 1.0), 0.5), ((2.0, 2.0), 0.0), ((1.0, 3.5), 0.0), ((4.5, 0.8), 2.2)]]


@pytest.mark.parametrize("true", BLURS)
@pytest.mark.parametrize("scale", [2, 4])
def test_the_blur_of_a_photograph_is_found(true, scale):
    """Of one that is soft itself, too."""
    y = blurred(true, photograph("chelsea", scale), scale)
    assert distance(estimate(restored(y, scale), y, scale), true) < 0.35


@pytest.mark.parametrize("name", ["astronaut", "coffee"])
@pytest.mark.parametrize("scale", [2, 4])
def test_an_image_that_was_only_reduced_has_nothing_to_correct(name, scale):
    """A correction could only do harm. (A scene that is soft itself cannot be told from a blurred one.)"""
    hr = photograph(name, scale)
    y = (reduce(hr, bicubic_table(scale), scale).clamp(0, 1) * 255).round() / 255
    assert np.array_equal(estimate(restored(y, scale), y, scale), moments.LEAST * np.eye(2))
    lens = blurred(np.diag([1.5, 1.5]), hr, scale)
    assert estimate(restored(lens, scale), lens, scale).trace() > 1.5


def test_a_kernel_applied_twice_is_known_by_its_x2_kernel():
    kernel = kernels.from_covariance(BLURS[0], "gaussian", 20)
    np.testing.assert_allclose(
        moments.covariance_of(kernel, 2), moments.covariance_of(kernels.twice(kernel), 4), rtol=1e-9
    )


def test_statistics_of_sharpness_make_the_estimate_better():
    found, alone = [], []
    for name in ("astronaut", "coffee"):
        for true in BLURS:
            y = blurred(true, photograph(name))
            x = restored(y)
            found.append(distance(estimate(x, y, 2), true))
            alone.append(distance(blur.observe(x.numpy(), y.numpy(), 2)[1], true))
    assert np.mean(found) < 0.8 * np.mean(alone), (found, alone)


@pytest.mark.parametrize("scale", [2, 4])
def test_the_surer_a_blur_is_the_less_is_taken_off_its_estimate(scale):
    taken = [blur.caution(odds, scale) for odds in (-20.0, -3.0, -2.0, -0.5, 0.0)]
    assert 0 < taken[0] == taken[1] < taken[2] < taken[3] < taken[4] < 0.7


def test_turning_an_image_turns_its_blur():
    y = blurred(BLURS[0])
    x = restored(y)
    found = estimate(x, y, 2)
    transposed = estimate(x.transpose(-1, -2), y.transpose(-1, -2), 2)
    np.testing.assert_allclose(transposed, found[::-1, ::-1], rtol=1e-3, atol=1e-3)


def test_the_views_of_an_image_are_told_apart_by_their_signs():
    """What the network is told of a mirrored image is what it is told of the image's mirrored view."""
    y = blurred(BLURS[0])[..., :112, :144]  # sides that the windows of the spectra fit into from both ends
    x = restored(y)
    plain, covariance = blur.observe(x.numpy(), y.numpy(), 2)
    flipped, mirrored = blur.observe(x.flip(-1).numpy(), y.flip(-1).numpy(), 2)
    np.testing.assert_allclose(flipped[[1, 0]], plain[[0, 1]], rtol=0.05, atol=0.1)
    logarithms = [moments.logarithm(c) for c in (covariance, mirrored, covariance[::-1, ::-1])]
    np.testing.assert_allclose(logarithms[1], logarithms[0] * blur.SIGNS[1], atol=0.08)
    np.testing.assert_allclose(logarithms[2], logarithms[0] * blur.SIGNS[2], atol=1e-9)


def test_an_image_without_light_has_a_finite_blur():
    black = torch.zeros(1, 3, 40, 40)
    found = estimate(torch.zeros(1, 3, 80, 80), black, 2)
    assert np.isfinite(found).all() and (np.linalg.eigvalsh(found) > 0).all()


@settings(deadline=None, max_examples=40)
@given(
    st.floats(moments.LEAST, moments.LARGEST),
    st.floats(moments.LEAST, moments.LARGEST),
    st.floats(0, np.pi),
)
def test_a_covariance_is_its_logarithm_and_back(first, second, angle):
    covariance = turned((first, second), angle)
    np.testing.assert_allclose(moments.from_logarithm(moments.logarithm(covariance)), covariance, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("parts", [(9.0, 0.0, 0.0), (-9.0, 0.0, 0.0), (0.0, 5.0, 5.0)])
def test_no_answer_of_the_network_leaves_what_can_be_told(parts):
    variances = np.linalg.eigvalsh(moments.from_logarithm(np.array(parts)))
    assert (variances >= moments.LEAST * (1 - 1e-9)).all() and (variances <= moments.LARGEST * (1 + 1e-9)).all()


@pytest.mark.parametrize("plane", [np.zeros((32, 32)), np.full((33, 70), 255.0), data.camera()[:61, :64].astype(float)])
def test_statistics_of_sharpness_are_as_many_as_promised_and_finite(plane):
    found = sharpness.features(plane)
    assert found.shape == (4, 160) and np.isfinite(found).all()


def test_measured_once_is_the_same_as_measured_in_every_view():
    plane = data.camera()[:144, :112].astype(
        np.float32
    )  # sides that the windows of the spectra fit into from both ends
    apart = [sharpness.features(sharpness.viewed(plane, *view))[0] for view in sharpness.VIEWS]
    np.testing.assert_allclose(sharpness.features(plane), apart, rtol=1e-4, atol=1e-4)


def test_differences_grow_along_a_blur_and_are_over_at_once_across_it():
    """The first eight numbers of a direction are how much larger differences are at twice and three times the distance."""
    scene = data.camera().astype(np.float32)
    along_columns = np.stack([np.roll(scene, shift, axis=0) for shift in range(-2, 3)]).mean(0)
    plain, smeared = (sharpness.features(plane)[0] for plane in (scene, along_columns))
    per_axis, per_oblique = 9, 5
    down = 2 * (per_axis + per_oblique)  # where direction (1, 0) begins
    change = smeared - plain
    assert change[down : down + 8].mean() > 0.2
    assert abs(change[:8].mean()) < 0.5 * change[down : down + 8].mean()


def test_dropout_and_batches_still_learn():
    random = np.random.default_rng(0)
    features = random.normal(size=(400, 6))
    targets = features[:, :2] ** 2 - features[:, 2:4]
    loss = torch.nn.functional.mse_loss
    weights = fit(features, targets, loss, 24, steps=600, dropout=0.1, batch=64)
    error = evaluate(weights, features) - targets
    assert (error**2).mean() < 0.4 * targets.var()


@pytest.fixture
def photographs(tmp_path) -> Path:
    folder = tmp_path / "photographs"
    folder.mkdir()
    for name in ("chelsea", "coffee"):
        write_image(folder / f"{name}.png", np.kron(getattr(data, name)()[:200, :200], np.ones((4, 4, 1), np.uint8)))
    return folder


@pytest.mark.parametrize("scale", [2, 4])
def test_the_samples_of_a_seed_are_always_the_same(photographs, scale):
    shares = {"half_share": 0.5 if scale == 2 else 0.0, "scale": scale}  # the halves are too small at x4
    found, estimated, true = samples(sorted(photographs.iterdir()), 3, seed=0, **shares)
    again = samples(sorted(photographs.iterdir()), 3, seed=0, **shares)
    assert found.shape[:2] == (3, 4) and estimated.shape == true.shape == (3, 3)
    assert all(np.array_equal(a, b) for a, b in zip((found, estimated, true), again))
    _, _, least = samples(sorted(photographs.iterdir()), 2, seed=0, only_reduced=True, **shares)
    assert np.allclose(least, moments.logarithm(moments.LEAST * np.eye(2)))


def test_a_detector_tells_apart_what_can_be_told_apart():
    random = np.random.default_rng(0)
    blurred_ones, reduced_ones = random.normal(0, 1, (60, 4, 5)), random.normal(0, 1, (20, 4, 5))
    reduced_ones[..., 2] += 4
    network, told = train_blur.train_detector(blurred_ones, reduced_ones, steps=150)
    assert told["taken_for_reduced"] == {
        "blurred": pytest.approx(0, abs=0.12),
        "only_reduced": pytest.approx(1, abs=0.35),
    }
    right = [evaluate(network, views).mean() > 0 for views in [*blurred_ones, *reduced_ones]]
    assert np.mean(np.array(right) == np.repeat([False, True], [60, 20])) > 0.95


@pytest.mark.parametrize("scale", [2, 4])
def test_training_on_a_folder_gives_a_file_that_the_estimate_reads(scale, photographs, tmp_path, monkeypatch):
    out, y = tmp_path / f"blur-x{scale}.safetensors", blurred(BLURS[0], photograph("chelsea", scale), scale)
    options = f"--out {out} --scale {scale} --samples 8 --reduced 7 --steps 20 --licence MIT".split()
    options += ["--half-share", "0"] if scale == 4 else []  # the halves of these photographs are too small
    monkeypatch.setattr("sys.argv", ["train_blur", str(photographs), *options])
    train_blur.main()
    facts, _ = read_container(out, "blur", blur.VERSION, "")[:2]
    assert (
        "--samples 8 --reduced 7 --steps 20" in facts["command"]
        and ("--scale 4" in facts["command"]) == (scale == 4)
        and facts["licence"] == "MIT"
        and set(facts["accuracy"]) == {"least_squares", "corrected", "taken_for_reduced"}
    )
    x = restored(y, scale)
    shipped = estimate(x, y, scale)
    monkeypatch.setattr(blur, "WEIGHTS", tmp_path)
    blur._weights.cache_clear()
    try:
        assert not np.array_equal(estimate(x, y, scale), shipped)
    finally:
        monkeypatch.undo()
        blur._weights.cache_clear()
