"""The pre-trained correction network that adaptation starts from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from darsr_deploy.errors import DarsrError
from darsr_deploy.files.container import read_container, write_container
from darsr_deploy.files.folders import WEIGHTS

from .darm import DARM

VERSION = 1


def prior_path(scale: int, camera: bool = False) -> Path:
    """Return the file of a scale's prior in the package: for clean blur, or for images with in-camera processing.

    Where one prior serves both, it is that one.
    """
    path = WEIGHTS / f"prior-{'camera-' if camera else ''}x{scale}.safetensors"
    return path if path.is_file() or not camera else prior_path(scale)


def load_prior(scale: int, path: Path | None = None, camera: bool = False) -> DARM:
    """Load the prior of a scale: a 13-tap DARM in eval mode with gradients on its weights.

    Raises:
        DarsrError: no prior for that scale, or a damaged file.
    """
    path = path or prior_path(scale, camera)
    if not path.is_file():
        raise DarsrError(f"scale {scale}", "profile fast has no prior for it yet", "use --scale 2, or --profile paper")
    facts, arrays, _ = read_container(path, "prior", VERSION, "install the package again")
    darm = DARM(channels=facts["channels"])
    darm.load_state_dict({name: torch.from_numpy(a.astype(np.float32)) for name, a in arrays.items()})
    return darm.eval()


def near_identity(channels: int) -> DARM:
    """Make a 13-tap DARM that nearly returns its input: small tail weights, centre tap 1."""
    darm = DARM(channels=channels)
    with torch.no_grad():
        darm.tail.weight.mul_(0.05)
        darm.tail.bias[12] = 1
    return darm


def save_prior(darm: DARM, path: str | Path, facts: dict) -> str:
    """Write a prior and return the file's sha256."""
    arrays = {name: tensor.detach().to("cpu", torch.float32).numpy() for name, tensor in darm.state_dict().items()}
    return write_container(path, "prior", VERSION, {**facts, "channels": darm.channels}, arrays)
