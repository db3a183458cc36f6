"""Write HTML and SVG: whatever is not :class:`Markup` is escaped, so no text from a file becomes markup."""

from __future__ import annotations

import html
import re

_VOID = {"img", "input", "meta", "br"}
_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9:-]*")


class Markup(str):
    """Text that is HTML already and is not escaped."""


Child = str | int | float | None


def element(tag: str, *children: Child, **attributes: str | int | float | bool | None) -> Markup:
    """Write ``<tag attributes>children</tag>``.

    Args:
        children: :class:`Markup` as it is, other values escaped, None left out.
        attributes: ``class_`` is class, ``aria_label`` aria-label, ``stroke_width`` stroke-width; True writes the name
            alone, None and False omit it.
    """
    words = [tag]
    for name, value in attributes.items():
        name = name.rstrip("_").replace("_", "-")
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not an attribute's name")
        if value is None or value is False:
            continue
        words.append(name if value is True else f'{name}="{html.escape(_text(value))}"')
    start = f"<{' '.join(words)}>"
    return Markup(start if tag in _VOID else f"{start}{joined(*children)}</{tag}>")


def joined(*children: Child) -> Markup:
    """Join children, escaping those that are not markup."""
    return Markup(
        "".join(c if isinstance(c, Markup) else html.escape(_text(c), quote=False) for c in children if c is not None)
    )


def _text(value: str | int | float) -> str:
    """Write a value, coordinates to a hundredth: a page holds thousands of them."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
