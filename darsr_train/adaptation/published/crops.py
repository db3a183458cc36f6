"""Sample crops where an image is rich in edges (DARSR's gradient-weighted crop map, after KernelGAN's)."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from darsr_deploy.images.metrics import luma
from darsr_deploy.images.resample import imresize, pillow_bicubic

_BORDER = 5  # gradients this near to the border are not trusted


def _top_pixels(gradient: np.ndarray) -> np.ndarray:
    """Return, in effect, a binary map of the 3 % steepest pixels, scaled to sum 1."""
    inner = np.zeros_like(gradient)
    inner[_BORDER:-_BORDER, _BORDER:-_BORDER] = gradient[_BORDER:-_BORDER, _BORDER:-_BORDER]
    ordered = np.sort(inner, axis=None)
    low = int(0.97 * ordered.size)
    clipped = np.clip(inner, ordered[low], ordered[min(low + 1, ordered.size - 1)]) - ordered[low]
    total = clipped.sum()
    return clipped / total if total > 0 else clipped


def crop_map(image: np.ndarray, crop: int) -> np.ndarray:
    """Return the probability of every pixel to be the centre of a ``crop`` x ``crop`` crop.

    Args:
        image: uint8, H x W x 3.

    Returns:
        float64, H x W, sum 1; uniform where the image has no gradient (or is too small to hold a centre).
    """
    gray = luma(image.astype(np.float64))
    gy, gx = np.gradient(gray)
    loss = _top_pixels(np.abs(gx)) + _top_pixels(np.abs(gy)) + _top_pixels(np.hypot(gx, gy))
    loss = cv2.blur(loss, (5, 5), borderType=cv2.BORDER_CONSTANT)
    if loss.mean() > 0:
        loss = loss / loss.mean()
    side = max(1, crop // 2)
    chance = cv2.blur(loss, (side, side), borderType=cv2.BORDER_CONSTANT)
    allowed = np.zeros_like(chance)
    # the running sums of a box filter leave tiny negative values
    allowed[side:-side, side:-side] = np.maximum(chance[side:-side, side:-side], 0)
    total = allowed.sum()
    return allowed / total if total > 0 else np.full(gray.shape, 1 / gray.size)


def top_left(centre: int, crop: int, side: int) -> int:
    """Return the first pixel of a crop around ``centre``, clamped into the image and rounded down to even."""
    return int(np.clip(centre - crop // 2, 0, side - crop)) // 2 * 2


@dataclass(frozen=True)
class CropSampler:
    """Independent crops of one LR image: ``x`` plays the HR, ``y`` the LR (DARSR, section 3.4).

    Crops of step i depend on the seed and i alone, so a resumed run sees what an uninterrupted one would have seen.

    Attributes:
        image: uint8, H x W x 3; already cut to what may be used.
        side: of the x crops, in pixels; y crops have side / scale.
        augment: flip and transpose *both* crops, as the reference program does. A kernel that is not symmetric then
            appears in up to four orientations, so ``fast`` turns this off.
    """

    image: np.ndarray
    scale: int
    side: int
    augment: bool
    x_chance: np.ndarray
    y_chance: np.ndarray

    @classmethod
    def of(cls, image: np.ndarray, scale: int, side: int, augment: bool) -> CropSampler:
        """Compute the two crop maps of an image whose sides are multiples of ``scale`` and at least ``side``."""
        small = imresize(image, image.shape[0] // scale, image.shape[1] // scale)
        enlarged = np.repeat(np.repeat(small, scale, 0), scale, 1)
        return cls(image, scale, side, augment, crop_map(enlarged, side), crop_map(image, side // scale))

    def sample(self, seed: int, step: int, batch: int) -> dict[str, np.ndarray]:
        """Return a step's crops, N x 3 x h x w in [0, 1].

        They are ``x``, ``y``, ``b`` (x reduced) and ``u`` (y enlarged, both by Pillow's bicubic on 8 bits).
        """
        random = np.random.default_rng((seed, step))
        samples = [self._one(random) for _ in range(batch)]
        return {
            name: np.stack([s[name] for s in samples]).transpose(0, 3, 1, 2).astype(np.float32) / 255 for name in "xybu"
        }

    def _one(self, random: np.random.Generator) -> dict[str, np.ndarray]:
        small = self.side // self.scale
        x = self._crop(random, self.x_chance, self.side)
        y = self._crop(random, self.y_chance, small)
        crops = {"x": x, "b": pillow_bicubic(x, small, small), "y": y, "u": pillow_bicubic(y, self.side, self.side)}
        if self.augment and random.random() < 0.5:
            crops = {name: c[:, ::-1] for name, c in crops.items()}
        if self.augment and random.random() < 0.5:
            crops = {name: c.transpose(1, 0, 2) for name, c in crops.items()}
        return crops

    def _crop(self, random: np.random.Generator, chance: np.ndarray, size: int) -> np.ndarray:
        height, width = self.image.shape[:2]
        cy, cx = divmod(int(random.choice(chance.size, p=chance.ravel())), width)
        top, left = top_left(cy, size, height), top_left(cx, size, width)
        return self.image[top : top + size, left : left + size]


def usable(image: np.ndarray, scale: int, margin: int = 10) -> np.ndarray:
    """Return the part that crops may come from: RGB, less ``margin`` px on each side, sides multiples of ``scale``."""
    if image.ndim == 2:
        image = np.repeat(image[:, :, None], 3, axis=2)
    inner = image[margin : image.shape[0] - margin, margin : image.shape[1] - margin]
    return np.ascontiguousarray(inner[: inner.shape[0] // scale * scale, : inner.shape[1] // scale * scale])
