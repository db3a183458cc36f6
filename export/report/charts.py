"""Draw charts as SVG and HTML: losses over steps, bars."""

from __future__ import annotations

import math
from dataclasses import dataclass

from darsr_train.adaptation.result import Curve

from .markup import Markup, element, joined

_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 320, 190, 52, 34


def curve_svg(curve: Curve, label: str) -> tuple[Markup, str]:
    """Draw losses over steps with a moving average, on a logarithmic scale where they span more than a decade.

    Returns:
        The drawing, and in words the unit of its axis where that is not 1.
    """
    small = max(map(abs, curve.means)) < 0.1
    means = [1000 * m for m in curve.means] if small else curve.means
    positive = min(means) > 0
    logarithmic = positive and max(means) / min(means) > 10
    values = [math.log10(m) for m in means] if logarithmic else list(means)
    low, high = min(values), max(values)
    if high - low < 1e-12 * max(1.0, abs(high)):
        low, high = low - 0.5, high + 0.5
    inner = _WIDTH - _LEFT - 8, _HEIGHT - _BOTTOM - 10

    def place(index: float, value: float) -> str:
        x = _LEFT + inner[0] * (index + 0.5) / len(values)
        return f"{x:.1f},{10 + inner[1] * (high - value) / (high - low):.1f}"

    parts = []
    for i in range(4):
        value = low + (high - low) * i / 3
        y = 10 + inner[1] * (1 - i / 3)
        parts.append(element("line", x1=_LEFT, y1=y, x2=_WIDTH - 8, y2=y, class_="grid"))
        figure = f"{10**value if logarithmic else value:.3g}"
        parts.append(element("text", figure, x=_LEFT - 7, y=y + 4, text_anchor="end"))
    for share, anchor in ((0.0, "start"), (0.5, "middle"), (1.0, "end")):
        step = max(1, round(curve.steps * share))
        parts.append(element("text", step, x=_LEFT + inner[0] * share, y=_HEIGHT - _BOTTOM + 18, text_anchor=anchor))
    parts.append(element("text", "step", x=_LEFT + inner[0] * 0.75, y=_HEIGHT - _BOTTOM + 18, text_anchor="middle"))
    points = " ".join(place(i, v) for i, v in enumerate(values))
    parts.append(element("polyline", points=points, class_="loss"))
    if len(values) >= 10:
        calmer = " ".join(place(i, v) for i, v in enumerate(_calm(values)))
        parts.append(element("polyline", points=calmer, class_="loss calm"))
    drawing = element("svg", joined(*parts), viewBox=f"0 0 {_WIDTH} {_HEIGHT - 8}", role="img", aria_label=label,
                      width=_WIDTH, height=_HEIGHT - 8)  # fmt: skip
    return drawing, " Loss in thousandths." if small else ""


def _calm(values: list[float]) -> list[float]:
    """Average over a tenth of the curve on each side, less at its ends."""
    reach = max(1, len(values) // 10)
    windows = [(i, min(reach, i, len(values) - 1 - i)) for i in range(len(values))]
    return [sum(values[i - r : i + r + 1]) / (2 * r + 1) for i, r in windows]


@dataclass(frozen=True)
class Bar:
    """A bar of a chart: its value, the value as text, marks at further values (name, value), its colour's class."""

    label: str
    value: float
    figure: str
    marks: tuple[tuple[str, float], ...] = ()
    kind: str = ""
    note: str = ""


def bars(items: list[Bar], label: str, start: float = 0.0) -> Markup:
    """Draw horizontal bars as a list: label, bar, figure.

    Args:
        start: value of the left edge, for figures without a meaningful zero (decibels); say it beside them.
    """
    reach = max([i.value for i in items] + [value for i in items for _, value in i.marks], default=start)
    span = max(reach - start, 1e-12)
    rows = []
    for item in items:
        width = max(0.0, 100 * (item.value - start) / span)
        parts = [element("rect", x=0, y=1, width=width, height=8, class_=f"bar {item.kind}".strip())]
        for name, value in item.marks:
            x = 100 * (value - start) / span
            parts.append(
                element("line", element("title", f"{name} {value:.4g}"), x1=x, y1=0, x2=x, y2=10, class_="mark")
            )
        drawing = element("svg", joined(*parts), viewBox="0 0 100 10", preserveAspectRatio="none", aria_hidden="true")
        note = element("span", item.note, class_="note") if item.note else None
        rows.append(
            element(
                "li",
                element("span", item.label, note, class_="label"),
                drawing,
                element("span", item.figure, class_="figure"),
            )
        )
    return element("ul", joined(*rows), class_="bars", aria_label=label)
