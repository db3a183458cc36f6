"""Draw the tables of ``darsr bench --json`` as charts."""

from __future__ import annotations

import math
from pathlib import Path

from darsr_deploy.errors import DarsrError
from darsr_deploy.files.kinds import another_kind
from darsr_deploy.files.schema import parse_json

from .charts import Bar, bars
from .markup import Markup, element, joined

_HINT = "make it with darsr bench --json"
_EQUAL_DB = 200  # what stands for two equal pictures
_COLUMNS = {
    "n": "n",
    "mean_ms": "mean ms",
    "median_ms": "median ms",
    "p90_ms": "p90 ms",
    "p95_ms": "p95 ms",
    "p99_ms": "p99 ms",
    "e2e_median_ms": "end to end ms",
    "peak_memory_mb": "peak memory MB",
    "power_w": "power W",
    "psnr_vs_torch_db": "dB from PyTorch",
}


def read_bench(path: Path) -> dict:
    """Read a benchmark's machine and rows.

    Raises:
        DarsrError: the file cannot be read, or is none; the line names what is missing.
    """
    try:
        found = parse_json(path.read_bytes())
    except OSError as error:
        raise DarsrError(str(path), f"cannot be read ({error.strerror})", _HINT) from error
    except ValueError as error:
        raise another_kind(path, "report") or DarsrError(str(path), "is not JSON, or not one object", _HINT) from error
    for name, kind in (("machine", dict), ("rows", list)):
        if not isinstance(found.get(name), kind):
            raise DarsrError(str(path), f"is not a bench report: field {name} is missing or of another kind", _HINT)
    for index, row in enumerate(found["rows"]):
        if not isinstance(row, dict) or not isinstance(row.get("engine"), str):
            raise DarsrError(str(path), f"is not a bench report: row {index} names no engine", _HINT)
    return found


def bench_section(bench: dict) -> Markup:
    """Draw charts of latency, quality, memory and power, a table of all rows, and why some could not run."""
    rows = bench["rows"]
    ran = [row for row in rows if _value(row, "median_ms") is not None]
    parts = [element("h2", "Speed"), element("p", _machine_line(bench["machine"]), class_="remark")]
    shapes = list(dict.fromkeys(_shape(row) for row in ran))
    for shape in shapes:
        of_shape = [row for row in ran if _shape(row) == shape]
        parts.append(element("div", joined(*_charts(of_shape, shape)), class_="cards"))
    failed = [row for row in rows if _value(row, "median_ms") is None]
    if failed:
        items = [element("li", element("b", _name(row)), ": ", row.get("reason") or "no figure") for row in failed]
        parts += [element("h3", "Could not run here"), element("ul", joined(*items), class_="reasons")]
    if rows:
        parts.append(element("details", element("summary", "All figures"), _table(rows)))
    if bench["machine"]:
        listed = [element("dt", name) + element("dd", value) for name, value in _flat(bench["machine"])]
        machine = element("dl", Markup("".join(listed)), class_="facts")
        parts.append(element("details", element("summary", "The machine"), machine))
    return element("section", joined(*parts), id="bench", class_="bench")


def _charts(rows: list[dict], shape: str) -> list[Markup]:
    cards = []
    marks = (("p90", "p90_ms"), ("p99", "p99_ms"))
    latency = [
        Bar(
            _name(row),
            row["median_ms"],
            f"{row['median_ms']:.3g} ms",
            tuple((name, row[key]) for name, key in marks if _value(row, key) is not None),
            note=f"n = {row['n']}" if isinstance(row.get("n"), int) else "",
        )
        for row in sorted(rows, key=lambda row: row["median_ms"])
    ]
    size = f", {shape}" if shape else ""
    cards.append(_card(f"Latency{size}", "median; marks at p90 and p99; less is better", latency))
    for key, unit, title, remark in (
        ("e2e_median_ms", "ms", "End to end", "median from an encoded picture to an encoded picture; less is better"),
        ("psnr_vs_torch_db", "dB", "Distance from PyTorch", "PSNR of that very engine; more is closer"),
        ("psnr_y_truth_db", "dB", "Against the truth", "Y-PSNR; more is better"),
        ("peak_memory_mb", "MB", "Peak memory", "less is better"),
        ("power_w", "W", "Power", "less is better"),
    ):
        values = [(_name(row), v) for row in rows if (v := _value(row, key)) is not None]
        equal = _EQUAL_DB if key == "psnr_vs_torch_db" else math.inf
        items = [Bar(name, v, "equal" if v >= equal else f"{v:.4g} {unit}") for name, v in values]
        if items:
            cards.append(_card(title, remark, items))
    return cards


def _card(title: str, remark: str, items: list[Bar]) -> Markup:
    return element(
        "figure", element("h3", title), bars(items, title), element("figcaption", remark), class_="card wide"
    )


def _table(rows: list[dict]) -> Markup:
    used = {key: name for key, name in _COLUMNS.items() if any(_value(row, key) is not None for row in rows)}
    head = [element("th", "Engine", scope="col"), element("th", "Shape", scope="col")]
    head += [element("th", name, scope="col") for name in used.values()]
    lines = []
    for row in rows:
        cells = [element("th", _name(row), scope="row"), element("td", _shape(row) or "–")]
        for key in used:
            value = _value(row, key)
            cells.append(element("td", "–" if value is None else f"{value:.4g}", class_="number"))
        lines.append(element("tr", joined(*cells)))
    table = element("table", element("thead", element("tr", joined(*head))), element("tbody", joined(*lines)))
    return element("div", table, class_="scroll", tabindex=0, role="region", aria_label="All figures, scrollable")


def _name(row: dict) -> str:
    provider = row.get("provider")
    short = provider.removesuffix("ExecutionProvider") if isinstance(provider, str) else None
    parts = [row["engine"], short, row.get("precision"), row.get("form")]
    return " · ".join(part for part in parts if isinstance(part, str) and part)


def _shape(row: dict) -> str:
    shape = row.get("shape")
    if isinstance(shape, list):
        return " × ".join(str(side) for side in shape)
    return shape if isinstance(shape, str) else ""


def _value(row: dict, key: str) -> float | None:
    value = row.get(key)
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
    return value if good else None


def _machine_line(machine: dict) -> str:
    gpus = machine.get("gpus")
    names = [gpu.get("name") for gpu in gpus if isinstance(gpu, dict)] if isinstance(gpus, list) else []
    words = [
        value
        for value in (machine.get("board"), machine.get("cpu"), *names, machine.get("os"))
        if isinstance(value, str)
    ]
    return f"Measured on {', '.join(words)}." if words else "Measured on one machine; see its facts below."


def _flat(facts: dict, before: str = "") -> list[tuple[str, str]]:
    rows = []
    for key, value in facts.items():
        name = f"{before}{key}"
        if isinstance(value, dict):
            rows += _flat(value, f"{name}.")
        elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
            rows += _flat({str(i): item for i, item in enumerate(value)}, f"{name}.")
        elif isinstance(value, list):
            rows.append((name, ", ".join(str(item) for item in value)))
        elif value is not None:
            rows.append((name, str(value)))
    return rows
