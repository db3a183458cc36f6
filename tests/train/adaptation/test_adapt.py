"""Adaptation with the default profile: it gains, repeats, resumes, leaves nothing behind, and never sees the truth."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from skimage import data

from darsr_deploy.degradation import covariance as moments
from darsr_deploy.degradation import kernels
from darsr_deploy.errors import DarsrError
from darsr_deploy.files.adapter import Adapter
from darsr_deploy.images.arrays import read_image, write_image
from darsr_deploy.images.resample import imresize, to_uint8
from darsr_train.adaptation import fast as adapt_fast
from darsr_train.adaptation.adapt import adapt_image
from darsr_train.adaptation.fit import held_out_loss
from darsr_train.adaptation.options import AdaptOptions
from darsr_train.backbones import load_backbone
from darsr_train.degradation.reduction import reduce
from darsr_train.evaluation.measure import average_rows, evaluate_image
from darsr_train.networks.darm import between
from darsr_train.networks.family import load_family
from darsr_train.networks.prior import load_prior
from darsr_train.pipeline import correction_of, load_pipeline, upscale_with
from tests.support.shared import SHARED, needs_shared, srfbn


def blurred(photo: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    tensor = torch.from_numpy(photo.transpose(2, 0, 1)[None].astype(np.float32))
    return to_uint8(reduce(tensor, torch.from_numpy(kernel).float(), 2)[0].permute(1, 2, 0).numpy())


@pytest.fixture(scope="module")
def backbone():
    """A backbone without networks of its own that are told the degradation, as imported ones are."""
    return replace(load_backbone("edge", 2), sha256="0" * 64)


@pytest.fixture
def photo(tmp_path):
    """A blurred 96 x 112 photograph."""
    path = tmp_path / "photo.png"
    write_image(path, blurred(data.astronaut()[:192, 100:324], kernels.gaussian(16, 1.8, 1.2, 0.6)))
    return path


QUICK = AdaptOptions.profile("fast", 2, steps=4)


def test_same_seed_same_bytes(photo, backbone, tmp_path):
    for name in ("a", "b"):
        adapt_image(photo, tmp_path / f"{name}.darsr", backbone, QUICK)
    assert (tmp_path / "a.darsr").read_bytes() == (tmp_path / "b.darsr").read_bytes()


def test_the_per_image_fit_changes_the_result(backbone, tmp_path):
    image = blurred(data.chelsea()[:300, :440], kernels.gaussian(16, 2.0, 0.9, 0.6))
    write_image(tmp_path / "larger.png", image)
    options = AdaptOptions.profile("fast", 2, steps=20)
    adapter, _ = adapt_image(tmp_path / "larger.png", tmp_path / "a.darsr", backbone, options)
    assert adapter.facts["chosen"] in ("adapted by half", "adapted")
    assert adapter.facts["held_out_loss"][adapter.facts["chosen"]] < adapter.facts["held_out_loss"]["prior"]
    assert adapter.rounds == options.rounds and adapter.arrays["kernel"].shape == (14, 14)
    assert not np.array_equal(upscale_with(correction_of(adapter), image), upscale_with(load_prior(2), image))


@pytest.mark.parametrize("level", [0, 255, 90])
def test_an_image_without_any_detail_is_adapted_to_nothing(level, backbone, tmp_path):
    image = np.full((40, 48, 3), level, np.uint8)
    write_image(tmp_path / "plain.png", image)
    adapter, _ = adapt_image(tmp_path / "plain.png", tmp_path / "a.darsr", backbone, QUICK)
    inner = upscale_with(correction_of(adapter), image)[8:-8, 8:-8].astype(int)
    assert np.abs(inner - level).max() <= 3


def test_the_network_for_the_blur_is_taken_as_it_is(photo, backbone, tmp_path, monkeypatch):
    """Without steps, which is the default."""
    monkeypatch.setattr(adapt_fast, "camera_probability", lambda pixels: 0.0)
    adapter, _ = adapt_image(photo, tmp_path / "a.darsr", backbone, AdaptOptions.profile("fast", 2))
    image = read_image(photo)
    prior = load_prior(2).to(memory_format=torch.channels_last)
    evidence, member, _ = adapt_fast.estimate_blur(image, prior, load_family(2), backbone.module, 2, "cpu")
    assert adapter.facts["chosen"] == "adapted" and adapter.facts["steps"] == 0 and "losses" not in adapter.facts
    np.testing.assert_allclose(adapter.arrays["kernel"], evidence.kernel.numpy(), atol=1e-6)
    ours, theirs = (upscale_with(n, image).astype(int) for n in (correction_of(adapter), member))
    assert np.abs(ours - theirs).max() <= 1
    # What is known of the candidates is not computed again, and is the same.
    candidates = {"prior": prior, "adapted by half": between(prior, member, 0.5), "adapted": member}
    losses = {n: held_out_loss(c, evidence, backbone.module, 2) for n, c in candidates.items()}
    assert adapter.facts["held_out_loss"] == pytest.approx(losses, rel=1e-4)


@pytest.mark.parametrize("gray", [False, True])
@pytest.mark.parametrize("top, left", [(0, 0), (256, 640), (448, 64)])
def test_of_a_large_image_the_part_with_most_detail_is_analysed(top, left, gray):
    image = np.full((961, 1153, 3), 90, np.uint8)
    image[top : top + 512, left : left + 512] = np.kron(data.astronaut()[::2, ::2], np.ones((2, 2, 1), np.uint8))
    image = image[:, :, 1] if gray else image
    part = adapt_fast.analysis_window(image)
    assert np.shares_memory(part, image), "a view: the image may be large"
    assert np.array_equal(part, image[top : top + 512, left : left + 512])


@pytest.mark.parametrize("shape", [(40, 50), (512, 512), (575, 300), (600, 40), (33, 2000), (1500, 1500)])
def test_there_is_always_a_part_to_analyse(shape):
    random = np.random.default_rng(0)
    for image in (np.zeros(shape, np.uint8), random.integers(0, 256, (*shape, 3)).astype(np.uint8)):
        part = adapt_fast.analysis_window(image)
        assert part.shape[:2] == tuple(min(side, 512) for side in shape)


def test_what_was_fitted_is_judged_anew(photo, backbone, tmp_path, monkeypatch):
    """Not by what the network that the fit began with made of the image."""
    monkeypatch.setattr(adapt_fast, "camera_probability", lambda pixels: 0.0)
    fitted, _ = adapt_image(photo, tmp_path / "a.darsr", backbone, AdaptOptions.profile("fast", 2, steps=3, rate=3e-3))
    untouched, _ = adapt_image(photo, tmp_path / "b.darsr", backbone, AdaptOptions.profile("fast", 2))
    before, after = (a.facts["held_out_loss"] for a in (untouched, fitted))
    assert before["prior"] == after["prior"] and before["adapted"] != pytest.approx(after["adapted"], rel=1e-3)
    start, _ = adapt_image(photo, tmp_path / "c.darsr", backbone, AdaptOptions.profile("fast", 2, family=False))
    other, _ = adapt_image(photo, tmp_path / "d.darsr", backbone, AdaptOptions.profile("fast", 2), start=start)
    assert other.facts["held_out_loss"]["adapted"] == pytest.approx(before["prior"], rel=1e-4)


def test_no_steps_and_no_family_keep_the_prior_as_it_is(photo, backbone, tmp_path, monkeypatch):
    monkeypatch.setattr(adapt_fast, "camera_probability", lambda pixels: 0.0)
    options = AdaptOptions.profile("fast", 2, family=False)
    adapter, _ = adapt_image(photo, tmp_path / "a.darsr", backbone, options)
    image = read_image(photo)
    assert adapter.facts["chosen"] == "prior" and adapter.facts["strength"] == 1
    assert np.array_equal(upscale_with(correction_of(adapter), image), upscale_with(load_prior(2), image))


def test_the_surer_a_camera_is_the_milder_the_correction(photo, backbone, tmp_path, monkeypatch):
    image, strengths = read_image(photo), []
    for certainty in (0.6, 0.8, 1.0):
        monkeypatch.setattr(adapt_fast, "camera_probability", lambda pixels, certainty=certainty: certainty)
        adapter, _ = adapt_image(photo, tmp_path / f"{certainty}.darsr", backbone, QUICK)
        assert (adapter.facts["chosen"], adapter.facts["steps"], adapter.rounds) == ("prior", 0, 0)
        corrected = upscale_with(correction_of(adapter), image)
        strengths.append(np.abs(corrected.astype(float) - image).mean())
    assert strengths[0] > strengths[1] > strengths[2] > 0


@pytest.mark.parametrize("certainty", [0.0, 1.0])
def test_the_amount_makes_a_result_softer_or_sharper(certainty, photo, backbone, tmp_path, monkeypatch):
    monkeypatch.setattr(adapt_fast, "camera_probability", lambda pixels: certainty)
    image, changes, spreads = read_image(photo), [], []
    for amount in (0.7, 1.0, 1.4):
        options = AdaptOptions.profile("fast", 2, amount=amount)
        adapter, _ = adapt_image(photo, tmp_path / f"{amount}.darsr", backbone, options)
        assert adapter.facts["options"]["amount"] == amount
        corrected = upscale_with(correction_of(adapter), image)
        changes.append(np.abs(corrected.astype(float) - image).mean())
        spreads.append(np.trace(moments.covariance_of(adapter.arrays["kernel"].astype(float), 2)))
    assert changes[0] < changes[1] < changes[2]
    assert np.divide(spreads[1:], spreads[:-1]) == pytest.approx(np.array([1 / 0.7, 1.4]), rel=0.1)
    nothing, _ = adapt_image(photo, tmp_path / "n.darsr", backbone, AdaptOptions.profile("fast", 2, amount=0.1))
    assert nothing.correction == ("none" if certainty < 0.5 else "network")


def test_an_amount_out_of_range_or_of_another_profile():
    for name, amount, why in (("fast", 0.05, "0.1 to 4"), ("fast", math.nan, "0.1 to 4"), ("paper", 2.0, "belongs to")):
        with pytest.raises(ValueError, match=why):
            AdaptOptions.profile(name, 2, amount=amount)


@pytest.mark.parametrize(
    "losses, chosen", [((1.0, 0.9, 0.7), "adapted"), ((1.0, 0.9, 0.85), "adapted by half"), ((1.0, 1.1, 0.5), "prior")]
)
def test_a_stronger_candidate_must_be_clearly_better(losses, chosen):
    assert adapt_fast.strongest_supported(dict(zip(("prior", "adapted by half", "adapted"), losses))) == chosen


@pytest.mark.parametrize(
    "width, chosen", [(1.5, ("adapted", "width")), (0.5, ("prior", "loss")), (-0.8, ("adapted", "width"))]
)
def test_far_from_the_blurs_of_the_prior_the_network_for_the_blur_is_taken(width, chosen):
    scores = {"prior": 1.0, "adapted by half": 1.1, "adapted": 1.2}
    assert adapt_fast.select_candidate(scores, width) == chosen
    assert adapt_fast.select_candidate(scores, width, asked=True) == ("adapted", "amount")


def test_another_image_s_network_is_not_taken_unjudged(photo, backbone, tmp_path, monkeypatch):
    """It is for another blur, whatever the width of this one."""
    monkeypatch.setattr(adapt_fast, "camera_probability", lambda pixels: 0.0)
    monkeypatch.setattr(adapt_fast, "_JUDGED", (9.0, 9.0))
    options = AdaptOptions.profile("fast", 2)
    own, _ = adapt_image(photo, tmp_path / "own.darsr", backbone, options)
    gone_on_from, _ = adapt_image(photo, tmp_path / "other.darsr", backbone, options, start=own)
    assert (own.facts["chosen_by"], gone_on_from.facts["chosen_by"]) == ("width", "loss")


def test_what_is_not_blurred_is_not_corrected(backbone, tmp_path):
    write_image(tmp_path / "a.png", imresize(data.rocket()[:300, :400], 150, 200))
    adapter, _ = adapt_image(tmp_path / "a.png", tmp_path / "a.darsr", backbone, QUICK)
    assert (adapter.correction, adapter.rounds, adapter.facts["chosen"]) == ("none", 0, "none")


def test_a_budget_becomes_steps_that_can_be_replayed(photo, backbone, tmp_path, monkeypatch):
    monkeypatch.setattr(adapt_fast, "camera_probability", lambda pixels: 0.0)
    monkeypatch.setattr("darsr_train.adaptation.fit._MOST_STEPS", 4)  # which a busy machine too has time for
    adapter, _ = adapt_image(photo, tmp_path / "a.darsr", backbone, AdaptOptions.profile("fast", 2, budget=120.0))
    steps = adapter.facts["steps"]
    assert 0 < steps <= 4 and adapter.facts["options"]["budget"] is None
    adapt_image(photo, tmp_path / "b.darsr", backbone, AdaptOptions.profile("fast", 2, steps=steps))
    assert (tmp_path / "a.darsr").read_bytes() == (tmp_path / "b.darsr").read_bytes()
    tiny, _ = adapt_image(photo, tmp_path / "c.darsr", backbone, AdaptOptions.profile("fast", 2, budget=0.01))
    assert tiny.facts["steps"] == 0, "never an error: the prior is the best that can be had in no time"


def test_another_images_adapter_is_a_start(photo, backbone, tmp_path, monkeypatch):
    monkeypatch.setattr(adapt_fast, "strongest_supported", lambda scores: list(scores)[-1])
    monkeypatch.setattr(adapt_fast, "camera_probability", lambda pixels: 0.0)
    first, _ = adapt_image(photo, tmp_path / "a.darsr", backbone, AdaptOptions.profile("fast", 2, steps=12))
    options = AdaptOptions.profile("fast", 2, steps=1, rate=1e-9)
    warm, _ = adapt_image(photo, tmp_path / "b.darsr", backbone, options, start=first)
    cold, _ = adapt_image(photo, tmp_path / "c.darsr", backbone, options)
    assert first.facts["chosen"] == warm.facts["chosen"] == cold.facts["chosen"] == "adapted"
    tails = [adapter.arrays["darm.tail.weight"] for adapter in (first, warm, cold)]
    np.testing.assert_allclose(tails[1], tails[0], atol=1e-6)
    assert np.abs(tails[2] - tails[0]).max() > 1e-4
    assert warm.facts["from"] == first.facts["source"] and "from" not in cold.facts
    with pytest.raises(DarsrError, match="--from: profile paper learns from one image alone"):
        adapt_image(photo, tmp_path / "d.darsr", backbone, AdaptOptions.profile("paper", 2), start=first)
    with pytest.raises(DarsrError, match="--from: holds no fast correction network"):
        none = Adapter("none", 2, "edge-x2", backbone.sha256)
        adapt_image(photo, tmp_path / "d.darsr", backbone, QUICK, start=none)


class Stop(Exception):
    """Stands for a kill: raised in the middle of the work."""


def test_resumed_equals_uninterrupted(photo, backbone, tmp_path, monkeypatch):
    monkeypatch.setattr("darsr_train.adaptation.checkpoint._EVERY_SECONDS", 0.0)
    adapt_image(photo, tmp_path / "whole.darsr", backbone, QUICK)

    def stop(entry: dict) -> None:
        if entry["step"] == 3:
            raise Stop

    with pytest.raises(Stop):
        adapt_image(photo, tmp_path / "part.darsr", backbone, QUICK, report=stop)
    assert not (tmp_path / "part.darsr").exists()
    steps = []
    adapt_image(
        photo, tmp_path / "part.darsr", backbone, QUICK, resume=True, report=lambda entry: steps.append(entry["step"])
    )
    assert steps == [3, 4]  # step 3 was not saved yet: it is done again
    assert (tmp_path / "part.darsr").read_bytes() == (tmp_path / "whole.darsr").read_bytes()
    assert not list(tmp_path.glob("*.partial"))


def test_resuming_what_is_finished_gives_it_back(photo, backbone, tmp_path):
    adapt_image(photo, tmp_path / "a.darsr", backbone, QUICK)
    before = (tmp_path / "a.darsr").read_bytes()
    adapter, seconds = adapt_image(photo, tmp_path / "a.darsr", backbone, QUICK, resume=True)
    assert seconds == 0 and adapter.facts["steps"] == QUICK.steps
    with pytest.raises(DarsrError, match=r"a\.darsr: is not of .*photo\.png with these options"):
        adapt_image(photo, tmp_path / "a.darsr", backbone, AdaptOptions.profile("fast", 2, steps=5), resume=True)
    assert (tmp_path / "a.darsr").read_bytes() == before


def test_a_finished_adapter_of_an_older_program_is_kept(photo, backbone, tmp_path):
    """It had not all of today's options, whose defaults are what it did, and others, which were off."""
    made, _ = adapt_image(photo, tmp_path / "a.darsr", backbone, QUICK)
    options = {name: value for name, value in made.facts["options"].items() if name != "amount"} | {"cycle": 0.0}
    replace(made, facts=made.facts | {"options": options}).save(tmp_path / "a.darsr")
    _, seconds = adapt_image(photo, tmp_path / "a.darsr", backbone, QUICK, resume=True)
    assert seconds == 0
    with pytest.raises(DarsrError, match="is not of"):
        adapt_image(photo, tmp_path / "a.darsr", backbone, replace(QUICK, amount=0.5), resume=True)
    replace(made, facts=made.facts | {"options": options | {"cycle": 1.0}}).save(tmp_path / "a.darsr")
    with pytest.raises(DarsrError, match="is not of"):
        adapt_image(photo, tmp_path / "a.darsr", backbone, QUICK, resume=True)


def test_a_state_of_other_options_is_not_resumed(photo, backbone, tmp_path, monkeypatch):
    monkeypatch.setattr("darsr_train.adaptation.checkpoint._EVERY_SECONDS", 0.0)

    def stop(entry: dict) -> None:
        if entry["step"] == 2:
            raise Stop

    with pytest.raises(Stop):
        adapt_image(photo, tmp_path / "a.darsr", backbone, QUICK, report=stop)
    with pytest.raises(DarsrError, match=r"a\.darsr\.partial: belongs to another image, backbone or other options"):
        adapt_image(photo, tmp_path / "a.darsr", backbone, AdaptOptions.profile("fast", 2, steps=5), resume=True)


def test_the_truth_decides_nothing(photo, backbone, tmp_path):
    """Evaluating against a wrong truth adapts to the very same result."""
    hr = tmp_path / "hr.png"
    results = []
    for truth in (data.astronaut()[:192, 100:324], np.zeros((192, 224, 3), np.uint8)):
        write_image(hr, truth)
        results.append(evaluate_image(photo, hr, backbone, QUICK))
    assert results[0]["chosen"] == results[1]["chosen"]
    assert results[0]["psnr_y"] > 20 > results[1]["psnr_y"]


@pytest.mark.parametrize("profile, side", [("fast", 31), ("paper", 147)])
def test_too_small_an_image_says_the_least_side(profile, side, backbone, tmp_path):
    write_image(tmp_path / "small.png", data.astronaut()[:200, :side])
    with pytest.raises(DarsrError, match=rf"small\.png: is {side}x200 pixels.*least side {side + 1}.*--no-adapter"):
        adapt_image(tmp_path / "small.png", tmp_path / "a.darsr", backbone, AdaptOptions.profile(profile, 2))
    assert not (tmp_path / "a.darsr").exists()


def test_gray_and_odd_sizes_are_adapted(backbone, tmp_path):
    image = blurred(data.astronaut()[:130, :150], kernels.gaussian(16, 1.5, 1.5, 0.0)).mean(2).astype(np.uint8)
    write_image(tmp_path / "gray.png", image)
    adapter, _ = adapt_image(tmp_path / "gray.png", tmp_path / "a.darsr", backbone, QUICK)
    assert upscale_with(correction_of(adapter), image).shape == image.shape


def test_an_adapter_names_its_origin(photo, tmp_path):
    backbone = load_backbone("edge", 2)
    adapt_image(photo, tmp_path / "a.darsr", backbone, QUICK)
    pipeline, adapter, _ = load_pipeline(tmp_path / "a.darsr")
    assert (adapter.scale, adapter.backbone, adapter.backbone_sha256) == (2, "edge-x2", backbone.sha256)
    assert adapter.facts["source"]["height"] == 96
    assert abs(adapter.facts["kernel_sum"] - 1) < 0.1
    assert pipeline(torch.zeros(1, 3, 5, 7)).shape == (1, 3, 10, 14)


def test_an_adapter_of_another_backbone_is_refused(tmp_path):
    Adapter("none", 2, "edge-x2", "0" * 64).save(tmp_path / "b.darsr")
    with pytest.raises(DarsrError, match=r"b\.darsr: was fitted through another edge-x2"):
        load_pipeline(tmp_path / "b.darsr")


BLURS = {"round": (1.6, 1.6, 0.0), "flat": (2.0, 0.9, 0.4), "upright": (0.9, 1.8, 0.2)}


@pytest.mark.slow
def test_adaptation_gains_a_decibel_on_photographs(backbone, tmp_path):
    """The product itself, without any outside data: the photograph that is no reference, blurred in three ways."""
    rows = []
    for (name, (sx, sy, angle)), picture in zip(
        BLURS.items(), (data.chelsea()[:300, :300], data.chelsea()[:300, 150:450], data.chelsea()[:300, 75:375])
    ):
        lr, hr = tmp_path / f"{name}.png", tmp_path / f"{name}_hr.png"
        write_image(hr, picture)
        write_image(lr, blurred(picture, kernels.gaussian(16, sx, sy, angle)))
        rows.append(evaluate_image(lr, hr, backbone, AdaptOptions.profile("fast", 2, steps=10)))
    assert average_rows(rows)["psnr_y"] >= average_rows(rows)["psnr_y_backbone"] + 1.0


@needs_shared
@pytest.mark.slow
@pytest.mark.parametrize("which", ["edge", "srfbn-s"])
def test_gain_on_the_development_set(which, backbone):
    """Two of the eight images of gaussian_x2 (all of them: darsr eval)."""
    network = backbone if which == "edge" else srfbn(2)
    folder = SHARED / "data" / "blind" / "gaussian_x2"
    rows = [
        evaluate_image(folder / "LR" / name, folder / "HR" / name, network, AdaptOptions.profile("fast", 2, steps=20))
        for name in ("bsd_004.png", "bsd_006.png")
    ]
    assert average_rows(rows)["psnr_y"] >= average_rows(rows)["psnr_y_backbone"] + 1.0
