"""The networks that are told the degradation, as functions of it: matrix products on the weights that ship.

A small network maps a condition to a scale and a shift for every channel after every convolution of the backbone; another
mixes the weights of the correction network from a dozen expert sets (``darsr_train.blind.modulation`` trains both).
"""

from __future__ import annotations

import numpy as np

from ..bundle.shipped import Weights
from ..bundle.weights import USUAL_WIDTHS, weight_shapes
from ..degradation.condition import Condition


def scales_and_shifts(weights: Weights, condition: Condition) -> tuple[np.ndarray, np.ndarray]:
    """Return a scale and a shift for every channel of every layer, the tail last (identity: 1 and 0)."""
    values, layers = _vector(condition), weights.below("modulator")
    for layer in (0, 2, 4):
        values = layers[f"{layer}.weight"] @ values + layers[f"{layer}.bias"]
        values = values if layer == 4 else values / (1 + np.exp(-values))  # SiLU
    scales, shifts = np.split(values, 2)
    return 1 + scales, shifts


def correction_weights(weights: Weights, condition: Condition) -> dict[str, np.ndarray]:
    """Return the correction network's weights, by the names of a DARM of 13 taps."""
    family = weights.below("family")
    gate, deltas = ("gate", "deltas") if "deltas" in family else ("shares", "changes")  # files have older names too
    hidden = np.tanh(family[f"{gate}.0.weight"] @ _vector(condition) + family[f"{gate}.0.bias"])
    shares = family[f"{gate}.2.weight"] @ hidden + family[f"{gate}.2.bias"]
    flat = family["common"] + shares @ family[deltas]
    shapes = weight_shapes(weights.facts["channels"], USUAL_WIDTHS[1])
    ends = np.cumsum([np.prod(shape) for shape in shapes.values()])
    return {name: part.reshape(shape) for (name, shape), part in zip(shapes.items(), np.split(flat, ends[:-1]))}


def _vector(condition: Condition) -> np.ndarray:
    return condition.vector().astype(np.float32)
