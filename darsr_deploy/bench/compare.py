"""Two bench reports compared: by how much each row became faster or slower, and how certain that is.

Single latencies on a machine with other work are neither normal nor independent: slow stretches last many frames. So the
unit is a block: a twentieth of a row's time, between blocks of all other rows. From the medians of its blocks follows, by
ranks alone, an interval for the row's median; the interval of a ratio is the worst case of both ends. Its confidence is
chosen so that all rows together are right with 95 %. What no interval within a run can see, a machine that is slower on
another day, is measured with work that does not change (the probe's matrix product, once a round), and widens every interval.
"""

from __future__ import annotations

import statistics
from pathlib import Path

from ..errors import DarsrError
from ..files.kinds import another_kind
from ..files.schema import parse_json
from .stats import median_interval, percentile

CONFIDENCE = 0.95  # of all rows together
_KEYS = ("engine", "provider", "precision", "form", "shape", "scenario")


def read(path: Path) -> dict:
    """Read a report that ``darsr bench`` wrote.

    Raises:
        DarsrError: it cannot be read, or is something else.
    """
    try:
        report = parse_json(path.read_bytes())
        complete = report["schema_version"] == 1 and all("blocks_ms" in row for row in report["rows"])
        complete = complete and "gflops_by_round" in report["machine"]["probe"]
    except OSError as error:
        raise DarsrError(str(path), f"cannot be read ({error.strerror})", "check the name") from error
    except (ValueError, KeyError, TypeError) as error:
        raise another_kind(path, "report") or DarsrError(
            str(path), "is not a bench report", "make one with darsr bench -o report.json"
        ) from error
    if not complete:
        raise DarsrError(str(path), "is a bench report of another version", "make it again with darsr bench")
    return report


def compare(old: dict, new: dict) -> dict:
    """Compare the rows that both reports measured.

    Returns:
        ``{confidence, drift, same_machine, rows: [{name, ..., old_ms, new_ms, speed, speed_low, speed_high, verdict,
        same_model}], only_old, only_new}``. ``speed`` is the old median by the new one: over 1 is faster; ``verdict`` is
        ``faster``, ``slower`` or ``no difference`` (1 is inside the interval). ``drift`` is the ratio of the probe's speeds.

    Raises:
        DarsrError: no row is in both.
    """
    olds, news = ({_key(row): row for row in report["rows"] if row["blocks_ms"]} for report in (old, new))
    both = [key for key in olds if key in news]
    if not both:
        raise DarsrError("--compare", "no row was measured in both reports", "bench the same engines on the same shape")
    each = 1 - (1 - CONFIDENCE) / (2 * len(both))  # two intervals a row; errors add at most (Bonferroni)
    drift = _measure_drift(old, new)
    rows = [_compare_rows(olds[key], news[key], each, drift) for key in both]
    return {
        "confidence": CONFIDENCE,
        "drift": drift,
        "same_machine": all(
            old["machine"][k] == new["machine"][k] for k in ("cpu", "cores_usable", "gpus", "power_mode")
        ),
        "rows": rows,
        "only_old": [_name(row) for key, row in olds.items() if key not in news],
        "only_new": [_name(row) for key, row in news.items() if key not in olds],
    }


def text(result: dict, bars: bool = False) -> str:
    """Format a comparison as a table, aligned or as Markdown."""
    head = [
        "row",
        "old ms",
        "new ms",
        "speed, new by old",
        f"{100 * result['confidence']:.0f} % of all rows",
        "verdict",
    ]
    body = [
        [
            row["name"],
            f"{row['old_ms']:.4g}",
            f"{row['new_ms']:.4g}",
            f"{row['speed']:.3f}",
            f"{row['speed_low']:.3f} to {row['speed_high']:.3f}",
            row["verdict"] + ("" if row["same_model"] else " (another model)"),
        ]
        for row in result["rows"]
    ]
    if bars:
        lines = [f"| {' | '.join(cells)} |" for cells in [head, ["---"] * len(head), *body]]
    else:
        widths = [max(len(row[i]) for row in [head, *body]) for i in range(len(head))]
        lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths)).rstrip() for row in [head, *body]]
    notes = [f"The machine itself ran at {result['drift']:.3f} of its old speed (probe); the intervals allow for that."]
    notes += [] if result["same_machine"] else ["The reports are of different machines."]
    notes += [
        f"Only in {which}: {', '.join(result[f'only_{which}'])}" for which in ("old", "new") if result[f"only_{which}"]
    ]
    return "\n".join([*lines, "", *notes])


def _compare_rows(old: dict, new: dict, confidence: float, drift: float) -> dict:
    (old_low, old_high), (new_low, new_high) = (_interval(row, confidence) for row in (old, new))
    low, high = (old_low / new_high) * min(drift, 1 / drift), (old_high / new_low) * max(drift, 1 / drift)
    medians = [percentile([ms for block in row["blocks_ms"] for ms in block], 50) for row in (old, new)]
    verdict = "faster" if low > 1 else "slower" if high < 1 else "no difference"
    return {
        "name": _name(new),
        **dict(zip(_KEYS, _key(new))),
        "old_ms": medians[0],
        "new_ms": medians[1],
        "speed": medians[0] / medians[1],
        "speed_low": low,
        "speed_high": high,
        "verdict": verdict,
        "same_model": old["model_sha256"] == new["model_sha256"],
    }


def _interval(row: dict, confidence: float) -> tuple[float, float]:
    low, high, _ = median_interval([statistics.median(block) for block in row["blocks_ms"]], confidence)
    return low, high


def _measure_drift(old: dict, new: dict) -> float:
    """Return the ratio of the probe's speeds, new by old: its work is always the same."""
    speeds = [statistics.median(report["machine"]["probe"]["gflops_by_round"]) for report in (old, new)]
    return speeds[1] / speeds[0]


def _key(row: dict) -> tuple:
    return tuple(row[key] for key in _KEYS)


def _name(row: dict) -> str:
    return " ".join(row[key] for key in ("engine", "provider", "precision", "form") if row[key])
