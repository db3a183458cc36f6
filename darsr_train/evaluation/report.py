"""Summaries of an evaluation as JSON values, terminal tables, Markdown and a contact sheet."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

from darsr_deploy.images.arrays import read_image, write_image

from ..plots.contact_sheet import Entry, draw_sheet
from .measure import NO_WORSE, average_rows

OTHERS = ("bicubic", "backbone", "prior")  # what the result is compared with; the prior only if requested
TITLES = {"bicubic": "bicubic", "backbone": "backbone alone", "prior": "prior"}


def summarise(rows: list[dict], asked: int) -> dict:
    """Summarise the rows of several images.

    Returns:
        ``{asked, count, mean, worst: {set, name, gain}, below_backbone}``; ``below_backbone`` counts the images more than
        0.1 dB below the backbone alone. Without rows, ``asked`` and ``count`` alone.
    """
    summary: dict = {"asked": asked, "count": len(rows)}
    if rows:
        worst = min(rows, key=lambda row: row["gain"])
        summary |= {
            "mean": average_rows(rows),
            "worst": {key: worst[key] for key in ("set", "name", "gain")},
            "below_backbone": sum(row["gain"] < -NO_WORSE for row in rows),
        }
    return summary


def build_summary(head: dict, sets: Iterable[dict], rows: list[dict]) -> dict:
    """Build what ``darsr eval --json`` prints: the head, the images, their summary, a summary per set.

    Args:
        head: how it was measured.
        sets: ``{name, asked, ...}`` of every set, in order.
    """
    groups = _by_set(rows)
    parts = [{**part, **summarise(groups.get(part["name"], []), part["asked"])} for part in sets]
    return {**head, "images": rows, **summarise(rows, sum(part["asked"] for part in parts)), "sets": parts}


def show(summary: dict, width: int | None) -> None:
    """Print a table of images per set and, for several sets, one of the sets; ``width`` None is the terminal's."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(width=width)
    several = len(summary["sets"]) > 1
    groups = _by_set(summary["images"])
    for part in summary["sets"]:
        if part["name"] in groups:
            title = f"{part['name']}: {summary['method']}, {part['backbone']} (Y-PSNR dB / SSIM)"
            console.print(_table(Table(title=escape(title)), *_image_table(summary, groups[part["name"]], part)))
    if several:
        title = f"by set: {summary['method']} (Y-PSNR dB / SSIM)"
        console.print(_table(Table(title=escape(title)), *_set_table(summary)))
    console.print(escape(_last_words(summary)))


def markdown(summary: dict) -> str:
    """Return the summary as GitHub-flavoured Markdown, with a line on how it was measured."""
    options = summary["options"]
    changed = f", seed {options['seed']}, {options['steps']} steps" if options else ""
    networks = ", ".join(sorted({f"{p['backbone']} (`{p['backbone_sha256'][:12]}`)" for p in summary["sets"]}))
    versions = ", ".join(f"{name} {version}" for name, version in summary["versions"].items())
    lines = [
        f"# darsr eval: {summary['method']}",
        "",
        f"Mean Y-PSNR in dB and SSIM on Y, border = scale. Backbone {networks}{changed}, on {summary['device']}; {versions}.",
        "",
        *_markdown_table(*_set_table(summary)),
        "",
        _last_words(summary),
    ]
    groups = _by_set(summary["images"])
    for part in summary["sets"]:
        if part["name"] in groups:
            rows = _markdown_table(*_image_table(summary, groups[part["name"]], part))
            lines += ["", f"## {part['name']}", "", *rows]
    return "\n".join(lines) + "\n"


def write_sheet(target: Path, summary: dict, strips: dict[str, Path]) -> None:
    """Write the contact sheet of all measured images; ``strips`` are the files of their crops by fingerprint."""
    names = [name for name in OTHERS if f"psnr_y_{name}" in summary["mean"]]
    own = [] if summary["method"] == "none" else [""]
    entries = []
    for row in summary["images"]:
        figures = (*(_pair(row, f"_{name}") for name in names), *(_pair(row) for _ in own), "")
        if "kernel_error" in row:
            figures += (f"error {row['kernel_error']:.2f}", "")
        title = f"{row['set']} / {row['name']}" if len(summary["sets"]) > 1 else row["name"]
        entries.append(Entry(title, f"{_signed(row['gain'])} dB", read_image(strips[row["fingerprint"]]), figures))
    titles = (*(TITLES[name] for name in names), *(summary["method"] for _ in own), "truth")
    if "kernel_error" in summary["mean"]:
        titles += ("estimated kernel", "true kernel")
    page = draw_sheet(f"darsr eval: {summary['method']}", _last_words(summary), titles, entries)
    write_image(target, page)


def _image_table(summary: dict, rows: list[dict], part: dict) -> tuple[list[str], list[list[str]]]:
    """Return column titles and cells: a row per image and their mean."""
    others = [name for name in OTHERS if f"psnr_y_{name}" in rows[0]]
    kernels = _kernel_title(part["mean"])
    titles = ["image", *(TITLES[name] for name in others), summary["method"], "gain dB", *kernels, "seconds", "chosen"]
    cells = [
        [row["name"], *(_pair(row, f"_{name}") for name in others), _pair(row), *_gain(row, kernels), row["chosen"]]
        for row in [*rows, {"name": "mean", "chosen": "", **part["mean"]}]
    ]
    return titles, cells


def _set_table(summary: dict) -> tuple[list[str], list[list[str]]]:
    """Return column titles and cells: a row per set and one for all images."""
    others = [name for name in OTHERS if f"psnr_y_{name}" in summary["mean"]]
    kernels = _kernel_title(summary["mean"])
    titles = ["set", "images", *(TITLES[name] for name in others), summary["method"], "gain dB", *kernels, "seconds"]
    titles += ["worst image", f"lost > {NO_WORSE} dB"]
    parts = [part for part in summary["sets"] if part["count"]]
    cells = []
    for part in [*parts, {**summary, "name": "all"}] if len(parts) > 1 else parts:
        images = str(part["count"]) if part["count"] == part["asked"] else f"{part['count']} of {part['asked']}"
        figures = [*(_pair(part["mean"], f"_{name}") for name in others), _pair(part["mean"])]
        figures += _gain(part["mean"], kernels)
        worst = part["worst"]
        where = f"{worst['set']}/{worst['name']}" if part["name"] == "all" else worst["name"]
        losses = f"{part['below_backbone']} of {part['count']}"
        cells.append([part["name"], images, *figures, f"{where} {_signed(worst['gain'])}", losses])
    return titles, cells


def _last_words(summary: dict) -> str:
    worst = summary["worst"]
    words = f"Gain {_signed(summary['mean']['gain'])} dB; worst image {worst['set']}/{worst['name']} "
    words += f"{_signed(worst['gain'])} dB; {summary['below_backbone']} of {summary['count']} images more than "
    words += f"{NO_WORSE} dB below the backbone alone."
    missing = summary["asked"] - summary["count"]
    return words + (f" Not measured: {missing} of {summary['asked']}." if missing else "")


def _by_set(rows: Iterable[dict]) -> dict[str, list[dict]]:
    """Group rows by their set, keeping their order."""
    groups: dict[str, list[dict]] = {}
    for row in rows:
        groups.setdefault(row["set"], []).append(row)
    return groups


def _pair(row: dict, tail: str = "") -> str:
    return f"{row[f'psnr_y{tail}']:.2f} / {row[f'ssim_y{tail}']:.4f}"


def _gain(row: dict, kernels: list[str]) -> list[str]:
    error = f"{row['kernel_error']:.2f}" if "kernel_error" in row else "-"
    return [_signed(row["gain"]), *(error for _ in kernels), f"{row['seconds']:.1f}"]


def _kernel_title(mean: dict) -> list[str]:
    return ["kernel error"] if "kernel_error" in mean else []


def _signed(decibels: float) -> str:
    return f"{decibels:+.2f}" if math.isfinite(decibels) else str(decibels)


def _table(table, titles: list[str], cells: list[list[str]]):
    from rich.markup import escape

    for title in titles:
        table.add_column(title, justify="left" if title in ("image", "set", "chosen", "worst image") else "right")
    for index, row in enumerate(cells):
        table.add_row(*map(escape, row), end_section=index == len(cells) - 2)
    return table


def _markdown_table(titles: list[str], cells: list[list[str]]) -> list[str]:
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in [titles, *cells]]
    lines = [f"| {' | '.join(row)} |" for row in escaped]
    return [lines[0], "|---" * len(titles) + "|", *lines[1:]]
