"""Preview page of an adaptation: before, after, the estimated kernel, the correcting filters."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from darsr_deploy.engines.upscale import pad_to_least
from darsr_deploy.files.adapter import Adapter
from darsr_deploy.images.arrays import read_image, to_tensor, write_image
from darsr_deploy.images.resample import imresize

from ..backbones import Backbone
from ..networks.darm import symmetric_basis
from ..pipeline import adapted, upscale_with
from .kernels import Shown, kernels_of
from .preview_page import Findings, draw

_WINDOW = 512  # only the centre of a larger image is computed: the page shows no more of it


def save_preview(
    image: Path,
    adapter: Adapter,
    backbone: Backbone,
    target: Path,
    device: str = "cpu",
    kernels: tuple[Shown, ...] | None = None,
) -> None:
    """Write the preview page of an image and its adapter as PNG.

    Args:
        kernels: to show instead of those of the adapter alone.

    Raises:
        DarsrError: the image cannot be read, or the file cannot be written.
    """
    pixels = read_image(image)
    facts = [f"{pixels.shape[1]} x {pixels.shape[0]} px, x{adapter.scale}", f"backbone {adapter.backbone}"]
    told = "decision" in adapter.facts
    for name, words in (
        ("profile", "profile {}"),
        ("steps", "{} steps"),
        ("decision" if told else "chosen", "{}" if told else "chosen: {}"),
    ):
        if name in adapter.facts:
            facts.append(words.format(adapter.facts[name]))
    findings = find(pixels, adapter, backbone, device, kernels)
    write_image(target, draw(findings, image.name, " · ".join(facts)))


def find(
    pixels: np.ndarray,
    adapter: Adapter,
    backbone: Backbone,
    device: str = "cpu",
    kernels: tuple[Shown, ...] | None = None,
) -> Findings:
    """Compute what an adapter does to an image (uint8, H x W or H x W x 3, any size); its own kernels by default."""
    height, width = (min(side, _WINDOW) for side in pixels.shape[:2])
    top, left = ((side - part) // 2 for side, part in zip(pixels.shape[:2], (height, width)))
    lr = pixels[top : top + height, left : left + width]
    network, scale, padded = adapted(adapter, backbone, device), adapter.scale, pad_to_least(lr)
    size = height * scale, width * scale
    before, after = (upscale_with(n, padded, device)[: size[0], : size[1]] for n in (backbone.module, network))
    filters = assemble_filters(network.correction, padded, device)
    if filters is not None and filters.shape[0] > 1:
        filters = filters[:height, :width]
    kernels = kernels_of(adapter) if kernels is None else kernels
    return Findings(imresize(lr, *size), before, after, filters, kernels, scale)


@torch.no_grad()
def assemble_filters(correction: nn.Module, lr: np.ndarray, device: str = "cpu") -> np.ndarray | None:
    """Return the assembled filters of a correction on an 8-bit image as in :class:`Findings`; None for the identity."""
    if isinstance(correction, nn.Identity):
        return None
    coefficients = correction.coefficients(torch.from_numpy(to_tensor(lr)).to(device))[0].float().cpu()  # F, H, W
    if (coefficients == coefficients[:, :1, :1]).all():
        coefficients = coefficients[:, :1, :1]
    dictionary = getattr(correction, "dictionary", None)
    basis = symmetric_basis() if dictionary is None else dictionary.float().cpu()  # F, 5, 5
    return torch.einsum("fhw,fij->hwij", coefficients, basis).numpy()
