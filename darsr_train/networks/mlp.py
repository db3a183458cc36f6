"""Fit a small network on hand-made features in seconds: a linear part beside one hidden layer, averaged over several seeds.

Its weights are plain arrays, so that they lie in one small file; :mod:`darsr_deploy.blind.mlp` runs it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

_STARTS = 4


class _Network(nn.Module):
    def __init__(self, inputs: int, hidden: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.linear, self.hidden = nn.Linear(inputs, outputs), nn.Linear(inputs, hidden)
        self.out = nn.Linear(hidden, outputs, bias=False)
        self.dropout = dropout

    def forward(self, z: Tensor) -> Tensor:
        z = F.dropout(z, self.dropout / 3)
        return self.linear(z) + self.out(F.dropout(self.hidden(z).tanh(), self.dropout))


def fit(
    features: np.ndarray,
    targets: np.ndarray,
    loss_of: Callable[[Tensor, Tensor], Tensor],
    hidden: int,
    steps: int = 1500,
    decay: float = 3e-3,
    outputs: int | None = None,
    dropout: float = 0.0,
    batch: int | None = None,
) -> dict[str, np.ndarray]:
    """Train networks that map features (n x f) to targets (n x t), one a seed; return the weights of their mean.

    Args:
        loss_of: ``(outputs, targets) -> scalar``.
        decay: Adam's weight decay.
        outputs: how many there are, where targets hold more columns than that for the loss.
        dropout: share of the hidden units, and a third of it of the features, left out at random.
        batch: samples of a step, drawn at random; all of them without it.
    """
    mean, spread = features.mean(0), features.std(0) + 1e-6
    z, truth = torch.tensor((features - mean) / spread), torch.tensor(targets, dtype=torch.float64)
    networks = []
    for seed in range(_STARTS):
        torch.manual_seed(seed)
        network = _Network(z.shape[1], hidden, outputs or truth.shape[1], dropout).double()
        optimiser = torch.optim.Adam(network.parameters(), 3e-3, weight_decay=decay)
        for _ in range(steps):
            picked = slice(None) if batch is None else torch.randint(len(z), (batch,))
            loss = loss_of(network(z[picked]), truth[picked])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        networks.append(network.requires_grad_(False))
    return {
        "mean": mean,
        "spread": spread,
        "linear": torch.stack([n.linear.weight for n in networks]).mean(0).numpy(),
        "offset": torch.stack([n.linear.bias for n in networks]).mean(0).numpy(),
        "hidden": torch.cat([n.hidden.weight for n in networks]).numpy(),
        "bias": torch.cat([n.hidden.bias for n in networks]).numpy(),
        "out": torch.cat([n.out.weight for n in networks], dim=1).numpy() / _STARTS,
    }
