"""What every profile returns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Result:
    """The correction that was found, as :class:`darsr_deploy.adapter.Adapter` stores it.

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
