"""A correction network for every blur: DARM's weights as a function of the blur's covariance.

Common weights and a few sets of deltas are summed, weighted by a gate on the covariance. For a given covariance the sum
is a plain :class:`.darm.DARM` (as in Yang et al., "CondConv", NeurIPS 2019, with the blur instead of the image as
condition).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from darsr_deploy.degradation import covariance as moments
from darsr_deploy.files.container import read_container, write_container
from darsr_deploy.files.folders import WEIGHTS

from .darm import DARM

VERSION = 1


class DarmFamily(nn.Module):
    """13-tap DARMs, one for every covariance.

    Args:
        start: the network that all of them start as.
        experts: sets of deltas.
        hidden: units of the gate.
        inputs: numbers that the gate is told; 3 are the logarithm of a covariance.
    """

    def __init__(self, start: DARM, experts: int = 8, hidden: int = 32, inputs: int = 3) -> None:
        super().__init__()
        self.channels, self.experts = start.channels, experts
        self.shapes = {name: tuple(weight.shape) for name, weight in start.named_parameters()}
        self.common = nn.Parameter(nn.utils.parameters_to_vector(start.parameters()).detach().clone())
        # Deltas are scaled by what they change: every layer's weights have their own size.
        size = torch.cat([torch.full((w.numel(),), w.detach().std(unbiased=False).item()) for w in start.parameters()])
        self.deltas = nn.Parameter(0.05 * size * torch.randn(experts, len(self.common)))
        self.gate = nn.Sequential(nn.Linear(inputs, hidden), nn.Tanh(), nn.Linear(hidden, experts))

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *rest: object) -> None:
        """Load weights under their earlier names too, which the shipped files have."""
        for name in [name for name in state_dict if name.startswith((f"{prefix}shares.", f"{prefix}changes"))]:
            today = name.removeprefix(prefix).replace("shares.", "gate.").replace("changes", "deltas")
            state_dict[prefix + today] = state_dict.pop(name)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def weights(self, vector: Tensor) -> dict[str, Tensor]:
        """Return the weights of the member for what the gate is told: ``inputs`` numbers."""
        return dict(self.named_weights(self.common + self.gate(vector) @ self.deltas))

    def named_weights(self, flat: Tensor) -> list[tuple[str, Tensor]]:
        """Return all weights in a row as the tensors of a DARM."""
        parts = flat.split([int(np.prod(shape)) for shape in self.shapes.values()])
        return [(name, part.view(shape)) for (name, shape), part in zip(self.shapes.items(), parts)]

    def vector(self, covariance: np.ndarray) -> Tensor:
        """Return what a gate of 3 inputs is told of a covariance (2 x 2, order y, x, HR pixels squared)."""
        return torch.as_tensor(moments.logarithm(covariance), dtype=torch.float32, device=self.common.device)

    @torch.no_grad()
    def member(self, covariance: np.ndarray) -> DARM:
        """Return the network for a covariance: in eval mode, with gradients on its weights."""
        darm = DARM(channels=self.channels).to(self.common.device)
        darm.load_state_dict(self.weights(self.vector(covariance)))
        return darm.eval()


def family_path(scale: int) -> Path:
    """Return the file of a scale's family in the package."""
    return WEIGHTS / f"family-x{scale}.safetensors"


def load_family(scale: int, path: Path | None = None) -> DarmFamily:
    """Load the family of a scale, in eval mode, without gradients.

    Raises:
        DarsrError: a damaged file.
    """
    facts, arrays, _ = read_container(path or family_path(scale), "family", VERSION, "install the package again")
    hidden = next(len(array) for name, array in arrays.items() if name.endswith(".0.bias"))
    family = DarmFamily(DARM(channels=facts["channels"]), facts["sets"], hidden)
    family.load_state_dict({name: torch.from_numpy(a.astype(np.float32)) for name, a in arrays.items()})
    return family.eval().requires_grad_(False)


def save_family(family: DarmFamily, path: str | Path, facts: dict, dtype: torch.dtype) -> str:
    """Write a family and return the file's sha256."""
    arrays = {name: tensor.detach().to("cpu", dtype).numpy() for name, tensor in family.state_dict().items()}
    facts = {**facts, "channels": family.channels, "sets": family.experts}
    return write_container(path, "family", VERSION, facts, arrays)
