"""Load tensors from foreign files, and into a network, naming whatever is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from darsr_deploy.errors import DarsrError
from darsr_deploy.files.kinds import another_kind


def read_state(path: Path) -> dict[str, Any]:
    """Read a ``.pth`` file: tensors by name, or dictionaries of them. Nothing in it is run.

    Entries whose key is not a string are left out: they are an optimizer's, and no layer's.

    Raises:
        DarsrError: the file is missing or damaged, holds code, or a tensor that is sparse, quantized, or larger than the
            numbers stored for it.
    """
    try:
        # Only tensors: a pickle that would run code is refused by torch.
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        why = (str(error).splitlines() or [type(error).__name__])[0]
        why = why.partition(" In PyTorch 2.6")[0]  # it goes on to advise loading the file unsafely
        raise another_kind(path, "weights") or DarsrError(
            str(path),
            f"is not a weight file that can be loaded safely ({why})",
            "give a .pth file of tensors",
        ) from error
    try:
        return _checked(state, path) if isinstance(state, dict) else {}
    except RecursionError as error:
        raise DarsrError(str(path), "holds dictionaries that hold each other", "give a .pth file of tensors") from error


def _checked(state: dict, path: Path) -> dict[str, Any]:
    result = {}
    for name, value in state.items():
        if isinstance(value, Tensor):
            if value.is_quantized or value.layout != torch.strided:
                kind = "quantized" if value.is_quantized else "sparse"
                raise DarsrError(str(path), f"tensor {name} is {kind}, expected plain numbers", "save it dequantized")
            if value.numel() * value.element_size() > value.untyped_storage().nbytes():
                why = f"tensor {name} is {tuple(value.shape)}, more numbers than the file holds for it"
                raise DarsrError(str(path), why, "give a .pth file of tensors")
        if isinstance(name, str):
            result[name] = _checked(value, path) if isinstance(value, dict) else value
    return result


def load_checked(module: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    """Load a state into a network, naming the first tensor that is missing, of another shape, or not finite."""
    expected = module.state_dict()
    for name in sorted(expected.keys() | tensors.keys()):
        if name not in tensors:
            raise DarsrError(str(path), f"tensor {name} is missing", "fetch or train it again")
        if name not in expected:
            raise DarsrError(
                str(path),
                f"tensor {name} does not belong to this architecture",
                "give a file of the architecture it names",
            )
        if tensors[name].shape != expected[name].shape:
            raise DarsrError(
                str(path),
                f"tensor {name} is {tuple(tensors[name].shape)}, expected {tuple(expected[name].shape)}",
                "give a file of the architecture it names",
            )
        if not torch.isfinite(tensors[name]).all():
            raise DarsrError(str(path), f"tensor {name} holds NaN or infinity", "fetch or train it again")
    module.load_state_dict(tensors)
