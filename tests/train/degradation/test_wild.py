"""The degradations of people's own pictures: what is drawn, where it lies, what is told of it."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from darsr_deploy.degradation import covariance as moments
from darsr_deploy.degradation.condition import LOSSLESS, SIZE, Condition, neutral
from darsr_deploy.images.arrays import write_image
from darsr_deploy.images.metrics import psnr_y
from darsr_deploy.images.resample import imresize
from darsr_train.degradation.overlays import KINDS as OVERLAYS
from darsr_train.degradation.overlays import draw_overlay
from darsr_train.degradation.scenes import draw_scene
from darsr_train.degradation.wild import FILTERS, compress, enlarge_before, filter_kernel, mistake
from darsr_train.training.crops.wild import KINDS, WildCrops, WildOptions


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    data = pytest.importorskip("skimage.data")
    folder = tmp_path_factory.mktemp("photographs")
    write_image(folder / "a.png", np.ascontiguousarray(data.astronaut()[:400, :400]))
    return [folder / "a.png"]


def test_neutral_condition_is_zero_but_for_the_blur():
    vector = neutral().vector()
    assert vector.shape == (SIZE,)
    assert np.allclose(vector[1:], 0)
    assert math.isclose(vector[0], math.log(moments.LEAST))


def test_conditions_outside_the_trained_range_are_clamped():
    wild = Condition(100 * np.eye(2), noise=1e3, quality=-5, treated=7, enlarged=1e3).vector()
    most = Condition(moments.LARGEST * np.eye(2), noise=15, quality=20, treated=1, enlarged=4).vector()
    assert np.allclose(wild, most)


@pytest.mark.parametrize("scale", [2, 4])
def test_every_kind_lies_where_its_truth_lies(photographs, scale):
    """No shift of a pixel explains a degraded crop better than none."""
    options = WildOptions(scale=scale, batch=4, groups=4, patch=40, scene_share=0, half_share=0, sharpened_share=0)
    crops = WildCrops(photographs, options)
    seen = {}
    for step in range(20):
        for index in range(4):
            group = crops.group(step, index)
            lr, hr = (np.uint8(t[0].permute(1, 2, 0).numpy() * 255 + 0.5) for t in (group.degraded, group.hr))
            up = imresize(lr, *hr.shape[:2])
            moved = {d: psnr_y(np.roll(up, d, (0, 1)), hr, 6) for d in ((0, 0), (0, 1), (1, 0), (0, -1), (-1, 0))}
            seen.setdefault(group.kind, []).append(moved[0, 0] - max(v for d, v in moved.items() if d != (0, 0)))
    assert seen.keys() == set(KINDS)
    assert all(np.mean(gains) > 0 for gains in seen.values()), {kind: np.mean(gains) for kind, gains in seen.items()}


def test_groups_depend_on_seed_step_and_index_alone(photographs):
    options = WildOptions(batch=2, groups=2, patch=32)
    first, again = (WildCrops(photographs, options).group(3, 1) for _ in range(2))
    assert torch.equal(first.degraded, again.degraded) and torch.equal(first.hr, again.hr)
    other = WildCrops(photographs, dataclasses.replace(options, seed=1)).group(3, 1)
    assert not torch.equal(first.hr, other.hr)


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("scale", [2, 4])
def test_resampling_filters_are_symmetric_and_keep_the_light(name, scale):
    kernel = filter_kernel(name, scale, 20 if scale == 2 else 58)
    assert math.isclose(kernel.sum(), 1)
    assert np.allclose(kernel, kernel[::-1, ::-1]) and np.allclose(kernel, kernel.T)


def test_a_box_has_the_variance_of_a_box():
    assert np.allclose(moments.covariance_of(filter_kernel("box", 2, 20), 2), 0.25 * np.eye(2))


def test_compression_costs_more_the_lower_the_quality(photo):
    distances = [
        np.abs(compress(photo, np.random.default_rng(0), q) - photo.astype(float)).mean() for q in (95, 60, 30)
    ]
    assert distances == sorted(distances)


def test_enlarging_before_takes_away_the_upper_band(photo):
    lr = photo.astype(np.float32) / 255
    enlarged = enlarge_before(lr, 2.0, np.random.default_rng(1))
    assert enlarged.shape == lr.shape
    power = [np.abs(np.fft.fft2(image.mean(2)))[30:50, 35:60].mean() for image in (lr, enlarged)]
    assert power[1] < 0.5 * power[0]


def test_what_is_not_there_stays_away_from_the_truth_too():
    told = neutral()
    true = mistake(np.random.default_rng(0), told)
    assert true.noise == 0 and true.quality == LOSSLESS and true.enlarged == 1 and true.treated == 0


@pytest.mark.parametrize("kind", OVERLAYS)
def test_overlays_change_a_part_of_the_picture(photo, kind):
    drawn = draw_overlay(photo, np.random.default_rng(2), kind)
    changed = (drawn != photo).any(2).mean()
    assert drawn.shape == photo.shape and 0 < changed < 0.95


def test_scenes_differ_and_hold_flat_colours():
    scenes = [draw_scene(np.random.default_rng(seed), 96) for seed in range(4)]
    assert all(scene.shape == (96, 96, 3) and scene.dtype == np.uint8 for scene in scenes)
    assert len({scene.tobytes() for scene in scenes}) == 4
    flat = [(np.abs(np.diff(scene.astype(int), axis=1)).max(2) == 0).mean() for scene in scenes]
    assert np.mean(flat) > 0.5


@pytest.mark.parametrize(("field", "value"), [("groups", 0), ("groups", 17)])
def test_impossible_groups_are_refused(field, value):
    with pytest.raises(ValueError, match=f"{field} is {value}"):
        WildOptions(**{field: value})
