"""Put sections, style and script into one HTML file."""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
from importlib.resources import files
from string import Template

from .bench import bench_section
from .markup import Markup, element, joined
from .sections import image_section
from .subject import Subject

_ONE_IMAGE, _ALL_IMAGES, _LEAST = 4_000_000, 24_000_000, 400_000  # bytes of large pictures: a page must open quickly


def build_page(subjects: list[Subject], bench: dict | None = None, title: str | None = None) -> str:
    """Return the page of images and of a benchmark; the same arguments give the same text.

    Its content security policy loads nothing and runs no script but its own.
    """
    title = title or _title(subjects)
    budget = max(_LEAST, min(_ONE_IMAGE, _ALL_IMAGES // max(1, len(subjects))))
    alone = len(subjects) == 1
    sections = [image_section(subject, f"image-{i}", budget, alone) for i, subject in enumerate(subjects, 1)]
    if bench is not None:
        sections.append(bench_section(bench))
    style, program = (_part(f"viewer.{kind}") + _part(f"page.{kind}") for kind in ("css", "js"))
    return Template(_part("page.html")).substitute(
        title=element("title", title),
        policy=f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(program)}'; "
        "base-uri 'none'; form-action 'none'",
        style=style,
        program=program,
        heading=joined(title),
        summary=_summary(subjects),
        contents=_contents(subjects, bench),
        sections=joined(*sections),
        version=joined(importlib.metadata.version("darsr")),
    )


def _title(subjects: list[Subject]) -> str:
    return subjects[0].image.name if len(subjects) == 1 else f"{len(subjects)} images"


def _summary(subjects: list[Subject]) -> Markup:
    """Sum up what a reader should know first."""
    gains = [s.scores["adapted"]["psnr_y"] - s.scores["backbone"]["psnr_y"] for s in subjects if s.scores]
    if not subjects:
        return Markup()
    changed = [subject for subject in subjects if not subject.unchanged]
    if not changed:
        words = "Super-resolved by the backbone alone: nothing was corrected."
    elif len(subjects) == 1:
        words = "Super-resolved by a network that was adapted to this one image."
    else:
        words = "Super-resolved by networks that were each adapted to the one image."
    if len(gains) > 1:
        words += f" On average {sum(gains) / len(gains):+.2f} dB over the backbone alone."
    words += " Drag the divider: before on the left, after on the right." if changed else ""
    return element("p", words, class_="lead")


def _contents(subjects: list[Subject], bench: dict | None) -> Markup | None:
    """Return links to the sections where there are several."""
    links = [(f"#image-{i}", subject.image.name) for i, subject in enumerate(subjects, 1)]
    links += [("#bench", "Speed")] if bench is not None else []
    if len(links) < 2:
        return Markup()
    items = [element("li", element("a", name, href=target)) for target, name in links]
    return element("nav", element("ul", joined(*items)), aria_label="Contents")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _part(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")
