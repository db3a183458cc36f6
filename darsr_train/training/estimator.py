"""Training of the estimator of an image's degradation: ``python -m darsr_train.training.estimator PHOTOS --out estimator.safetensors``."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darsr_deploy.blind.estimator import FLAGS, VALUES, to_kernel_units
from darsr_deploy.degradation import covariance as moments
from darsr_deploy.degradation.condition import LOSSLESS, Condition
from darsr_deploy.images.arrays import list_images

from ..blind.estimator import Estimator, load_estimator, save_estimator
from ..degradation.overlays import draw_overlay
from ..degradation.reduction import apply_kernels_by_fft
from ..degradation.wild import degrade
from .command import describe_training, make_parser, print_progress, read_options
from .crops.degraded import ramp
from .crops.wild import WildCrops, WildOptions
from .loop import train


@dataclass(frozen=True)
class EstimatorTraining(WildOptions):
    """Options of this training; a group is one crop."""

    steps: int = 8000
    batch: int = 16
    groups: int = 1
    patch: int = 96
    rate: float = 1e-3
    warmup: int = 200
    validate_every: int = 1000
    save_every: int = 250
    half_share: float = 0.5
    sharpened_share: float = 0.4
    blur_share: float = 0.32
    dirty_share: float = 0.26
    web_share: float = 0.18
    camera_share: float = 0.06
    enlarged_share: float = 0.1
    scene_share: float = 0.08
    overlay_share: float = 0.12


class LabelledCrops(WildCrops):
    """Degraded crops with what happened to them."""

    def crop(self, step: int, index: int) -> tuple[np.ndarray, np.ndarray]:
        """uint8 patch x patch x 3, and the truth: the values, a weight for each, the flags."""
        o, s = self.options, self.options.scale
        random = np.random.default_rng((o.seed, step, index))
        kind, told = self.draw_condition(random)
        drawn = bool(self.scenes) and random.random() < o.scene_share
        sharp = self._drawn(random) if drawn else self.sharp(random)
        source = torch.from_numpy(sharp).permute(2, 0, 1)[None].float() / 255
        lens = [self.lens(random, kind, told.covariance)]
        if kind in ("blur", "dirty") and random.random() < o.variant_share:
            lens.append(self.lens(random, kind, told.covariance * math.exp(random.normal(0, 0.6))))
        reduced = apply_kernels_by_fft(source, torch.from_numpy(np.stack(lens)).float(), s)
        lr = torch.lerp(*reduced, ramp(random, o.patch)) if len(lens) > 1 else reduced[0]
        pixels = degrade(lr[0].permute(1, 2, 0).numpy(), told, random)
        if random.random() < o.overlay_share:
            pixels = draw_overlay(pixels, random)
        if random.random() < 0.08:  # black and white
            pixels = np.repeat(pixels.mean(2, keepdims=True).round().astype(np.uint8), 3, axis=2)
        covariance = np.mean([moments.covariance_of(k, s) for k in lens], axis=0)
        return pixels, _truth(kind, told, covariance, s, drawn)

    def _drawn(self, random: np.random.Generator) -> np.ndarray:
        scene = self.scenes[int(random.integers(len(self.scenes)))]
        top, left = (int(random.integers(0, length - self.side + 1)) for length in scene.shape[:2])
        return np.ascontiguousarray(scene[top : top + self.side, left : left + self.side][:, :, random.permutation(3)])

    def batch_of(self, step: int) -> tuple[Tensor, Tensor]:
        """N x 3 x patch x patch in [0, 1], N x (2 * values + flags)."""
        pixels, truths = zip(*(self.crop(step, index) for index in range(self.options.batch)))
        images = torch.from_numpy(np.stack(pixels).transpose(0, 3, 1, 2).astype(np.float32) / 255)
        return images, torch.from_numpy(np.stack(truths)).float()


def _truth(kind: str, told: Condition, covariance: np.ndarray, scale: int, drawn: bool) -> np.ndarray:
    unblurred = kind in ("web", "plain")
    parts = moments.logarithm(covariance) - np.array([to_kernel_units(scale), 0, 0])
    compressed = told.quality < LOSSLESS
    values = [*parts, told.noise / 10, (LOSSLESS - told.quality) / 40, math.log2(told.enlarged)]
    seen = 0.0 if kind == "enlarged" else 1.0  # an earlier reduction hides what the lens did
    weights = [seen, seen, seen, 1.0, 1.0, 1.0]
    return np.array([*values, *weights, told.treated, unblurred, drawn, compressed])


def estimation_loss(output: Tensor, truth: Tensor) -> Tensor:
    """Gaussian negative log likelihood of the values, cross entropy of the flags."""
    count = len(VALUES)
    mean, log = output[:, :count], output[:, count : 2 * count].clamp(-7, 3)
    target, weight, flags = truth[:, :count], truth[:, count : 2 * count], truth[:, 2 * count :]
    error = (mean - target).square()
    likelihood = 0.5 * (error * (-log).exp() + log) + F.smooth_l1_loss(mean, target, beta=0.1, reduction="none")
    crossed = F.binary_cross_entropy_with_logits(output[:, 2 * count :], flags, reduction="none")
    return (likelihood * weight).mean() + crossed.mean()


def train_estimator(
    images: Path,
    out: Path,
    options: EstimatorTraining,
    start: Estimator | None = None,
    device: str = "cpu",
    resume: bool = False,
    validate: Callable[[nn.Module], dict[str, float]] | None = None,
    report: Callable[[dict], None] = lambda _: None,
) -> Estimator:
    """Train on a folder of photographs; arguments and errors as :func:`.training.train`'s."""
    torch.manual_seed(options.seed)
    crops = LabelledCrops(list_images(images), options)
    network = (start or Estimator()).requires_grad_(True)

    def loss_of(network: nn.Module, step: int) -> Tensor:
        pixels, truth = crops.batch_of(step)
        with options.autocast(device):
            output = network(pixels.to(device, memory_format=torch.channels_last))
        return estimation_loss(output.float(), truth.to(device))

    return train(network, options, loss_of, out, validate, device, resume, report)


@torch.no_grad()
def accuracy(network: Estimator, crops: LabelledCrops, count: int) -> dict[str, dict[str, float]]:
    """Root mean square errors of the values and error rates of the flags over ``count`` crops, of every kind of picture."""
    rows = {}
    for index in range(count):
        random = np.random.default_rng((crops.options.seed, index, 0))
        kind = crops.draw_condition(random)[0]
        pixels, truth = crops.crop(index, 0)
        image = torch.from_numpy(pixels.transpose(2, 0, 1)[None].astype(np.float32) / 255)
        rows.setdefault(kind, []).append((network(image)[0].numpy(), truth))
    table = {}
    for kind, pairs in rows.items():
        output, truth = (np.array(part) for part in zip(*pairs))
        error = output[:, : len(VALUES)] - truth[:, : len(VALUES)]
        wrong = (output[:, 2 * len(VALUES) :] > 0) != (truth[:, 2 * len(VALUES) :] > 0.5)
        table[kind] = {
            "crops": len(pairs),
            **{name: round(float(np.sqrt((error[:, i] ** 2).mean())), 3) for i, name in enumerate(VALUES)},
            **{f"{name}_wrong": round(float(wrong[:, i].mean()), 3) for i, name in enumerate(FLAGS)},
        }
    return table


def main() -> None:
    """Run the command, see the top of this file."""
    parser = make_parser("Train the estimator of an image's degradation.", EstimatorTraining)
    parser.add_argument("--start", type=Path, help="an estimator to go on from")
    given = parser.parse_args()
    options = read_options(given, EstimatorTraining)
    start = load_estimator(given.start) if given.start else None
    trained = train_estimator(
        given.images, given.out, options, start, given.device, given.resume, report=print_progress
    )
    print(save_estimator(trained, given.out, describe_training(parser, given, "estimator")))


if __name__ == "__main__":
    main()
