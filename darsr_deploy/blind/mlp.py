"""A small network on hand-made features: a linear part beside one hidden layer (fitted by ``darsr_train.networks.mlp``)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np


def evaluate(weights: Mapping[str, np.ndarray], features: np.ndarray) -> np.ndarray:
    """Return the n x t outputs for n x f features."""
    z = (features - weights["mean"]) / weights["spread"]
    hidden = np.tanh(z @ weights["hidden"].T + weights["bias"])
    return weights["offset"] + z @ weights["linear"].T + hidden @ weights["out"].T
