"""What the networks are told of an image: rules on findings that are given, and findings of pictures that were made."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from darsr_deploy.adaptation.networks import OrtNetworks
from darsr_deploy.blind.estimator import Found
from darsr_deploy.blind.judgement import Findings, Wishes, examine, judge
from darsr_deploy.degradation import covariance as moments
from darsr_deploy.degradation.condition import LOSSLESS, Condition

NONE = moments.LEAST * np.eye(2)


def found(width: float = 0.5, doubt: float = 0.3, **facts: float) -> Found:
    doubts = dict.fromkeys(("width", "stretch", "cross", "noise", "compression", "enlarged"), doubt)
    flags = {name: facts.pop(name, 0.0) for name in ("unblurred", "drawn", "compressed")}
    return Found(Condition(math.exp(width) * np.eye(2), **facts), doubts, **flags)


def findings(**changes: object) -> Findings:
    usual = {"guess": found(), "quality": LOSSLESS, "enlarged": 1.0, "treated": 0.0, "measured": 1.5 * np.eye(2)}
    return Findings(**{**usual, **changes})


def test_a_clean_blur_is_told_as_it_was_measured():
    judgement = judge(findings())
    assert judgement.chosen == "told" and judgement.condition.is_clean()
    assert np.allclose(judgement.condition.covariance, 1.5 * np.eye(2))
    assert judgement.sentence == "blur of 1.2 px: corrected"


def test_a_sharp_clean_image_is_left_alone():
    judgement = judge(findings(guess=found(-1.2, unblurred=0.9), measured=NONE))
    assert judgement.condition is None and judgement.chosen == "none"
    assert judgement.sentence == "sharp already: nothing to correct"


def test_what_was_drawn_over_a_blurred_picture_does_not_make_it_sharp():
    judgement = judge(findings(guess=found(0.9, unblurred=0.01), measured=NONE))
    width = moments.logarithm(judgement.condition.covariance)[0]
    assert 0.5 < width < 0.9


def test_noise_and_compression_are_told_and_can_be_wished_away():
    dirty = findings(guess=found(noise=4.0), quality=70.0, treated=1.0, measured=None)
    told = judge(dirty).condition
    assert told.noise > 4 and told.quality == 70
    mild = judge(dirty, Wishes(denoise=0.5, deblock=0.0)).condition
    assert math.isclose(mild.noise, told.noise / 2) and mild.quality == LOSSLESS
    assert "noise 6, JPEG 70: corrected" in judge(dirty).sentence


def test_amount_scales_the_variance():
    once, twice = (judge(findings(), Wishes(amount=amount)).condition.covariance for amount in (1.0, 2.0))
    assert np.allclose(twice, 2 * once)


def test_an_enlarged_picture_is_told_so_and_not_its_blur():
    judgement = judge(findings(enlarged=2.0, measured=None))
    assert judgement.condition.enlarged == 2 and np.allclose(judgement.condition.covariance, NONE)
    assert judgement.sentence == "was enlarged about 2x before: corrected"


def test_a_camera_is_no_sharp_drawing():
    camera = findings(treated=0.9, measured=None)
    assert judge(camera).found["camera"] and judge(camera).condition.treated == 1
    drawn = findings(guess=found(-1.2, unblurred=0.8, drawn=0.9), treated=0.9, measured=None)
    assert not judge(drawn).found["camera"]


@pytest.fixture(scope="module")
def scene() -> np.ndarray:
    data = pytest.importorskip("skimage.data")
    return cv2.resize(data.astronaut()[:400, 60:500], (220, 200), interpolation=cv2.INTER_AREA)


def look(pixels: np.ndarray) -> Findings:
    return examine(pixels, OrtNetworks(2), 2)


def test_blur_noise_and_blocks_of_a_photograph(scene):
    blurred = cv2.GaussianBlur(scene, (0, 0), 0.7)
    assert look(blurred).regime == "clean" and not judge(look(scene)).found["blur_px"] > 0.75
    noisy = (blurred + np.random.default_rng(0).normal(0, 6, scene.shape)).clip(0, 255).round().astype(np.uint8)
    assert 3 < look(noisy).noise < 10 and look(noisy).regime == "wild"
    _, data = cv2.imencode(".jpg", blurred, [cv2.IMWRITE_JPEG_QUALITY, 60])
    assert abs(look(cv2.imdecode(data, cv2.IMREAD_COLOR)).quality - 60) <= 2


@pytest.mark.parametrize("draw", ["frame", "bars", "logo", "caption"])
def test_overlays_leave_the_estimate_alone(scene, draw):
    blurred = cv2.GaussianBlur(scene, (0, 0), 0.8)
    plain = look(blurred)
    pixels = blurred.copy()
    if draw == "frame":
        cv2.rectangle(pixels, (0, 0), (219, 199), (0, 0, 0), 1)
    elif draw == "bars":
        pixels[:20] = pixels[-20:] = 0
    elif draw == "logo":
        cv2.circle(pixels, (190, 25), 15, (255, 255, 255), -1)
    else:
        cv2.putText(pixels, "nobody said a word", (12, 185), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 255), 1)
    widths = [moments.logarithm(judge(f).condition.covariance)[0] for f in (plain, look(pixels))]
    assert abs(widths[1] - widths[0]) < 0.35, widths
