"""One interface for every runtime."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol

import numpy as np

from .errors import DarsrError
from .spec import ModelSpec

LEAST_SIDE = 3  # reflect padding by 2 needs sides of 3; smaller images are edge-padded before they get here


class Engine(Protocol):
    """A loaded model. A context manager: leaving it frees what it holds.

    Attributes:
        spec: the model's contract.
        name: ``ort``, ``trt``, ``trt-rtx`` or ``torch``.
        provider: what computes, such as ``CPUExecutionProvider`` or ``cuda:0``.
    """

    spec: ModelSpec
    name: str
    provider: str

    def run(self, lr: np.ndarray) -> np.ndarray:
        """float32 N x 3 x H x W in [0, 1] -> float32 N x 3 x sH x sW in [0, 1]."""
        ...

    def __enter__(self) -> Engine: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def check_input(lr: np.ndarray) -> np.ndarray:
    """What every engine requires, said before a runtime sees it.

    Raises:
        DarsrError: another rank, channel count, dtype or a side under 3.
    """
    if lr.ndim != 4 or lr.shape[1] != 3 or lr.dtype != np.float32:
        raise DarsrError(
            "engine input",
            f"is {lr.dtype} {lr.shape}, expected float32 (N, 3, H, W)",
            "see darsr_deploy.imaging.to_tensor",
        )
    if min(lr.shape[2:]) < LEAST_SIDE:
        raise DarsrError(
            "engine input",
            f"is {lr.shape[3]}x{lr.shape[2]} pixels, sides of at least {LEAST_SIDE} are required",
            "pad it at its edges",
        )
    return np.ascontiguousarray(lr)
