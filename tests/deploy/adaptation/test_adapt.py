"""``darsr_deploy.adapt``: an array in, an adapter in memory out, without PyTorch; the file ``darsr adapt`` writes is the same."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

import darsr_deploy
from darsr_deploy.adaptation.networks import OrtNetworks
from darsr_deploy.errors import DarsrError
from darsr_deploy.files.adapter import Adapter
from darsr_deploy.images.arrays import read_image, to_image, to_tensor, write_image
from tests.support.commands import done
from tests.support.shared import SHARED, needs_shared

ROOT = Path(__file__).parent.parent.parent.parent
SETS = sorted(SHARED.glob("data/blind/*_x[24]"))


def photo(height: int = 96, width: int = 120) -> np.ndarray:
    """Shapes with edges of every direction, blurred, with a little noise."""
    random = np.random.default_rng(0)
    canvas = np.full((4 * height, 4 * width, 3), 128, np.uint8)
    for _ in range(60):
        centre, axes = random.integers(0, 4 * width, 2), random.integers(8, 90, 2)
        colour = [int(c) for c in random.integers(0, 256, 3)]
        cv2.ellipse(canvas, centre.tolist(), axes.tolist(), float(random.uniform(0, 180)), 0, 360, colour, -1)
    return cv2.resize(cv2.GaussianBlur(canvas, (0, 0), 5), (width, height), interpolation=cv2.INTER_AREA)


def test_an_adapter_does_not_depend_on_the_number_of_threads():
    noisy = (photo() + np.random.default_rng(1).normal(0, 6, photo().shape)).clip(0, 255).astype(np.uint8)
    made = [darsr_deploy.adapt(noisy, networks=OrtNetworks(2, threads)) for threads in (1, 2, 3)]
    for other in made[1:]:
        assert other.facts == made[0].facts and other.arrays.keys() == made[0].arrays.keys()
        assert all(np.array_equal(array, made[0].arrays[name]) for name, array in other.arrays.items())


def test_an_adapter_is_made_in_memory_and_is_the_one_of_the_command(tmp_path):
    adapter = darsr_deploy.adapt(photo())
    assert adapter.correction == "network" and adapter.scale == 2 and adapter.facts["decision"].endswith("corrected")
    adapter.save(tmp_path / "memory.darsr")
    assert Adapter.load(tmp_path / "memory.darsr").arrays.keys() == adapter.arrays.keys()
    write_image(tmp_path / "a.png", photo())
    done("adapt", tmp_path / "a.png")
    written = Adapter.load(tmp_path / "a.darsr")
    assert all(np.array_equal(array, written.arrays[name]) for name, array in adapter.arrays.items())
    assert {"options", "source", "seed"} <= written.facts.keys() and written.facts["found"] == adapter.facts["found"]


def test_gray_and_deep_pictures_are_adapted_to_by_their_eight_bits():
    gray = photo()[:, :, 1]
    deep = darsr_deploy.adapt(gray.astype(np.uint16) * 257)
    assert np.array_equal(deep.arrays["kernel"], darsr_deploy.adapt(gray).arrays["kernel"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"amount": 9.0}, "option: amount is 9.0; expected 0.1 to 4"),
        ({"deblock": -1.0}, "option: deblock is -1.0; expected 0 to 1"),
        ({"scale": 3}, "scale 3: is not supported; choose 2 or 4"),
        ({"image": photo()[:20]}, "the image: is 120x20 pixels, too small to adapt"),
    ],
)
def test_what_cannot_be_done_is_one_line(options, said):
    with pytest.raises(DarsrError, match=said):
        darsr_deploy.adapt(**{"image": photo(), **options})


def test_adapting_imports_neither_pytorch_nor_onnx():
    code = (
        "import sys, numpy as np, darsr_deploy; darsr_deploy.adapt(np.zeros((64, 64, 3), np.uint8));"
        "assert not {'torch', 'onnx', 'skimage'} & set(sys.modules), sorted(sys.modules)"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], check=True, env=env)


@pytest.mark.slow
@needs_shared
def test_both_runtimes_come_to_the_same_adapters():
    """On three images of every kind: equal decisions, weights within 1e-4 of their size, pictures within a grey level."""
    import torch

    from darsr_deploy.bundle.ort_bundle import open_bundle
    from darsr_deploy.bundle.shipped import bundle_for
    from darsr_train.backbones import load_backbone
    from darsr_train.blind.networks import TorchNetworks
    from darsr_train.pipeline import pipeline_of

    compared = 0
    for folder in SETS:
        scale = int(folder.name[-1])
        theirs, backbone = TorchNetworks(scale), load_backbone("edge", scale).module
        for path in sorted((folder / "LR").iterdir())[:3]:
            pixels = read_image(path)
            ours, other = darsr_deploy.adapt(pixels, scale), darsr_deploy.adapt(pixels, scale, networks=theirs)
            for fact in ("chosen", "decision", "found", "regime"):
                assert ours.facts.get(fact) == other.facts.get(fact), path
            assert (ours.rounds, ours.modulation_sha256) == (other.rounds, other.modulation_sha256)
            for name, array in other.arrays.items():
                np.testing.assert_allclose(ours.arrays[name], array, rtol=0, atol=1e-4 * np.abs(array).max())
            lr = to_tensor(pixels)
            with torch.inference_mode():
                expected = to_image(pipeline_of(other, backbone)(torch.from_numpy(lr)).numpy())
            with open_bundle(bundle_for(ours)).engine(ours) as engine:
                result = to_image(engine.run(lr))
            assert np.abs(result.astype(int) - expected).max() <= 1, path
            compared += 1
    assert compared >= 30
