"""PyTorch, where it is installed: runs the very network that was adapted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..files.model_spec import Locality, ModelSpec
from .base import check_input

if TYPE_CHECKING:
    from torch import nn


class TorchEngine:
    """A network in PyTorch. See :class:`.base.Engine`.

    Args:
        network: takes and gives what :class:`.base.Engine` does, as tensors; in eval mode, on ``device``.
        spec: what it computes.
    """

    name = "torch"
    locality = Locality(why="PyTorch runs whole images", hint="use --engine ort, or --tile 0")
    stages = 0

    def __init__(self, network: nn.Module, spec: ModelSpec, device: str = "cpu") -> None:
        self._network, self.spec, self.provider = network, spec, device

    def run(self, lr: np.ndarray) -> np.ndarray:
        """Enlarge images; see :meth:`.base.Engine.run`."""
        import torch

        with torch.inference_mode():
            batch = torch.from_numpy(check_input(lr)).to(self.provider, memory_format=torch.channels_last)
            return self._network(batch).float().cpu().contiguous().numpy()

    def __enter__(self) -> TorchEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self._network = None
