"""Draw the kernel, the map of corrections and filters as SVG.

Pictures inside have one pixel per value and are enlarged without smoothing. Colours of text and lines come from the page.
"""

from __future__ import annotations

import numpy as np

from darsr_train.plots.kernels import axis_marks, colour_kernels
from darsr_train.plots.page import map_diverging, map_sequential, resize_to_fit
from darsr_train.plots.preview_page import choose_spots, format_tap

from .markup import Markup, element, joined
from .pictures import uri

_SIDE = 300  # of a drawing, in CSS pixels where there is room
_LEFT = 30  # room for the figures of an axis
_MAP = 600  # sides of the map at most: a larger image's is averaged


def kernel_svg(kernel: np.ndarray, scale: int, label: str) -> Markup:
    """Draw the kernel in HR pixels around the position of the LR pixel; blue is positive, red negative."""
    return _kernel_svg(map_diverging(kernel, float(np.abs(kernel).max())), scale, label)


def kernel_svgs(kernels: tuple[np.ndarray, ...], scale: int, labels: tuple[str, ...]) -> list[Markup]:
    """Draw several kernels in windows of one size, on one scale of colours."""
    return [_kernel_svg(picture, scale, label) for picture, label in zip(colour_kernels(kernels, scale), labels)]


def _kernel_svg(colours: np.ndarray, scale: int, label: str) -> Markup:
    count, side = len(colours), _SIDE - _LEFT
    parts = [element("image", href=uri(colours), x=_LEFT, y=0, width=side, height=side, class_="pixels")]
    parts.append(element("rect", x=_LEFT, y=0, width=side, height=side, class_="frame"))
    for offset, place in axis_marks(count, scale):
        at = place * side / count
        parts.append(element("text", offset, x=_LEFT + at, y=side + 18, text_anchor="middle"))
        parts.append(element("text", offset, x=_LEFT - 7, y=at + 4, text_anchor="end"))
        if offset == 0:
            parts.append(element("line", x1=_LEFT + at, y1=0, x2=_LEFT + at, y2=side, class_="cross"))
            parts.append(element("line", x1=_LEFT, y1=at, x2=_LEFT + side, y2=at, class_="cross"))
    return _svg(_SIDE, side + 24, label, *parts)


def map_svg(filters: np.ndarray, label: str) -> tuple[Markup, list[np.ndarray]]:
    """Draw each pixel's correction, by its filter's centre tap, and return the filters at the numbered places too."""
    centres = filters[..., 2, 2]
    spots = choose_spots(centres)
    low, high = (float(v) for v in np.percentile(centres, (1, 99)))
    shown = centres if max(centres.shape) <= _MAP else resize_to_fit(centres, _MAP, _MAP)
    height, width = centres.shape
    zoom = min(_SIDE / width, _SIDE / height)
    size = width * zoom, height * zoom
    left = (_SIDE - size[0]) / 2
    picture = uri(map_sequential(shown, low, high))
    parts = [element("image", href=picture, x=left, y=0, width=size[0], height=size[1], class_="pixels")]
    for number, (row, column) in enumerate(spots, 1):
        parts.append(_badge(number, left + (column + 0.5) * zoom, (row + 0.5) * zoom))
    top = size[1] + 12
    bar = uri(map_sequential(np.linspace(0, 1, 128)[None], 0, 1))
    inside = {"x": 60, "y": top, "width": _SIDE - 120, "height": 10, "preserveAspectRatio": "none"}
    parts.append(element("image", href=bar, **inside))
    parts.append(element("text", f"{low:.2f}", x=52, y=top + 9, text_anchor="end"))
    parts.append(element("text", f"{high:.2f}", x=_SIDE - 52, y=top + 9))
    return _svg(_SIDE, top + 16, label, *parts), [filters[spot] for spot in spots]


def filters_svg(filters: list[np.ndarray], label: str) -> Markup:
    """Draw 5x5 filters with their taps as numbers, numbered where there are several."""
    several = len(filters) > 1
    reach = max(float(np.abs(f).max()) for f in filters)
    side = (_SIDE - 16) / 2 if several else _SIDE
    parts = []
    for i, taps in enumerate(filters):
        x, y = i % 2 * (side + 16), i // 2 * (side + 16)
        picture = uri(map_diverging(taps, reach))
        parts.append(element("image", href=picture, x=x, y=y, width=side, height=side, class_="pixels"))
        parts.append(element("rect", x=x, y=y, width=side, height=side, class_="frame"))
        for (row, column), tap in np.ndenumerate(taps):
            at = {"x": x + (column + 0.5) * side / 5, "y": y + (row + 0.5) * side / 5 + (3.5 if several else 5)}
            bright = "tap on-dark" if abs(tap) > 0.6 * reach else "tap"
            parts.append(element("text", format_tap(tap, several), class_=bright + (" small" if several else ""), **at))
        if several:
            parts.append(_badge(i + 1, x + side - 2, y + 2))
    rows = -(-len(filters) // 2) if several else 1
    return _svg(_SIDE, rows * (side + 16) - 16 + 2, label, *parts)


def _badge(number: int, x: float, y: float) -> Markup:
    return element(
        "g",
        element("circle", cx=x, cy=y, r=9, class_="badge"),
        element("text", number, x=x, y=y + 4, class_="badge-text"),
    )


def _svg(width: float, height: float, label: str, *parts: Markup) -> Markup:
    return element("svg", joined(*parts), viewBox=f"-4 -12 {width + 14:.0f} {height + 14:.0f}", role="img",
                   width=width + 14, height=height + 14, aria_label=label)  # fmt: skip
