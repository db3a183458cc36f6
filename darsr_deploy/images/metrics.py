"""PSNR and SSIM as super-resolution papers report them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

LUMA = np.array([0.299, 0.587, 0.114])  # weights of R, G and B (ITU-R BT.601)
_STUDIO = LUMA * 219 / 255
_SSIM_REACH = 5  # half of the 11 x 11 window: scikit-image leaves windows that touch the border out of the mean


def luma(image: np.ndarray) -> np.ndarray:
    """Return the luma of a floating-point RGB image, H x W x 3 -> H x W: of its range and dtype."""
    return image @ LUMA.astype(image.dtype)


def studio_luma(image: np.ndarray) -> np.ndarray:
    """Return Y in 16..235 of an 8-bit RGB (H x W x 3) or gray (H x W) image, as MATLAB's ``rgb2ycbcr``: float64."""
    if image.ndim == 2:
        return 16.0 + image.astype(np.float64) * _STUDIO.sum()
    return 16.0 + image.astype(np.float64) @ _STUDIO


def shave(image: np.ndarray, border: int) -> np.ndarray:
    """Return the image without ``border`` pixels on every side."""
    return image[border : image.shape[0] - border, border : image.shape[1] - border]


def psnr(a: np.ndarray, b: np.ndarray, peak: float = 255.0) -> float:
    """Return the peak signal-to-noise ratio in dB of two arrays of equal shape; infinite where they are equal.

    Raises:
        ValueError: the shapes differ.
    """
    if a.shape != b.shape:
        raise ValueError(f"cannot compare {a.shape} with {b.shape}")
    error = float(np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2))
    return math.inf if error == 0 else 10 * math.log10(peak**2 / error)


def psnr_y(a: np.ndarray, b: np.ndarray, border: int, mask: np.ndarray | None = None) -> float:
    """Return the PSNR in dB on the Y channel of two 8-bit images.

    Args:
        border: pixels dropped on each side; the scale, by custom.
        mask: H x W, bool; only these pixels count.
    """
    return psnr(_counted(studio_luma(a), border, mask), _counted(studio_luma(b), border, mask))


def psnr_rgb(a: np.ndarray, b: np.ndarray, border: int, mask: np.ndarray | None = None) -> float:
    """Return the PSNR in dB over all channels of two 8-bit images; arguments as in :func:`psnr_y`."""
    return psnr(_counted(a, border, mask), _counted(b, border, mask))


def ssim_y(a: np.ndarray, b: np.ndarray, border: int, mask: np.ndarray | None = None) -> float:
    """Return the structural similarity on the Y channel (Wang et al., 2004); arguments as in :func:`psnr_y`.

    By scikit-image (extra ``train``): Gaussian window of sigma 1.5, population covariance, range 255. With a mask, the mean
    over windows centred at a counted pixel.
    """
    return _ssim(studio_luma(a), studio_luma(b), border, mask)


def ssim_rgb(a: np.ndarray, b: np.ndarray, border: int, mask: np.ndarray | None = None) -> float:
    """Return the mean structural similarity of the channels; see :func:`ssim_y`."""
    return _ssim(a, b, border, mask)


def _counted(image: np.ndarray, border: int, mask: np.ndarray | None) -> np.ndarray:
    return shave(image, border) if mask is None else shave(image, border)[shave(mask, border)]


def _ssim(a: np.ndarray, b: np.ndarray, border: int, mask: np.ndarray | None) -> float:
    from skimage.metrics import structural_similarity

    options: dict[str, Any] = {
        "data_range": 255,
        "gaussian_weights": True,
        "sigma": 1.5,
        "use_sample_covariance": False,
    }
    options |= {"channel_axis": -1 if a.ndim == 3 else None, "full": True}
    mean, similarity = structural_similarity(shave(a, border), shave(b, border), **options)
    return float(mean if mask is None else _counted(similarity, _SSIM_REACH, shave(mask, border)).mean())
