"""One interface for every runtime."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol

import numpy as np

from ..errors import DarsrError
from ..files.model_spec import Locality, ModelSpec

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
        """Enlarge images: float32 N x 3 x H x W in [0, 1] -> float32 N x 3 x sH x sW in [0, 1]."""
        ...

    def __enter__(self) -> Engine: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Tileable(Engine, Protocol):
    """An engine that also runs one tile of an image; see :mod:`.tiled`.

    Attributes:
        locality: what its tiles need. Where it takes whole images alone, the methods below are not called.
    """

    locality: Locality

    def check_size(self, lr: np.ndarray) -> None:
        """Refuse images that it cannot run, before a tile of them is cut."""
        ...

    def run_tile(self, lr: np.ndarray, pooled: list[np.ndarray], rows: slice, columns: slice) -> np.ndarray:
        """Enlarge a tile with its surroundings, which lies at ``rows`` and ``columns`` of the image."""
        ...


class Staged(Tileable, Protocol):
    """An engine that must know averages over the whole image first, each found with those before it.

    Attributes:
        stages: how many; ``locality`` has a halo for each.
    """

    stages: int

    def sums(self, lr: np.ndarray, core: np.ndarray, pooled: list[np.ndarray]) -> np.ndarray:
        """Sum a tile over its own pixels, for the stage behind those in ``pooled``.

        Args:
            lr: the tile with its surroundings, float32 N x 3 x h x w.
            core: float32 1 x 1 x h x w, 1 where a pixel is the tile's own.
            pooled: the averages that are known, N x C x 1 x 1 each.

        Returns:
            float32 N x C x 1 x 1.
        """
        ...


def check_input(lr: np.ndarray) -> np.ndarray:
    """Check what every engine requires before a runtime sees it.

    Raises:
        DarsrError: another rank, channel count, dtype or a side under 3.
    """
    if lr.ndim != 4 or lr.shape[1] != 3 or lr.dtype != np.float32:
        raise DarsrError(
            "engine input",
            f"is {lr.dtype} {lr.shape}, expected float32 (N, 3, H, W)",
            "see darsr_deploy.images.arrays.to_tensor",
        )
    if min(lr.shape[2:]) < LEAST_SIDE:
        raise DarsrError(
            "engine input",
            f"is {lr.shape[3]}x{lr.shape[2]} pixels, sides of at least {LEAST_SIDE} are required",
            "pad it at its edges",
        )
    return np.ascontiguousarray(lr)
