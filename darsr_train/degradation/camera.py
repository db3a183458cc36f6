"""In-camera processing at random, for training and test sets: resampling, noise, smoothing, sharpening, JPEG.

A correction learned on clean synthetic blur amplifies artefacts of real photographs. These few steps model no camera in
particular: they teach what noise, halos and blocks look like, and how much correction they allow.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from darsr_deploy.images.metrics import luma
from darsr_deploy.images.resample import to_uint8


@dataclass(frozen=True)
class Camera:
    """One camera's processing of an image.

    Attributes:
        zoom: how much the photograph was enlarged after it was taken (digital zoom, alignment, resizing), 1 for not.
        noise: standard deviation in grey levels at full brightness.
        grain: how far the noise is smeared by demosaicing: sigma of a Gaussian in pixels.
        denoising: strength of an edge-preserving filter in grey levels, 0 for none.
        chroma: sigma in pixels of the smoothing of colour differences, which every phone does, 0 for none.
        sharpening: amount of unsharp masking, 0 for none ...
        radius: ... and the sigma of its Gaussian in pixels.
        jpeg: quality, or None.
    """

    zoom: float
    noise: float
    grain: float
    denoising: float
    chroma: float
    sharpening: float
    radius: float
    jpeg: int | None

    @classmethod
    def draw(cls, random: np.random.Generator) -> Camera:
        """Draw a camera at random: most of them resample, sharpen and compress."""
        return cls(
            zoom=random.uniform(1.05, 1.7) if random.random() < 0.6 else 1.0,
            noise=random.uniform(0, 6),
            grain=random.uniform(0, 1),
            denoising=random.uniform(4, 25) if random.random() < 0.4 else 0.0,
            chroma=random.uniform(0.6, 2.0) if random.random() < 0.6 else 0.0,
            sharpening=random.uniform(0, 1.2) if random.random() < 0.6 else 0.0,
            radius=random.uniform(0.6, 1.6),
            jpeg=int(random.integers(65, 98)) if random.random() < 0.7 else None,
        )

    def develop(self, image: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Process a float32 H x W x 3 image in [0, 1]; return the same type in steps of 1/255."""
        height, width = image.shape[:2]
        if self.zoom > 1:
            taken = (round(width / self.zoom), round(height / self.zoom))
            image = cv2.resize(image, taken, interpolation=cv2.INTER_AREA)
        image = image + self._noise(image, random)
        image = self.treat(image)
        if self.zoom > 1:
            image = cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC)
        pixels = to_uint8(image * 255)
        return (pixels if self.jpeg is None else through_jpeg(pixels, self.jpeg)).astype(np.float32) / 255

    def treat(self, image: np.ndarray) -> np.ndarray:
        """Denoise, smooth the colours and sharpen: float32 H x W x 3 in [0, 1] -> the same."""
        if self.denoising:
            image = cv2.bilateralFilter(image.astype(np.float32), 5, self.denoising / 255, 1.5)
        if self.chroma:
            y = luma(image)[..., None]
            image = y + cv2.GaussianBlur(image - y, (0, 0), self.chroma)
        if self.sharpening:
            image = image + self.sharpening * (image - cv2.GaussianBlur(image, (0, 0), self.radius))
        return image

    def _noise(self, image: np.ndarray, random: np.random.Generator) -> np.ndarray:
        noise = random.standard_normal(image.shape, np.float32)
        if self.grain > 0.2:  # a narrower Gaussian changes nothing
            noise = cv2.GaussianBlur(noise, (0, 0), self.grain)
            noise /= noise.std()
        # Photon noise grows with the root of the light; the rest is the sensor's own.
        return noise * (self.noise / 255) * np.sqrt(0.2 + 0.8 * image.clip(0, 1))


def through_jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    """Compress a uint8 H x W x 3 RGB image (4:2:0) and decode it again."""
    _, data = cv2.imencode(".jpg", pixels[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.ascontiguousarray(cv2.imdecode(data, cv2.IMREAD_COLOR)[:, :, ::-1])
