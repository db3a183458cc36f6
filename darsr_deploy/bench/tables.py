"""A bench report as text for a terminal, as Markdown, and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable

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


def text(report: dict) -> str:
    """Format the rows that ran as an aligned table, then where their time goes, warnings, and reasons for what is missing."""
    ran = [row for row in report["rows"] if row["n"] is not None]
    columns = [c for c in _COLUMNS if any(c[1](row) is not None for row in ran)]
    lines = [
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
    return "\n".join(lines + _notes(report))


def markdown(report: dict) -> str:
    """Format the same as Markdown tables."""
    ran = [row for row in report["rows"] if row["n"] is not None]
    columns = [c for c in _COLUMNS if any(c[1](row) is not None for row in ran)]
    lines = [_machine_line(report), "", _bars([c[0] for c in columns]), "|" + "---|" * len(columns)]
    lines += [_bars([_cell(c[1](row)) for c in columns]) for row in ran]
    notes = _notes(report)
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


def _notes(report: dict) -> list[str]:
    """Return warnings, rows that did not run, and reasons, each once with the rows or figures it is about."""
    lines: list[str] = []
    about: dict[str, list[str]] = {}
    for row in report["rows"]:
        for warning in row["warnings"]:
            about.setdefault(warning, []).append(_name(row))
    everywhere = sum(row["n"] is not None for row in report["rows"])
    for warning, names in about.items():
        lines.append(f"warning: {'every row' if len(names) == everywhere > 1 else ', '.join(names)}: {warning}")
    if report["machine"]["throttled"]:
        lines.append("warning: the machine slowed itself down (heat or power)")
    idle: dict[str, list[str]] = {}
    for row in report["rows"]:
        if row["n"] is None:
            idle.setdefault(row["reason"], []).append(_name(row))
    lines += [f"{', '.join(names)} did not run: {reason}" for reason, names in idle.items()]
    why: dict[str, list[str]] = {}
    for row in report["rows"]:
        for name, reason in row["reasons"].items():
            why.setdefault(reason, []).append(name)
    lines += [f"no {', '.join(dict.fromkeys(names))}: {reason}" for reason, names in why.items()]
    return ["", *lines] if lines else []


def _name(row: dict) -> str:
    return " ".join(row[key] for key in ("engine", "provider", "precision", "form") if row[key])


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
