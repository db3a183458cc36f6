"""Profile ``fast``: seconds instead of hours.

The published procedure learns everything from one image. Here a pre-trained correction network (the prior) gives the
first result, the blur follows from it in closed form, and a short fit with DARSR's own losses, at the image's own
scale, adapts the network to this image and this blur:

1. correct with the prior, super-resolve: ``x = backbone(DARM(y))``;
2. the kernel that best reduces ``x`` to the given image, by least squares, made a Gaussian of calibrated shape;
3. fit DARM: the forward cycle on ``x`` reduced by that kernel, the backward cycle through the frozen backbone,
   and the masked interpolation term;
4. keep the fitted network only if it is better than the prior on crops it was not fitted on.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from darsr_deploy.imaging import to_tensor
from darsr_deploy.resample import pillow_bicubic

from . import losses
from .checkpoint import Checkpoint
from .closed_form import calibrated, degradation_kernel
from .config import AdaptOptions
from .darm import DARM
from .degradation import KERNEL_SIZE, reduce
from .prior import load_prior
from .result import Result

_HELD_OUT = 6  # crops that decide
_HELD_OUT_SHARE = 0.2  # of the longer side: the strip at its end, which is never fitted on
_LEAST_STRIP = 16  # pixels: wider than what the loss leaves out at a crop's border
_WINDOW = 512  # of a larger image only its middle is used: more does not change the blur, only the seconds


@dataclass(frozen=True)
class _Image:
    """What the fit sees of the image, all 1 x 3 x h x w in [0, 1].

    Attributes:
        y: the given LR image.
        blurred: the estimated HR image reduced by the estimated kernel, rounded to 8 bits: a stand-in for y ...
        bicubic: ... whose right correction is known: the estimated HR image reduced bicubically.
        enlarged: y enlarged bicubically.
        kernel: the estimated kernel.
    """

    y: Tensor
    blurred: Tensor
    bicubic: Tensor
    enlarged: Tensor
    kernel: Tensor

    def crop(self, top: int, left: int, size: int, scale: int) -> dict[str, Tensor]:
        small = (..., slice(top, top + size), slice(left, left + size))
        large = (..., slice(scale * top, scale * (top + size)), slice(scale * left, scale * (left + size)))
        return {
            "y": self.y[small],
            "blurred": self.blurred[small],
            "bicubic": self.bicubic[small],
            "enlarged": self.enlarged[large],
        }


def adapt_fast(
    pixels: np.ndarray,
    backbone: nn.Module,
    options: AdaptOptions,
    device: str,
    checkpoint: Checkpoint,
    report: Callable[[dict], None],
) -> Result:
    """Adapt to one image.

    Args:
        pixels: uint8, H x W or H x W x 3, sides of at least 32.
        backbone: frozen; N x 3 x H x W in [0, 1] -> N x 3 x sH x sW.
    """
    torch.manual_seed(options.seed)
    prior = load_prior(options.scale).to(device, memory_format=torch.channels_last)
    image = look(pixels, prior, backbone, options.scale, device)
    darm = copy.deepcopy(prior)
    fit(darm, image, backbone, options, checkpoint, report)
    held_out = _places(image, options, step=-1, count=_HELD_OUT, held_out=True)
    scores = {
        name: _held_out_loss(network, image, backbone, options, held_out)
        for name, network in (("prior", prior), ("adapted", darm))
    }
    chosen = min(scores, key=scores.get)
    network = {"prior": prior, "adapted": darm}[chosen]
    kernel = image.kernel.cpu().numpy()
    arrays = {f"darm.{name}": tensor.detach().cpu().numpy() for name, tensor in network.state_dict().items()}
    return Result(
        "network",
        arrays | {"kernel": kernel},
        {"chosen": chosen, "held_out_loss": scores, "kernel_sum": float(kernel.sum())},
    )


@torch.no_grad()
def look(pixels: np.ndarray, prior: DARM, backbone: nn.Module, scale: int, device: str) -> _Image:
    """Steps 1 and 2: the prior's result and the kernel that it implies."""
    window = _middle(pixels)
    y = torch.from_numpy(to_tensor(window)).to(device, memory_format=torch.channels_last)
    x = backbone(prior(y).contiguous(memory_format=torch.channels_last)).clamp(0, 1)
    kernel = calibrated(degradation_kernel(x.cpu(), y.cpu(), scale)).to(device)
    blurred = (reduce(x, kernel, scale).clamp(0, 1) * 255).round() / 255
    bicubic = reduce(x, losses.bicubic_table(scale).to(device), scale)
    enlarged = to_tensor(_enlarge(window, scale))
    return _Image(y, blurred, bicubic, torch.from_numpy(enlarged).to(device), kernel)


def fit(
    darm: DARM,
    image: _Image,
    backbone: nn.Module,
    options: AdaptOptions,
    checkpoint: Checkpoint,
    report: Callable[[dict], None],
) -> None:
    """Step 3, in place."""
    optimiser = torch.optim.Adam(darm.parameters(), options.rate)
    saved = checkpoint.restore("fit")
    first = 0
    if saved is not None:
        darm.load_state_dict(saved["darm"])
        optimiser.load_state_dict(saved["optimiser"])
        first = saved["step"]
    for step in range(first, options.steps):
        for group in optimiser.param_groups:
            group["lr"] = options.rate * (1 - step / options.steps)
        places = _places(image, options, step, options.batch)
        loss = _loss(darm, image, backbone, options, places)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        report({"phase": "adapting", "step": step + 1, "steps": options.steps, "loss": loss.item()})
        checkpoint.save("fit", {"step": step + 1, "darm": darm.state_dict(), "optimiser": optimiser.state_dict()})


def _loss(
    darm: DARM, image: _Image, backbone: nn.Module, options: AdaptOptions, places: list[tuple[int, int, int]]
) -> Tensor:
    scale, size = options.scale, places[0][2]
    crops = [image.crop(*place, scale) for place in places]
    stacked = {
        name: torch.cat([c[name] for c in crops]).contiguous(memory_format=torch.channels_last) for name in crops[0]
    }
    loss = (darm(stacked["blurred"]) - stacked["bicubic"]).abs().mean()
    reached = (
        getattr(backbone, "differentiable", True) or not torch.is_grad_enabled()
    )  # an ONNX model gives no gradients
    if reached and (options.cycle or options.interpolation):
        # The backbone costs three times the correction network: one crop of the batch goes through it.
        y = stacked["y"][:1]
        sr = backbone(darm(y))
        margin = -(-KERNEL_SIZE // scale)  # pixels that see the crop's border, where the reduction guesses
        inner = (..., slice(margin, size - margin), slice(margin, size - margin))
        loss = loss + options.cycle * (reduce(sr, image.kernel, scale) - y)[inner].abs().mean()
        loss = loss + options.interpolation * losses.masked_interpolation(sr, stacked["enlarged"][:1])
    return loss


@torch.no_grad()
def _held_out_loss(
    darm: DARM, image: _Image, backbone: nn.Module, options: AdaptOptions, places: list[tuple[int, int, int]]
) -> float:
    return float(np.mean([_loss(darm, image, backbone, options, [place]).item() for place in places]))


def _places(
    image: _Image, options: AdaptOptions, step: int, count: int, held_out: bool = False
) -> list[tuple[int, int, int]]:
    """(top, left, size) of a step's crops; they depend on the seed and the step alone.

    Crops that are fitted lie outside the strip at the end of the longer side, held-out ones inside it.
    """
    random = np.random.default_rng((options.seed, step + 1))
    area = [[0, side] for side in image.y.shape[-2:]]
    longer = int(area[1][1] > area[0][1])
    cut = area[longer][1] - max(_LEAST_STRIP, int(_HELD_OUT_SHARE * area[longer][1]))
    area[longer][0 if held_out else 1] = cut
    size = min(options.crop, *(stop - start for start, stop in area))
    return [(*(int(random.integers(start, stop - size + 1)) for start, stop in area), size) for _ in range(count)]


def _middle(pixels: np.ndarray) -> np.ndarray:
    height, width = pixels.shape[:2]
    top, left = max(0, height - _WINDOW) // 2, max(0, width - _WINDOW) // 2
    return pixels[top : top + _WINDOW, left : left + _WINDOW]


def _enlarge(window: np.ndarray, scale: int) -> np.ndarray:
    rgb = np.repeat(window[:, :, None], 3, axis=2) if window.ndim == 2 else window
    return pillow_bicubic(rgb, rgb.shape[0] * scale, rgb.shape[1] * scale)
