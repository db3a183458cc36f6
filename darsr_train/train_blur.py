"""Measures what least squares gets wrong: ``python -m darsr_train.train_blur PHOTOS --out blur.safetensors``.

Run it again after a change of the prior: its restorations are what the kernels are read from.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from darsr_deploy.container import write_container
from darsr_deploy.imaging import list_images

from . import kernels, small_network
from .backbones import load_backbone
from .blur import VERSION, limited, measure
from .degradation import apply_kernel
from .degraded_crops import Degradations, DegradedCrops
from .prior import load_prior

_HELD_OUT = 0.15  # of the samples
_LEAST_MEAN = 0.1  # HR pixels squared: what counts as no blur at all (bicubic reduction has a variance of 0)
_LEAST_ANISOTROPY = 0.15  # relative; below it the direction is noise


@torch.no_grad()
def samples(photographs: list[Path], count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(moments as estimated, facts about them, true moments) of crops under random kernels; moments as mean, half, cross."""
    shares = {"gaussian_share": 0.64, "motion_share": 0.14, "disk_share": 0.14, "mixture_share": 0.0}  # and none: 0.08
    options = Degradations(patch=120, candidates=3, **shares)
    crops = DegradedCrops(photographs, options)
    prior, backbone = load_prior(2), load_backbone("edge", 2).module
    estimated, facts, true = [], [], []
    for index in range(count):
        random = np.random.default_rng((seed, index))
        hr = torch.from_numpy(crops.sharp(random)).permute(2, 0, 1)[None].float() / 255
        kernel = crops.kernel(random)
        y = (apply_kernel(hr, torch.from_numpy(kernel).float(), 2).clamp(0, 1) * 255).round() / 255
        mean, half, cross, found = measure(backbone(prior(y)).clamp(0, 1), y)
        yy, xx, xy = kernels.second_moments(kernel)
        estimated.append((mean, half, cross))
        facts.append(found)
        true.append((max((yy + xx) / 2, _LEAST_MEAN), (yy - xx) / 2, xy))
    return np.array(estimated), np.array(facts), np.array(true)


def targets(estimated: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Log of true over estimated mean variance; log of true over estimated *relative* anisotropy along its direction."""
    mean = np.log(true[:, 0] / estimated[:, 0])
    along = (estimated[:, 1:] * true[:, 1:]).sum(1) / np.hypot(*estimated[:, 1:].T).clip(1e-6)
    relative = (along / true[:, 0]).clip(1e-2) / (np.hypot(*estimated[:, 1:].T) / estimated[:, 0]).clip(1e-6)
    return np.stack([mean, np.log(relative)], axis=1).clip(-1.5, 1.5)


def error_of(moments: np.ndarray, true: np.ndarray) -> float:
    """Mean relative error of the Gaussian kernel that the moments give, against that of the true ones."""
    errors = []
    for got, wanted in zip(moments, true):
        a, b = (kernels.from_covariance(limited(*m), "gaussian") for m in (got, wanted))
        errors.append(np.linalg.norm(a - b) / np.linalg.norm(b))
    return float(np.mean(errors))


def train_blur(estimated: np.ndarray, facts: np.ndarray, true: np.ndarray) -> tuple[dict[str, np.ndarray], dict]:
    """Weights as :mod:`.blur` reads them, and the error of kernels of held-out crops before and after."""
    wanted, split = targets(estimated, true), int(len(true) * (1 - _HELD_OUT))
    # The anisotropy of a nearly round kernel has no direction to be right about.
    trust = (np.hypot(*true[:, 1:].T) / true[:, 0] > _LEAST_ANISOTROPY).astype(float)
    weighted = np.concatenate([wanted, trust[:, None]], axis=1)

    def loss_of(outputs: Tensor, truth: Tensor) -> Tensor:
        difference = (outputs - truth[:, :2]).abs()
        return (difference[:, 0] + difference[:, 1] * truth[:, 2]).mean()

    class_free = lambda rows: small_network.fit(facts[rows], weighted[rows], loss_of, hidden=8, decay=1e-2, outputs=2)  # noqa: E731
    weights = class_free(slice(None, split))
    change = small_network.evaluate(weights, facts[split:]).clip(-1, 1)
    after = estimated[split:] * np.exp(change[:, [0, 0, 0]] + change[:, [1, 1, 1]] * [0, 1, 1])
    figures = {"before": error_of(estimated[split:], true[split:]), "after": error_of(after, true[split:])}
    doubled = estimated[split:] * [1, 2, 2]
    return class_free(slice(None)), {**figures, "anisotropy_doubled": error_of(doubled, true[split:])}


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the errors of kernels by least squares.")
    parser.add_argument("images", type=Path, help="folder of photographs")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--samples", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--licence", default="unstated")
    given = parser.parse_args()
    weights, errors = train_blur(*samples(list_images(given.images), given.samples, given.seed))
    print(json.dumps(errors), file=sys.stderr)
    command = (
        f"python -m darsr_train.train_blur {given.images.name} --out {given.out.name} "
        f"--samples {given.samples} --seed {given.seed}"
    )
    facts = {"licence": given.licence, "data": given.images.name, "command": command, "kernel_errors": errors}
    print(write_container(given.out, "blur", VERSION, facts, {k: v.astype(np.float32) for k, v in weights.items()}))


if __name__ == "__main__":
    main()
