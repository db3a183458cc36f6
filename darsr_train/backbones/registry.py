"""Load a frozen network by its name or from a file.

Weight files of our own are safetensors with the architecture, scale, licence and provenance in their metadata. An ONNX
file, or PyTorch weights that spandrel knows, are used as they are.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from darsr_deploy.errors import DarsrError
from darsr_deploy.files.container import read_container, write_container
from darsr_deploy.files.schema import make_dataclass

from .edge import EdgeSR
from .onnx_network import OnnxNetwork, load_onnx
from .srfbn import SRFBN
from .store import locate
from .tensors import load_checked
from .zoo import is_foreign, load_zoo

ARCHITECTURES: dict[str, type[nn.Module]] = {"edge": EdgeSR, "srfbn-s": SRFBN}
SCALES = (2, 4)
VERSION = 1
_MOST_SIZE = 4096  # of a hyper-parameter


@dataclass(frozen=True)
class _Declared:
    """What a weight file says of its network."""

    architecture: str
    scale: int
    hyper: dict[str, int]


@dataclass(frozen=True)
class Backbone:
    """A frozen network together with what it takes to name it.

    Attributes:
        module: float32, eval mode, no gradients on its weights; N x 3 x H x W RGB in [0, 1] -> N x 3 x sH x sW. Where
            it has an attribute ``differentiable`` that is False, no gradient passes through it either.
        name: ``edge-x2``, or the file's name without its suffix.
        architecture: one of :data:`ARCHITECTURES`, ``onnx``, or what spandrel calls it.
        sha256: of the weight file, in hexadecimal.
        facts: the rest of the file's metadata (licence, data, command, measured PSNR).
    """

    module: nn.Module
    name: str
    architecture: str
    scale: int
    sha256: str
    facts: dict = field(default_factory=dict)


def load_backbone(name_or_path: str, scale: int | None, device: str | torch.device = "cpu") -> Backbone:
    """Load an installed backbone by name (``edge`` or ``edge-x2``), a weight file of this project, or a foreign network.

    Args:
        scale: None takes the one that the file holds (2 where a name leaves it open).

    Raises:
        DarsrError: no such name or file, a file that cannot be used, or a backbone of another scale.
    """
    path = locate(name_or_path, scale or 2)
    if path.suffix.lower() == ".onnx":
        module, facts, sha256 = load_onnx(path, device)
        architecture = "onnx"
    elif is_foreign(path):
        module, architecture, facts, sha256 = load_zoo(path)
    else:
        module, facts, sha256 = _load_own(path)
        architecture = architecture_of(module)
    if scale not in (None, module.scale):
        raise DarsrError(
            str(path),
            f"is a backbone for scale {module.scale}, asked for {scale}",
            f"use --scale {module.scale} or another --backbone",
        )
    module.eval().requires_grad_(False).to(device)
    return Backbone(module, path.stem, architecture, module.scale, sha256, facts)


def _load_own(path: Path) -> tuple[nn.Module, dict, str]:
    """Read a weight file written by :func:`save_backbone`: ``(module, facts, sha256)``."""
    hint = "import, fetch or train it again"
    facts, arrays, sha256 = read_container(path, "backbone", VERSION, hint)
    try:
        declared = make_dataclass(
            _Declared, {name: facts.pop(name) for name in ("architecture", "scale", "hyper") if name in facts}
        )
        if unlikely := [name for name, size in declared.hyper.items() if not 0 < size <= _MOST_SIZE]:
            raise ValueError(f"hyper-parameter {unlikely[0]} is {declared.hyper[unlikely[0]]}")
        module = build(declared.architecture, declared.scale, declared.hyper)
    except (ValueError, TypeError) as error:  # the network's own words on a name that it does not have
        why = f"does not say its architecture, scale and hyper-parameters ({error})"
        raise DarsrError(str(path), why, hint) from error
    load_checked(module, {name: torch.from_numpy(a.astype(np.float32)) for name, a in arrays.items()}, path)
    return module, facts, sha256


def architecture_of(module: nn.Module) -> str:
    """Return the name under which the network's class is registered."""
    return next(name for name, cls in ARCHITECTURES.items() if type(module) is cls)


def build(architecture: str, scale: int, hyper: dict[str, int] | None = None) -> nn.Module:
    """Build a network of a known architecture with fresh weights.

    Raises:
        DarsrError: unknown architecture or scale.
    """
    if architecture not in ARCHITECTURES:
        raise DarsrError(architecture, "is not a known architecture", f"choose one of {', '.join(ARCHITECTURES)}")
    if scale not in SCALES:
        raise DarsrError(f"scale {scale}", "is not supported", "choose 2 or 4")
    return ARCHITECTURES[architecture](scale, **(hyper or {}))


def describe(backbone: Backbone) -> dict:
    """Return name, size, cost and provenance; the multiply-adds are counted on the network, not typed in."""
    module = backbone.module
    if isinstance(module, OnnxNetwork):
        parameters, cost = module.parameter_count(), module.macs_per_lr_pixel()
    else:
        parameters, cost = sum(p.numel() for p in module.parameters()), _macs_per_lr_pixel(module)
    return {
        "name": backbone.name,
        "architecture": backbone.architecture,
        "scale": backbone.scale,
        "parameters": parameters,
        "macs_per_lr_pixel": cost,
        "sha256": backbone.sha256,
        **backbone.facts,
    }


def _macs_per_lr_pixel(module: nn.Module, side: int = 16) -> int:
    """Count multiply-adds while the network runs on an image of side x side pixels."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(torch.zeros(1, 3, side, side, device=next(module.parameters()).device))
    return counter.get_total_flops() // 2 // side**2


def save_backbone(module: nn.Module, path: str | Path, facts: dict, dtype: torch.dtype = torch.float32) -> str:
    """Write a weight file and return its sha256; ``facts`` should name licence, data and the command that made it."""
    own = {"architecture": architecture_of(module), "scale": module.scale, "hyper": module.hyper}
    arrays = {name: tensor.detach().to("cpu", dtype).numpy() for name, tensor in module.state_dict().items()}
    return write_container(path, "backbone", VERSION, {**facts, **own}, arrays)
