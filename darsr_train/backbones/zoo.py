"""Load PyTorch weights of other architectures through spandrel (extra ``zoo``), which identifies them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from darsr_deploy.errors import DarsrError
from darsr_deploy.files.container import METADATA_KEY
from darsr_deploy.files.hashing import hash_file
from darsr_deploy.install import install

from .probe import SCALES, picture, probe_scale
from .tensors import read_state

if TYPE_CHECKING:
    from spandrel import ImageModelDescriptor

_HINT = "give a super-resolution network for RGB at scale 2 or 4"


class ZooNetwork(nn.Module):
    """A network that spandrel built: N x 3 x H x W RGB in [0, 1] -> N x 3 x sH x sW, any H and W.

    spandrel's own call pads an image to the sizes that the network takes, but passes no gradient; this one does both.
    """

    def __init__(self, descriptor: ImageModelDescriptor) -> None:
        super().__init__()
        self.network, self.scale = descriptor.model, descriptor.scale
        self.requirements = descriptor.size_requirements

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        if not self.requirements.none:
            more_width, more_height = self.requirements.get_padding(width, height)
            x = F.pad(x, (0, more_width, 0, more_height), mode="replicate")
        sr = self.network(x)
        sr = sr[0] if isinstance(sr, (tuple, list)) else sr  # some return features as well
        return sr[..., : height * self.scale, : width * self.scale]


def is_foreign(path: Path) -> bool:
    """Return whether a file holds PyTorch weights that this project did not write."""
    if path.suffix.lower() != ".safetensors":
        return path.suffix.lower() in (".pth", ".pt", ".ckpt")
    try:
        with safe_open(path, "numpy") as file:
            return METADATA_KEY not in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False  # damaged: the reader of our own files says how


def load_zoo(path: Path) -> tuple[ZooNetwork, str, dict, str]:
    """Load a weight file of an architecture that spandrel knows.

    Returns:
        ``(network, architecture, facts, sha256)``.

    Raises:
        DarsrError: spandrel is not installed or does not know the network, or the network is not for RGB at scale 2 or 4.
    """
    spandrel = _spandrel(path)
    state = _read(path)
    try:
        descriptor = spandrel.ModelLoader().load_from_state_dict(spandrel.canonicalize_state_dict(state))
    except Exception as error:  # its detection trips over foreign names and shapes in many ways
        raise DarsrError(
            str(path),
            "is of no architecture that spandrel knows",
            f"SRFBN-S weights are imported first: darsr backbone import {path}",
        ) from error
    kind = f"{descriptor.architecture.name}, {getattr(descriptor, 'purpose', 'another purpose')}"
    if not isinstance(descriptor, spandrel.ImageModelDescriptor) or descriptor.purpose != "SR":
        raise DarsrError(str(path), f"is not a super-resolution network ({kind})", _HINT)
    if (descriptor.input_channels, descriptor.output_channels) != (3, 3):
        channels = f"{descriptor.input_channels} to {descriptor.output_channels} channels"
        raise DarsrError(str(path), f"maps {channels} ({kind}), expected 3 to 3", _HINT)
    if descriptor.scale not in SCALES:
        raise DarsrError(str(path), f"enlarges {descriptor.scale} times ({kind})", _HINT)
    descriptor.float().eval()
    network = ZooNetwork(descriptor).eval().requires_grad_(False)
    _check(network, descriptor, str(path))
    facts = {
        "licence": "as stated by the weights' authors",
        "file": path.name,
        "tags": descriptor.tags,
        "gradients": True,
    }
    return network, descriptor.architecture.id, facts, hash_file(path)


def _spandrel(path: Path):
    try:
        import spandrel
    except ImportError as error:
        raise DarsrError(
            str(path),
            f"is not a backbone of this project, and {error.name}, which knows other networks, is not installed",
            f"{install('zoo')}; SRFBN-S weights need no more than darsr backbone import {path}",
        ) from error
    return spandrel


def _read(path: Path) -> dict[str, Any]:
    """Read the tensors ourselves: spandrel has an unpickler of its own, which we would have to trust."""
    return load_file(path) if path.suffix.lower() == ".safetensors" else read_state(path)


@torch.no_grad()
def _check(network: ZooNetwork, descriptor: ImageModelDescriptor, what: str) -> None:
    """Check that any size runs, and that a size that needs no padding gives what spandrel's own call gives."""
    probe_scale(lambda lr: network(torch.from_numpy(lr)).numpy(), what)
    least = max(descriptor.size_requirements.minimum, 32)
    side = -(-least // descriptor.size_requirements.multiple_of) * descriptor.size_requirements.multiple_of
    x = torch.from_numpy(picture(side, side))
    expected = descriptor(x.clone())
    if (network(x).clamp(0, 1) - expected).abs().max() > 1e-4:
        raise DarsrError(what, "spandrel calls this network in a way that passes no gradients", "export it to ONNX")
