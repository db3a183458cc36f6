"""Training of the prior: a DARM that corrects images of many degradations without having seen them.

Every crop gets a degradation of its own: a blur (or none), sometimes changing across the crop, sometimes a little
noise or JPEG, always 8 bits. The target is the same crop reduced bicubically. A second, shorter training goes through a
frozen backbone to the HR crop itself: what counts is the super-resolved picture, and that wants a stronger correction
than the LR target alone.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from darsr_deploy.errors import DarsrError
from darsr_deploy.imaging import list_images, read_image
from darsr_deploy.resample import to_uint8

from . import kernels
from .backbones import load_backbone
from .darm import DARM
from .degradation import apply_kernel
from .losses import bicubic_table
from .prior import load_prior, save_prior
from .training import TrainingOptions, train


@dataclass(frozen=True)
class PriorTraining(TrainingOptions):
    """Options of the prior's training; the shares below are chances of every crop.

    On one core of an AMD EPYC 9004 with bf16, a step takes about 0.15 s at x2.
    """

    steps: int = 30_000
    patch: int = 80  # pooled attention needs crops that show the blur
    channels: int = 32
    kernel: int = 20  # side of the x2 kernels in HR pixels
    gaussian_share: float = 0.5
    motion_share: float = 0.12
    disk_share: float = 0.12
    mixture_share: float = 0.14  # what is left of 1 is no blur at all: bicubic
    variant_share: float = 0.2  # two kernels, blended across the crop
    noise_share: float = 0.2
    noise_sigma: float = 2.0  # largest standard deviation, grey levels
    jpeg_share: float = 0.1
    jpeg_quality: int = 88  # lowest


def start_at_identity(model: DARM) -> DARM:
    """Make a fresh 13-tap DARM return its input: small tail weights, centre tap 1."""
    with torch.no_grad():
        model.tail.weight.mul_(0.05)
        model.tail.bias[12] = 1
    return model


class DegradedCrops:
    """Photographs in memory and degraded crops of them; crops of a step depend on the seed and the step alone."""

    def __init__(self, paths: list[Path], options: PriorTraining) -> None:
        self.options = options
        s = options.scale
        self.size = options.kernel if s == 2 else 3 * options.kernel - 2
        self.side = s * options.patch + self.size - s
        images = (read_image(path) for path in paths)
        self.images = [im for im in images if im.ndim == 3 and min(im.shape[:2]) >= self.side]
        if not self.images:
            raise DarsrError(
                "training images",
                f"none is in colour with sides of at least {self.side} px",
                "give a folder of larger photographs",
            )
        areas = np.array([im.shape[0] * im.shape[1] for im in self.images], np.float64)
        self.chance = areas / areas.sum()

    def batch(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Degraded LR crops (8-bit values / 255), their bicubic targets (N x 3 x patch x patch) and the HR crops."""
        random = np.random.default_rng((self.options.seed, step))
        samples = [self._sample(random, i) for i in random.choice(len(self.images), self.options.batch, p=self.chance)]
        degraded, target, hr = (torch.cat(part) for part in zip(*samples))
        return degraded, target, hr

    def _sample(self, random: np.random.Generator, index: int) -> tuple[Tensor, Tensor, Tensor]:
        image = self.images[index]
        top, left = (int(random.integers(0, side - self.side + 1)) for side in image.shape[:2])
        crop = np.rot90(image[top : top + self.side, left : left + self.side], int(random.integers(4)))
        hr = torch.from_numpy(np.ascontiguousarray(crop.transpose(2, 0, 1)[None])).float() / 255
        s, table = self.options.scale, bicubic_table(self.options.scale)
        margin = (self.size - table.shape[-1]) // 2
        target = apply_kernel(hr[..., margin : self.side - margin, margin : self.side - margin], table, s)
        degraded = apply_kernel(hr, self._kernel(random), s)
        if random.random() < self.options.variant_share:
            other = apply_kernel(hr, self._kernel(random), s)
            degraded = torch.lerp(degraded, other, _ramp(random, self.options.patch))
        first = (self.size - s) // 2  # HR coordinate of the first LR pixel's corner
        return (
            self._sensor(random, degraded),
            target,
            hr[..., first : first + s * self.options.patch, first : first + s * self.options.patch],
        )

    def _kernel(self, random: np.random.Generator) -> Tensor:
        o, size = self.options, self.options.kernel
        kinds = [
            (
                o.gaussian_share,
                lambda: kernels.random_gaussian(random, size, low=0.2, high=6.0, noise=random.uniform(0, 0.4)),
            ),
            (o.motion_share, lambda: kernels.random_motion(random, size)),
            (o.disk_share, lambda: kernels.random_disk(random, size)),
            (o.mixture_share, lambda: kernels.random_mixture(random, size)),
        ]
        pick = random.random()
        for share, make in kinds:
            if pick < share:
                kernel = make()
                return torch.from_numpy(kernel if o.scale == 2 else kernels.twice(kernel)).float()
            pick -= share
        table = bicubic_table(o.scale)
        margin = (self.size - table.shape[-1]) // 2
        return nn.functional.pad(table, (margin,) * 4)

    def _sensor(self, random: np.random.Generator, image: Tensor) -> Tensor:
        """Noise, JPEG and rounding to 8 bits."""
        o = self.options
        if random.random() < o.noise_share:
            sigma = random.uniform(0, o.noise_sigma) / 255
            image = image + torch.from_numpy(random.normal(0, sigma, image.shape)).float()
        if random.random() < o.jpeg_share:
            pixels = to_uint8(image[0].permute(1, 2, 0).numpy() * 255)
            _, data = cv2.imencode(
                ".jpg", pixels[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, int(random.integers(o.jpeg_quality, 101))]
            )
            pixels = np.ascontiguousarray(cv2.imdecode(data, cv2.IMREAD_COLOR)[:, :, ::-1].transpose(2, 0, 1)[None])
            return torch.from_numpy(pixels).float() / 255
        return (image.clamp(0, 1) * 255).round() / 255


def _ramp(random: np.random.Generator, side: int) -> Tensor:
    """Weights in 0..1 that change along a random direction, from abruptly to over the whole crop."""
    angle, place = random.uniform(0, 2 * np.pi), random.uniform(0.25, 0.75)
    axis = np.linspace(-0.5, 0.5, side)
    along = axis[:, None] * np.sin(angle) + axis[None] * np.cos(angle)
    steepness = np.exp(random.uniform(np.log(2), np.log(40)))
    return torch.from_numpy(1 / (1 + np.exp(-steepness * (along + 0.5 - place)))).float()


def train_prior(
    images: Path,
    out: Path,
    options: PriorTraining,
    device: str = "cpu",
    resume: bool = False,
    start: DARM | None = None,
    backbone: nn.Module | None = None,
    validate: Callable[[nn.Module], dict[str, float]] | None = None,
    report: Callable[[dict], None] = lambda _: None,
) -> DARM:
    """Train a prior on a folder of photographs.

    Args:
        start: weights to go on from; a fresh network that returns its input otherwise.
        backbone: frozen; adds the error of the super-resolved crop to the loss.

    The other arguments, and what is raised, are :func:`.training.train`'s.
    """
    torch.manual_seed(options.seed)
    crops = DegradedCrops(list_images(images), options)

    def loss_of(model: nn.Module, step: int) -> Tensor:
        degraded, target, hr = (t.to(device, memory_format=torch.channels_last) for t in crops.batch(step))
        with options.autocast(device):
            corrected = model(degraded)
            sr = backbone(corrected) if backbone is not None else None
        loss = (corrected.float() - target).abs().mean()
        if sr is not None:
            # the root of each crop's MSE: between PSNR, which counts crops alike, and MSE, which sees only the hard ones
            loss = loss + (sr.float() - hr).square().mean((1, 2, 3)).add(1e-6).sqrt().mean()
        return loss

    model = (
        copy.deepcopy(start).requires_grad_(True)
        if start is not None
        else start_at_identity(DARM(channels=options.channels))
    )
    return train(model, options, loss_of, out, validate, device, resume, report).to("cpu").eval().requires_grad_(False)


def main() -> None:
    """Command line: ``python -m darsr_train.train_prior PHOTOS --out prior-x2.safetensors``."""
    parser = argparse.ArgumentParser(description="Train the prior that profile fast starts from.")
    parser.add_argument("images", type=Path, help="folder of photographs")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--licence", default="unstated")
    parser.add_argument("--start", type=Path, help="a prior to go on from")
    parser.add_argument("--backbone", help="name or file: train through this frozen backbone as well")
    for field in dataclasses.fields(PriorTraining):
        if field.type in ("int", "float"):
            parser.add_argument(
                f"--{field.name.replace('_', '-')}",
                type={"int": int, "float": float}[field.type],
                default=field.default,
            )
    given = vars(parser.parse_args())
    out, images = given.pop("out"), given.pop("images")
    resume, device, licence = given.pop("resume"), given.pop("device"), given.pop("licence")
    options = PriorTraining(**{name: value for name, value in given.items() if name not in ("start", "backbone")})
    start = load_prior(options.scale, given["start"]) if given["start"] else None
    backbone = load_backbone(given["backbone"], options.scale, device).module if given["backbone"] else None

    def report(entry: dict) -> None:
        if entry["step"] % 100 == 0:
            print(json.dumps(entry), file=sys.stderr)

    darm = train_prior(images, out, options, device, resume, start, backbone, report=report)
    told = {
        name: Path(value).name if name in ("start", "backbone") else value for name, value in given.items() if value
    }
    flags = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in told.items())
    command = f"python -m darsr_train.train_prior {images.name} --out {out.name} {flags}"
    print(save_prior(darm, out, {"licence": licence, "data": images.name, "command": command}))


if __name__ == "__main__":
    main()
