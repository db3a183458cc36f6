"""Scenes that no lens has formed, drawn at random: text, line art, flat and shaded colour. For training."""

from __future__ import annotations

import colorsys
import string

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_PRIMARIES = [(r, g, b) for r in (0, 255) for g in (0, 255) for b in (0, 255)]
_LETTERS = string.ascii_letters + string.digits + ".,:;!?()-+/%&$@"


def draw_scene(random: np.random.Generator, side: int) -> np.ndarray:
    """Draw a picture of text and shapes: uint8, side x side x 3, its shapes antialiased half of the time."""
    fine = int(random.integers(1, 3))  # drawn larger and averaged: antialiased
    image = Image.new("RGB", (side * fine, side * fine), _colour(random))
    draw = ImageDraw.Draw(image)
    if random.random() < 0.3:
        image.paste(_gradient(random, side * fine))
    for _ in range(int(random.integers(1, 12))):
        _shape(random, draw, side * fine, fine)
    if random.random() < 0.85:
        _text(random, draw, side * fine, fine)
    return np.asarray(image.reduce(fine) if fine > 1 else image).copy()


def _colour(random: np.random.Generator) -> tuple[int, int, int]:
    pick = random.random()
    if pick < 0.35:  # paper and night
        level = int(random.integers(225, 256)) if random.random() < 0.65 else int(random.integers(0, 50))
        return (level, level, level)
    if pick < 0.65:
        return _PRIMARIES[int(random.integers(len(_PRIMARIES)))]
    return tuple(round(255 * c) for c in colorsys.hsv_to_rgb(random.random(), random.random(), random.random()))


def _gradient(random: np.random.Generator, side: int) -> Image.Image:
    start, end = (np.array(_colour(random), np.float32) for _ in range(2))
    ramp = np.linspace(0, 1, side, dtype=np.float32)[:, None, None]
    rows = (start + (end - start) * ramp).round().astype(np.uint8)
    image = np.broadcast_to(rows, (side, side, 3))
    return Image.fromarray(np.ascontiguousarray(image if random.random() < 0.5 else image.transpose(1, 0, 2)))


def _shape(random: np.random.Generator, draw: ImageDraw.ImageDraw, side: int, fine: int) -> None:
    (x0, x1), (y0, y1) = (sorted(random.integers(-side // 4, side + side // 4, 2).tolist()) for _ in range(2))
    width = fine * int(random.integers(1, 5))
    kind, colour = random.integers(5), _colour(random)
    if kind == 0:
        draw.rectangle((x0, y0, x1, y1), fill=colour)
    elif kind == 1:
        draw.rectangle((x0, y0, x1, y1), outline=colour, width=width)
    elif kind == 2:
        draw.ellipse((x0, y0, x1, y1), fill=colour if random.random() < 0.5 else None, outline=colour, width=width)
    elif kind == 3:
        draw.line(random.integers(0, side, 6).tolist(), fill=colour, width=width)
    else:  # a table's or a screen's grid
        step = fine * int(random.integers(6, 40))
        for at in range(x0, x1, step):
            draw.line((at, y0, at, y1), fill=colour, width=width)


def _text(random: np.random.Generator, draw: ImageDraw.ImageDraw, side: int, fine: int) -> None:
    size = fine * int(random.choice([9, 11, 12, 13, 14, 16, 18, 22, 28, 36, 48]))
    font = ImageFont.load_default(size)
    top, left = (int(v) for v in random.integers(0, side // 3, 2))
    colour = _colour(random)
    while top < side:
        line = "".join(
            " " if random.random() < 0.17 else _LETTERS[int(random.integers(len(_LETTERS)))]
            for _ in range(int(random.integers(4, 60)))
        )
        draw.text((left, top), line, fill=colour, font=font)
        top += round(size * random.uniform(1.15, 1.8))
        if random.random() < 0.12:
            colour = _colour(random)
