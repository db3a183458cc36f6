"""Layers of a network replaced by others that compute the same."""

from __future__ import annotations

import copy
from collections.abc import Callable

from torch import nn


def replace_layers(module: nn.Module, convert: Callable[[nn.Module], nn.Module | None]) -> nn.Module:
    """A copy of a module in which layers are replaced, at any depth.

    Args:
        convert: gives the layer to put in the place of another, or None to look inside that one.
    """
    converted = convert(module)
    if converted is not None:
        return converted
    result = copy.deepcopy(module)
    _replace_inside(result, convert)
    return result


def single_slopes(module: nn.Module) -> nn.Module:
    """A copy in which every PReLU that has one slope for all channels is a LeakyReLU.

    The same values, but runtimes compute it together with the convolution in front of it, which they do not do for PReLU
    (docs/backbone-speed.md).
    """

    def convert(layer: nn.Module) -> nn.Module | None:
        if isinstance(layer, nn.PReLU) and layer.num_parameters == 1:
            return nn.LeakyReLU(layer.weight.item())
        return None

    return replace_layers(module, convert)


def _replace_inside(module: nn.Module, convert: Callable[[nn.Module], nn.Module | None]) -> None:
    for name, child in module.named_children():
        converted = convert(child)
        if converted is None:
            _replace_inside(child, convert)
        else:
            setattr(module, name, converted)
