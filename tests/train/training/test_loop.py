"""Training of backbones and of the prior: a killed run ends with the very weights of one that was not."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from skimage import data
from torch import nn

from darsr_deploy.errors import DarsrError
from darsr_deploy.images.arrays import list_images, write_image
from darsr_deploy.images.resample import imresize
from darsr_train.backbones import EdgeSR
from darsr_train.backbones.edge import BranchedConv
from darsr_train.degradation.reduction import bicubic_table
from darsr_train.networks.darm import DARM
from darsr_train.networks.prior import load_prior, near_identity, save_prior
from darsr_train.training.backbone import BackboneTraining, PairedCrops, bicubic_pair, measure, train_backbone
from darsr_train.training.crops.degraded import DegradedCrops
from darsr_train.training.loop import TrainingOptions, train
from darsr_train.training.prior import PriorTraining, train_prior

BACKBONE = BackboneTraining(steps=7, batch=2, patch=12, warmup=2, validate_every=3, save_every=2, bf16=False)
PRIOR = PriorTraining(
    steps=7, batch=2, patch=16, warmup=2, validate_every=3, save_every=2, bf16=False, channels=8, kernel=16
)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for name, image in (
        ("a", data.astronaut()[:110, 150:290]),
        ("b", data.coffee()[100:200, 150:270]),
        ("c", data.chelsea()[50:160, 100:240]),
    ):
        write_image(folder / f"{name}.png", np.ascontiguousarray(image))
    return folder


RUNS = {
    "backbone": lambda photos, out, bf16=False, **more: train_backbone(
        photos, out, replace(BACKBONE, bf16=bf16), validation=photos, **more
    ),
    "prior": lambda photos, out, bf16=False, **more: train_prior(
        photos, out, replace(PRIOR, bf16=bf16), validate=lambda model: {"figure": 1.0}, **more
    ),
}


class Killed(Exception):
    """What the tests raise in the middle of a run."""


def kill_after(step: int):
    def report(entry: dict) -> None:
        if entry["step"] == step:
            raise Killed

    return report


def states(module: nn.Module) -> dict:
    return module.state_dict()


def assert_same(a: nn.Module, b: nn.Module) -> None:
    assert states(a).keys() == states(b).keys()
    for name, tensor in states(a).items():
        assert torch.equal(tensor, states(b)[name]), name


# --- Options ---------------------------------------------------------------------------------------------------------


def test_rate_warms_up_and_falls_as_half_a_cosine():
    options = TrainingOptions(steps=1000, rate=1e-3, final_rate=1e-5, warmup=100)
    rates = np.array([options.rate_at(step) for step in range(1001)])
    np.testing.assert_allclose(np.diff(rates[:100]), 1e-5)  # a straight line ...
    assert rates[99] == pytest.approx(1e-3) and rates[100] == pytest.approx(1e-3)  # ... that arrives at the peak
    assert (np.diff(rates[100:]) < 0).all()
    assert rates[550] == pytest.approx((1e-3 + 1e-5) / 2)
    assert rates[1000] == pytest.approx(1e-5)
    assert rates[325] == pytest.approx(1e-5 + 0.99e-3 * 0.5 * (1 + math.cos(math.pi / 4)))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"scale": 3}, "scale is 3"),
        ({"steps": 0}, "steps is 0"),
        ({"patch": 0}, "patch is 0"),
        ({"average": 1.0}, "average is 1.0"),
    ],
)
def test_options_out_of_range_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        TrainingOptions(**change)


# --- Crops -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [2, 4])
def test_paired_crops_depend_on_seed_and_step_alone(photos, scale):
    one, other = (PairedCrops(list_images(photos), scale, 12) for _ in range(2))
    other.batch(0, 99, 3)
    lr, hr = one.batch(5, 3, 4)
    assert lr.shape == (4, 3, 12, 12) and hr.shape == (4, 3, 12 * scale, 12 * scale)
    assert all(torch.equal(a, b) for a, b in zip((lr, hr), other.batch(5, 3, 4)))
    for seed, step in ((5, 4), (6, 3)):
        assert not torch.equal(hr, one.batch(seed, step, 4)[1])


@pytest.mark.parametrize("scale", [2, 4])
def test_paired_crops_show_the_same_place_the_same_way_round(photos, scale):
    lr, hr = PairedCrops(list_images(photos), scale, 12).batch(0, 0, 16)
    for low, high in zip(lr.numpy(), hr.numpy()):
        reduced = imresize(high.transpose(1, 2, 0), 12, 12)[2:-2, 2:-2]
        assert np.abs(reduced - low.transpose(1, 2, 0)[2:-2, 2:-2]).max() < 2.5 / 255  # 8 bits after each pass


def test_bicubic_pair_cuts_and_makes_rgb():
    image = data.camera()[:51, :42]
    hr, lr = bicubic_pair(image, 4)
    assert hr.shape == (48, 40, 3) and lr.shape == (12, 10, 3)
    assert np.array_equal(hr[:, :, 1], image[:48, :40])
    assert np.array_equal(lr[:, :, 0], imresize(image[:48, :40], 12, 10))


@pytest.mark.parametrize("scale", [2, 4])
def test_degraded_crops_depend_on_seed_and_step_alone(tmp_path, scale):
    write_image(tmp_path / "a.png", np.ascontiguousarray(data.astronaut()[:160, 150:330]))
    options = replace(PRIOR, scale=scale, batch=3, noise_share=0.5, jpeg_share=0.5, variant_share=0.5)
    one, other = (DegradedCrops(list_images(tmp_path), options) for _ in range(2))
    other.batch(99)
    degraded, target, hr = one.batch(4)
    assert degraded.shape == target.shape == (3, 3, 16, 16) and hr.shape == (3, 3, 16 * scale, 16 * scale)
    assert all(torch.equal(a, b) for a, b in zip((degraded, target, hr), other.batch(4)))
    assert not torch.equal(degraded, one.batch(5)[0])
    reseeded = DegradedCrops(list_images(tmp_path), replace(options, seed=1))
    assert not torch.equal(degraded, reseeded.batch(4)[0])
    torch.testing.assert_close(degraded * 255, (degraded * 255).round(), rtol=0, atol=1e-3)


@pytest.mark.parametrize("scale", [2, 4])
def test_target_hr_and_undegraded_crop_show_the_same_place(tmp_path, scale):
    """With no blur but the bicubic one, degraded and target are equal; both are the HR crop reduced."""
    write_image(tmp_path / "a.png", np.ascontiguousarray(data.astronaut()[:160, 150:330]))
    none = {
        f"{kind}_share": 0.0 for kind in ("gaussian", "motion", "disk", "mixture", "variant", "noise", "jpeg", "camera")
    }
    degraded, target, hr = DegradedCrops(list_images(tmp_path), replace(PRIOR, scale=scale, **none)).batch(0)
    assert (degraded - target.clamp(0, 1)).abs().max() <= 0.501 / 255
    for low, high in zip(target.numpy(), hr.numpy()):
        reduced = imresize(high.transpose(1, 2, 0), 16, 16).transpose(2, 0, 1)
        np.testing.assert_allclose(low[:, 2:-2, 2:-2], reduced[:, 2:-2, 2:-2], atol=1e-5)


@pytest.mark.parametrize("kind", ["gaussian", "motion", "disk", "mixture"])
def test_every_kind_of_blur_keeps_the_place_and_changes_the_crop(photos, kind):
    shares = {
        f"{k}_share": float(k == kind)
        for k in ("gaussian", "motion", "disk", "mixture", "variant", "noise", "jpeg", "camera")
    }
    crops = DegradedCrops(list_images(photos), replace(PRIOR, **shares))
    kernel = crops.kernel(np.random.default_rng(0))
    assert kernel.shape == (16, 16) and kernel.sum().item() == pytest.approx(1, abs=1e-5)
    degraded, target, _ = crops.batch(1)
    assert (degraded - target).abs().mean() > 1e-3
    # blurred, but not displaced: shifting it by a pixel either way makes it worse
    inner = (..., slice(2, -2), slice(2, -2))
    distance = {
        shift: (degraded.roll(shift, (-2, -1)) - target)[inner].square().mean()
        for shift in [(0, 0), (0, 1), (0, -1), (1, 0), (-1, 0)]
    }
    assert min(distance, key=distance.get) == (0, 0)


def test_no_blur_at_all_is_the_bicubic_table_in_the_middle(photos):
    none = {f"{kind}_share": 0.0 for kind in ("gaussian", "motion", "disk", "mixture")}
    kernel = DegradedCrops(list_images(photos), replace(PRIOR, **none)).kernel(np.random.default_rng(0))
    np.testing.assert_array_equal(kernel[4:12, 4:12], bicubic_table(2).numpy())
    assert kernel.sum().item() == pytest.approx(1, abs=1e-6)


def lies_in(crop: np.ndarray, image: np.ndarray) -> bool:
    """Whether a square crop, turned or not, is a part of an image."""
    windows = np.lib.stride_tricks.sliding_window_view(
        image, crop.shape[:2], axis=(0, 1)
    )  # rows, columns, 3, side, side
    for turned in (np.rot90(crop, turns).transpose(2, 0, 1) for turns in range(4)):
        places = np.argwhere((windows[..., 0, 0] == turned[:, 0, 0]).all(-1))
        if any(np.array_equal(windows[row, column], turned) for row, column in places):
            return True
    return False


def test_a_share_of_the_crops_is_of_photographs_reduced_to_half(tmp_path):
    photograph = np.ascontiguousarray(data.astronaut()[:400, :440])
    write_image(tmp_path / "a.png", photograph)
    options = replace(PRIOR, half_share=0.5, candidates=1)
    crops = DegradedCrops(list_images(tmp_path), options)
    drawn = [crops.sharp(np.random.default_rng(seed)) for seed in range(12)]
    of_half = [lies_in(crop, imresize(photograph, 200, 220)) for crop in drawn]
    assert 2 <= sum(of_half) <= 10
    assert all(half != lies_in(crop, photograph) for half, crop in zip(of_half, drawn))
    with pytest.raises(DarsrError, match=f"none is in colour with sides of at least {2 * 216} px"):
        DegradedCrops(list_images(tmp_path), replace(options, patch=101))


def test_sharpened_crops_differ_by_more_from_pixel_to_pixel(photos):
    def difference(crop: np.ndarray) -> float:
        return sum(np.abs(np.diff(crop.astype(int), axis=axis)).mean() for axis in (0, 1))

    plain, sharpened = (DegradedCrops(list_images(photos), replace(PRIOR, sharpened_share=s)) for s in (0.0, 1.0))
    for seed in range(5):
        before, after = (crops.sharp(np.random.default_rng(seed)) for crops in (plain, sharpened))
        assert after.dtype == np.uint8 and after.shape == before.shape
        assert difference(after) > difference(before)


def test_too_small_photographs_are_refused(photos):
    with pytest.raises(DarsrError, match="none has sides of at least 400 px"):
        PairedCrops(list_images(photos), 2, 200)
    with pytest.raises(DarsrError, match="none is in colour with sides of at least 414 px"):
        DegradedCrops(list_images(photos), replace(PRIOR, patch=200))


# --- Runs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bf16", [False, True], ids=["float32", "bf16"])
@pytest.mark.parametrize("kind", RUNS)
def test_an_interrupted_run_ends_with_the_same_weights(kind, bf16, photos, tmp_path):
    run = RUNS[kind]
    whole = run(photos, tmp_path / "whole.safetensors", bf16)
    out = tmp_path / "killed.safetensors"
    for resume, step in ((False, 3), (True, 6)):  # killed twice: after the saved steps 2 and 4
        with pytest.raises(Killed):
            run(photos, out, bf16, resume=resume, report=kill_after(step))
    reported = []
    resumed = run(photos, out, bf16, resume=True, report=reported.append)
    assert [entry["step"] for entry in reported] == [5, 6, 7]
    assert_same(whole, resumed)
    # and nothing but the seconds differs in what is written
    logs = [json.loads((tmp_path / f"{name}.log.json").read_text()) for name in ("whole", "killed")]
    for log in logs:
        for entry in log["log"]:
            assert entry.pop("seconds") >= 0
    assert logs[0] == logs[1]


@pytest.mark.parametrize("kind", RUNS)
def test_a_finished_run_may_be_resumed_without_harm(kind, photos, tmp_path):
    first = RUNS[kind](photos, tmp_path / "a.safetensors")
    assert_same(
        first,
        RUNS[kind](photos, tmp_path / "a.safetensors", resume=True, report=lambda _: pytest.fail("a step was taken")),
    )


def test_the_seed_matters_and_alone_decides(photos, tmp_path):
    runs = [
        train_prior(photos, tmp_path / f"{i}.safetensors", replace(PRIOR, steps=2, seed=seed))
        for i, seed in enumerate((0, 0, 1))
    ]
    assert_same(runs[0], runs[1])
    assert not torch.equal(runs[0].head.weight, runs[2].head.weight)


def test_resume_refuses_other_options(photos, tmp_path):
    out = tmp_path / "a.safetensors"
    train_backbone(photos, out, replace(BACKBONE, steps=2))
    with pytest.raises(DarsrError, match=r"a\.checkpoint: was written with another steps, rate"):
        train_backbone(photos, out, replace(BACKBONE, steps=3, rate=2e-3), resume=True)
    with pytest.raises(DarsrError, match=r"b\.checkpoint: there is no checkpoint to resume from"):
        train_backbone(photos, tmp_path / "b.safetensors", BACKBONE, resume=True)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint"], ids=["empty", "text"])
def test_resume_refuses_a_damaged_checkpoint(content, photos, tmp_path):
    (tmp_path / "a.checkpoint").write_bytes(content)
    with pytest.raises(DarsrError, match=r"a\.checkpoint"):
        train_backbone(photos, tmp_path / "a.safetensors", BACKBONE, resume=True)


def test_the_log_holds_options_figures_and_the_last_step(photos, tmp_path):
    reported = []
    train_backbone(photos, tmp_path / "a.safetensors", BACKBONE, validation=photos, report=reported.append)
    log = json.loads((tmp_path / "a.log.json").read_text())
    assert log["options"]["architecture"] == "edge" and log["options"]["steps"] == 7
    assert [entry["step"] for entry in log["log"]] == [3, 6, 7]
    assert all(entry["psnr_y"] > 10 and math.isfinite(entry["loss"]) for entry in log["log"])
    assert [entry["step"] for entry in reported] == list(range(1, 8))
    means = [np.mean([entry["loss"] for entry in reported[a:b]]) for a, b in ((0, 3), (3, 6), (6, 7))]
    np.testing.assert_allclose([entry["loss"] for entry in log["log"]], means)
    assert [entry["rate"] for entry in reported] == [BACKBONE.rate_at(step) for step in range(7)]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.checkpoint", "a.log.json", "a.log.png"], (
        "no temporary file is left"
    )


def test_backbone_training_returns_a_plain_frozen_network_that_learns(photos, tmp_path):
    losses = []
    options = replace(BACKBONE, steps=60, warmup=5, batch=4, average=0.9, save_every=60, rate=2e-3)
    network = train_backbone(
        photos, tmp_path / "a.safetensors", options, report=lambda entry: losses.append(entry["loss"])
    )
    assert np.mean(losses[-15:]) < 0.8 * np.mean(losses[:5])
    assert isinstance(network, EdgeSR) and not any(isinstance(m, BranchedConv) for m in network.modules())
    assert not network.training and not any(p.requires_grad for p in network.parameters())
    pairs = [bicubic_pair(np.ascontiguousarray(data.rocket()[100:200, 250:350]), 2)]
    assert measure(network, pairs, 2) > measure(EdgeSR(2), pairs, 2)


def test_prior_training_learns_to_correct(tmp_path):
    write_image(tmp_path / "a.png", np.ascontiguousarray(data.astronaut()[:200, 100:300]))
    # one kind of blur and a high rate: what little can be learned in seconds
    shares = {
        f"{kind}_share": float(kind == "gaussian")
        for kind in ("gaussian", "motion", "disk", "mixture", "variant", "noise", "jpeg", "camera")
    }
    options = replace(PRIOR, steps=200, warmup=10, batch=4, patch=24, average=0.95, save_every=200, rate=1e-2, **shares)
    network = train_prior(tmp_path, tmp_path / "a.safetensors", options)
    assert isinstance(network, DARM) and network.dictionary is None and not network.training
    degraded, target, _ = DegradedCrops(list_images(tmp_path), replace(options, seed=9, batch=32)).batch(0)
    with torch.no_grad():
        assert (network(degraded) - target).square().mean() < 0.9 * (degraded - target).square().mean()


def test_a_prior_starts_at_the_identity():
    torch.manual_seed(0)
    x = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        assert (near_identity(8)(x) - x).abs().mean() < 0.1 < (DARM(channels=8)(x) - x).abs().mean()


def test_training_goes_on_from_a_start_and_leaves_it_alone(photos, tmp_path):
    torch.manual_seed(0)
    start = near_identity(8).requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in start.state_dict().items()}
    options = replace(PRIOR, steps=1, rate=1e-9, warmup=1)
    trained = train_prior(photos, tmp_path / "a.safetensors", options, start=start)
    for name, tensor in start.state_dict().items():
        assert torch.equal(tensor, before[name]), name
        torch.testing.assert_close(trained.state_dict()[name], tensor, rtol=0, atol=1e-6)


def test_a_frozen_backbone_in_the_loss_changes_the_prior_and_not_itself(photos, tmp_path):
    torch.manual_seed(0)
    backbone = EdgeSR(2, channels=4, blocks=1).requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    options = replace(PRIOR, steps=2)
    through = train_prior(photos, tmp_path / "a.safetensors", options, backbone=backbone)
    alone = train_prior(photos, tmp_path / "b.safetensors", options)
    assert not torch.equal(through.tail.weight, alone.tail.weight)
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.state_dict().items())


def test_averaged_weights_follow_the_trained_ones(tmp_path):
    class Slope(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Parameter(torch.zeros(1, 1, 1, 1))

    seen = []

    def loss_of(model: nn.Module, step: int) -> torch.Tensor:
        seen.append(model.a.item())
        return (model.a - 1).square().sum()

    averaged = train(
        Slope(), TrainingOptions(steps=50, warmup=1, rate=0.01, average=0.9), loss_of, tmp_path / "a.safetensors"
    )
    expected = 0.0
    for step, value in enumerate(seen[1:]):  # what the step before has left
        expected += (1 - min(0.9, (1 + step) / (10 + step))) * (value - expected)
    # the last step's weights are not seen by loss_of: bounded by the weights around them
    assert expected < averaged.a.item() < expected + 0.1 * (seen[-1] + 0.01 - expected) + 1e-6


# --- The prior's file --------------------------------------------------------------------------------------------------


def test_a_prior_comes_back_as_it_was_saved(tmp_path):
    torch.manual_seed(1)
    prior, path = near_identity(8), tmp_path / "prior.safetensors"
    save_prior(prior, path, {"licence": "none"})
    loaded = load_prior(2, path)
    assert_same(prior, loaded)
    assert not loaded.training and all(p.requires_grad for p in loaded.parameters()), "adaptation goes on from it"
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(DarsrError, match=r"prior\.safetensors: is damaged"):
        load_prior(2, path)
    with pytest.raises(DarsrError, match="scale 4: "):
        load_prior(4, tmp_path / "none.safetensors")


def test_the_shipped_prior_corrects_a_blurred_image():
    from darsr_deploy.degradation import kernels
    from darsr_train.degradation.reduction import reduce

    x = torch.from_numpy(data.chelsea()[:200, 100:300].transpose(2, 0, 1)[None].astype(np.float32)) / 255
    blurred = (reduce(x, torch.from_numpy(kernels.gaussian(16, 1.8, 1.2, 0.5)).float(), 2) * 255).round() / 255
    bicubic = reduce(x, bicubic_table(2), 2)
    with torch.no_grad():
        corrected = load_prior(2)(blurred)
    assert (corrected - bicubic).square().mean() < 0.5 * (blurred - bicubic).square().mean()
