"""PSNR and SSIM as super-resolution papers report them."""

from __future__ import annotations

import math

import numpy as np

LUMA = np.array([0.299, 0.587, 0.114])  # weights of R, G and B (ITU-R BT.601)
_STUDIO = LUMA * 219 / 255


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


def psnr_y(a: np.ndarray, b: np.ndarray, border: int) -> float:
    """Return the PSNR in dB on Y of two 8-bit images, ``border`` (= scale, by custom) pixels dropped on each side."""
    return psnr(shave(studio_luma(a), border), shave(studio_luma(b), border))


def psnr_rgb(a: np.ndarray, b: np.ndarray, border: int) -> float:
    """Return the PSNR in dB over all channels of two 8-bit images, ``border`` pixels dropped on each side."""
    return psnr(shave(a, border), shave(b, border))


def ssim_y(a: np.ndarray, b: np.ndarray, border: int) -> float:
    """Return the structural similarity on Y (Wang et al., 2004), ``border`` pixels dropped on each side.

    Computed by scikit-image (extra ``train``): Gaussian window of sigma 1.5, population covariance, range 255.
    """
    return _ssim(shave(studio_luma(a), border), shave(studio_luma(b), border))


def ssim_rgb(a: np.ndarray, b: np.ndarray, border: int) -> float:
    """Return the mean of the channels' structural similarities; see :func:`ssim_y`."""
    return _ssim(shave(a, border), shave(b, border))


def _ssim(a: np.ndarray, b: np.ndarray) -> float:
    from skimage.metrics import structural_similarity

    options = {"data_range": 255, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    return float(structural_similarity(a, b, channel_axis=-1 if a.ndim == 3 else None, **options))
