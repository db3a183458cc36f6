"""Training of backbones: bicubic LR crops, L1, cosine schedule with warm-up, averaged weights."""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from darsr_deploy.atomic import atomic_path, write_text
from darsr_deploy.errors import DarsrError
from darsr_deploy.imaging import list_images, read_image, to_image, to_tensor
from darsr_deploy.metrics import psnr_y
from darsr_deploy.resample import imresize

from .backbones import edge
from .backbones.registry import build


@dataclass(frozen=True)
class BackboneTraining:
    """Options of ``darsr backbone train``; the defaults give the shipped networks.

    On one core of an AMD EPYC 9004 with bf16, a step of ``edge`` x2 takes 0.1 s.
    """

    architecture: str = "edge"
    scale: int = 2
    steps: int = 60_000
    batch: int = 8  # crops a step
    patch: int = 48  # side of an LR crop in pixels
    rate: float = 1e-3  # peak learning rate of Adam
    final_rate: float = 1e-6  # learning rate at the last step
    warmup: int = 500  # steps of linear warm-up
    clip: float = 1.0  # largest gradient norm
    average: float = 0.999  # decay of the averaged (EMA) weights, which are what is kept
    seed: int = 0
    bf16: bool = True  # autocast to bfloat16
    validate_every: int = 2000
    save_every: int = 1000

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "patch", "warmup", "validate_every", "save_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least 1")
        if not 0 <= self.average < 1:
            raise ValueError(f"average is {self.average}; expected 0 <= average < 1")

    def rate_at(self, step: int) -> float:
        """Learning rate of the given step: linear warm-up, then half a cosine."""
        if step < self.warmup:
            return self.rate * (step + 1) / self.warmup
        progress = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.final_rate + (self.rate - self.final_rate) * 0.5 * (1 + math.cos(math.pi * progress))


class PairedCrops:
    """HR images and their bicubic LR versions in memory; crops of step ``i`` depend on seed and ``i`` alone.

    So a resumed run sees the very crops that an uninterrupted one would have seen.
    """

    def __init__(self, paths: list[Path], scale: int, patch: int, progress: Callable[[int], None] = lambda _: None) -> None:
        self.scale, self.patch = scale, patch
        self.pairs: list[tuple[np.ndarray, np.ndarray]] = []
        for path in paths:
            pair = bicubic_pair(read_image(path), scale)
            progress(1)
            if pair is not None and min(pair[1].shape[:2]) >= patch:
                self.pairs.append(pair)
        if not self.pairs:
            raise DarsrError("training images", f"none has sides of at least {scale * patch} px", "give a folder of larger photographs")
        # Larger photographs hold more crops: draw them in proportion to their area.
        areas = np.array([lr.shape[0] * lr.shape[1] for _, lr in self.pairs], np.float64)
        self.chance = areas / areas.sum()

    def batch(self, seed: int, step: int, size: int) -> tuple[Tensor, Tensor]:
        """LR (size x 3 x patch x patch) and HR crops in [0, 1], each turned and mirrored at random."""
        random = np.random.default_rng((seed, step))
        crops = [self._crop(random, i) for i in random.choice(len(self.pairs), size, p=self.chance)]
        lr, hr = (torch.from_numpy(np.stack(part).transpose(0, 3, 1, 2).astype(np.float32) / 255) for part in zip(*crops))
        return lr, hr

    def _crop(self, random: np.random.Generator, index: int) -> tuple[np.ndarray, np.ndarray]:
        hr, lr = self.pairs[index]
        s, p = self.scale, self.patch
        top, left = (int(random.integers(0, side - p + 1)) for side in lr.shape[:2])
        crops = [lr[top : top + p, left : left + p], hr[s * top : s * (top + p), s * left : s * (left + p)]]
        turns, mirror = int(random.integers(4)), bool(random.integers(2))
        crops = [np.rot90(c[:, ::-1] if mirror else c, turns) for c in crops]
        return crops[0], crops[1]


def bicubic_pair(image: np.ndarray, scale: int) -> tuple[np.ndarray, np.ndarray] | None:
    """RGB HR image, sides cut to multiples of the scale, and its bicubic LR; None for images under one LR pixel."""
    if image.ndim == 2:
        image = np.repeat(image[:, :, None], 3, axis=2)
    height, width = (side // scale for side in image.shape[:2])
    if min(height, width) < 1:
        return None
    hr = np.ascontiguousarray(image[: height * scale, : width * scale])
    return hr, imresize(hr, height, width)


def train_backbone(
    images: Path,
    out: Path,
    options: BackboneTraining,
    validation: Path | None = None,
    device: str = "cpu",
    resume: bool = False,
    report: Callable[[dict], None] = lambda _: None,
) -> nn.Module:
    """Train a backbone and return the merged, averaged network (float32, eval mode, on the CPU).

    Args:
        images: folder of HR photographs.
        out: weight file to be; ``.checkpoint`` and ``.log.json`` are written beside it.
        validation: folder of HR photographs whose Y-PSNR is logged; it decides nothing.
        resume: continue from the checkpoint. On a CPU the result equals an uninterrupted run's bit for bit.
        report: called with ``{step, loss, rate, psnr_y, seconds}`` after every step (``psnr_y`` where measured).

    Raises:
        DarsrError: no usable images; ``resume`` without a checkpoint or with one of other options.
    """
    torch.manual_seed(options.seed)
    plain = build(options.architecture, options.scale)
    model = (edge.branch(plain) if isinstance(plain, edge.EdgeSR) else plain).to(device, memory_format=torch.channels_last)
    averaged = copy.deepcopy(model).requires_grad_(False)
    optimiser = torch.optim.Adam(model.parameters(), lr=options.rate)
    log: list[dict] = []
    first = 0
    checkpoint = out.with_suffix(".checkpoint")
    if resume:
        first, log = _restore(checkpoint, options, model, averaged, optimiser)
    crops = PairedCrops(list_images(images), options.scale, options.patch)
    held_out = [bicubic_pair(read_image(p), options.scale) for p in list_images(validation)] if validation else []
    started = time.perf_counter()
    for step in range(first, options.steps):
        lr, hr = (t.to(device, memory_format=torch.channels_last) for t in crops.batch(options.seed, step, options.batch))
        for group in optimiser.param_groups:
            group["lr"] = options.rate_at(step)
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=options.bf16):
            sr = model(lr)
        loss = (sr.float() - hr).abs().mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), options.clip)
        optimiser.step()
        _average(averaged, model, min(options.average, (1 + step) / (10 + step)))
        done = step + 1
        entry = {"step": done, "loss": loss.item(), "rate": options.rate_at(step), "seconds": time.perf_counter() - started}
        if held_out and (done % options.validate_every == 0 or done == options.steps):
            entry["psnr_y"] = measure(_finished(averaged), held_out, options.scale, device)
        if "psnr_y" in entry or done % 100 == 0:
            log.append(entry)
        report(entry)
        if done % options.save_every == 0 or done == options.steps:
            _save(checkpoint, options, done, model, averaged, optimiser, log)
            write_text(out.with_suffix(".log.json"), json.dumps({"options": asdict(options), "log": log}, indent=1))
    return _finished(averaged)


@torch.no_grad()
def measure(model: nn.Module, pairs: list[tuple[np.ndarray, np.ndarray]], scale: int, device: str = "cpu") -> float:
    """Mean Y-PSNR in dB (border = scale, 8-bit output) over (HR, LR) pairs."""
    model = copy.deepcopy(model).to(device).eval()
    figures = []
    for hr, lr in pairs:
        sr = model(torch.from_numpy(to_tensor(lr)).to(device)).float().cpu().numpy()
        figures.append(psnr_y(to_image(sr), hr, scale))
    return float(np.mean(figures))


def _finished(averaged: nn.Module) -> nn.Module:
    plain = edge.merge(averaged) if isinstance(averaged, edge.EdgeSR) else copy.deepcopy(averaged)
    return plain.to("cpu").eval().requires_grad_(False)


@torch.no_grad()
def _average(averaged: nn.Module, model: nn.Module, decay: float) -> None:
    for target, source in zip(averaged.state_dict().values(), model.state_dict().values()):
        target.lerp_(source, 1 - decay)


def _save(path: Path, options: BackboneTraining, step: int, model: nn.Module, averaged: nn.Module, optimiser: torch.optim.Optimizer, log: list[dict]) -> None:
    state = {
        "options": asdict(options),
        "step": step,
        "model": model.state_dict(),
        "averaged": averaged.state_dict(),
        "optimiser": optimiser.state_dict(),
        "log": log,
    }
    with atomic_path(path) as temporary:
        torch.save(state, temporary)


def _restore(path: Path, options: BackboneTraining, model: nn.Module, averaged: nn.Module, optimiser: torch.optim.Optimizer) -> tuple[int, list[dict]]:
    if not path.is_file():
        raise DarsrError(str(path), "there is no checkpoint to resume from", "leave out --resume")
    state = torch.load(path, map_location="cpu", weights_only=True)
    different = [k for k, v in asdict(options).items() if state["options"].get(k) != v]
    if different:
        raise DarsrError(str(path), f"was written with another {', '.join(different)}", "give the same options, or leave out --resume")
    model.load_state_dict(state["model"])
    averaged.load_state_dict(state["averaged"])
    optimiser.load_state_dict(state["optimiser"])
    return state["step"], state["log"]
