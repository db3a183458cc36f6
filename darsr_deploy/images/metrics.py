"""PSNR as super-resolution papers report it."""

from __future__ import annotations

import math

import numpy as np

# ITU-R BT.601, studio range, as MATLAB's rgb2ycbcr computes it for 8-bit images.
_LUMA = np.array([65.481, 128.553, 24.966]) / 255.0


def luma(image: np.ndarray) -> np.ndarray:
    """Y channel in 16..235 of an 8-bit RGB (H x W x 3) or gray (H x W) image, as float64."""
    if image.ndim == 2:
        return 16.0 + image.astype(np.float64) * (_LUMA.sum())
    return 16.0 + image.astype(np.float64) @ _LUMA


def shave(image: np.ndarray, border: int) -> np.ndarray:
    """Drop ``border`` pixels on every side."""
    return image[border : image.shape[0] - border, border : image.shape[1] - border]


def psnr(a: np.ndarray, b: np.ndarray, peak: float = 255.0) -> float:
    """Peak signal-to-noise ratio in dB of two arrays of equal shape; infinite where they are equal.

    Raises:
        ValueError: the shapes differ.
    """
    if a.shape != b.shape:
        raise ValueError(f"cannot compare {a.shape} with {b.shape}")
    error = float(np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2))
    return math.inf if error == 0 else 10 * math.log10(peak**2 / error)


def psnr_y(a: np.ndarray, b: np.ndarray, border: int) -> float:
    """PSNR in dB on the Y channel of two 8-bit images, ``border`` (= scale, by custom) pixels dropped on each side."""
    return psnr(shave(luma(a), border), shave(luma(b), border))


def psnr_rgb(a: np.ndarray, b: np.ndarray, border: int) -> float:
    """PSNR in dB over all colours of two 8-bit images (of gray ones over the one), ``border`` pixels dropped."""
    return psnr(shave(a, border), shave(b, border))


def ssim_y(a: np.ndarray, b: np.ndarray, border: int) -> float:
    """Structural similarity on the Y channel as Wang et al. (2004) define it, ``border`` pixels dropped on each side.

    Computed by scikit-image (extra ``train``): Gaussian window of sigma 1.5, population covariance, range 255.
    """
    return _ssim(shave(luma(a), border), shave(luma(b), border))


def ssim_rgb(a: np.ndarray, b: np.ndarray, border: int) -> float:
    """The mean of the structural similarities of the colours; see :func:`ssim_y`."""
    return _ssim(shave(a, border), shave(b, border))


def _ssim(a: np.ndarray, b: np.ndarray) -> float:
    from skimage.metrics import structural_similarity

    options = {"data_range": 255, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    return float(structural_similarity(a, b, channel_axis=-1 if a.ndim == 3 else None, **options))
