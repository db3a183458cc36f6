"""A small network that looks at one image and says what happened to it: blur, noise, compression, treatment.

Features at three resolutions are averaged over the image by a few heads of attention each, so that parts that say nothing
(sky, black bars, captions) count little; the averages give a :class:`.condition.Condition` and how sure each part of it is.
Blur is measured in LR pixels, so one network serves every scale.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from darsr_deploy.blind.estimator import FLAGS, VALUES, VERSION, estimator_path
from darsr_deploy.files.container import read_container, write_container


class Estimator(nn.Module):
    """N x 3 x H x W RGB in [0, 1], sides of at least 32 -> N x (6 values, 6 log variances, 4 log odds)."""

    def __init__(self, widths: tuple[int, int, int] = (24, 48, 96), heads: int = 4, hidden: int = 128) -> None:
        super().__init__()
        self.hyper = {"widths": list(widths), "heads": heads, "hidden": hidden}
        stages, looks, before = [], [], 3
        for index, width in enumerate(widths):
            first = nn.Conv2d(before, width, 3, stride=1 if index == 0 else 2, padding=1)
            stages.append(nn.Sequential(first, nn.ReLU(), nn.Conv2d(width, width, 3, padding=1), nn.ReLU()))
            looks.append(nn.Conv2d(width, heads, 1))
            before = width
        self.stages, self.looks = nn.ModuleList(stages), nn.ModuleList(looks)
        inputs = 2 * heads * sum(widths) + 8
        outputs = 2 * len(VALUES) + len(FLAGS)
        self.judge = nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))

    def forward(self, x: Tensor) -> Tensor:
        found = [blockiness(x)]
        for stage, look in zip(self.stages, self.looks):
            x = stage(x)
            attention = look(x).flatten(2).float().softmax(2)  # N, heads, HW
            features = x.flatten(2).float()  # N, C, HW
            mean = attention @ features.transpose(1, 2)  # N, heads, C
            square = attention @ features.square().transpose(1, 2)
            found += [mean.flatten(1), (square - mean.square()).clamp(min=1e-8).sqrt().flatten(1)]
        return self.judge(torch.cat(found, 1))


def blockiness(x: Tensor) -> Tensor:
    """N x 3 x H x W -> N x 8: how much the steps between neighbours depend on their place in a grid of 8 pixels.

    The spectrum (harmonics 1 to 4) of the mean absolute second difference over the eight phases, along rows and columns:
    the same wherever the grid begins.
    """
    y = x.mean(1)
    found = []
    for plane in (y, y.transpose(1, 2)):
        step = (plane[..., 1:-2] - plane[..., 2:-1]).abs()
        around = 0.5 * ((plane[..., :-3] - plane[..., 1:-2]).abs() + (plane[..., 2:-1] - plane[..., 3:]).abs())
        excess = (step - around).clamp(-0.04, 0.04)  # N, H, W: strong edges of the scene count no more than blocks
        excess = excess[..., : excess.shape[-1] // 8 * 8].mean(1)
        phases = excess.unflatten(1, (-1, 8)).mean(1)  # N, 8
        found.append(torch.fft.rfft(phases, dim=1).abs()[:, 1:])
    return (torch.cat(found, 1) * 200).log1p()


def load_estimator(path: Path | None = None) -> Estimator:
    """Load the estimator, in eval mode, without gradients.

    Raises:
        DarsrError: a damaged file.
    """
    facts, arrays, _ = read_container(path or estimator_path(), "estimator", VERSION, "install the package again")
    network = Estimator(tuple(facts["hyper"]["widths"]), facts["hyper"]["heads"], facts["hyper"]["hidden"])
    network.load_state_dict({name: torch.from_numpy(a.astype(np.float32)) for name, a in arrays.items()})
    return network.eval().requires_grad_(False)


def save_estimator(network: Estimator, path: str | Path, facts: dict) -> str:
    """Write an estimator, in half precision, and return the file's sha256."""
    arrays = {name: tensor.detach().to("cpu", torch.float16).numpy() for name, tensor in network.state_dict().items()}
    return write_container(path, "estimator", VERSION, {**facts, "hyper": network.hyper}, arrays)
