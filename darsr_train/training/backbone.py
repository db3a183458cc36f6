"""Train backbones on bicubic LR crops of any folder of photographs."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from darsr_deploy.errors import DarsrError
from darsr_deploy.images.arrays import list_images, read_image, to_image, to_tensor
from darsr_deploy.images.detail import measure_detail
from darsr_deploy.images.metrics import psnr_y
from darsr_deploy.images.resample import imresize

from ..backbones import edge
from ..backbones.registry import build
from ..networks.image_error import l1, negative_psnr
from .loop import TrainingOptions, train


@dataclass(frozen=True)
class BackboneTraining(TrainingOptions):
    """Options of ``darsr backbone train``; a weight file's metadata tells which of them it was trained with.

    On one core of an AMD EPYC 9004 with bf16, a step of ``edge`` x2 takes 0.1 s.
    """

    architecture: str = "edge"
    channels: int = 0  # width; 0: the architecture's own
    blocks: int = 0  # depth; 0: the architecture's own
    luma: float = 0.75  # share of the error of Y (BT.601) in the loss; the rest is that of R, G and B
    objective: str = "l1"  # or psnr, for a last, shorter training: minus the mean PSNR of the crops
    candidates: int = 2  # crops drawn for each one used: the one with most detail is taken, flat ones teach little

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.luma <= 1:
            raise ValueError(f"luma is {self.luma}; expected 0 <= luma <= 1")
        if self.objective not in OBJECTIVES:
            raise ValueError(f"objective is {self.objective!r}; expected one of {', '.join(OBJECTIVES)}")
        if self.candidates < 1:
            raise ValueError(f"candidates is {self.candidates}; expected at least 1")


class PairedCrops:
    """HR images and their bicubic LR versions in memory; crops of a step depend on the seed and the step alone."""

    def __init__(self, paths: list[Path], scale: int, patch: int, candidates: int = 1) -> None:
        self.scale, self.patch, self.candidates = scale, patch, candidates
        pairs = (bicubic_pair(read_image(path), scale) for path in paths)
        self.pairs = [pair for pair in pairs if min(pair[1].shape[:2]) >= patch]
        if not self.pairs:
            raise DarsrError(
                "training images",
                f"none has sides of at least {scale * patch} px",
                "give a folder of larger photographs",
            )
        # Larger photographs hold more crops: draw them in proportion to their area.
        areas = np.array([lr.shape[0] * lr.shape[1] for _, lr in self.pairs], np.float64)
        self.chance = areas / areas.sum()

    def batch(self, seed: int, step: int, size: int) -> tuple[Tensor, Tensor]:
        """Return LR (size x 3 x patch x patch) and HR crops in [0, 1], each turned and mirrored at random."""
        random = np.random.default_rng((seed, step))
        crops = [self._best(random) for _ in range(size)]
        lr, hr = (
            torch.from_numpy(np.stack(part).transpose(0, 3, 1, 2).astype(np.float32) / 255) for part in zip(*crops)
        )
        return lr, hr

    def _best(self, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        crops = [self._crop(random) for _ in range(self.candidates)]
        return max(crops, key=lambda pair: measure_detail(pair[0])) if len(crops) > 1 else crops[0]

    def _crop(self, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        hr, lr = self.pairs[random.choice(len(self.pairs), p=self.chance)]
        s, p = self.scale, self.patch
        top, left = (int(random.integers(0, side - p + 1)) for side in lr.shape[:2])
        pair = lr[top : top + p, left : left + p], hr[s * top : s * (top + p), s * left : s * (left + p)]
        turns, mirror = int(random.integers(4)), bool(random.integers(2))
        lr_crop, hr_crop = (np.rot90(c[:, ::-1] if mirror else c, turns) for c in pair)
        return lr_crop, hr_crop


def bicubic_pair(image: np.ndarray, scale: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the RGB HR image, cut to multiples of the scale, and its bicubic LR (possibly empty)."""
    if image.ndim == 2:
        image = np.repeat(image[:, :, None], 3, axis=2)
    height, width = (side // scale for side in image.shape[:2])
    hr = np.ascontiguousarray(image[: height * scale, : width * scale])
    return hr, imresize(hr, height, width) if hr.size else hr


def train_backbone(
    images: Path,
    out: Path,
    options: BackboneTraining,
    validation: Path | None = None,
    start: nn.Module | None = None,
    device: str = "cpu",
    resume: bool = False,
    report: Callable[[dict], None] = lambda _: None,
) -> nn.Module:
    """Train a backbone and return the merged, averaged network (float32, eval mode, on the CPU).

    Args:
        images: folder of HR photographs.
        validation: folder of HR photographs whose mean Y-PSNR is logged; it decides nothing.
        start: a trained network of the same architecture to start from; ``edge`` may be narrower, shallower or of
            another scale.

    The other arguments, and what is raised, are :func:`.loop.train`'s.
    """
    torch.manual_seed(options.seed)
    plain = _starting_point(options, start)
    crops = PairedCrops(list_images(images), options.scale, options.patch, options.candidates)
    held_out = [bicubic_pair(read_image(p), options.scale) for p in list_images(validation)] if validation else []

    def loss_of(model: nn.Module, step: int) -> Tensor:
        lr, hr = (
            t.to(device, memory_format=torch.channels_last) for t in crops.batch(options.seed, step, options.batch)
        )
        with options.autocast(device):
            sr = model(lr)
        return OBJECTIVES[options.objective](sr.float(), hr, options.luma)

    def validate(model: nn.Module) -> dict[str, float]:
        return {"psnr_y": measure(_finished(model), held_out, options.scale, device)}

    trainable = edge.split(plain) if isinstance(plain, edge.EdgeSR) else plain
    return _finished(train(trainable, options, loss_of, out, validate if held_out else None, device, resume, report))


OBJECTIVES = {"l1": l1, "psnr": negative_psnr}


def _starting_point(options: BackboneTraining, start: nn.Module | None) -> nn.Module:
    hyper = {name: value for name in ("channels", "blocks") if (value := getattr(options, name))}
    plain = build(options.architecture, options.scale, hyper)
    if start is None:
        return plain
    try:
        if isinstance(plain, edge.EdgeSR) and isinstance(start, edge.EdgeSR):
            return edge.grow(start, plain)
        plain.load_state_dict(start.state_dict())
    except (RuntimeError, ValueError) as error:
        raise DarsrError(
            "--start", f"does not fit ({str(error).splitlines()[0]})", "give weights of the same architecture"
        ) from error
    return plain


@torch.no_grad()
def measure(model: nn.Module, pairs: list[tuple[np.ndarray, np.ndarray]], scale: int, device: str = "cpu") -> float:
    """Return the mean Y-PSNR in dB (border = scale, 8-bit output) over (HR, LR) pairs."""
    model = copy.deepcopy(model).to(device).eval()
    figures = []
    for hr, lr in pairs:
        sr = model(torch.from_numpy(to_tensor(lr)).to(device)).float().cpu().numpy()
        figures.append(psnr_y(to_image(sr), hr, scale))
    return float(np.mean(figures))


def _finished(averaged: nn.Module) -> nn.Module:
    plain = edge.merge(averaged) if isinstance(averaged, edge.EdgeSR) else copy.deepcopy(averaged)
    return plain.to("cpu").eval().requires_grad_(False)
