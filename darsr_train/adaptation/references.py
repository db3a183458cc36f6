"""Sharp photographs, from scikit-image, to learn the correction of an estimated blur on.

``chelsea`` is not among them: the demo and the tests measure on it.
"""

from __future__ import annotations

import functools

import cv2
import numpy as np
import torch
from torch import Tensor

from darsr_deploy.degradation import kernels
from darsr_deploy.images.detail import measure_detail

from ..degradation.reduction import apply_kernels_by_fft, bicubic_table

_NAMES = ("astronaut", "coffee", "rocket")
_GRAY = ("camera", "brick", "grass", "gravel")
_CROPS_OF_EACH = 8
_CANDIDATES = 4  # places tried for each crop; the one with most detail is taken
_LR_SIDE = 88  # pixels of a degraded crop


@functools.cache
def sharp_crops(side: int) -> np.ndarray:
    """Return uint8 N x side x side x 3 crops, the same every time."""
    random = np.random.default_rng(0)
    crops = []
    for photo in _photographs():
        for _ in range(_CROPS_OF_EACH):
            tried = []
            for _ in range(_CANDIDATES):
                top, left = (int(random.integers(0, length - side + 1)) for length in photo.shape[:2])
                tried.append(photo[top : top + side, left : left + side])
            crops.append(max(tried, key=measure_detail))
    return np.stack(crops)


def random_crops(random: np.random.Generator, count: int, side: int) -> Tensor:
    """Draw crops of the photographs, turned and mirrored at random: count x 3 x side x side in [0, 1]."""
    photographs = _reduced_photographs()
    crops = []
    for _ in range(count):
        photo = photographs[random.integers(len(photographs))]
        tried = []
        for _ in range(2):
            top, left = (int(random.integers(0, length - side + 1)) for length in photo.shape[:2])
            tried.append(photo[top : top + side, left : left + side])
        crop = np.rot90(max(tried, key=measure_detail), int(random.integers(4)))
        crops.append(crop[:, ::-1] if random.random() < 0.5 else crop)
    return torch.from_numpy(np.stack(crops).transpose(0, 3, 1, 2).astype(np.float32) / 255)


@functools.cache
def _reduced_photographs() -> list[np.ndarray]:
    """Return all photographs at sizes at which they are sharp, pixel by pixel: softer ones teach to sharpen too little."""
    import skimage.data

    gray = [np.repeat(getattr(skimage.data, name)()[..., None], 3, 2) for name in _GRAY]
    photographs = [*_photographs(), skimage.data.stereo_motorcycle()[0], *gray]
    sizes = {"fx": 0.5, "fy": 0.5}, {"fx": 0.7, "fy": 0.7}
    return [cv2.resize(photo, None, interpolation=cv2.INTER_AREA, **size) for size in sizes for photo in photographs]


@functools.cache
def _photographs() -> list[np.ndarray]:
    import skimage.data

    return [getattr(skimage.data, name)() for name in _NAMES]


def degraded_references(covariance: np.ndarray, scale: int, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return reference crops blurred by random kernels near an estimated one, and their right corrections.

    Args:
        covariance: 2 x 2 in the order y, x: the estimated kernel's (at x4: that of the x2 kernel which is applied
            twice).
        count: crops; the photographs are used in turn, each time turned at random and blurred anew.

    Returns:
        ``(blurred, bicubic)``, each count x 3 x 88 x 88 in [0, 1], the blurred ones rounded to 8 bits.
    """
    random = np.random.default_rng((seed, 1))
    table = bicubic_table(scale)
    size = kernels.NEAR_SIDE if scale == 2 else 3 * kernels.NEAR_SIDE - 2
    margin = (size - table.shape[-1]) // 2
    reduction = np.pad(table.double().numpy(), margin)
    sharp = sharp_crops(scale * _LR_SIDE + size - scale)
    blurred, bicubic = [], []
    for index in range(count):
        turned = np.rot90(sharp[index % len(sharp)], int(random.integers(4)))
        hr = torch.from_numpy(np.ascontiguousarray(turned)).permute(2, 0, 1)[None].float() / 255
        kernel = kernels.random_near(random, covariance)
        pair = np.stack([reduction, kernel if scale == 2 else kernels.twice(kernel)])
        target, lr = apply_kernels_by_fft(hr, torch.from_numpy(pair).float(), scale)
        blurred.append((lr.clamp(0, 1) * 255).round() / 255)
        bicubic.append(target)
    return torch.cat(blurred), torch.cat(bicubic)
