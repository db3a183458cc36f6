"""Degraded crops of photographs, which the prior is trained on.

A crop is blurred (or only reduced bicubically), sometimes by a kernel that changes across it, then either clean, a
little noisy or compressed, or treated as a camera does; always 8 bits. Its target is the same crop reduced bicubically.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from darsr_deploy.degradation import kernels
from darsr_deploy.errors import DarsrError
from darsr_deploy.images.arrays import read_image
from darsr_deploy.images.detail import measure_detail
from darsr_deploy.images.resample import imresize, to_uint8

from ...degradation.camera import Camera, through_jpeg
from ...degradation.reduction import apply_kernels_by_fft, bicubic_table
from ..loop import TrainingOptions


@dataclass(frozen=True)
class Degradations(TrainingOptions):
    """Which degradations are drawn; shares are chances of every crop."""

    kernel: int = 20  # side of the x2 kernels in HR pixels; x4 kernels are these applied twice
    gaussian_share: float = 0.47
    motion_share: float = 0.13
    disk_share: float = 0.13
    mixture_share: float = 0.12  # what is left of 1 is no blur at all: bicubic
    variant_share: float = 0.2  # two kernels, blended across the crop
    noise_share: float = 0.15
    noise_sigma: float = 2.0  # largest standard deviation, grey levels
    jpeg_share: float = 0.1
    jpeg_quality: int = 88  # lowest
    camera_share: float = 0.25  # noise, sharpening and JPEG of a camera instead of the two above
    camera_shift: float = 0.6  # standard deviation of such a crop's offset from its target, HR pixels
    candidates: int = 2  # crops drawn for each one used: the one with most detail is taken, flat ones teach little
    half_share: float = 0.0  # of the crops: from photographs reduced to half their size, whose scenes are sharper
    sharpened_share: float = 0.0  # of the crops: sharpened before they are degraded, as cameras and people do


class _Pool:
    """Images of which crops are drawn, larger ones more often, since they hold more.

    Args:
        least: side of the photographs that would do, for the error where there is none.
    """

    def __init__(self, images: Iterable[np.ndarray], side: int, least: int) -> None:
        self.images = [image for image in images if min(image.shape[:2]) >= side]
        if not self.images:
            why = f"none is in colour with sides of at least {least} px"
            raise DarsrError("training images", why, "give a folder of larger photographs")
        areas = np.array([image.shape[0] * image.shape[1] for image in self.images], np.float64)
        self.chance = areas / areas.sum()

    def crops(self, random: np.random.Generator, side: int, count: int) -> list[np.ndarray]:
        """Draw ``count`` crops of side ``side``."""
        crops = []
        for index in random.choice(len(self.images), count, p=self.chance):
            image = self.images[index]
            top, left = (int(random.integers(0, length - side + 1)) for length in image.shape[:2])
            crops.append(image[top : top + side, left : left + side])
        return crops


class DegradedCrops:
    """Photographs in memory and degraded crops of them; crops of a step depend on the seed and the step alone."""

    def __init__(self, paths: list[Path], options: Degradations) -> None:
        self.options = options
        s = options.scale
        self.size = options.kernel if s == 2 else 3 * options.kernel - 2
        self.side = s * options.patch + self.size - s
        images = [image for image in map(read_image, paths) if image.ndim == 3]
        self.photographs = _Pool(images, self.side, self.side)
        self.halves = _Pool(map(_halved, images), self.side, 2 * self.side) if options.half_share else None
        table = bicubic_table(s)
        self.bicubic = F.pad(table, ((self.size - table.shape[-1]) // 2,) * 4)

    def batch(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return the crops of a step.

        Returns:
            ``(degraded, target, hr)``: degraded LR crops (8-bit values / 255) and their bicubic targets,
            N x 3 x patch x patch; the HR crops, N x 3 x s patch x s patch.
        """
        random = np.random.default_rng((self.options.seed, step))
        samples = [self._sample(random) for _ in range(self.options.batch)]
        return tuple(torch.cat(part) for part in zip(*samples))

    def _sample(self, random: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        o, s, patch = self.options, self.options.scale, self.options.patch
        hr = torch.from_numpy(self.sharp(random)).permute(2, 0, 1)[None].float() / 255  # 1, 3, side, side
        camera = Camera.draw(random) if random.random() < o.camera_share else None
        variant = random.random() < o.variant_share
        blurs = [self.kernel(random) for _ in range(1 + variant)]
        if camera:  # no two exposures of one scene lie on each other to the pixel
            shift = random.normal(0, o.camera_shift, 2)
            blurs = [kernels.shifted(k, *shift) for k in blurs]
        stack = torch.from_numpy(np.stack(blurs)).float()
        target, *reduced = apply_kernels_by_fft(hr, torch.cat([self.bicubic[None], stack]), s)
        degraded = torch.lerp(*reduced, ramp(random, patch)) if variant else reduced[0]
        first = (self.size - s) // 2  # HR coordinate of the first LR pixel's corner
        window = slice(first, first + s * patch)
        return self.sensor(degraded, camera, random), target, hr[..., window, window]

    def sharp(self, random: np.random.Generator) -> np.ndarray:
        """Draw a sharp crop, uint8 side x side x 3: a sample's HR image and the rim that its kernel reaches into."""
        half = self.halves is not None and random.random() < self.options.half_share
        pool = self.halves if half else self.photographs
        crops = pool.crops(random, self.side, self.options.candidates)
        best = max(crops, key=measure_detail) if len(crops) > 1 else crops[0]
        if self.options.sharpened_share and random.random() < self.options.sharpened_share:
            best = _sharpened(best, random)
        return np.ascontiguousarray(np.rot90(best, int(random.integers(4))))

    def kernel(self, random: np.random.Generator) -> np.ndarray:
        """Draw a kernel: ``size`` x ``size``, sum 1."""
        o, side = self.options, self.options.kernel
        kinds = [
            (
                o.gaussian_share,
                lambda: kernels.random_gaussian(random, side, low=0.2, high=6.0, noise=random.uniform(0, 0.4)),
            ),
            (o.motion_share, lambda: kernels.random_motion(random, side)),
            (o.disk_share, lambda: kernels.random_disk(random, side)),
            (o.mixture_share, lambda: kernels.random_mixture(random, side)),
        ]
        pick = random.random()
        for share, make in kinds:
            if pick < share:
                kernel = make()
                return kernel if o.scale == 2 else kernels.twice(kernel)
            pick -= share
        return self.bicubic.double().numpy()

    def sensor(self, lr: Tensor, camera: Camera | None, random: np.random.Generator) -> Tensor:
        """Add what follows the lens to an LR image, 1 x 3 x H x W in [0, 1]; return it in steps of 1/255."""
        o, image = self.options, lr[0].permute(1, 2, 0).numpy()
        if camera:
            image = camera.develop(image, random)
        else:
            if random.random() < o.noise_share:
                sigma = random.uniform(0, o.noise_sigma) / 255
                image = image + sigma * random.standard_normal(image.shape, np.float32)
            pixels = to_uint8(image * 255)
            if random.random() < o.jpeg_share:
                pixels = through_jpeg(pixels, int(random.integers(o.jpeg_quality, 101)))
            image = pixels.astype(np.float32) / 255
        return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)[None]))


def _halved(image: np.ndarray) -> np.ndarray:
    return imresize(image, image.shape[0] // 2, image.shape[1] // 2)


def _sharpened(image: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Sharpen by unsharp masking, from not at all to strongly."""
    amount, radius = random.uniform(0, 1), random.uniform(0.6, 1.3)
    image = image.astype(np.float32)
    return to_uint8(image + amount * (image - cv2.GaussianBlur(image, (0, 0), radius)))


def ramp(random: np.random.Generator, side: int) -> Tensor:
    """Return weights in 0..1 that change along a random direction, from abruptly to over the whole crop."""
    angle, place = random.uniform(0, 2 * np.pi), random.uniform(0.25, 0.75)
    axis = np.linspace(-0.5, 0.5, side)
    along = axis[:, None] * np.sin(angle) + axis[None] * np.cos(angle)
    steepness = np.exp(random.uniform(np.log(2), np.log(40)))
    return torch.from_numpy(1 / (1 + np.exp(-steepness * (along + 0.5 - place)))).float()
