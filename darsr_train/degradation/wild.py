"""What happens to people's own pictures, drawn at random: conditions, lenses, noise, a camera's treatment, compression.

The order is that of a picture's life: a lens or a resampling filter, which reduces it; sensor noise; a camera's own treatment;
an enlargement; JPEG or WebP; always 8 bits. After Zhang et al., "Designing a Practical Degradation Model for Deep Blind Image
Super-Resolution" (BSRGAN, ICCV 2021).
"""

from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np

from darsr_deploy.degradation import covariance as moments
from darsr_deploy.degradation.condition import LEAST_QUALITY, LOSSLESS, MOST_NOISE, Condition
from darsr_deploy.images.resample import to_uint8

from .camera import Camera

FILTERS = ("bicubic", "box", "triangle", "lanczos", "mitchell")

# Errors of what networks are told of the blur: scale of Student's t on the parts of the covariance's logarithm, where the
# variance is 1 HR pixel squared; it falls with the width, and grows with noise and compression.
_ERRORS = np.array([0.2, 0.12, 0.12])
_FALL = np.array([0.7, 0.5, 0.5])
_MOST_ERROR = np.array([0.45, 0.16, 0.16])
_TAILS = 4


def degrade(lr: np.ndarray, condition: Condition, random: np.random.Generator) -> np.ndarray:
    """Do to an LR image what happens after the lens: float32 H x W x 3 in [0, 1] -> uint8."""
    lr = lr + noise_like(lr, condition.noise, random)
    if condition.treated > 0.5:
        lr = _camera(random).treat(lr)
    if condition.enlarged > 1:
        lr = enlarge_before(lr, condition.enlarged, random)
    pixels = to_uint8(lr * 255)
    return pixels if condition.quality >= LOSSLESS else compress(pixels, random, condition.quality)


def draw_quality(random: np.random.Generator, share: float) -> float:
    """Draw a JPEG quality for a share of the pictures, most of them of 60 and more; the others are not compressed."""
    if random.random() >= share:
        return LOSSLESS
    return random.uniform(60, 96) if random.random() < 0.6 else random.uniform(25, 98)


def random_covariance(random: np.random.Generator, least: float, most: float) -> np.ndarray:
    """Draw a covariance, 2 x 2, order y, x: variances between the limits, half of them even in their logarithm."""
    if random.random() < 0.5:
        variances = random.uniform(least, most, 2)
    else:
        variances = np.exp(random.uniform(math.log(least), math.log(most), 2))
    angle = random.uniform(0, math.pi)
    axes = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    return axes @ np.diag(variances) @ axes.T


def mistake(random: np.random.Generator, told: Condition) -> Condition:
    """Draw a true condition whose estimate may have been the given one."""
    parts = moments.logarithm(told.covariance)
    doubt = 1 + told.noise / 8 + (LOSSLESS - told.quality) / 80 + told.treated
    scale = doubt * np.minimum(_ERRORS * np.exp(-_FALL * parts[0]), _MOST_ERROR)
    noise = told.noise * math.exp(random.normal(0, 0.35)) if told.noise else 0.0
    quality = told.quality
    if quality < LOSSLESS:
        quality = min(max(LOSSLESS - (LOSSLESS - quality) * math.exp(random.normal(0, 0.08)), LEAST_QUALITY), 99)
    covariance = moments.from_logarithm(parts + scale * random.standard_t(_TAILS, 3))
    return replace(told, covariance=covariance, noise=min(noise, MOST_NOISE), quality=quality)


def noise_like(image: np.ndarray, sigma: float, random: np.random.Generator) -> np.ndarray | float:
    """Draw noise of a standard deviation in grey levels: of each colour, or of all alike; even, or growing with the light."""
    if not sigma:
        return 0.0
    noise = random.standard_normal(image.shape, np.float32)
    pick = random.random()
    if pick < 0.12:
        noise[:] = noise[..., :1]
    elif pick < 0.22:  # mostly colour noise
        noise = 0.6 * noise + 0.8 * (noise - noise.mean(2, keepdims=True))
    if random.random() < 0.12:  # smeared by demosaicing or resampling
        noise = cv2.GaussianBlur(noise, (0, 0), random.uniform(0.35, 0.8))
    if random.random() < 0.2:  # photons: with the root of the light
        noise = noise * np.sqrt(0.1 + image.clip(0, 1))
    return noise * (sigma / 255 / (noise.std() + 1e-6))


def _camera(random: np.random.Generator) -> Camera:
    camera = Camera.draw(random)
    return replace(camera, zoom=1.0, sharpening=random.uniform(0.2, 1.2) if random.random() < 0.8 else 0.0)


def enlarge_before(lr: np.ndarray, factor: float, random: np.random.Generator) -> np.ndarray:
    """Reduce by ``factor`` and enlarge again: float32 H x W x 3 -> the same size."""
    height, width = lr.shape[:2]
    small = tuple(max(4, round(side / factor)) for side in (width, height))
    small = cv2.resize(lr.astype(np.float32), small, interpolation=cv2.INTER_AREA)
    filters = (cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_LANCZOS4, cv2.INTER_CUBIC, cv2.INTER_NEAREST_EXACT)
    return cv2.resize(small, (width, height), interpolation=filters[int(random.integers(5))])


def compress(pixels: np.ndarray, random: np.random.Generator, quality: float) -> np.ndarray:
    """Compress uint8 H x W x 3 RGB by JPEG (now and then WebP), at a random place of its 8 x 8 grid, and decode it."""
    top, left = (int(v) for v in random.integers(0, 8, 2))
    padded = cv2.copyMakeBorder(pixels, top, 0, left, 0, cv2.BORDER_REFLECT)
    quality = round(quality)
    if random.random() < 0.1:
        kind, options = ".webp", [cv2.IMWRITE_WEBP_QUALITY, quality]
    else:
        sampling = (
            cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444 if random.random() < 0.3 else cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420
        )
        kind, options = ".jpg", [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling]
    _, data = cv2.imencode(kind, padded[:, :, ::-1], options)
    return np.ascontiguousarray(cv2.imdecode(data, cv2.IMREAD_COLOR)[top:, left:, ::-1])


def filter_kernel(name: str, scale: int, size: int) -> np.ndarray:
    """Return the kernel of an antialiased resampling filter: ``size`` x ``size``, sum 1, centred between its middle taps."""
    x = np.abs((np.arange(size) + 0.5 - size / 2) / scale)
    taps = _FILTERS[name](x)
    taps = taps / taps.sum()
    return np.outer(taps, taps)


def _cubic(x: np.ndarray, b: float, c: float) -> np.ndarray:
    near = ((12 - 9 * b - 6 * c) * x**3 + (-18 + 12 * b + 6 * c) * x**2 + 6 - 2 * b) / 6
    far = ((-b - 6 * c) * x**3 + (6 * b + 30 * c) * x**2 + (-12 * b - 48 * c) * x + 8 * b + 24 * c) / 6
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


_FILTERS = {
    "bicubic": lambda x: _cubic(x, 0.0, 0.5),
    "box": lambda x: np.where(x < 0.5, 1.0, 0.0),
    "triangle": lambda x: np.clip(1 - x, 0, None),
    "lanczos": lambda x: np.where(x < 3, np.sinc(x) * np.sinc(x / 3), 0.0),
    "mitchell": lambda x: _cubic(x, 1 / 3, 1 / 3),
}
