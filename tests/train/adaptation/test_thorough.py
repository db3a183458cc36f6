"""Profile ``thorough``: where it fits, that it helps there, and that it repeats, resumes and refuses as it should."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage import data

from darsr_deploy.degradation import kernels
from darsr_deploy.degradation.reduction import reduce
from darsr_deploy.errors import DarsrError
from darsr_deploy.files.adapter import Adapter
from darsr_deploy.images.arrays import read_image, write_image
from darsr_deploy.images.resample import to_uint8
from darsr_train.adaptation import checkpoint, thorough
from darsr_train.adaptation.adapt import adapt_image
from darsr_train.adaptation.options import AdaptOptions
from darsr_train.adaptation.references import random_crops
from darsr_train.backbones import load_backbone
from darsr_train.blind.modulation import load_modulated
from darsr_train.blind.networks import TorchNetworks
from darsr_train.evaluation.measure import evaluate_image
from tests.support.commands import darsr

PHOTO = np.ascontiguousarray(data.chelsea()[:256, 60:380])
DISK = kernels.disk(12, 3.0)
QUICK = AdaptOptions.profile("thorough", steps=3)


def blurred(kernel: np.ndarray) -> np.ndarray:
    values = reduce(PHOTO.transpose(2, 0, 1)[None].astype(np.float32), kernel, 2)
    return np.ascontiguousarray(to_uint8(values)[0].transpose(1, 2, 0))


def adapt(folder: Path, pixels: np.ndarray, options: AdaptOptions = QUICK, name: str = "a", **how) -> Adapter:
    write_image(folder / "picture.png", pixels)
    backbone = load_backbone("edge", options.scale)
    return adapt_image(folder / "picture.png", folder / f"{name}.darsr", backbone, options, **how)[0]


def test_fits_what_no_gaussian_describes_and_gains_by_it(tmp_path):
    gains = []
    write_image(tmp_path / "HR.png", PHOTO)
    write_image(tmp_path / "LR.png", blurred(DISK))
    for options in (AdaptOptions.profile("fast"), AdaptOptions.profile("thorough", steps=40)):
        backbone = load_backbone("edge", 2)
        gains.append(evaluate_image(tmp_path / "LR.png", tmp_path / "HR.png", backbone, options)["psnr_y"])
    assert gains[1] > gains[0] + 0.2


def test_says_what_it_found_and_fits_into_what_ships(tmp_path):
    adapter = adapt(tmp_path, blurred(DISK))
    assert (adapter.facts["chosen"], adapter.facts["profile"], adapter.facts["steps"]) == ("fitted", "thorough", 3)
    assert adapter.facts["decision"] in {f"blur of {w} px, not a Gaussian: fitted" for w in (1.5, 1.6)}
    assert adapter.arrays["kernel"].shape == (14, 14) and adapter.rounds == 1
    assert adapter.modulation_sha256 == load_modulated(thorough.modulated_path(2, "clean")).sha256
    assert len(adapter.facts["losses"]["adapting"]["means"]) == 3


@pytest.mark.parametrize("why", ["a Gaussian", "noise", "another scale", "small"])
def test_is_fast_where_fast_knows_more(why, tmp_path):
    scale, pixels = 2, blurred(kernels.gaussian(12, 2.1, 1.9, 0.3))
    if why == "noise":
        noise = np.random.default_rng(0).normal(0, 8, pixels.shape)
        pixels = to_uint8(blurred(DISK) + noise)
    elif why == "another scale":
        scale, pixels = 4, blurred(DISK)
    elif why == "small":
        pixels = blurred(DISK)[:60, :60]
    fast = adapt(tmp_path, pixels, AdaptOptions.profile("fast", scale), "fast")
    found = adapt(tmp_path, pixels, AdaptOptions.profile("thorough", scale, steps=3), "thorough")
    assert found.arrays.keys() == fast.arrays.keys()
    assert all(np.array_equal(found.arrays[name], fast.arrays[name]) for name in fast.arrays)
    assert (found.rounds, found.facts["decision"], found.facts["steps"]) == (fast.rounds, fast.facts["decision"], 0)


def test_a_blur_that_changes_across_the_picture_has_several_kernels():
    left, right = blurred(kernels.motion(12, 7, 0.0, 0.0, 0.5)), blurred(kernels.motion(12, 7, 1.57, 0.0, 0.5))
    middle = left.shape[1] // 2
    both = np.concatenate([left[:, :middle], right[:, middle:]], axis=1)
    assert len(thorough.estimate_blur(both, TorchNetworks(2)).local) == 4
    assert len(thorough.estimate_blur(left, TorchNetworks(2)).local) == 1


def test_a_step_is_what_the_blur_makes_of_sharp_crops():
    blur = thorough.Blur(np.pad(DISK, 1), (np.pad(DISK, 1),))
    options = replace(QUICK, batch=2, crop=16)
    (hr, lr), (again, _), (other, _) = (thorough.blurred_crops(blur, options, step) for step in (0, 0, 1))
    assert torch.equal(hr, again) and not torch.equal(hr, other)
    assert hr.shape == (2, 3, 32, 32) and lr.shape == (2, 3, 16, 16)
    reduced = reduce(hr.contiguous().numpy(), DISK, 2)
    np.testing.assert_allclose(lr[..., 4:-4, 4:-4], reduced[..., 4:-4, 4:-4], atol=0.5 / 255 + 1e-5)


def test_reference_crops_depend_on_their_seed():
    first, again, other = (random_crops(np.random.default_rng(seed), 3, 40) for seed in (1, 1, 2))
    assert first.shape == (3, 3, 40, 40) and torch.equal(first, again) and not torch.equal(first, other)


def test_same_seed_same_bytes_and_a_killed_run_goes_on(tmp_path, monkeypatch):
    pixels = blurred(DISK)
    adapt(tmp_path, pixels, name="whole")
    adapt(tmp_path, pixels, name="again")
    adapt(tmp_path, pixels, replace(QUICK, seed=1), name="other")
    whole, again, other = ((tmp_path / f"{name}.darsr").read_bytes() for name in ("whole", "again", "other"))
    assert whole == again != other
    monkeypatch.setattr(checkpoint, "_EVERY_SECONDS", 0.0)

    class Killed(Exception):
        pass

    def kill(entry: dict) -> None:
        if entry["step"] == 3:
            raise Killed

    with pytest.raises(Killed):
        adapt(tmp_path, pixels, name="killed", report=kill)
    assert (tmp_path / "killed.darsr.partial").is_file() and not (tmp_path / "killed.darsr").exists()
    steps = []
    adapt(tmp_path, pixels, name="killed", resume=True, report=lambda entry: steps.append(entry["step"]))
    assert steps == [3] and (tmp_path / "killed.darsr").read_bytes() == whole


def test_command_line(tmp_path):
    write_image(tmp_path / "a.png", blurred(DISK))
    result = darsr("adapt", tmp_path / "a.png", "--profile", "thorough", "--steps", "2", "--json")
    row = json.loads(result.stdout)
    assert (row["profile"], row["chosen"], row["steps"]) == ("thorough", "fitted", 2)
    assert darsr("infer", tmp_path / "a.png", "--adapter", row["adapter"], "-o", tmp_path / "b.png").exit_code == 0
    assert read_image(tmp_path / "b.png").shape == (256, 320, 3)


def test_other_backbones_are_refused_in_one_line(tmp_path):
    with pytest.raises(DarsrError, match="fits the networks of the default backbone; use --profile fast"):
        write_image(tmp_path / "picture.png", blurred(DISK))
        adapt_image(tmp_path / "picture.png", tmp_path / "a.darsr", load_backbone("edge-plus", 2), QUICK)
    with pytest.raises(ValueError, match="amount belongs to profile fast, and the profile is thorough"):
        AdaptOptions.profile("thorough", amount=2.0)
