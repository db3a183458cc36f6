"""Statistics of latencies hold what they promise; comparisons find what is there and nothing else."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from darsr_deploy.bench.compare import compare, read, text
from darsr_deploy.bench.stats import median_interval, percentile, summary, upper_bound
from darsr_deploy.errors import DarsrError

TIMES = st.lists(st.floats(0.01, 1e5), min_size=1, max_size=60)


@given(TIMES, st.sampled_from([50, 90, 95, 99]))
def test_a_percentile_is_a_latency_that_was_seen(samples, percent):
    assert percentile(samples, percent) == np.percentile(samples, percent, method="inverted_cdf")


@given(TIMES)
def test_a_summary_is_ordered(samples):
    s = summary(samples)
    figures = [s[key] for key in ("min_ms", "median_ms", "p90_ms", "p95_ms", "p99_ms", "max_ms")]
    assert figures == sorted(figures) and s["n"] == len(samples)
    assert s["min_ms"] * (1 - 1e-9) <= s["mean_ms"] <= s["max_ms"] * (1 + 1e-9)


def test_the_bound_of_a_percentile_needs_as_many_queries_as_mlperf_says():
    assert [upper_bound(range(n), 90) is not None for n in (43, 44)] == [False, True]
    assert [upper_bound(range(n), 99) is not None for n in (458, 459)] == [False, True]


def test_the_bound_of_a_percentile_holds():
    """Of 400 runs of 200 queries, 1 % may fail: 12 would be far from that."""
    random = np.random.default_rng(0)
    true = np.log(10)  # the 90th percentile of the exponential distribution
    failed = sum(upper_bound(random.exponential(size=200), 90) < true for _ in range(400))
    assert failed <= 12


@pytest.mark.parametrize("n", [6, 20, 51])
def test_the_interval_of_a_median_holds(n):
    random = np.random.default_rng(n)
    intervals = [median_interval(random.exponential(size=n), 0.95) for _ in range(600)]
    held = np.mean([low <= np.log(2) <= high for low, high, _ in intervals])
    assert held >= intervals[0][2] - 0.025 and intervals[0][2] >= 0.95


def test_too_few_values_say_how_certain_they_are():
    assert median_interval([3, 1, 2], 0.99) == (1, 3, 0.75)


def report(seed: int, speed: float = 1.0, drift: float = 1.0, rows: int = 6, noise: float = 0.05) -> dict:
    """A run on a busy machine: slow stretches that last some blocks, single slow frames, and a speed of the day."""
    random = np.random.default_rng(seed)

    def row(index: int) -> dict:
        state, blocks = 0.0, []
        for _ in range(20):
            state = 0.5 * state + noise * random.standard_normal()
            frames = 10 * (1 + index) * np.exp(state + 0.02 * random.standard_normal(4)) / drift
            frames[random.random(4) < 0.1] *= 2
            blocks.append([float(f / (speed if index == 0 else 1)) for f in frames])
        names = {"engine": "ort", "provider": "cpu", "precision": f"p{index}", "form": "none", "shape": "1x3x8x8"}
        return names | {"scenario": "single-stream", "blocks_ms": blocks, "model_sha256": "0"}

    facts = {"cpu": "c", "cores_usable": 2, "gpus": [], "power_mode": None}
    probe = {"gflops_by_round": [float(50 * drift * np.exp(0.03 * x)) for x in random.standard_normal(20)]}
    return {"schema_version": 1, "machine": facts | {"probe": probe}, "rows": [row(i) for i in range(rows)]}


def test_the_same_build_shows_no_difference():
    """40 pairs of runs of 6 rows, slow stretches and a drift between the runs: at most 5 % of the pairs may show one."""
    drifts = np.random.default_rng(1).uniform(0.8, 1.2, 40)
    results = [compare(report(2 * i), report(2 * i + 1, drift=drifts[i])) for i in range(40)]
    wrong = sum(any(row["verdict"] != "no difference" for row in result["rows"]) for result in results)
    assert wrong <= 3
    with_drift = [result["rows"][0]["speed"] for result in results]
    assert np.ptp(with_drift) > 0.3  # there was something to be misled by


def test_a_real_difference_is_found_with_its_size():
    slower, faster = compare(report(1), report(2, speed=0.7)), compare(report(1), report(2, speed=1.5))
    assert [row["verdict"] for row in slower["rows"]] == ["slower"] + 5 * ["no difference"]
    assert [row["verdict"] for row in faster["rows"]] == ["faster"] + 5 * ["no difference"]
    for result, true in ((slower, 0.7), (faster, 1.5)):
        row = result["rows"][0]
        assert row["speed_low"] < row["speed"] < row["speed_high"] and row["speed"] == pytest.approx(true, rel=0.12)


def test_turning_a_comparison_round_inverts_it():
    there, back = compare(report(1), report(2, speed=0.7)), compare(report(2, speed=0.7), report(1))
    for a, b in zip(there["rows"], back["rows"]):
        assert a["speed"] == pytest.approx(1 / b["speed"]) and a["speed_low"] == pytest.approx(1 / b["speed_high"])


def test_rows_of_one_report_alone_and_other_models_are_said():
    old, new = report(1), report(2)
    del new["rows"][1]
    new["rows"][0]["model_sha256"] = "1"
    new["machine"]["cpu"] = "d"
    shown = text(compare(old, new))
    assert "another model" in shown and "Only in old: ort cpu p1 none" in shown and "different machines" in shown


def test_what_cannot_be_compared_is_one_line(tmp_path):
    old, new = report(1, rows=1), report(2, rows=1)
    new["rows"][0]["shape"] = "1x3x9x9"
    with pytest.raises(DarsrError, match="no row was measured in both"):
        compare(old, new)
    with pytest.raises(DarsrError, match="cannot be read"):
        read(tmp_path / "none.json")
    for content in ("{}", "[1]", "nothing"):
        (tmp_path / "x.json").write_text(content)
        with pytest.raises(DarsrError, match="is not a bench report"):
            read(tmp_path / "x.json")
    later = copy.deepcopy(old) | {"schema_version": 9}
    (tmp_path / "x.json").write_text(json.dumps(later))
    with pytest.raises(DarsrError, match="of another version"):
        read(tmp_path / "x.json")
