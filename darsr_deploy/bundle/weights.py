"""What a runtime bundle takes from an adapter: its sizes, and the weights of its correction network as 13 taps."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..errors import DarsrError
from ..files.adapter import Adapter
from .graphs import STAGES

# (dy, dx) of the 13 symmetric taps, in their order: each multiplies the pixel there and the one opposite; the last is the centre.
TAP_OFFSETS = tuple((i // 5 - 2, i % 5 - 2) for i in range(13))
USUAL_WIDTHS = (32, 8)  # of the network that adaptation starts from
USUAL_KERNEL_SIDE = {2: 14, 4: 40}  # of the kernels that adapting estimates
_SYMMETRIC = 1e-6  # most asymmetry of a dictionary, relative to its largest value


def weight_shapes(channels: int, squeezed: int) -> dict[str, list[int]]:
    """Return names and shapes of the weights of a DARM of 13 taps, in the order of its state.

    Args:
        channels: its width.
        squeezed: width inside the attentions.
    """
    layers = {"head": (channels, 3, 3)}
    for stage in range(STAGES):
        layers |= {f"stages.{stage}.{name}": (channels, channels, 3) for name in ("first", "second")}
        layers |= {
            f"stages.{stage}.squeeze": (squeezed, channels, 1),
            f"stages.{stage}.excite": (channels, squeezed, 1),
        }
    layers["tail"] = (13, channels, 3)
    return {
        f"{name}.{part}": shape
        for name, (c_out, c_in, k) in layers.items()
        for part, shape in (("weight", [c_out, c_in, k, k]), ("bias", [c_out]))
    }


def widths_of(adapter: Adapter) -> tuple[int, int]:
    """Return ``channels`` and ``squeezed`` of an adapter's network; the default ones for an adapter without one."""
    try:
        arrays = adapter.darm_arrays()
        return arrays["head.bias"].shape[0], arrays["stages.0.squeeze.bias"].shape[0]
    except (KeyError, IndexError):  # none, or one that correction_weights refuses with a line
        return USUAL_WIDTHS


def kernel_side(adapter: Adapter) -> int:
    """Return the side of the back-projection kernels that a bundle made for an adapter takes."""
    side = adapter.arrays["kernel"].shape[0] if adapter.rounds else 0
    return max(side, USUAL_KERNEL_SIDE[adapter.scale])


def fold_dictionary(dictionary: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fold a dictionary into the convolution that mixes it: F coefficients become 13 symmetric taps, exactly.

    Every filter is point-symmetric, so a mixture of 13 basis kernels: ``dictionary = A basis``; the tail becomes
    ``A^T tail``, computed in float64.

    Args:
        dictionary, weight, bias: F x 5 x 5, F x C x k x k, F.

    Returns:
        Weight 13 x C x k x k and bias 13, float32.

    Raises:
        ValueError: the dictionary holds a filter that is not point-symmetric.
    """
    dictionary = dictionary.astype(np.float64)
    mirrored = dictionary[:, ::-1, ::-1]
    asymmetry = np.abs(dictionary - mirrored).max()
    if asymmetry > _SYMMETRIC * np.abs(dictionary).max():
        raise ValueError(f"the dictionary is not point-symmetric (off by {asymmetry:.1e})")
    symmetric = 0.5 * (dictionary + mirrored)
    mixing = np.stack([symmetric[:, 2 + dy, 2 + dx] for dy, dx in TAP_OFFSETS], axis=1)  # F, 13
    folded = np.einsum("ft,fcij->tcij", mixing, weight.astype(np.float64))
    return folded.astype(np.float32), (mixing.T @ bias.astype(np.float64)).astype(np.float32)


def correction_weights(
    arrays: Mapping[str, np.ndarray], shapes: Mapping[str, list[int]], what: str
) -> dict[str, np.ndarray]:
    """Return the arrays of a DARM as float32 weights of the given shapes, a dictionary folded into the tail.

    Args:
        what: the adapter's name in errors.

    Raises:
        DarsrError: another architecture.
    """
    weights = {name: array.astype(np.float32) for name, array in arrays.items() if name != "dictionary"}
    if "dictionary" in arrays and "tail.weight" in weights:
        tail = weights["tail.weight"], weights["tail.bias"]
        try:
            weights["tail.weight"], weights["tail.bias"] = fold_dictionary(arrays["dictionary"], *tail)
        except ValueError as error:
            why = "its dictionary is not point-symmetric"
            raise DarsrError(what, why, "make a new one with darsr adapt") from error
    for name, shape in shapes.items():
        found = list(weights[name].shape) if name in weights else None
        if found != list(shape):
            why = f"its correction network is another than the bundle's ({name} is {found}, expected {list(shape)})"
            raise DarsrError(what, why, "export a bundle from this adapter")
    if unknown := sorted(weights.keys() - shapes.keys()):
        why = f"its correction network is another than the bundle's ({unknown[0]} is not known)"
        raise DarsrError(what, why, "export a bundle from this adapter")
    return weights
