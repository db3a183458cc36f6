"""Weight files of backbones: safetensors with the architecture, scale, licence and provenance in their metadata."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from darsr_deploy.container import read_container, write_container
from darsr_deploy.errors import DarsrError

from .edge import EdgeSR
from .srfbn import SRFBN

ARCHITECTURES: dict[str, type[nn.Module]] = {"edge": EdgeSR, "srfbn-s": SRFBN}
SCALES = (2, 4)
VERSION = 1
_EMBEDDED = Path(__file__).parent.parent / "weights"


@dataclass(frozen=True)
class Backbone:
    """A frozen network together with what it takes to name it.

    Attributes:
        module: float32, eval mode, no gradients on its weights; N x 3 x H x W RGB in [0, 1] -> N x 3 x sH x sW.
        name: ``edge-x2``, or the file's name without its suffix.
        sha256: of the weight file, in hexadecimal.
        facts: the rest of the file's metadata (licence, data, command, measured PSNR).
    """

    module: nn.Module
    name: str
    architecture: str
    scale: int
    sha256: str
    facts: dict = field(default_factory=dict)


def embedded_names() -> list[str]:
    """Names of the backbones that come with the package."""
    return sorted(path.stem for path in _EMBEDDED.glob("*-x[24].safetensors") if not path.stem.startswith("prior"))


def load_backbone(name_or_path: str, scale: int, device: str | torch.device = "cpu") -> Backbone:
    """Load an embedded backbone by name (``edge`` or ``edge-x2``) or a weight file written by this project.

    Raises:
        DarsrError: no such name or file, a damaged file, or a backbone of another scale.
    """
    path = _locate(name_or_path, scale)
    hint = (
        f"import it first: darsr backbone import {path}"
        if path.suffix in (".pth", ".pt")
        else "import, fetch or train it again"
    )
    facts, arrays, sha256 = read_container(path, "backbone", VERSION, hint)
    if not {"architecture", "scale", "hyper"} <= facts.keys():
        raise DarsrError(str(path), "does not say its architecture, scale and hyper-parameters", hint)
    if facts["scale"] != scale:
        raise DarsrError(
            str(path),
            f"is a backbone for scale {facts['scale']}, asked for {scale}",
            f"use --scale {facts['scale']} or another --backbone",
        )
    module = build(facts.pop("architecture"), scale, facts.pop("hyper"))
    _load_checked(module, {name: torch.from_numpy(a.astype(np.float32)) for name, a in arrays.items()}, path)
    module.eval().requires_grad_(False).to(device)
    return Backbone(module, path.stem, architecture_of(module), facts.pop("scale"), sha256, facts)


def architecture_of(module: nn.Module) -> str:
    """The name under which the network's class is registered."""
    return next(name for name, cls in ARCHITECTURES.items() if type(module) is cls)


def build(architecture: str, scale: int, hyper: dict[str, int] | None = None) -> nn.Module:
    """A network of a known architecture with fresh weights.

    Raises:
        DarsrError: unknown architecture or scale.
    """
    if architecture not in ARCHITECTURES:
        raise DarsrError(architecture, "is no known architecture", f"choose one of {', '.join(ARCHITECTURES)}")
    if scale not in SCALES:
        raise DarsrError(f"scale {scale}", "is not supported", "choose 2 or 4")
    return ARCHITECTURES[architecture](scale, **(hyper or {}))


def describe(backbone: Backbone) -> dict:
    """Name, size, cost and provenance. The multiply-adds are counted while the network runs, not typed in."""
    side = 32
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        backbone.module(torch.zeros(1, 3, side, side, device=next(backbone.module.parameters()).device))
    parameters = sum(p.numel() for p in backbone.module.parameters())
    cost = counter.get_total_flops() // 2 // side**2
    return {
        "name": backbone.name,
        "architecture": backbone.architecture,
        "scale": backbone.scale,
        "parameters": parameters,
        "macs_per_lr_pixel": cost,
        "sha256": backbone.sha256,
        **backbone.facts,
    }


def find_scale(name_or_path: str) -> int:
    """The scale that a weight file or an embedded name holds (2 where a name leaves it open)."""
    path = _EMBEDDED / f"{name_or_path}.safetensors" if name_or_path in embedded_names() else Path(name_or_path)
    if not path.is_file():
        return 2
    return read_container(path, "backbone", VERSION, "import, fetch or train it again")[0]["scale"]


def save_backbone(module: nn.Module, path: str | Path, facts: dict, dtype: torch.dtype = torch.float32) -> str:
    """Write a weight file; returns its sha256. ``facts`` should name licence, data and the command that made it."""
    own = {"architecture": architecture_of(module), "scale": module.scale, "hyper": module.hyper}
    arrays = {name: tensor.detach().to("cpu", dtype).numpy() for name, tensor in module.state_dict().items()}
    return write_container(path, "backbone", VERSION, {**facts, **own}, arrays)


def import_weights(
    source: str | Path, target: str | Path, licence: str = "as stated by the weights' authors"
) -> Backbone:
    """Convert a published SRFBN-S ``.pth`` file to our format; scale and shapes are found out and checked.

    Raises:
        DarsrError: the file is missing, holds anything but tensors, or its shapes fit no scale of SRFBN-S.
    """
    source = Path(source)
    try:
        # Only tensors: a pickle that would run code is refused by torch.
        state = torch.load(source, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        raise DarsrError(
            str(source),
            f"is not a weight file that can be loaded safely ({(str(error).splitlines() or [type(error).__name__])[0]})",
            "give a .pth file of tensors",
        ) from error
    state = state if isinstance(state, dict) else {}
    state = {k.removeprefix("module."): v.float() for k, v in state.items() if isinstance(v, Tensor)}
    up = state.get("out.0.weight")
    scale = {6: 2, 8: 4}.get(up.shape[-1]) if up is not None and up.ndim == 4 else None
    if scale is None:
        raise DarsrError(
            str(source), "does not hold SRFBN-S x2 or x4 weights", "give SRFBN-S_x2_BI.pth or SRFBN-S_x4_BI.pth"
        )
    module = build("srfbn-s", scale)
    _load_checked(module, state, source)
    origin = hashlib.sha256(source.read_bytes()).hexdigest()
    save_backbone(module, target, {"licence": licence, "source": source.name, "source_sha256": origin})
    return load_backbone(str(target), scale)


def _locate(name_or_path: str, scale: int) -> Path:
    for name in (name_or_path, f"{name_or_path}-x{scale}"):
        embedded = _EMBEDDED / f"{name}.safetensors"
        if name in embedded_names():
            return embedded
    path = Path(name_or_path)
    if not path.is_file():
        raise DarsrError(
            f"backbone {name_or_path}",
            "is neither a file nor the name of one that is installed for this scale",
            f"installed: {', '.join(embedded_names()) or 'none'}; see darsr backbone list",
        )
    return path


def _load_checked(module: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
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
