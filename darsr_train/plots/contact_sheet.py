"""Contact sheet of an evaluation: the most detailed crop of every image, by every method."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from darsr_deploy.images.detail import find_detailed_square

from .page import BODY, FAINT, GAP, INK, MARGIN, SMALL, TITLE, Page, enlarge, to_rgb

_CROP = 72  # side of a crop in HR pixels
_PANEL = 216  # side of a panel on the page
_BETWEEN = 8  # panels of one image
_CAPTION, _FIGURES = 28, 24  # heights of the lines above and below the panels
_ONE_COLUMN = 8  # more images than this stand in two columns


@dataclass(frozen=True)
class Entry:
    """One image of a sheet.

    Attributes:
        strip: the crops, by :func:`join_crops`.
        figures: a line below each panel.
    """

    title: str
    remark: str
    strip: np.ndarray
    figures: tuple[str, ...]


def join_crops(images: dict[str, np.ndarray]) -> np.ndarray:
    """Join the crops of all images where the truth has the most detail, side by side: uint8 RGB."""
    rows, columns = find_detailed_square(images["truth"], _CROP)
    return np.hstack([to_rgb(image[rows, columns]) for image in images.values()])


def draw_sheet(title: str, remark: str, names: tuple[str, ...], entries: list[Entry]) -> np.ndarray:
    """Draw a page of all entries, uint8 RGB.

    Args:
        names: of the panels, which every entry has in this order; it may lack the last ones.
    """
    blocks = 1 if len(entries) <= _ONE_COLUMN else 2
    rows = -(-len(entries) // blocks)
    block = len(names) * (_PANEL + _BETWEEN) - _BETWEEN
    height = _CAPTION + _PANEL + _FIGURES + GAP
    head = MARGIN + TITLE + 80
    page = Page(2 * MARGIN + blocks * block + (blocks - 1) * 2 * GAP, head + rows * height + MARGIN - GAP)
    page.text(MARGIN, MARGIN + TITLE, title, TITLE)
    page.text(MARGIN, MARGIN + TITLE + 26, remark, SMALL, FAINT, width=page.width - 2 * MARGIN)
    for column in range(blocks):
        for i, name in enumerate(names):
            page.text(MARGIN + column * (block + 2 * GAP) + i * (_PANEL + _BETWEEN), head - 10, name, BODY)
    for place, entry in enumerate(entries):
        left = MARGIN + place // rows * (block + 2 * GAP)
        _draw_entry(page, left, head + place % rows * height, block, entry)
    return page.picture()


def _draw_entry(page: Page, left: int, top: int, width: int, entry: Entry) -> None:
    page.line(left, top, left + width, top)
    page.text(left, top + 20, entry.title, SMALL, INK, width=width - 220)
    page.text(left + width, top + 20, entry.remark, SMALL, FAINT, "rs")
    for i, (crop, figure) in enumerate(zip(np.split(entry.strip, len(entry.figures), axis=1), entry.figures)):
        x = left + i * (_PANEL + _BETWEEN)
        page.paste(x, top + _CAPTION, enlarge(crop, _PANEL))
        page.text(x, top + _CAPTION + _PANEL + 17, figure, SMALL, FAINT)
