"""Profile ``thorough``: half a minute. The blur gets a kernel of its own shape, and the networks are fitted to it.

Profile ``fast`` takes every blur for a Gaussian. Motion, defocus and stranger blurs are not, and there

1. a kernel of free shape is estimated (:mod:`darsr_deploy.blind.shape`, :mod:`darsr_train.blind.mirrored`), and one for each
   quarter of the image, in case that it changes across it;
2. the correction network and the modulation of the backbone start as ``fast`` has them and are fitted to photographs blurred by
   this kernel, by the error of the final image;
3. back-projection uses this kernel.

Where the kernel is a Gaussian, or blur is not all that happened to the image, the result is that of ``fast``: there its
networks, trained for days, know more than minutes can teach.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darsr_deploy.adaptation.adapt import ROUNDS, build_adapter
from darsr_deploy.blind import shape
from darsr_deploy.blind.analysis import analysis_windows, smooth_over_drawings
from darsr_deploy.blind.judgement import Networks, Wishes, examine
from darsr_deploy.bundle.shipped import modulated_path
from darsr_deploy.degradation import covariance as moments
from darsr_deploy.degradation import kernels
from darsr_deploy.degradation.condition import Condition, neutral
from darsr_deploy.files.adapter import Adapter
from darsr_deploy.images.arrays import to_tensor
from darsr_deploy.images.metrics import luma

from ..blind.mirrored import choose_orientation
from ..blind.modulation import Modulated, load_modulated
from ..degradation.reduction import reduce
from ..networks.darm import DARM
from ..networks.image_error import negative_psnr
from .checkpoint import Checkpoint
from .options import AdaptOptions
from .references import random_crops
from .result import record

_GAUSSIAN = 0.2  # relative difference from the Gaussian of its moments up to which a kernel counts as one
_VARYING = 0.5  # median relative difference of the quarters' kernels from the whole image's, from which they count
_RIM = 8  # HR pixels at the borders of a crop that do not count
_LUMA = 0.75  # share of Y in the error
_WARM = 20  # steps in which the rate rises

Term = Callable[["FittedNetworks", int], Tensor]


@dataclass(frozen=True)
class Blur:
    """The shape of an image's blur.

    Attributes:
        kernel: of the whole image: 14 x 14, positive, sum 1.
        local: those of its parts where the blur changes across the image; else the kernel alone.
    """

    kernel: np.ndarray
    local: tuple[np.ndarray, ...]

    @property
    def condition(self) -> Condition:
        """Return what the networks to start from are told: the kernel's second moments."""
        return replace(neutral(), covariance=moments.covariance_of(self.kernel, 2))

    @property
    def gaussian(self) -> float:
        """Return the relative difference of the kernel from the Gaussian of its moments."""
        like = kernels.estimated(self.condition.covariance, 2)
        return float(np.linalg.norm(self.kernel - like) / np.linalg.norm(self.kernel))


class FittedNetworks(nn.Module):
    """A correction network and the modulation of a frozen backbone, both free to be fitted."""

    def __init__(self, modulated: Modulated, condition: Condition) -> None:
        super().__init__()
        self.darm: DARM = modulated.correction(condition).requires_grad_(True)
        scales, shifts = (torch.cat(parts) for parts in modulated.scales_and_shifts(modulated.vector(condition)))
        self.scales, self.shifts = nn.Parameter(scales.clone()), nn.Parameter(shifts.clone())
        self._backbone = [modulated]  # in a list: its own weights, frozen, are none of this module's

    def forward(self, y: Tensor) -> Tensor:
        """Return the enlarged image, not clipped: N x 3 x H x W -> N x 3 x 2H x 2W."""
        (modulated,) = self._backbone
        corrected = self.darm(y).contiguous(memory_format=torch.channels_last)
        return modulated.enlarge_by(corrected, self.scales.split(modulated.widths), self.shifts.split(modulated.widths))

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the weights as an adapter holds them."""
        arrays = {f"darm.{name}": tensor.cpu().numpy() for name, tensor in self.darm.state_dict().items()}
        modulation = {"modulation.scale": self.scales, "modulation.shift": self.shifts}
        arrays |= {name: tensor.detach().cpu().numpy() for name, tensor in modulation.items()}
        return {name: np.ascontiguousarray(array, np.float32) for name, array in arrays.items()}


def adapt_thorough(
    pixels: np.ndarray,
    options: AdaptOptions,
    networks: Networks,
    device: str,
    checkpoint: Checkpoint,
    report: Callable[[dict], None],
    jpeg_quality: float | None = None,
) -> Adapter:
    """Adapt to one image with the default backbone.

    Args:
        pixels: uint8, H x W or H x W x 3, sides of at least 32.
        networks: that look at the image.
    """
    findings = examine(pixels, networks, options.scale, jpeg_quality)
    adapter = build_adapter(findings, Wishes(), options.scale, rounds=ROUNDS)
    if options.scale != 2 or findings.regime != "clean" or min(pixels.shape[:2]) < shape.LEAST_SIDE:
        return adapter
    blur = estimate_blur(pixels, networks)
    if blur.gaussian < _GAUSSIAN and len(blur.local) == 1:
        return adapter
    modulated = copy.deepcopy(load_modulated(modulated_path(2, "clean"))).to(device)
    fitted = FittedNetworks(modulated, blur.condition)
    history = fit(fitted, blur, options, checkpoint, report)
    facts = {"chosen": "fitted", "steps": options.steps, "condition": blur.condition.to_json()}
    facts |= {"losses": {"adapting": record(history)}, "regime": "clean", "local_kernels": len(blur.local)}
    facts["decision"] = f"blur of {_describe(blur)}: fitted"
    arrays = fitted.arrays() | {"kernel": np.float32(blur.kernel)}
    rounds = options.rounds if len(blur.local) == 1 else 0
    return replace(
        adapter,
        correction="network",
        facts=adapter.facts | facts,
        arrays=arrays,
        rounds=rounds,
        modulation_sha256=modulated.sha256,
    )


def _describe(blur: Blur) -> str:
    width = float(np.sqrt(np.trace(blur.condition.covariance) / 2))
    return f"{width:.1f} px, {'changing across the picture' if len(blur.local) > 1 else 'not a Gaussian'}"


def estimate_blur(pixels: np.ndarray, networks: Networks) -> Blur:
    """Return the shape of a clean image's blur (uint8, H x W or H x W x 3, sides of at least 64)."""
    window = smooth_over_drawings(analysis_windows(pixels)[0])
    whole = _kernel_of(window, networks)
    height, width = (side // 2 for side in window.shape[:2])
    if min(height, width) < shape.LEAST_SIDE:
        return Blur(whole, (whole,))
    parts = [window[t : t + height, s : s + width] for t in (0, height) for s in (0, width)]
    local = [_kernel_of(np.ascontiguousarray(part), networks) for part in parts]
    apart = np.median([np.linalg.norm(kernel - whole) / np.linalg.norm(whole) for kernel in local])
    return Blur(whole, tuple(local) if apart > _VARYING else (whole,))


def _kernel_of(pixels: np.ndarray, networks: Networks) -> np.ndarray:
    y = to_tensor(pixels)
    found = shape.estimate_kernel(networks.restore(y).clip(0, 1), y)
    return choose_orientation(luma(y[0].transpose(1, 2, 0).astype(np.float64)), found)


def fit(
    fitted: FittedNetworks,
    blur: Blur,
    options: AdaptOptions,
    checkpoint: Checkpoint,
    report: Callable[[dict], None],
    term: Term | None = None,
) -> list[float]:
    """Fit in place to photographs blurred like the image; a step's crops depend on the seed and its number alone.

    Args:
        term: added to the loss of a step: what an experiment wants to know the worth of.

    Returns:
        The loss of every step, including those before a resumed run was interrupted: minus the PSNR in units of 100 dB.
    """
    optimiser = torch.optim.Adam(fitted.parameters(), options.rate)
    device = fitted.scales.device
    first = checkpoint.load("thorough", {"fitted": fitted, "optimiser": optimiser})
    history = checkpoint.restore("thorough")["losses"] if first else []
    for step in range(first, options.steps):
        for group in optimiser.param_groups:
            group["lr"] = options.rate * min(1, (step + 1) / _WARM) * (1 - step / options.steps)
        hr, lr = (crops.to(device) for crops in blurred_crops(blur, options, step))
        error = negative_psnr(fitted(lr)[..., _RIM:-_RIM, _RIM:-_RIM], hr[..., _RIM:-_RIM, _RIM:-_RIM], _LUMA)
        loss = error if term is None else error + term(fitted, step)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        history.append(error.item())
        report({"phase": "adapting", "step": step + 1, "steps": options.steps, "loss": history[-1]})
        states = {"fitted": fitted.state_dict(), "optimiser": optimiser.state_dict()}
        checkpoint.save("thorough", {"step": step + 1, "losses": history, **states})
    fitted.requires_grad_(False)
    return history


def blurred_crops(blur: Blur, options: AdaptOptions, step: int) -> tuple[Tensor, Tensor]:
    """Return a step's sharp crops (HR) and what the blur makes of them, rounded to 8 bits (LR)."""
    random = np.random.default_rng((options.seed, step))
    margin = shape.SIDE // 2 + 1  # HR pixels whose blur would see a mirrored border
    kernel = torch.from_numpy(blur.local[random.integers(len(blur.local))]).float()
    hr = random_crops(random, options.batch, 2 * options.crop + 2 * margin)
    lr = (reduce(hr, kernel, 2).clamp(0, 1) * 255).round() / 255
    inner = (..., *(slice(margin // 2, -(margin // 2)),) * 2)
    return (
        F.pad(hr, (-margin,) * 4).contiguous(memory_format=torch.channels_last),
        lr[inner].contiguous(memory_format=torch.channels_last),
    )
