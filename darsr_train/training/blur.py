"""Train the networks of blur estimates: ``python -m darsr_train.training.blur PHOTOS --out blur-x2.safetensors``."""

from __future__ import annotations

import functools
import json
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from darsr_deploy.blind import blur
from darsr_deploy.blind.mlp import evaluate
from darsr_deploy.degradation import covariance as moments
from darsr_deploy.degradation import kernels
from darsr_deploy.files.container import write_container
from darsr_deploy.images.arrays import list_images

from ..backbones import load_backbone
from ..degradation.reduction import apply_kernels_by_fft
from ..networks.mlp import fit
from ..networks.prior import load_prior
from .command import describe_training, make_parser
from .crops.degraded import Degradations, DegradedCrops

_SIDES = {2: 150, 4: 100}  # of the LR crops of each scale: at x4 photographs hold no larger ones
_HIDDEN = 48
_HELD_OUT = 0.15  # of the samples
_BY_LOGARITHM = 0.4  # of the samples: Gaussians whose variances are even in their logarithm, by which errors count
_SQUARE_BELOW = 0.1  # an error in a logarithm of variance counts by its square up to here, then by its size


@torch.no_grad()
def samples(
    photographs: list[Path],
    count: int,
    seed: int,
    half_share: float = 0.5,
    sharpened_share: float = 0.5,
    only_reduced: bool = False,
    scale: int = 2,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Blur crops of photographs at random and return their features once prior and backbone have restored them.

    Large photographs are softer, pixel by pixel, than reduced or sharpened ones: without both shares, the blur of other
    collections is underestimated.

    Args:
        half_share, sharpened_share: see :class:`.crops.degraded.Degradations`.
        only_reduced: no blur.

    Returns:
        Features, count x 4 x n (see :func:`darsr_deploy.blind.blur.observe`); logarithms of the x2 kernel's covariance
        by least squares and of the true one, count x 3.
    """
    shares = {"gaussian_share": 0.66, "motion_share": 0.1, "disk_share": 0.1, "mixture_share": 0.08}
    shares |= {"half_share": half_share, "sharpened_share": sharpened_share}
    crops = DegradedCrops(photographs, Degradations(scale=scale, patch=_SIDES[scale], **shares))
    backbone, prior = load_backbone("edge", scale).module, load_prior(scale).to(memory_format=torch.channels_last)
    found, estimated, true = [], [], []
    for index in range(count):
        random = np.random.default_rng((seed, index))
        hr = torch.from_numpy(crops.sharp(random)).permute(2, 0, 1)[None].float() / 255
        kernel = crops.bicubic.double().numpy() if only_reduced else _kernel(crops, random)
        lr = apply_kernels_by_fft(hr, torch.from_numpy(kernel)[None].float(), scale)[0]
        y = crops.sensor(lr, None, random).contiguous(memory_format=torch.channels_last)
        features, first = blur.observe(backbone(prior(y)).clamp(0, 1).numpy(), y.numpy(), scale)
        found.append(features)
        estimated.append(moments.logarithm(first))
        true.append(moments.logarithm(moments.covariance_of(kernel, scale)))
    return np.array(found), np.array(estimated), np.array(true)


def _kernel(crops: DegradedCrops, random: np.random.Generator) -> np.ndarray:
    if random.random() >= _BY_LOGARITHM:
        return crops.kernel(random)
    noise = random.uniform(0, 0.4)
    kernel = kernels.random_gaussian(random, crops.options.kernel, moments.LEAST, 6.0, noise, by_logarithm=True)
    return kernel if crops.options.scale == 2 else kernels.twice(kernel)


def _is_blurred(true: np.ndarray) -> np.ndarray:
    """Return which of the covariances' logarithms, count x 3, differ from a bicubic reduction's, the least one."""
    return np.abs(true - moments.logarithm(moments.LEAST * np.eye(2))).sum(1) > 1e-6


def train_correction(
    found: np.ndarray, estimated: np.ndarray, true: np.ndarray, steps: int = 4000
) -> tuple[dict[str, np.ndarray], dict]:
    """Train the network whose output is added to the logarithm of the covariance by least squares.

    Args:
        found, estimated, true: see :func:`samples`.

    Returns:
        Weights for :mod:`darsr_deploy.blind.blur`, and root mean square errors (mean, half difference, cross part of
        the logarithm) on held-out crops: of least squares, and of a network trained without these.
    """
    split, change = int(len(found) * (1 - _HELD_OUT)), true - estimated
    loss = functools.partial(F.smooth_l1_loss, beta=_SQUARE_BELOW)
    targets = change[:, None] * blur.SIGNS  # count, 4, 3

    def trained(until: int) -> dict[str, np.ndarray]:
        rows = (part[:until].reshape(-1, part.shape[-1]) for part in (found, targets))
        return fit(*rows, loss, _HIDDEN, steps=steps, decay=1e-3, dropout=0.3, batch=256)

    network = trained(split)
    answers = np.stack([(evaluate(network, views) * blur.SIGNS).mean(0) for views in found[split:]])
    errors = {"least_squares": change[split:], "corrected": change[split:] - answers}
    accuracy = {name: np.sqrt((error**2).mean(0)).round(3).tolist() for name, error in errors.items()}
    return trained(len(found)), accuracy


def train_detector(blurred: np.ndarray, reduced: np.ndarray, steps: int = 2500) -> tuple[dict[str, np.ndarray], dict]:
    """Train the network that tells images that were only reduced from blurred ones.

    Args:
        blurred, reduced: features of both, count x 4 x n.

    Returns:
        Weights for :mod:`darsr_deploy.blind.blur`, and the shares of held-out crops of both that a detector trained
        without these classifies as only reduced.
    """

    def trained(blurred: np.ndarray, reduced: np.ndarray) -> dict[str, np.ndarray]:
        rows = np.concatenate([blurred, reduced])
        # Column 0: only reduced or not; column 1: the weight, by which the blurred ones count twice as much in all.
        truth = np.repeat([0.0, 1.0], [len(blurred), len(reduced)])
        weight = np.repeat([1.0, 0.5 * len(blurred) / len(reduced)], [len(blurred), len(reduced)])
        targets = np.repeat(np.stack([truth, weight], axis=1), rows.shape[1], axis=0)
        rows = rows.reshape(-1, rows.shape[-1])
        return fit(rows, targets, _weighted, _HIDDEN, steps, 1e-3, outputs=1, dropout=0.3, batch=256)

    splits = [int(len(found) * (1 - _HELD_OUT)) for found in (blurred, reduced)]
    network = trained(blurred[: splits[0]], reduced[: splits[1]])
    answers = (
        np.array([evaluate(network, views).mean() > 0 for views in found[split:]])
        for found, split in zip((blurred, reduced), splits)
    )
    accuracy = {name: round(float(a.mean()), 3) for name, a in zip(("blurred", "only_reduced"), answers)}
    return trained(blurred, reduced), {"taken_for_reduced": accuracy}


def _weighted(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    losses = F.binary_cross_entropy_with_logits(outputs[:, 0], targets[:, 0], reduction="none")
    return (losses * targets[:, 1]).mean()


def main() -> None:
    """Run the command, see the top of this file."""
    parser = make_parser("Train the correction of blur estimates.")
    parser.add_argument("--scale", type=int, default=2, choices=sorted(_SIDES))
    parser.add_argument("--samples", type=int, default=3400)
    parser.add_argument("--reduced", type=int, default=600, help="further samples that are only reduced")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--half-share", type=float, default=0.5, help="of crops from photographs reduced to half their size"
    )
    parser.add_argument("--sharpened-share", type=float, default=0.5, help="of crops sharpened before they are blurred")
    given = parser.parse_args()
    how = {"half_share": given.half_share, "sharpened_share": given.sharpened_share, "scale": given.scale}
    photographs = list_images(given.images)
    found = samples(photographs, given.samples, given.seed, **how)
    reduced = samples(photographs, given.reduced, given.seed + 1, **how, only_reduced=True)
    correction, accuracy = train_correction(*found, given.steps)
    detector, told = train_detector(found[0][_is_blurred(found[2])], reduced[0], given.steps)
    accuracy |= told
    print(json.dumps(accuracy), file=sys.stderr)
    networks = {"correction": correction, "reduced": detector}
    weights = {
        f"{name}.{part}": a.astype(np.float32) for name, arrays in networks.items() for part, a in arrays.items()
    }
    facts = {**describe_training(parser, given, "blur"), "accuracy": accuracy}
    print(write_container(given.out, "blur", blur.VERSION, facts, weights))


if __name__ == "__main__":
    main()
