"""Learning curve of a training: loss above, PSNR (where measured) below, over the steps."""

from __future__ import annotations

import math

import numpy as np

from .page import BODY, FAINT, INK, LINE, MARGIN, PAPER, SMALL, TITLE, Colour, Page

WIDTH, PANEL = 900, 260  # of the page and of one panel's height, in pixels
_LEFT, _HEAD, _FOOT = 76, 84, 44  # room for the figures at the axes, the title, the steps
_LOSS, _PSNR = (20, 62, 126), (140, 26, 38)


def draw_curve(log: list[dict], title: str) -> np.ndarray:
    """Draw a training's log.

    Args:
        log: entries with ``step``, ``loss`` and, where measured, ``psnr_y`` in dB, in the order of the steps.

    Returns:
        uint8, H x W x 3 (RGB).
    """
    panels = [("loss, running mean", _smooth(_points(log, "loss")), _LOSS)]
    measured = _points(log, "psnr_y")
    if measured:
        panels.append((f"Y-PSNR of the averaged weights, dB (last {measured[-1][1]:.2f})", measured, _PSNR))
    page = Page(WIDTH, _HEAD + len(panels) * (PANEL + _FOOT) + MARGIN // 2)
    page.text(MARGIN, MARGIN + 14, title, TITLE, width=WIDTH - 2 * MARGIN)
    last = max((step for _, points, _ in panels for step, _ in points), default=1)
    for number, (caption, points, colour) in enumerate(panels):
        _panel(page, _HEAD + number * (PANEL + _FOOT), caption, points, colour, last)
    return page.picture()


def _points(log: list[dict], name: str) -> list[tuple[int, float]]:
    return [(entry["step"], entry[name]) for entry in log if math.isfinite(entry.get(name, math.nan))]


def _smooth(points: list[tuple[int, float]], share: float = 0.03) -> list[tuple[int, float]]:
    """Average over the neighbouring ``share`` of all entries: the loss of one step is that of a few crops."""
    reach = int(len(points) * share / 2)
    values = [value for _, value in points]
    return [(step, float(np.mean(values[max(0, i - reach) : i + reach + 1]))) for i, (step, _) in enumerate(points)]


def _panel(page: Page, top: int, caption: str, points: list[tuple[int, float]], colour: Colour, last: int) -> None:
    right, bottom = WIDTH - MARGIN, top + PANEL
    page.text(_LEFT, top - 8, caption, BODY)
    page.box(_LEFT, top, right - _LEFT, PANEL, LINE, PAPER)
    if not points:
        return
    values = [value for _, value in points]
    low, high = min(values), max(values)
    room = 0.06 * (high - low) or 0.5
    low, high = low - room, high + room

    def place(step: float, value: float) -> tuple[float, float]:
        return _LEFT + (right - _LEFT) * step / last, bottom - PANEL * (value - low) / (high - low)

    for value in _ticks(low, high):
        _, y = place(0, value)
        page.line(_LEFT, y, right, y)
        page.text(_LEFT - 8, y, f"{value:.6g}", SMALL, FAINT, "rm")
    for step in _ticks(0, last):
        x, _ = place(step, low)
        page.line(x, bottom, x, bottom + 5)
        page.text(x, bottom + 10, f"{step:,.0f}", SMALL, FAINT, "mt")
    path = [place(*point) for point in points]
    for (x, y), (to_x, to_y) in zip(path, path[1:]):
        page.line(x, y, to_x, to_y, colour, 2)
    if len(path) < 60:
        for x, y in path:
            page.box(x - 3, y - 3, 6, 6, INK, colour)


def _ticks(low: float, high: float) -> list[float]:
    """Return four to nine round numbers (1, 2 or 5 times a power of ten) between the bounds."""
    raw = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw)
    return [step * i for i in range(math.ceil(low / step), math.floor(high / step) + 1)]
