"""The blur of an image from a first restoration of it: second moments by least squares, then corrected for what is known
of their errors.

Networks restore towards the average blur: the kernel that turns a restored image into the given one has too little
anisotropy, and a mean variance that depends on the image. Both errors were measured on photographs under known kernels
(:mod:`.train_blur`) and are undone by a small network on a few numbers that do not change when the image is turned.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from darsr_deploy.container import read_container

from . import small_network
from .closed_form import degradation_kernel
from .degradation import reduce
from .losses import bicubic_table
from .traces import spectrum

VERSION = 1
_WEIGHTS = Path(__file__).parent / "weights" / "blur.safetensors"
_LEAST, _LARGEST = 0.25, 8.0  # variances in HR pixels squared at x2


def estimate_covariance(x: Tensor, y: Tensor, scale: int) -> np.ndarray:
    """Second moments (2 x 2, order y, x) of the x2 kernel that turned the scene into ``y``, HR pixels of x2 squared.

    At x4 that kernel acts twice. From the estimate reduced bicubically by 2 the given image is one blur away, of
    1 + 1/4 of its variance: the second pass, and the first one seen at half the resolution.

    Args:
        x: 1 x 3 x sH x sW, the restored image in [0, 1].
        y: 1 x 3 x H x W, the given one.
    """
    if scale == 4:
        x = reduce(x, bicubic_table(2).to(x.device), 2)
    x, y = x.cpu(), y.cpu()
    mean, half, cross, facts = measure(x, y)
    change = small_network.evaluate(_weights(), facts[None])[0].clip(-1, 1)
    mean, stretch = mean * np.exp(change[0]), np.exp(change[0] + change[1])
    return limited(mean, half * stretch, cross * stretch) / (1.25 if scale == 4 else 1.0)


def measure(x: Tensor, y: Tensor) -> tuple[float, float, float, np.ndarray]:
    """What least squares says at x2.

    Returns:
        ``(mean, half, cross, facts)``: mean variance, half the difference of the variances along y and x, the
        covariance; and the numbers that tell how far they are off.
    """
    kernel = degradation_kernel(x, y, 2).double().numpy()
    # Tap 0 has no partner on the other side of the centre: leave it out and keep the point-symmetric part.
    part = kernel[1:, 1:]
    part = 0.5 * (part + part[::-1, ::-1])
    if part.sum() < 0.1:  # an image without light says nothing of its blur
        part = np.zeros_like(part)
        part[5:7, 5:7] = 0.25
    axis = np.arange(len(part)) - (len(part) - 1) / 2
    ys, xs = np.meshgrid(axis, axis, indexing="ij")
    yy, xx, xy = ((part * moment).sum() / part.sum() for moment in (ys * ys, xs * xs, xs * ys))
    mean, half = max((yy + xx) / 2, 0.05), (yy - xx) / 2
    pixels = y[0].permute(1, 2, 0).double().numpy() * 255
    residual = (reduce(x, torch.from_numpy(kernel).float(), 2) - y)[..., 6:-6, 6:-6].std().item() * 255
    edges = F.conv2d(y.mean(1, keepdim=True), _LAPLACE).std().item() * 255
    facts = [
        np.log(mean),
        np.hypot(half, xy) / mean,
        (part * (ys**2 + xs**2) ** 2).sum() / part.sum() / mean**2,
        -part.clip(max=0).sum(),
        part[4:8, 4:8].sum() / part.sum(),
        np.log(residual + 0.1),
        np.log(edges + 0.1),
        *spectrum(pixels.mean(2)),
    ]
    return mean, half, xy, np.array(facts)


def limited(mean: float, half: float, cross: float) -> np.ndarray:
    """The covariance of those moments with its variances within what a kernel here can hold."""
    variances, axes = np.linalg.eigh(np.array([[mean + half, cross], [cross, mean - half]]))
    return axes @ np.diag(variances.clip(_LEAST, _LARGEST)) @ axes.T


_LAPLACE = torch.tensor([[[[0.0, -1.0, 0.0], [-1.0, 4.0, -1.0], [0.0, -1.0, 0.0]]]])


@functools.cache
def _weights() -> dict[str, np.ndarray]:
    return read_container(_WEIGHTS, "blur", VERSION, "install the package again")[1]
