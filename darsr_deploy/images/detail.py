"""How much detail a picture has."""

from __future__ import annotations

import numpy as np


def detail(crop: np.ndarray) -> float:
    """Mean absolute difference of neighbouring green pixels of a uint8 H x W x 3 crop."""
    green = crop[:, :, 1].astype(np.int16)
    return float(np.abs(np.diff(green, axis=0)).mean() + np.abs(np.diff(green, axis=1)).mean())
