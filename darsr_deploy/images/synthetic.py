"""Synthetic pictures for measurements."""

from __future__ import annotations

import numpy as np


def natural_noise(height: int, width: int, seed: int = 7) -> np.ndarray:
    """Return a 1 x 3 x height x width picture in [0, 1] with a photograph's 1/f spectrum and related colours."""
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
