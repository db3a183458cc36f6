"""Tensors out of files of others, and into a network, with everything that can be wrong named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from darsr_deploy.errors import DarsrError
from darsr_deploy.files.kinds import another_kind


def read_state(path: Path) -> dict[str, Any]:
    """What a ``.pth`` file holds: tensors by name, or dictionaries of them. Nothing else is loaded.

    Raises:
        DarsrError: the file is missing, damaged, holds code, or no dictionary.
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
    return state if isinstance(state, dict) else {}


def load_checked(module: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    """Load a state, naming the first tensor that is missing, of another shape, or not finite."""
    expected = module.state_dict()
    for name in sorted(expected.keys() | tensors.keys()):
        if name not in tensors:
            raise DarsrError(str(path), f"tensor {name} is missing", "fetch or train it again")
        if name not in expected:
            raise DarsrError(
                str(path),
                f"tensor {name} belongs to no layer of this architecture",
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
