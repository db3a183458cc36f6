"""A correction network for every blur: DARM's weights as a function of the blur's covariance.

The fit of one network to one blur, done once for all blurs: the weights are a sum of a few sets of weights, and a small
network on the covariance says how much of each. For a given covariance the sum is a plain :class:`.darm.DARM` (dynamic
convolution as of Yang et al., "CondConv", NeurIPS 2019, with the blur instead of the image as the condition).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from darsr_deploy.files.container import read_container, write_container

from ..degradation import covariance as moments
from .darm import DARM

VERSION = 1
_WEIGHTS = Path(__file__).parent.parent / "weights"


class DarmFamily(nn.Module):
    """13-tap DARMs, one for every covariance.

    Args:
        start: the network that all of them start as.
        sets: sets of weights whose sum a member is, the common one left out.
        hidden: units of the small network.
    """

    def __init__(self, start: DARM, sets: int = 8, hidden: int = 32) -> None:
        super().__init__()
        self.channels, self.sets = start.channels, sets
        self.shapes = {name: tuple(weight.shape) for name, weight in start.named_parameters()}
        self.common = nn.Parameter(nn.utils.parameters_to_vector(start.parameters()).detach().clone())
        # A set is as large as what it changes: a layer's weights have a size of their own.
        size = torch.cat([torch.full((w.numel(),), w.detach().std(unbiased=False).item()) for w in start.parameters()])
        self.changes = nn.Parameter(0.05 * size * torch.randn(sets, len(self.common)))
        self.shares = nn.Sequential(nn.Linear(3, hidden), nn.Tanh(), nn.Linear(hidden, sets))

    def weights(self, covariance: np.ndarray) -> dict[str, Tensor]:
        """The weights of the member for a covariance (2 x 2, order y, x, HR pixels squared)."""
        logarithm = torch.as_tensor(moments.logarithm(covariance), dtype=torch.float32, device=self.common.device)
        flat = self.common + self.shares(logarithm) @ self.changes
        parts = flat.split([int(np.prod(shape)) for shape in self.shapes.values()])
        return {name: part.view(shape) for (name, shape), part in zip(self.shapes.items(), parts)}

    @torch.no_grad()
    def member(self, covariance: np.ndarray) -> DARM:
        """The network for a covariance: in eval mode, with gradients on its weights."""
        darm = DARM(channels=self.channels).to(self.common.device)
        darm.load_state_dict(self.weights(covariance))
        return darm.eval()


def family_path(scale: int) -> Path:
    """Where the family of a scale lies in the package."""
    return _WEIGHTS / f"family-x{scale}.safetensors"


def load_family(scale: int, path: Path | None = None) -> DarmFamily:
    """The family of a scale, in eval mode, without gradients.

    Raises:
        DarsrError: a damaged file.
    """
    facts, arrays, _ = read_container(path or family_path(scale), "family", VERSION, "install the package again")
    family = DarmFamily(DARM(channels=facts["channels"]), facts["sets"], len(arrays["shares.0.bias"]))
    family.load_state_dict({name: torch.from_numpy(a.astype(np.float32)) for name, a in arrays.items()})
    return family.eval().requires_grad_(False)


def save_family(family: DarmFamily, path: str | Path, facts: dict, dtype: torch.dtype) -> str:
    """Write a family; returns the file's sha256."""
    arrays = {name: tensor.detach().to("cpu", dtype).numpy() for name, tensor in family.state_dict().items()}
    facts = {**facts, "channels": family.channels, "sets": family.sets}
    return write_container(path, "family", VERSION, facts, arrays)
