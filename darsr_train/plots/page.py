"""Pages of pictures with captions: layout, type and colour maps of the contact sheet and the preview.

Pictures are uint8, H x W or H x W x 3 (RGB). Lengths are in pixels of the page.
"""

from __future__ import annotations

import functools

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]

PAPER, INK, FAINT, LINE = (255, 255, 255), (32, 36, 42), (112, 118, 128), (210, 214, 220)
EMPTY = (244, 245, 247)  # the ground of a panel without a picture
TITLE, BODY, SMALL = 24, 16, 13  # sizes of type
MARGIN, GAP = 32, 20

# Red through white to blue: safe for the colour-blind, as viridis below is.
_DIVERGING = np.array([[140, 26, 38], [222, 119, 92], [255, 255, 255], [104, 159, 207], [20, 62, 126]], float)


class Page:
    """A white page to draw on."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self._image = Image.new("RGB", (width, height), PAPER)
        self._draw = ImageDraw.Draw(self._image)

    def text(
        self, x: float, y: float, words: str, size: int = BODY, colour: Colour = INK, anchor: str = "ls", width: int = 0
    ) -> None:
        """Write a line, truncated with dots at ``width`` if given; ``anchor`` as in Pillow (``ls``: left end of the baseline)."""
        words = "".join(c if " " <= c <= "~" or c in "°±·" else "?" for c in words)  # what the font has
        font = _font(size)
        while width and len(words) > 1 and font.getlength(words) > width:
            words = words.removesuffix("...")[:-1] + "..."
            if words == "...":
                break
        self._draw.text((x, y), words, colour, font, anchor)

    def paste(self, x: int, y: int, picture: np.ndarray) -> None:
        """Paste a picture in a thin frame, with its upper left corner at (x, y)."""
        self._image.paste(Image.fromarray(to_rgb(picture)), (x, y))
        height, width = picture.shape[:2]
        self.box(x - 1, y - 1, width + 2, height + 2, LINE)

    def box(self, x: float, y: float, width: float, height: float, outline: Colour, fill: Colour | None = None) -> None:
        """Draw a rectangle, not filled where that colour is None."""
        self._draw.rectangle((x, y, x + width - 1, y + height - 1), fill, outline)

    def line(self, x: float, y: float, to_x: float, to_y: float, colour: Colour = LINE, thickness: int = 1) -> None:
        """Draw a straight line."""
        self._draw.line((x, y, to_x, to_y), colour, thickness)

    def badge(self, x: float, y: float, words: str, radius: int = 10) -> None:
        """Draw a number in a dark disk with a light rim, visible on any background, centred at (x, y)."""
        fine = 4  # drawn larger and reduced: Pillow does not antialias
        side = 2 * (radius + 1) * fine
        disk = Image.new("RGBA", (side, side))
        draw = ImageDraw.Draw(disk)
        draw.ellipse((0, 0, side - 1, side - 1), (*PAPER, 255))
        draw.ellipse((fine * 1.5, fine * 1.5, side - 1 - fine * 1.5, side - 1 - fine * 1.5), (*INK, 255))
        disk = disk.resize((side // fine, side // fine), Image.Resampling.BOX)
        self._image.paste(disk, (round(x) - radius - 1, round(y) - radius - 1), disk)
        self._draw.text((round(x), round(y)), words, PAPER, _font(SMALL), "mm")

    def picture(self) -> np.ndarray:
        """Return the page: uint8, H x W x 3."""
        return np.asarray(self._image).copy()


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)  # Aileron, shipped with Pillow: ASCII and a few signs


def to_rgb(picture: np.ndarray) -> np.ndarray:
    """Repeat a gray picture to three channels; return RGB as it is."""
    return np.repeat(picture[:, :, None], 3, axis=2) if picture.ndim == 2 else np.ascontiguousarray(picture)


def enlarge(picture: np.ndarray, side: int) -> np.ndarray:
    """Enlarge by a whole factor without smoothing, to at most ``side``; average a larger picture down to ``side``."""
    height, width = picture.shape[:2]
    factor = side // max(height, width)
    if factor >= 1:
        return cv2.resize(picture, (width * factor, height * factor), interpolation=cv2.INTER_NEAREST_EXACT)
    shrink = side / max(height, width)
    size = (max(1, round(width * shrink)), max(1, round(height * shrink)))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)


def resize_to_fit(values: np.ndarray, width: int, height: int) -> np.ndarray:
    """Resize H x W values to fit ``width`` x ``height``, keeping their proportions."""
    zoom = min(width / values.shape[1], height / values.shape[0])
    size = (max(1, round(values.shape[1] * zoom)), max(1, round(values.shape[0] * zoom)))
    return cv2.resize(values, size, interpolation=cv2.INTER_AREA if zoom < 1 else cv2.INTER_NEAREST_EXACT)


def map_diverging(values: np.ndarray, reach: float) -> np.ndarray:
    """Map -reach to red, 0 to white, +reach to blue: H x W -> uint8 H x W x 3."""
    place = np.clip(values / max(reach, 1e-12), -1, 1)
    anchors = np.linspace(-1, 1, len(_DIVERGING))
    return np.stack([np.interp(place, anchors, channel) for channel in _DIVERGING.T], -1).round().astype(np.uint8)


def map_sequential(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Map ``low`` to dark blue and ``high`` to yellow (viridis): H x W -> uint8 H x W x 3."""
    place = np.clip((values - low) / max(high - low, 1e-12), 0, 1)
    return cv2.applyColorMap((place * 255).round().astype(np.uint8), cv2.COLORMAP_VIRIDIS)[:, :, ::-1]
