"""Replace layers of a network by others that compute the same."""

from __future__ import annotations

import copy
from collections.abc import Callable

from torch import nn


def replace_layers(module: nn.Module, convert: Callable[[nn.Module], nn.Module | None]) -> nn.Module:
    """Return a copy of a module in which layers are replaced, at any depth.

    Args:
        convert: returns the replacement of a layer, or None to look inside it.
    """
    converted = convert(module)
    if converted is not None:
        return converted
    result = copy.deepcopy(module)
    _replace_inside(result, convert)
    return result


def single_slopes(module: nn.Module) -> nn.Module:
    """Return a copy in which every PReLU with a single slope is a LeakyReLU.

    The values are the same, but runtimes fuse LeakyReLU with the convolution before it, and PReLU not
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
