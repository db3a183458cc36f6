"""The result of a profile, and the loss curve that an adapter keeps: few numbers, the same for the same run."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from darsr_deploy.errors import DarsrError


@dataclass(frozen=True)
class Result:
    """The correction that was found, as :class:`darsr_deploy.files.adapter.Adapter` stores it.

    Attributes:
        correction: ``none``, ``global`` or ``network``.
        arrays: the correction's and ``kernel``.
        facts: JSON values: ``chosen`` (what was chosen and why), ``kernel_sum``, measurements.
        rounds: of back-projection by ``kernel`` after the backbone.
    """

    correction: str
    arrays: dict[str, np.ndarray]
    facts: dict
    rounds: int = 0


_MOST = 120  # means a curve is kept as: more than a page shows apart, 1 kB in the file


@dataclass(frozen=True)
class Curve:
    """The losses of ``steps`` steps as the means of equal parts of them, in order."""

    steps: int
    means: tuple[float, ...]

    def to_json(self) -> dict:
        """Return the curve as an adapter stores it."""
        return {"steps": self.steps, "means": list(self.means)}


def record(losses: list[float]) -> dict:
    """Return the curve of a run as JSON: means of at most 120 parts, to 4 significant digits.

    The curve ends before a loss that is not finite, which JSON cannot hold.
    """
    finite = losses[: next((i for i, loss in enumerate(losses) if not math.isfinite(loss)), len(losses))]
    parts = min(_MOST, len(finite))
    ends = [i * len(finite) // parts for i in range(parts + 1)] if parts else [0]
    means = (sum(finite[a:b]) / (b - a) for a, b in zip(ends, ends[1:]))
    return Curve(len(finite), tuple(float(f"{mean:.4g}") for mean in means)).to_json()


def read_curves(facts: dict, path: str) -> dict[str, Curve]:
    """Return the curves that an adapter holds, by phase; none where nothing was fitted.

    Raises:
        DarsrError: names the field that is not a curve.
    """
    found = facts.get("losses", {})
    if not isinstance(found, dict):
        raise DarsrError(path, "field losses is not an object", "make a new one with darsr adapt")
    curves = {}
    for phase, values in found.items():
        steps, means = (values.get("steps"), values.get("means")) if isinstance(values, dict) else (None, None)
        numbers = isinstance(means, list) and all(
            isinstance(m, int | float) and not isinstance(m, bool) and math.isfinite(m) for m in means
        )
        if not numbers or not isinstance(steps, int) or isinstance(steps, bool) or steps < len(means):
            raise DarsrError(
                path, f"field losses.{phase} is no curve of steps and means", "make a new one with darsr adapt"
            )
        if means:
            curves[phase] = Curve(steps, tuple(float(m) for m in means))
    return curves
