"""Average the iterates of a noisy training, and choose among the averages without ground truth."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from darsr_deploy.images.arrays import to_tensor
from darsr_deploy.images.resample import pillow_bicubic

from ...degradation.reduction import apply_kernel
from . import losses
from .crops import CropSampler, top_left
from .step import Networks

DECAY = 0.98  # of the average: over about 50 iterates
JUDGINGS = 40  # in a whole run
PATIENCE = 10  # judgings without a better one after which a run ends
_SIDE = 240  # of the part of the image that is judged, in pixels
_WORST = 1e9  # of a score, also of one that is not a number
_MARGIN = 8  # pixels of its border that do not count: convolutions pad there


class Average(nn.Module):
    """The exponential average of DARM's weights and of the kernel over the iterates so far.

    After t of them iterate i weighs ``DECAY ** (t - i)``, divided by the sum of all weights, so that the first ones are
    not weighed down by a start that nobody trained.
    """

    def __init__(self, nets: Networks) -> None:
        super().__init__()
        self.darm = copy.deepcopy(nets.darm).requires_grad_(False)
        self.register_buffer("kernel", nets.generator.kernel().detach())

    @torch.no_grad()
    def update(self, nets: Networks, iterate: int) -> None:
        """Take in an iterate, counted from 1."""
        share = (1 - DECAY) / (1 - DECAY**iterate)
        for mine, theirs in zip(self.darm.parameters(), nets.darm.parameters()):
            mine.lerp_(theirs, share)
        self.kernel.lerp_(nets.generator.kernel(), share)


class Judge:
    """How well a correction explains a fixed part of the image: DARSR's two cycles, summed.

    The forward one takes the image for an HR one, reduces it by the estimated kernel, corrects and enlarges: what comes
    out must be the image, and before the backbone its bicubic reduction. The backward one corrects, enlarges and reduces
    the image, which must come back. The other terms of the procedure are lowest where nothing is corrected.
    """

    def __init__(self, sampler: CropSampler, backbone: nn.Module, device: str) -> None:
        height, width = (min(_SIDE, side) for side in sampler.image.shape[:2])
        cy, cx = divmod(int(sampler.y_chance.argmax()), sampler.image.shape[1])
        top, left = top_left(cy, height, sampler.image.shape[0]), top_left(cx, width, sampler.image.shape[1])
        part = np.ascontiguousarray(sampler.image[top : top + height, left : left + width])
        self.scale, self.backbone = sampler.scale, backbone
        self.part = torch.from_numpy(to_tensor(part)).to(device)
        reduced = pillow_bicubic(part, height // self.scale, width // self.scale)
        self.reduced = torch.from_numpy(to_tensor(reduced)).to(device)

    @torch.no_grad()
    def score(self, correction: nn.Module, kernel: Tensor) -> float:
        """Return the sum of the mean absolute errors, in [0, 1]: the lower the better."""
        front = losses.lr_front(self.scale)
        lead = self.scale * front - kernel.shape[-1] // 2

        def degrade(image: Tensor) -> Tensor:
            return apply_kernel(image[..., lead:, lead:], kernel, self.scale)

        corrected = correction(degrade(self.part))
        pairs = [(corrected, losses.window(self.reduced, corrected, front))]
        enlarged = self.backbone(corrected)
        pairs.append((enlarged, losses.window(self.part, enlarged, self.scale * front)))
        back = degrade(self.backbone(correction(self.part)))
        pairs.append((back, losses.window(self.part, back, front)))
        inner = (..., slice(_MARGIN, -_MARGIN), slice(_MARGIN, -_MARGIN))
        return sum((ours - theirs)[inner].abs().mean().item() for ours, theirs in pairs)


@dataclass
class Choice:
    """The best of the averages that were judged, and every judgement so far."""

    scores: list[float] = field(default_factory=list)
    uncorrected: list[float] = field(default_factory=list)  # of the image as it is, with the same kernels
    step: int = 0  # of the best; 0: none was judged
    state: dict[str, Tensor] = field(default_factory=dict)  # of the best average

    def consider(self, judge: Judge, average: Average, step: int) -> None:
        """Judge the average after ``step`` steps and keep it if it is the best so far."""
        score, uncorrected = (min(_WORST, judge.score(c, average.kernel)) for c in (average.darm, nn.Identity()))
        if not self.step or score < min(self.scores):
            self.step, self.state = step, {name: tensor.clone() for name, tensor in average.state_dict().items()}
        self.scores.append(score)
        self.uncorrected.append(uncorrected)

    def settled(self) -> bool:
        """Return whether the last judgings brought nothing better."""
        return len(self.scores) > PATIENCE and min(self.scores[-PATIENCE:]) > min(self.scores[:-PATIENCE])

    def corrects(self) -> bool:
        """Return whether the best explains the image better than the image left as it is."""
        best = int(np.argmin(self.scores))
        return self.scores[best] < self.uncorrected[best]
