"""How the published procedure changes its weights and rates, at the same shares of any number of steps."""

from __future__ import annotations

from dataclasses import dataclass

import torch

STEPS = 3000  # of the published procedure: what its numbers count in
RATE = 2e-4  # Adam's, of the generator and the discriminator
_LADDER = 200  # of 3000: the iterations between two falls of the bicubic term's weight
_LOWEST = 5e-6


@dataclass(frozen=True)
class KernelWeights:
    """Weights of the kernel's regularisation, which the schedule changes."""

    bicubic: float = 5.0
    sum_to_one: float = 0.5
    boundaries: float = 0.5
    off_centre: float = 0.0
    sparse: float = 0.0


@dataclass
class Schedule:
    """The falling weight of the bicubic term (DARSR, section 3.4).

    Once the unweighted term has been below ``gate`` in three consecutive iterations, at every iteration divisible by
    200 the weight goes from 5 to .05, 5e-4, 5e-6; at 5e-4 the centre and sparsity terms begin. Of other numbers of
    ``steps`` than 3000 it is every fifteenth part. The reference program's gate of 0.4 belongs to its faulty term: the
    correct one starts at 0.01.
    """

    gate: float
    steps: int = STEPS
    weights: KernelWeights = KernelWeights()
    run: int = 0  # consecutive iterations under the gate
    open: bool = False

    def after(self, iteration: int, bicubic: float) -> None:
        """Update with the term measured in ``iteration`` (counted from 1)."""
        self.run = self.run + 1 if bicubic < self.gate else 0
        self.open = self.open or self.run >= 3
        parts, before = (i * STEPS // (_LADDER * self.steps) for i in (iteration, iteration - 1))
        if self.open and parts > before and self.weights.bicubic > _LOWEST * 1.01:
            lower = self.weights.bicubic / 100
            started = lower < 5e-4 * 1.01
            self.weights = KernelWeights(lower, off_centre=1.0 if started else 0.0, sparse=5.0 if started else 0.0)


def rate_factor(iteration: float, milestones: tuple[int, ...], divisor: float) -> float:
    """Return the factor on a learning rate that is divided by ``divisor`` after each milestone."""
    return divisor ** -sum(iteration > m for m in milestones)


def set_rates(
    optimisers: dict[str, torch.optim.Optimizer], iteration: int, darm_rate: float, steps: int = STEPS
) -> None:
    """Give the optimisers of ``g``, ``d`` and ``darm`` their rates of an iteration, counted from 1, of ``steps``.

    Those of G and D are divided by 4 at 750, 1500 and 2250 of 3000, DARM's is halved at 1000 and 2000.
    """
    published = iteration * STEPS / steps
    adversarial = RATE * rate_factor(published, (750, 1500, 2250), 4)
    rates = {"g": adversarial, "d": adversarial, "darm": darm_rate * rate_factor(published, (1000, 2000), 2)}
    for name, rate in rates.items():
        for group in optimisers[name].param_groups:
            group["lr"] = rate
