"""Engines for tests of the bench. They live in a module, for the bench opens them in other processes."""

from __future__ import annotations

import os
import signal
import time

import numpy as np

from darsr_deploy.errors import DarsrError
from darsr_deploy.files.model_spec import ModelSpec


class Nearest:
    """Enlarges by repetition, after so many milliseconds of sleep."""

    name, provider = "ort", "test"

    def __init__(self, delay_ms: float = 0.0, holds_mb: int = 0, not_finite: int = 0) -> None:
        self.spec, self.delay_ms, self.not_finite = ModelSpec(2), delay_ms, not_finite
        self.held = np.ones(holds_mb * 2**20, np.uint8)

    def run(self, lr: np.ndarray) -> np.ndarray:
        time.sleep(self.delay_ms / 1e3)
        sr = lr.repeat(2, axis=2).repeat(2, axis=3)
        sr.reshape(-1)[: self.not_finite] = np.nan
        return sr


class Dies(Nearest):
    """Its process is gone after the first frames, as after a fault in a runtime."""

    runs = 0

    def run(self, lr: np.ndarray) -> np.ndarray:
        self.runs += 1
        if self.runs > 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().run(lr)


def refuses() -> Nearest:
    raise DarsrError("engine", "is not made for this", "take another")


def breaks() -> Nearest:
    raise ZeroDivisionError("of a runtime")


def part_of_it(delay_ms: float):
    """The correction alone of an engine that takes longer."""
    return lambda lr: time.sleep(delay_ms / 1e3)
