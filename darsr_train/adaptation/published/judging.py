"""Average the iterates of a noisy training, and choose among the averages without ground truth."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from darsr_deploy.bundle.weights import fold_dictionary

from ...networks.darm import DARM, at_strength, correct_by_taps
from ..fit import Evidence, cycle_loss
from .step import Networks

DECAY = 0.98  # of the average: over about 50 iterates
JUDGINGS = 24  # in a whole run
PATIENCE = 6  # judgings without a better one after which a run ends
STRENGTHS = (0.25, 0.5, 0.75, 1.0)  # of a correction: 0 is the image as it is
_WORST = 1e9  # of a score, also of one that is not a number


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
    """How well corrections explain the image: DARSR's two cycles with a blur that no iterate had a part in.

    The kernel that a run learns agrees with what it corrects, right or wrong; a wide one asks for too much sharpening, and
    every cycle with it closes. The blur that profile ``fast`` finds in closed form contradicts (:mod:`..fit`).
    """

    def __init__(self, evidence: Evidence, backbone: nn.Module, scale: int) -> None:
        self.evidence, self.backbone, self.scale = evidence, backbone, scale
        self.uncorrected = self._score(evidence.blurred, evidence.y)

    @torch.no_grad()
    def scores(self, darm: DARM) -> dict[float, float]:
        """Return the sum of the mean absolute errors at every strength, in [0, 1]: the lower the better."""
        pairs = [(image, correct_by_taps(darm, image)) for image in (self.evidence.blurred, self.evidence.y)]
        return {a: self._score(*(image.lerp(corrected, a) for image, corrected in pairs)) for a in STRENGTHS}

    @torch.no_grad()
    def _score(self, blurred: Tensor, y: Tensor) -> float:
        return min(_WORST, cycle_loss(blurred, self.backbone(y), self.evidence, self.scale))


@dataclass
class Choice:
    """The best of the averages that were judged, and the best score of every judging so far."""

    scores: list[float] = field(default_factory=list)
    step: int = 0  # of the best; 0: none was judged
    strength: float = 0.0  # of the best
    state: dict[str, Tensor] = field(default_factory=dict)  # of the best average

    def consider(self, judge: Judge, average: Average, step: int) -> float:
        """Judge the average after ``step`` steps, keep it if it is the best so far, and return its best strength."""
        found = judge.scores(average.darm)
        strength = min(found, key=found.__getitem__)
        if not self.scores or found[strength] < min(self.scores):
            self.step, self.strength = step, strength
            self.state = {name: tensor.clone() for name, tensor in average.state_dict().items()}
        self.scores.append(found[strength])
        return strength

    def settled(self) -> bool:
        """Return whether the last judgings brought nothing better."""
        return len(self.scores) > PATIENCE and min(self.scores[-PATIENCE:]) >= min(self.scores[:-PATIENCE])


@torch.no_grad()
def correction_at(darm: DARM, strength: float) -> DARM:
    """Return a DARM of 13 taps that corrects as one with a dictionary does, at a strength of 0 to 1."""
    state = {name: tensor.cpu() for name, tensor in darm.state_dict().items()}
    arrays = [state.pop(name).numpy() for name in ("dictionary", "tail.weight", "tail.bias")]
    state["tail.weight"], state["tail.bias"] = map(torch.from_numpy, fold_dictionary(*arrays))
    folded = DARM(channels=darm.channels)
    folded.load_state_dict(state)
    return at_strength(folded.eval(), strength)
