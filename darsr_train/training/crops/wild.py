"""Training crops of pictures as people have them: photographs and drawn scenes that went through :mod:`..degradation.wild`.

Every group of crops shares a condition, which the networks are told with the errors that its estimate has.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from darsr_deploy.degradation import covariance as moments
from darsr_deploy.degradation import kernels
from darsr_deploy.degradation.condition import LOSSLESS, Condition

from ...degradation.reduction import apply_kernels_by_fft
from ...degradation.scenes import draw_scene
from ...degradation.wild import FILTERS, compress, degrade, draw_quality, filter_kernel, mistake, random_covariance
from .degraded import Degradations, DegradedCrops, ramp

KINDS = ("blur", "dirty", "web", "camera", "enlarged", "plain")


@dataclass(frozen=True)
class WildOptions(Degradations):
    """Shares of the kinds of pictures among the groups, and what a group is."""

    batch: int = 16
    patch: int = 48
    groups: int = 4  # of a step: their crops share a condition
    kernel: int = kernels.NEAR_SIDE + 4
    half_share: float = 0.4
    sharpened_share: float = 0.25
    blur_share: float = 0.26
    dirty_share: float = 0.42
    web_share: float = 0.16
    camera_share: float = 0.05
    enlarged_share: float = 0.06  # what is left of 1 is plain: reduced bicubically, clean
    scene_share: float = 0.1  # of the crops: drawn scenes instead of photographs
    overlay_share: float = 0.0  # of the crops: with something drawn over them after the lens
    variant_share: float = 0.2
    noise_share: float = 0.15
    noise_sigma: float = 1.5
    jpeg_share: float = 0.08
    jpeg_quality: int = 90
    least: float = 0.25  # variances of blurs, HR pixels squared
    most: float = 6.5
    other_shapes: float = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.groups <= self.batch:
            raise ValueError(f"groups is {self.groups}; expected 1 to the batch of {self.batch}")


class Group(NamedTuple):
    """Crops that share a condition; images in [0, 1]."""

    kind: str
    condition: Condition  # as it is told
    degraded: Tensor  # N x 3 x patch x patch
    hr: Tensor  # N x 3 x s patch x s patch


class WildCrops(DegradedCrops):
    """Crops of photographs and drawn scenes; a group depends on the seed, the step and its index alone."""

    def __init__(self, paths: list[Path], options: WildOptions) -> None:
        super().__init__(paths, options)
        random = np.random.default_rng((options.seed, 0x5CE))
        count = 48 if options.scene_share else 0
        self.scenes = [draw_scene(random, max(384, self.side)) for _ in range(count)]

    def group(self, step: int, index: int) -> Group:
        """Make the crops of one group of a step."""
        o = self.options
        random = np.random.default_rng((o.seed, step, index))
        kind, told = self.draw_condition(random)
        count = o.batch // o.groups
        pairs = [self.pair(random, kind, self.flawed(random, kind, mistake(random, told))) for _ in range(count)]
        return Group(kind, told, *(torch.cat(part) for part in zip(*pairs)))

    def flawed(self, random: np.random.Generator, kind: str, true: Condition) -> Condition:
        """Add the little noise or compression that goes unnoticed in a clean image."""
        if kind != "blur":
            return true
        noise = random.uniform(0, self.options.noise_sigma) if random.random() < self.options.noise_share else 0.0
        quality = (
            random.uniform(self.options.jpeg_quality, 99) if random.random() < self.options.jpeg_share else LOSSLESS
        )
        return replace(true, noise=noise, quality=quality)

    def draw_condition(self, random: np.random.Generator) -> tuple[str, Condition]:
        """Draw a kind of picture and the condition of its group."""
        o = self.options
        shares = [o.blur_share, o.dirty_share, o.web_share, o.camera_share, o.enlarged_share]
        kind = KINDS[int(random.choice(6, p=[*shares, 1 - sum(shares)]))]
        least = Condition(moments.LEAST * np.eye(2))
        blurred = replace(least, covariance=random_covariance(random, o.least, o.most))
        if kind == "blur":
            return kind, blurred
        if kind == "dirty":
            noise = random.uniform(0.5, 12) if random.random() < 0.85 else 0.0
            return kind, replace(blurred, noise=noise, quality=draw_quality(random, 0.65 if noise else 1.0))
        if kind == "web":
            noise = random.uniform(0.5, 8) if random.random() < 0.35 else 0.0
            covariance = random.uniform(moments.LEAST, 0.8) * np.eye(2)
            return kind, replace(least, covariance=covariance, noise=noise, quality=draw_quality(random, 0.8))
        if kind == "camera":
            noise = random.uniform(0, 6)
            return kind, replace(blurred, noise=noise, quality=draw_quality(random, 0.7), treated=1.0)
        if kind == "enlarged":
            enlarged = float(np.exp(random.uniform(math.log(1.2), math.log(3.2))))
            return kind, replace(least, quality=draw_quality(random, 0.3), enlarged=enlarged)
        return kind, least

    def pair(self, random: np.random.Generator, kind: str, true: Condition) -> tuple[Tensor, Tensor]:
        """Make a degraded crop, 1 x 3 x patch x patch, and its HR crop."""
        o, s = self.options, self.options.scale
        sharp = self.scene(random)
        hr = torch.from_numpy(sharp).permute(2, 0, 1)[None].float() / 255
        source = hr
        if kind in ("dirty", "web", "camera") and random.random() < 0.12:  # compressed once before, at a larger size
            first = compress(sharp, random, random.uniform(70, 96))
            source = torch.from_numpy(first).permute(2, 0, 1)[None].float() / 255
        blurs = [self.lens(random, kind, true.covariance)]
        if kind in ("blur", "dirty") and random.random() < o.variant_share:
            blurs.append(self.lens(random, kind, true.covariance * math.exp(random.normal(0, 0.6))))
        stack = torch.from_numpy(np.stack(blurs)).float()
        reduced = apply_kernels_by_fft(source, stack, s)
        lr = torch.lerp(*reduced, ramp(random, o.patch)) if len(blurs) > 1 else reduced[0]
        pixels = degrade(lr[0].permute(1, 2, 0).numpy(), true, random)
        degraded = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)[None])).float() / 255
        first = (self.size - s) // 2  # HR coordinate of the first LR pixel's corner
        window = slice(first, first + s * o.patch)
        return degraded, hr[..., window, window]

    def scene(self, random: np.random.Generator) -> np.ndarray:
        """Draw a sharp crop, uint8 side x side x 3."""
        if not self.scenes or random.random() >= self.options.scene_share:
            return self.sharp(random)
        scene = self.scenes[int(random.integers(len(self.scenes)))]
        top, left = (int(random.integers(0, length - self.side + 1)) for length in scene.shape[:2])
        crop = scene[top : top + self.side, left : left + self.side]
        return np.ascontiguousarray(crop[:, :, random.permutation(3)])

    def lens(self, random: np.random.Generator, kind: str, covariance: np.ndarray) -> np.ndarray:
        """Draw a kernel: ``size`` x ``size``, sum 1."""
        o, s = self.options, self.options.scale
        if kind == "plain":
            return self.bicubic.double().numpy()
        if kind in ("web", "enlarged"):
            return filter_kernel(FILTERS[int(random.integers(len(FILTERS)))], s, self.size)
        near = kernels.random_near(random, covariance, o.other_shapes)
        margin = (o.kernel - near.shape[0]) // 2
        near = np.pad(near, margin)
        return near if s == 2 else kernels.twice(near)
