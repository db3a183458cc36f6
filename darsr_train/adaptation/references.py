"""Sharp photographs, from scikit-image, to learn the correction of an estimated blur on.

``chelsea`` is not among them: the demo and the tests measure on it.
"""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor

from darsr_deploy.degradation import kernels
from darsr_deploy.images.detail import measure_detail

from ..degradation.reduction import apply_kernels_by_fft, bicubic_table

_NAMES = ("astronaut", "coffee", "rocket")
_CROPS_OF_EACH = 8
_CANDIDATES = 4  # places tried for each crop; the one with most detail is taken
_LR_SIDE = 88  # pixels of a degraded crop


@functools.cache
def sharp_crops(side: int) -> np.ndarray:
    """Return uint8 N x side x side x 3 crops, the same every time."""
    import skimage.data

    random = np.random.default_rng(0)
    crops = []
    for name in _NAMES:
        photo = getattr(skimage.data, name)()
        for _ in range(_CROPS_OF_EACH):
            tried = []
            for _ in range(_CANDIDATES):
                top, left = (int(random.integers(0, length - side + 1)) for length in photo.shape[:2])
                tried.append(photo[top : top + side, left : left + side])
            crops.append(max(tried, key=measure_detail))
    return np.stack(crops)


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
