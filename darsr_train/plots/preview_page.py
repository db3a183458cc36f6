"""Layout of the preview page: crops, kernel, map and filters in two rows of panels; three where there are several kernels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from darsr_deploy.degradation.covariance import shape_of
from darsr_deploy.images.detail import find_detailed_square

from .kernels import Shown, axis_marks, colour_kernels
from .page import (
    BODY,
    EMPTY,
    FAINT,
    GAP,
    INK,
    LINE,
    MARGIN,
    PAPER,
    SMALL,
    TITLE,
    Page,
    enlarge,
    map_diverging,
    map_sequential,
    resize_to_fit,
)

_SIDE = 360  # of a panel on the page
_CROP = 90  # side of the crops in HR pixels
_HEAD, _ROW = 128, _SIDE + 72  # heights of the title and of a row of panels
_ERROR = 16  # height of the line below a kernel that is compared
_FILTERS = 4  # shown with their taps


@dataclass(frozen=True)
class Findings:
    """What the page shows; images are uint8, H x W or H x W x 3.

    Attributes:
        bicubic, before, after: the enlarged image or its centre; ``before`` by the backbone alone.
        filters: H x W x 5 x 5, the filter of every LR pixel (correlation); 1 x 1 x 5 x 5 if all are equal; None where
            nothing is corrected.
        kernels: at most three, the estimated one first; none where none was estimated.
        scale: HR pixels per LR pixel.
    """

    bicubic: np.ndarray
    before: np.ndarray
    after: np.ndarray
    filters: np.ndarray | None
    kernels: tuple[Shown, ...]
    scale: int


def draw(findings: Findings, title: str, remark: str) -> np.ndarray:
    """Draw the page: uint8 RGB."""
    columns = [MARGIN + i * (_SIDE + GAP) for i in range(3)]
    several = len(findings.kernels) > 1  # they take a row of their own
    kernels = several * (_ROW + _ERROR)
    page = Page(columns[-1] + _SIDE + MARGIN, _HEAD + 2 * _ROW + kernels + MARGIN - 2 * GAP)
    page.text(MARGIN, MARGIN + TITLE, title, TITLE, width=page.width - 2 * MARGIN)
    page.text(MARGIN, MARGIN + TITLE + 26, remark, SMALL, FAINT, width=page.width - 2 * MARGIN)
    place = find_detailed_square(findings.after, _CROP)
    height, width = findings.after.shape[:2]
    crops = {"bicubic": findings.bicubic[place]}
    if np.array_equal(findings.before, findings.after):
        crops["nothing was corrected: the backbone alone"] = findings.after[place]
        if crops["bicubic"].shape[:2] != (height, width):
            crops[f"all of it, {width} x {height} px"] = findings.after
    else:
        crops["before: the backbone alone"] = findings.before[place]
        crops["after: corrected, then the backbone"] = findings.after[place]
    for x, (name, crop) in zip(columns, crops.items()):
        where = f"the most detailed {crop.shape[1]} x {crop.shape[0]} of {width} x {height} px"
        _panel(page, x, _HEAD, name, where if x == columns[0] else "")
        _centred(page, x, _HEAD, enlarge(crop, _SIDE))
    top = _HEAD + _ROW
    _draw_kernels(page, columns, top, findings.kernels, findings.scale)
    if several:
        top, columns = top + kernels, columns[:2]
    if findings.filters is None:
        for x, name in zip(columns[-2:], ("how strongly each pixel is corrected", "filters")):
            _panel(page, x, top, name)
            _note(page, x, top, "no correction: the backbone alone is used")
    else:
        spots = choose_spots(findings.filters[..., 2, 2])
        _draw_map(page, columns[-2], top, findings.filters[..., 2, 2], spots)
        _draw_filters(page, columns[-1], top, [findings.filters[spot] for spot in spots])
    return page.picture()


def _draw_kernels(page: Page, columns: list[int], y: int, shown: tuple[Shown, ...], scale: int) -> None:
    """Draw one kernel whole; several in windows of one size, on one scale of colours."""
    if not shown:
        _panel(page, columns[0], y, "estimated blur kernel")
        _note(page, columns[0], y, "the adapter holds no kernel")
    elif len(shown) == 1:
        kernel = shown[0].kernel
        _draw_kernel(page, columns[0], y, shown[0], map_diverging(kernel, float(np.abs(kernel).max())), scale)
    else:
        pictures = colour_kernels(tuple(each.kernel for each in shown), scale)
        for x, each, picture in zip(columns, shown, pictures):
            _draw_kernel(page, x, y, each, picture, scale)


def _draw_kernel(page: Page, x: int, y: int, shown: Shown, picture: np.ndarray, scale: int) -> None:
    """Draw a kernel's picture with its extent in HR pixels around the position of the LR pixel."""
    kernel, count = shown.kernel, len(picture)
    remark = f"{len(kernel)} x {len(kernel)} taps, HR pixels; sum {kernel.sum():.2f}"
    shape = shape_of(kernel) if kernel.sum() > 0.1 else {"sigma_short": 0}
    if shape["sigma_short"] > 0:  # a kernel with much negative mass has no spread
        remark += f", sigma {shape['sigma_long']:.1f} and {shape['sigma_short']:.1f} px"
    _panel(page, x, y, shown.name, remark)
    if shown.error is not None:
        page.text(x, y + _SIDE + 22 + _ERROR, f"relative error against the true one: {shown.error:.2f}", SMALL)
    picture = enlarge(picture, _SIDE - 64)
    side = len(picture)
    left, top, tap = x + (_SIDE - side) // 2 + 8, y + (_SIDE - side) // 2 - 8, side / count
    page.paste(left, top, picture)
    for offset, place in axis_marks(count, scale):
        at = place * tap
        page.line(left + at, top + side, left + at, top + side + 5, FAINT)
        page.line(left - 5, top + at, left - 1, top + at, FAINT)
        page.text(left + at, top + side + 8, str(offset), SMALL, FAINT, "ma")
        page.text(left - 9, top + at, str(offset), SMALL, FAINT, "rm")
        if offset == 0:
            page.line(left + at, top, left + at, top + side - 1)
            page.line(left, top + at, left + side - 1, top + at)


def _draw_map(page: Page, x: int, y: int, centres: np.ndarray, spots: list[tuple[int, int]]) -> None:
    """Draw the centre tap of every pixel's filter, numbered where the filters beside it are taken."""
    remark = "centre tap of the pixel's 5x5 filter; 1 leaves it as it is"
    _panel(page, x, y, "how strongly each pixel is corrected", remark)
    if centres.size == 1:
        _note(page, x, y, f"the same filter everywhere, with centre tap {centres.item():.2f}")
        return
    low, high = (float(v) for v in np.percentile(centres, (1, 99)))
    room = _SIDE - 44  # the scale of colours stands below
    picture = map_sequential(resize_to_fit(centres, _SIDE, room), low, high)
    height, width = picture.shape[:2]
    left, top = x + (_SIDE - width) // 2, y + (room - height) // 2
    page.paste(left, top, picture)
    for number, (row, column) in enumerate(spots, 1):
        zoom = height / centres.shape[0], width / centres.shape[1]
        page.badge(left + (column + 0.5) * zoom[1], top + (row + 0.5) * zoom[0], str(number))
    bar = map_sequential(np.linspace(0, 1, 200)[None].repeat(12, 0), 0, 1)
    page.paste(x + 80, y + _SIDE - 24, bar)
    page.text(x + 72, y + _SIDE - 18, f"{low:.2f}", SMALL, FAINT, "rm")
    page.text(x + 288, y + _SIDE - 18, f"{high:.2f}", SMALL, FAINT, "lm")


def _draw_filters(page: Page, x: int, y: int, filters: list[np.ndarray]) -> None:
    """Draw 5x5 filters with their taps as numbers; red taps are negative, blue ones positive."""
    names = "filters at these places" if len(filters) > 1 else "the filter"
    _panel(page, x, y, names, "taps; red is negative, blue is positive")
    reach = max(float(np.abs(f).max()) for f in filters)
    side = _SIDE if len(filters) == 1 else (_SIDE - GAP) // 2
    for i, taps in enumerate(filters):
        left, top = x + i % 2 * (side + GAP), y + i // 2 * (side + GAP)
        page.paste(left, top, enlarge(map_diverging(taps, reach), side))
        for (row, column), tap in np.ndenumerate(taps):
            colour = PAPER if abs(tap) > 0.6 * reach else INK
            at = left + (column + 0.5) * side // 5, top + (row + 0.5) * side // 5
            page.text(*at, format_tap(tap, len(filters) > 1), SMALL - 2 if len(filters) > 1 else BODY, colour, "mm")
        if len(filters) > 1:
            page.badge(left + side, top, str(i + 1))


def format_tap(tap: float, short: bool) -> str:
    """Format a tap with two decimals; if short, without the leading zero."""
    return f"{round(tap, 2) + 0.0:.2f}".replace("0.", ".", 1) if short and abs(tap) < 1 else f"{tap:.2f}"


def choose_spots(centres: np.ndarray) -> list[tuple[int, int]]:
    """Choose the pixels whose filters are shown: from the weakest to the strongest correction, far from each other."""
    if centres.size == 1:
        return [(0, 0)]
    rows, columns = np.indices(centres.shape).reshape(2, -1)
    order = np.argsort(centres, axis=None, kind="stable")
    share = max(1, len(order) // 50)
    spots: list[tuple[int, int]] = []
    for quantile in np.linspace(0.02, 0.98, _FILTERS):
        start = min(int(quantile * len(order)), len(order) - share)
        near = order[max(0, start - share // 2) :][:share]
        distance = [min([np.hypot(rows[i] - r, columns[i] - c) for r, c in spots], default=0.0) for i in near]
        best = near[int(np.argmax(distance))]
        spots.append((int(rows[best]), int(columns[best])))
    return spots


def _panel(page: Page, x: int, y: int, name: str, remark: str = "") -> None:
    """Write a panel's name above and a remark below."""
    page.text(x, y - 10, name, BODY)
    page.text(x, y + _SIDE + 20, remark, SMALL, FAINT, width=_SIDE)


def _centred(page: Page, x: int, y: int, picture: np.ndarray) -> None:
    height, width = picture.shape[:2]
    if min(height, width) < _SIDE:
        page.box(x, y, _SIDE, _SIDE, LINE, EMPTY)
    page.paste(x + (_SIDE - width) // 2, y + (_SIDE - height) // 2, picture)


def _note(page: Page, x: int, y: int, words: str) -> None:
    page.box(x, y, _SIDE, _SIDE, LINE, EMPTY)
    page.text(x + _SIDE // 2, y + _SIDE // 2, words, SMALL, FAINT, "mm")
