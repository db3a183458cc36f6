"""A bench report as text for a terminal, as Markdown, and as CSV."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Callable

from .stats import median_interval

# heading, figure of a row
_COLUMNS: tuple[tuple[str, Callable[[dict], object]], ...] = (
    ("engine", lambda r: r["engine"]),
    ("provider", lambda r: r["provider"]),
    ("precision", lambda r: r["precision"]),
    ("form", lambda r: r["form"]),
    ("n", lambda r: r["n"]),
    ("median ms", lambda r: r["median_ms"]),
    ("p90", lambda r: r["p90_ms"]),
    ("p99", lambda r: r["p99_ms"]),
    ("cv %", lambda r: r["cv_percent"]),
    ("CPU ms", lambda r: r["cpu_median_ms"]),
    ("end to end ms", lambda r: r["e2e_median_ms"]),
    ("frames/s", lambda r: r["frames_per_second"]),
    ("Mpixel/s out", lambda r: r["output_megapixels_per_second"]),
    ("peak MB", lambda r: r["peak_memory_mb"]),
    ("W", lambda r: r["power_w"]),
    ("dB from PyTorch", lambda r: r["psnr_vs_torch_db"]),
    ("Y-PSNR", lambda r: r["psnr_y_truth_db"]),
    ("of roof", lambda r: r["roofline"] and f"{100 * r['roofline']['reached']:.0f} %"),
)
_NAMES = ("engine", "provider", "precision", "form")
_CONFIDENCE = 0.95  # of each row's median, by which rows are told apart


def verdict(report: dict) -> str:
    """Say in one line how long the fastest row takes for a picture, and which it is; rows alike within the noise are all named."""
    ran = sorted(_rows_that_ran(report), key=lambda row: row["median_ms"])
    if not ran:
        return "nothing ran here"
    best, bounds = ran[0], [_median_bounds(row) for row in ran]
    ms = best["median_ms"] / report["setting"]["samples_per_query"]
    *_, height, width = best["shape"].split("x")
    speed = f"{_cell(ms)} ms a picture of {width}x{height}, {_cell(1e3 / ms)} a second"
    differing = [key for key in _NAMES if len({row[key] for row in ran}) > 1]
    name = lambda row: " ".join(row[key] for key in differing or _NAMES if row[key])  # noqa: E731
    alike = [name(row) for row, (low, _) in zip(ran[1:], bounds[1:]) if low <= bounds[0][1]]
    if alike:
        return f"{speed}; {name(best)} and {', '.join(alike)} are too close to tell which is the fastest here"
    return f"{speed}; {name(best)} {'is the fastest' if len(ran) > 1 else 'alone ran'} here"


def text(report: dict, verbose: bool = False) -> str:
    """Format the verdict, the rows that ran as an aligned table, where their time goes, and warnings.

    Args:
        verbose: also why rows and figures are missing, which otherwise are counted.
    """
    ran = _rows_that_ran(report)
    columns = [c for c in _COLUMNS if any(c[1](row) is not None for row in ran)]
    lines = [
        verdict(report),
        _machine_line(report),
        *_aligned([[c[0] for c in columns], *([_cell(c[1](r)) for c in columns] for r in ran)]),
    ]
    if ran:
        stages = list(ran[0]["stages_ms"])
        cold = list(ran[0]["cold_start_ms"])
        head = ["end to end, ms", *stages, *(f"cold: {name}" for name in cold)]
        body = [
            [_name(r), *(_cell(r["stages_ms"][s]) for s in stages), *(_cell(r["cold_start_ms"][c]) for c in cold)]
            for r in ran
        ]
        lines += ["", *_aligned([head, *body])]
    return "\n".join(lines + _notes(report, verbose))


def markdown(report: dict, verbose: bool = False) -> str:
    """Format the same as Markdown tables."""
    ran = _rows_that_ran(report)
    columns = [c for c in _COLUMNS if any(c[1](row) is not None for row in ran)]
    lines = [
        f"**{verdict(report)}**",
        "",
        _machine_line(report),
        "",
        _bars([c[0] for c in columns]),
        "|" + "---|" * len(columns),
    ]
    lines += [_bars([_cell(c[1](row)) for c in columns]) for row in ran]
    notes = _notes(report, verbose)
    return "\n".join(lines + [""] * bool(notes) + [f"- {note}" for note in notes if note])


def as_csv(report: dict) -> str:
    """Format one line a row, nested figures with a dot in their names; the single times are left out."""
    flat = [_flat({key: value for key, value in row.items() if key != "blocks_ms"}) for row in report["rows"]]
    names = list(dict.fromkeys(name for row in flat for name in row))
    target = io.StringIO()
    writer = csv.DictWriter(target, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return target.getvalue()


def _machine_line(report: dict) -> str:
    facts, setting = report["machine"], report["setting"]
    parts = [facts["board"], facts["cpu"], f"{facts['cores_usable']} cores", *(gpu["name"] for gpu in facts["gpus"])]
    parts += [f"{name} {facts[name]}" for name in ("onnxruntime", "torch", "tensorrt", "tensorrt_rtx") if facts[name]]
    parts += [f"power mode {facts['power_mode']}" if facts["power_mode"] else None]
    shapes = {row["shape"] for row in report["rows"]}
    parts += [f"input {', '.join(sorted(shapes))}", setting["scenario"], f"load {facts['start']['load']}"]
    return ", ".join(str(part) for part in parts if part)


def _rows_that_ran(report: dict) -> list[dict]:
    return [row for row in report["rows"] if row["n"] is not None]


def _median_bounds(row: dict) -> tuple[float, float]:
    """Return bounds of a row's median by the medians of its blocks, as :mod:`.compare` has them."""
    low, high, _ = median_interval([statistics.median(block) for block in row["blocks_ms"]], _CONFIDENCE)
    return low, high


def _notes(report: dict, verbose: bool) -> list[str]:
    """Return warnings, and the reasons for what is missing, each once with the rows or figures it is about, or their number.

    Where nothing ran the reasons are what the reader needs.
    """
    ran, lines = _rows_that_ran(report), []
    about: dict[str, list[str]] = {}
    for row in report["rows"]:
        for warning in row["warnings"]:
            about.setdefault(warning, []).append(_name(row))
    for warning, names in about.items():
        lines.append(f"warning: {'every row' if len(names) == len(ran) > 1 else ', '.join(names)}: {warning}")
    if report["machine"]["throttled"]:
        lines.append("warning: the machine slowed itself down (heat or power)")
    idle: dict[str, list[str]] = {}
    missing: dict[str, list[str]] = {}
    for row in report["rows"]:
        if row["n"] is None:
            idle.setdefault(row["reason"], []).append(_name(row))
        for name, reason in row["reasons"].items():
            missing.setdefault(reason, []).append(name)
    if verbose or not ran:
        lines += [f"{', '.join(names)} did not run: {reason}" for reason, names in idle.items()]
        lines += [f"no {', '.join(dict.fromkeys(names))}: {reason}" for reason, names in missing.items()]
    else:
        rows, figures = sum(map(len, idle.values())), len({name for names in missing.values() for name in names})
        counts = [f"{rows} rows did not run"] * bool(rows) + [f"{figures} figures could not be had"] * bool(figures)
        lines += [f"{' and '.join(counts)} (--verbose says why)"] * bool(counts)
    return ["", *lines] if lines else []


def _name(row: dict) -> str:
    return " ".join(row[key] for key in _NAMES if row[key])


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if value >= 1000 else f"{value:.1f}" if value >= 10 else f"{value:.3g}"


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]


def _bars(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _flat(row: dict, start: str = "") -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in row.items():
        if isinstance(value, dict) and key != "reasons":
            found |= _flat(value, f"{start}{key}.")
        elif isinstance(value, list):
            found[start + key] = "; ".join(map(str, value))
        elif key != "reasons":
            found[start + key] = value
    return found
