"""Pictures for measurements: synthetic ones, and the parts of a photograph that have most to show."""

from __future__ import annotations

import numpy as np


def natural_noise(height: int, width: int, seed: int = 7) -> np.ndarray:
    """A 1 x 3 x height x width picture in [0, 1] with the statistics of a photograph: 1/f spectrum, related colours."""
    random = np.random.default_rng(seed)
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    falloff = 1 / np.maximum(np.hypot(fy, fx), 1 / max(height, width))
    grey, *tints = (
        np.fft.irfft2(np.fft.rfft2(random.standard_normal((height, width))) * falloff, s=(height, width))
        for _ in range(4)
    )
    picture = np.stack([grey + 0.3 * tint for tint in tints])
    picture = (picture - picture.mean()) / picture.std() * 0.22 + 0.5
    return picture.clip(0, 1)[None].astype(np.float32)


def detailed_crops(picture: np.ndarray, height: int, width: int, count: int) -> list[np.ndarray]:
    """The crops of highest contrast on a grid of half a crop; fewer, or smaller ones, where the picture is small."""
    height, width = min(height, picture.shape[2]), min(width, picture.shape[3])
    tops = range(0, picture.shape[2] - height + 1, max(1, height // 2))
    lefts = range(0, picture.shape[3] - width + 1, max(1, width // 2))
    crops = [picture[:, :, top : top + height, left : left + width] for top in tops for left in lefts]
    return [np.ascontiguousarray(crop) for crop in sorted(crops, key=lambda c: -float(c.std()))[:count]]
