"""What people put over a picture after the lens: borders, bars, logos, dates, subtitles, cut-outs. For training and tests."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

KINDS = ("border", "bars", "pillars", "logo", "date", "subtitle", "cutout")


def draw_overlay(pixels: np.ndarray, random: np.random.Generator, kind: str | None = None) -> np.ndarray:
    """uint8 H x W x 3 with one overlay of a kind (any one), drawn at random."""
    kind = kind or KINDS[int(random.integers(len(KINDS)))]
    height, width = pixels.shape[:2]
    image = Image.fromarray(pixels)
    draw = ImageDraw.Draw(image)
    ink = tuple(int(v) for v in random.choice([0, 255], 3)) if random.random() < 0.3 else (255,) * 3
    dark = (0, 0, 0) if random.random() < 0.6 else (255, 255, 255)
    if kind == "border":
        draw.rectangle(
            (0, 0, width - 1, height - 1), outline=dark, width=int(random.integers(1, 1 + min(18, height // 6)))
        )
    elif kind in ("bars", "pillars"):
        wide = kind == "bars"
        thick = int(random.integers(2, max(3, (height if wide else width) // 4)))
        for start, end in ((0, thick - 1), ((height if wide else width) - thick, (height if wide else width))):
            draw.rectangle((0, start, width, end) if wide else (start, 0, end, height), fill=dark)
    elif kind == "logo":
        side = int(random.integers(8, max(9, min(height, width) // 3)))
        x, y = random.integers(0, width - side), random.integers(0, height - side)
        draw.ellipse((x, y, x + side, y + side), fill=ink)
        draw.rectangle((x + side // 4, y + side // 4, x + 3 * side // 4, y + side // 3), fill=dark)
    elif kind == "cutout":
        points = [(int(random.integers(0, width)), int(random.integers(0, height))) for _ in range(4)]
        draw.polygon(points, fill=dark)
    else:
        size = int(random.integers(8, 20))
        text = "12.08.2024 17:35" if kind == "date" else "and then nobody said a word to him"
        x = random.integers(0, max(1, width // 3))
        y = (
            height - size * random.uniform(1.2, 2.5)
            if kind == "subtitle"
            else random.integers(0, max(1, height - size))
        )
        stroke = int(random.integers(0, 2))
        draw.text((x, y), text, fill=ink, font=ImageFont.load_default(size), stroke_width=stroke, stroke_fill=(0, 0, 0))
    return np.asarray(image).copy()
