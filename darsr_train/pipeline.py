"""An adapter as a network: correction, frozen backbone, back-projection."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from darsr_deploy.errors import DarsrError
from darsr_deploy.files.adapter import Adapter
from darsr_deploy.images.arrays import to_image, to_tensor

from .backbones import PUBLISHED, Backbone, installed_names, load_backbone
from .blind.modulation import modulated_by
from .networks.backprojection import BackProjection
from .networks.darm import DARM, filter_with_taps


class GlobalCorrection(nn.Module):
    """One symmetric 5x5 filter for the whole image."""

    def __init__(self, taps: Tensor) -> None:
        super().__init__()
        self.register_buffer("taps", taps)

    def coefficients(self, x: Tensor) -> Tensor:
        """Return N x 13 x H x W coefficients, the same at every pixel, for N x 3 x H x W."""
        n, _, h, w = x.shape
        return self.taps.view(1, 13, 1, 1).expand(n, 13, h, w)

    def forward(self, x: Tensor) -> Tensor:
        return filter_with_taps(x, self.coefficients(x))


class Pipeline(nn.Module):
    """Correction, backbone and back-projection as one network.

    Maps N x 3 x H x W RGB in [0, 1], sides of at least 3, to N x 3 x sH x sW in [0, 1].
    """

    def __init__(self, correction: nn.Module, backbone: nn.Module, backprojection: nn.Module | None = None) -> None:
        super().__init__()
        self.correction = correction
        self.backbone = backbone
        self.backprojection = backprojection

    def correct(self, lr: Tensor) -> Tensor:
        """Return the corrected LR image, which looks bicubically downscaled (not clipped)."""
        return self.correction(lr)

    def forward(self, lr: Tensor) -> Tensor:
        return self.finish(lr, self.correct(lr))

    def finish(self, lr: Tensor, corrected: Tensor) -> Tensor:
        """Apply what follows the correction: the backbone, back-projection, clipping."""
        sr = self.backbone(corrected)
        return (sr if self.backprojection is None else self.backprojection(sr, lr)).clamp(0, 1)


def correction_of(adapter: Adapter, path: str | Path = "adapter") -> nn.Module:
    """Return the correction module of an adapter, in eval mode.

    Raises:
        DarsrError: its arrays are not those of a correction network.
    """
    if adapter.correction == "none":
        return nn.Identity()
    if adapter.correction == "global":
        return GlobalCorrection(torch.from_numpy(adapter.arrays["taps"].copy()))
    state = {name: torch.from_numpy(array.copy()) for name, array in adapter.darm_arrays().items()}
    try:
        darm = DARM(state.get("dictionary"), channels=state["head.weight"].shape[0])
        darm.load_state_dict(state)
    except (KeyError, RuntimeError) as error:
        problem = str(error).splitlines()[-1].strip()
        raise DarsrError(
            str(path), f"the correction network cannot be built ({problem})", "make a new one with darsr adapt"
        ) from error
    return darm.eval().requires_grad_(False)


def backbone_of(adapter: Adapter, backbone: nn.Module, path: str | Path = "adapter") -> nn.Module:
    """Return the backbone that an adapter runs: modulated for its degradation where it says so, else the frozen one.

    Raises:
        DarsrError: it modulates other networks than those of this version.
    """
    if not adapter.modulation_sha256:
        return backbone
    networks = modulated_by(adapter.scale, adapter.modulation_sha256)
    scale, shift = (torch.from_numpy(adapter.arrays[f"modulation.{name}"].copy()) for name in ("scale", "shift"))
    if networks is None or len(scale) != sum(networks.widths):
        why = "modulates the backbone of another version of darsr"
        raise DarsrError(str(path), why, "adapt again, or install the version that made it")
    return networks.fold(scale, shift).to(next(backbone.parameters()).device)


def pipeline_of(adapter: Adapter, backbone: nn.Module, path: str | Path = "adapter") -> Pipeline:
    """Return an adapter and its backbone as one network, in eval mode.

    Raises:
        DarsrError: its arrays are not those of a correction network.
    """
    backprojection = None
    if adapter.rounds:
        backprojection = BackProjection(
            torch.from_numpy(adapter.arrays["kernel"].copy()), adapter.scale, adapter.rounds
        )
    return Pipeline(correction_of(adapter, path), backbone_of(adapter, backbone, path), backprojection).eval()


def load_pipeline(
    path: str | Path, backbone: str | None = None, scale: int | None = None, device: str = "cpu"
) -> tuple[Pipeline, Adapter, Backbone]:
    """Load an adapter file and its backbone as one network; for arguments and errors see :func:`backbone_for`."""
    adapter = Adapter.load(path)
    found = backbone_for(adapter, path, backbone, scale, device)
    return pipeline_of(adapter, found.module, path).to(device), adapter, found


def backbone_for(
    adapter: Adapter, path: str | Path, backbone: str | None = None, scale: int | None = None, device: str = "cpu"
) -> Backbone:
    """Load the backbone that an adapter was fitted through.

    Args:
        path: the adapter's file, for errors.
        backbone: name or file to use instead of looking up the name in the adapter.
        scale: what the user asked for, if anything.

    Raises:
        DarsrError: a file that cannot be used, another scale, or another backbone than the adapter was fitted through.
    """
    if scale is not None and scale != adapter.scale:
        raise DarsrError(
            str(path),
            f"is an adapter for scale {adapter.scale}, asked for {scale}",
            f"use --scale {adapter.scale} or adapt again with --scale {scale}",
        )
    try:
        found = load_backbone(backbone or adapter.backbone, adapter.scale, device)
    except DarsrError as error:
        if backbone or adapter.backbone in installed_names():
            raise
        why = f"was fitted through the backbone {adapter.backbone}, which is not installed"
        published = PUBLISHED.get(adapter.backbone)
        fetch_it = f"fetch it ({published.command}), or " if published else ""
        raise DarsrError(str(path), why, f"{fetch_it}give its file with --backbone") from error
    if found.sha256 != adapter.backbone_sha256:
        raise DarsrError(
            str(path),
            f"was fitted through another {adapter.backbone} than the one found here",
            "give the right one with --backbone, or adapt again",
        )
    return found


def adapted(adapter: Adapter, backbone: Backbone, device: str = "cpu") -> Pipeline:
    """Return an adapter and its backbone as one network on a device."""
    return pipeline_of(adapter, backbone.module).to(device)


def upscale_with(network: nn.Module, image: np.ndarray, device: str = "cpu") -> np.ndarray:
    """Run a network (N x 3 x H x W in [0, 1] in and out) on an 8-bit image; return an 8-bit image."""
    with torch.inference_mode():
        lr = torch.from_numpy(to_tensor(image)).to(device, memory_format=torch.channels_last)
        return to_image(network(lr).float().cpu().numpy(), gray=image.ndim == 2)
