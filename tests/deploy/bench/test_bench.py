"""``darsr bench``: rows are measured in turn, fail alone, and every figure is there or explained."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import jsonschema
import numpy as np
import pytest

import darsr_deploy
from darsr_deploy.bench.run import Setting, measure
from darsr_deploy.bench.tables import as_csv, markdown, text, verdict
from darsr_deploy.bench.worker import Row
from darsr_deploy.images.arrays import to_tensor, write_image
from darsr_deploy.images.synthetic import natural_noise
from export.artefacts.cache import resolve_model
from export.artefacts.subject import Source, Subject
from tests.support import bench_engines
from tests.support.commands import darsr, done, refused, strict_json

SCHEMA = json.loads((Path(darsr_deploy.__file__).parent / "bench" / "bench_schema.json").read_text())
BRIEF = ("--seconds", "0", "--iterations", "2", "--warm-up", "0", "--threads", "1")
PIXELS = (natural_noise(12, 16)[0].transpose(1, 2, 0) * 255).astype(np.uint8)


def checked(report: dict) -> dict:
    """Valid against the published schema, and no figure of a row that ran is missing without a reason."""
    jsonschema.validate(report, SCHEMA, jsonschema.Draft202012Validator)
    for row in report["rows"]:
        if row["n"] is None:
            assert row["reason"]
            continue
        missing = {key for key, value in row.items() if value is None} - {"power_source", "reason"}
        missing |= {f"stages_ms.{k}" for k, v in row["stages_ms"].items() if v is None}
        missing |= {f"cold_start_ms.{k}" for k, v in row["cold_start_ms"].items() if v is None}
        assert missing <= row["reasons"].keys()
        assert all(f"{name}: " in row["reason"] for name in row["reasons"])
    return report


@pytest.fixture(scope="module")
def report() -> dict:
    """Five engines of known behaviour."""
    delayed = partial(bench_engines.Nearest, 20.0, 64)
    rows = [
        Row("ort", "cpu", "fp32", "network", delayed, partial(bench_engines.part_of_it, 4.0), one_image=True),
        Row("ort", "cpu", "fp16", "none", partial(bench_engines.Nearest, not_finite=5)),
        Row("trt", "cuda", "fp32", "none", bench_engines.refuses),
        Row("trt", "cuda", "int8", "none", bench_engines.breaks),
        Row("trt-rtx", "cuda", "fp32", "none", bench_engines.Dies),
        Row("torch", "cuda", None, None, reason="there is none"),
    ]
    tensor = to_tensor(PIXELS).repeat(2, axis=2).repeat(2, axis=3)
    truth = PIXELS.repeat(2, axis=0).repeat(2, axis=1)
    setting = Setting(seconds=0.2, iterations=4, warm_up=0.01, threads=1)
    return measure(rows, PIXELS, setting, {"network": tensor, "none": tensor}, truth)


def test_a_report_fits_the_published_schema(report):
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    checked(report)
    broken = json.loads(json.dumps(report))
    broken["rows"][0]["median_ms"] = "fast"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, SCHEMA)


def test_times_are_those_of_the_engine(report):
    slow, quick = report["rows"][:2]
    assert 20 <= slow["min_ms"] <= slow["median_ms"] and 20 <= slow["e2e_median_ms"] <= slow["e2e_p90_ms"]
    assert quick["median_ms"] < slow["median_ms"]
    assert slow["n"] >= 4 and sum(map(len, slow["blocks_ms"])) == slow["n"]
    assert len(quick["blocks_ms"]) == report["setting"]["rounds"] == 4
    assert slow["frames_per_second"] == pytest.approx(1e3 / slow["mean_ms"], rel=1e-3)
    pixels = slow["frames_per_second"] * 4 * 12 * 16 / 1e6
    assert slow["output_megapixels_per_second"] == pytest.approx(pixels, rel=1e-3)
    assert slow["judged"]["name"] == "p90_ms" and slow["judged"]["value"] == slow["p90_ms"]


def test_a_slow_row_has_every_second_turn():
    rows = [
        Row("ort", "cpu", p, "network", partial(bench_engines.Nearest, ms)) for p, ms in (("fp32", 60.0), ("fp16", 0))
    ]
    report = measure(rows, PIXELS, Setting(seconds=0.1, iterations=4, warm_up=0, threads=1))
    slow, quick = report["rows"]
    assert [len(block) for block in slow["blocks_ms"]] == [2, 2] and len(quick["blocks_ms"]) >= 2
    assert slow["cpu_median_ms"] < 0.5 * slow["median_ms"]  # it sleeps


def test_the_correction_is_told_from_the_network(report):
    slow, quick = (row["stages_ms"] for row in report["rows"][:2])
    assert slow["filter"] + slow["network"] == pytest.approx(slow["compute"], rel=1e-3)
    assert 0.02 < slow["filter"] / slow["compute"] < 0.9  # 4 of 20 ms, on a machine that may be busy
    assert quick["filter"] == 0  # form none has no correction


def test_memory_is_that_of_the_row(report):
    slow, quick = report["rows"][:2]
    grown = [row["peak_memory_mb"] - row["base_memory_mb"] for row in (slow, quick)]
    assert 50 < grown[0] - grown[1] < 90  # one holds 64 MB more


def test_quality_is_that_of_the_engine(report):
    slow, quick = report["rows"][:2]
    assert slow["psnr_vs_torch_db"] == slow["psnr_y_truth_db"] == 200 and slow["not_finite"] == 0
    assert quick["not_finite"] == 5 and quick["psnr_vs_torch_db"] < 60
    assert "5 values of the output are not finite" in quick["warnings"]


def test_an_engine_that_fails_is_a_row_with_a_reason(report):
    why = [row["reason"] for row in report["rows"][2:]]
    assert why[0] == "engine: is not made for this; take another"
    assert "ZeroDivisionError: of a runtime" in why[1]
    assert "its process ended with signal SIGKILL" in why[2]
    assert why[3] == "there is none"
    assert all(row["n"] is None for row in report["rows"][2:])


def test_the_report_as_text_markdown_and_csv(report):
    shown, bars = text(report, verbose=True), markdown(report)
    for words in ("ort     cpu       fp32", "trt cuda fp32 none did not run: engine: is not made", "not finite"):
        assert words in shown
    assert "no power_w, energy_per_frame_j: " in shown or "power_w" not in shown
    table = [line for line in bars.splitlines() if line.startswith("|")]
    assert len(table) == 4 and len({line.count("|") for line in table}) == 1
    rows = list(csv.DictReader(io.StringIO(as_csv(report))))
    assert len(rows) == 6 and float(rows[0]["stages_ms.compute"]) >= 20 and "blocks_ms" not in rows[0]


def test_rows_that_cannot_run_for_one_reason_are_one_line(report):
    changed = json.loads(json.dumps(report))
    idle = [row for row in changed["rows"] if row["n"] is None]
    for row in idle:
        row["reason"] = "there is no driver"
    (line,) = [line for line in text(changed, verbose=True).splitlines() if "did not run" in line]
    assert line.endswith(" did not run: there is no driver") and line.count(", ") == len(idle) - 1


def test_the_verdict_comes_first_and_reasons_are_counted(report):
    fast = min((row for row in report["rows"] if row["n"]), key=lambda row: row["median_ms"])
    for made in (text, markdown):
        first = made(report).splitlines()[0].strip("*")
        assert first == verdict(report) and first.endswith("; fp16 none is the fastest here")
        assert first.startswith(f"{fast['median_ms']:.3g} ms a picture of 16x12, ")
        assert "4 rows did not run and " in made(report) and " figures could not be had (--verbose says why)" in made(
            report
        )
        assert "of a runtime" not in made(report) and "of a runtime" in made(report, verbose=True)


def test_a_verdict_claims_no_more_than_was_measured(report):
    changed = json.loads(json.dumps(report))
    slow, quick = changed["rows"][:2]
    quick.update(blocks_ms=slow["blocks_ms"], median_ms=slow["median_ms"])
    assert "are too close to tell which is the fastest here" in verdict(changed)
    changed["rows"] = [slow, *changed["rows"][2:]]
    slow["median_ms"], changed["setting"]["samples_per_query"] = 80.0, 8
    assert verdict(changed) == "10.0 ms a picture of 16x12, 100.0 a second; ort cpu fp32 network alone ran here"
    changed["rows"] = changed["rows"][1:]
    assert verdict(changed) == "nothing ran here" and "of a runtime" in text(changed), "the reasons are all there is"


@pytest.mark.parametrize("scenario", ["multi-stream", "offline"])
def test_scenarios_send_eight_samples_a_query(scenario):
    row = Row("ort", "cpu", "fp32", "network", partial(bench_engines.Nearest, 3.0), one_image=True)
    batched = Row("ort", "cpu", "fp16", "network", partial(bench_engines.Nearest, 3.0))
    setting = Setting(scenario, seconds=0, iterations=2, warm_up=0, threads=1)
    report = checked(measure([row, batched], PIXELS, setting))
    alone, together = report["rows"]
    assert alone["shape"] == "8x3x12x16" and alone["min_ms"] >= 24 and together["min_ms"] >= 3
    assert alone["frames_per_second"] == pytest.approx(8e3 / alone["mean_ms"], rel=1e-3)
    assert alone["judged"]["name"] == {"multi-stream": "p99_ms", "offline": "frames_per_second"}[scenario]


@pytest.mark.parametrize("wrong", [{"scenario": "server"}, {"iterations": 0}, {"seconds": -1}])
def test_settings_are_checked(wrong):
    with pytest.raises(ValueError):
        Setting(**wrong)


@pytest.fixture(scope="module")
def _measured(tmp_path_factory):
    return tmp_path_factory.mktemp("measured")


@pytest.fixture
def measured(_measured, built_once, monkeypatch) -> Path:
    """A folder, the working one, with the report of the backbone alone; made once."""
    monkeypatch.chdir(_measured)
    if not Path("report.json").is_file():
        done("bench", "--shape", "24x32", "-o", "report.json", "-o", "report.md", "-o", "report.csv", *BRIEF)
    return _measured


def test_the_default_backbone_on_a_processor(measured):
    report = checked(json.loads(Path("report.json").read_text()))
    rows = {(r["engine"], r["provider"], r["precision"]): r for r in report["rows"]}
    ran = [
        rows["torch", "cpu", "fp32"],
        rows["ort", "cpu", "fp32"],
        rows["ort", "cpu", "fp16"],
        rows["ort", "cpu", "int8"],
    ]
    assert all(row["n"] >= 2 for row in ran)
    assert [row["psnr_vs_torch_db"] > least for row, least in zip(ran, (100, 80, 50, 35))] == [True] * 4
    assert "no bfloat16" in rows["ort", "cpu", "bf16"]["reason"]
    assert {"trt", "trt-rtx"} <= {row["engine"] for row in report["rows"]}
    for row in ran:
        assert row["macs_per_lr_pixel"] == ran[1]["macs_per_lr_pixel"] > 1e5
        assert row["roofline"]["reached"] > 0 and row["peak_memory_mb"] > row["base_memory_mb"] > 0
        assert row["cold_start_ms"]["load"] > 0 and row["cold_start_ms"]["first_frame"] > 0
    assert ran[0]["peak_memory_mb"] > ran[1]["peak_memory_mb"] + 50  # ONNX Runtime's process never imported PyTorch
    machine = report["machine"]
    assert machine["cpu"] and machine["onnxruntime"] and machine["torch"] and machine["start"]["load"] is not None
    assert Path("report.md").read_text().count("\n| ort | cpu |") == 3
    assert len(Path("report.csv").read_text().splitlines()) == len(report["rows"]) + 1


def test_two_reports_are_compared_and_judged(measured):
    same = strict_json(
        done("bench", "--compare", "report.json", "report.json", "--fail-under", "0.99", "--json").stdout
    )
    assert len(same["rows"]) == 4 and {row["verdict"] for row in same["rows"]} == {"no difference"}
    slow = json.loads(Path("report.json").read_text())
    for row in slow["rows"]:
        row["blocks_ms"] = row["blocks_ms"] and [[100 * ms for ms in block] for block in row["blocks_ms"]]
    Path("slow.json").write_text(json.dumps(slow))
    ended = darsr("bench", "--compare", "report.json", "slow.json", "--fail-under", "0.9")
    assert ended.exit_code == 1 and ended.stderr.count("--fail-under 0.9") == 4 and "slower" in ended.stdout
    assert darsr("bench", "--compare", "slow.json", "report.json", "--fail-under", "0.9").exit_code == 0
    assert "| slower |" in done("bench", "--compare", "report.json", "slow.json", "--markdown").stdout


def test_a_model_file_with_its_truth(measured, built_once):
    model = resolve_model(Subject(Source(scale=2)), "fp32")
    write_image(Path("lr.png"), PIXELS)
    write_image(Path("hr.png"), PIXELS.repeat(2, axis=0).repeat(2, axis=1))
    command = ("bench", model, "--provider", "cpu", "--image", "lr.png", "--gt", "hr.png", *BRIEF)
    report = checked(strict_json(done(*command, "--json").stdout))
    (row,) = [row for row in report["rows"] if row["n"]]
    assert row["shape"] == "1x3x12x16" and 10 < row["psnr_y_truth_db"] < 60
    assert row["psnr_vs_torch_db"] is None and "give the adapter" in row["reasons"]["psnr_vs_torch_db"]
    failed = darsr(*command, "--fail-under", "1e6")
    assert failed.exit_code == 1 and "frames a second; asked for with --fail-under 1e+06" in failed.stderr
    refused("bench", model, "--image", "lr.png", "--gt", "lr.png", *BRIEF, name="lr.png")
    for option, other in (("--precision", "int8"), ("--form", "global")):  # a file has its own
        assert f"asked for {other}" in refused("bench", model, option, other, *BRIEF, name=model)


def test_wrong_usage_is_said(measured):
    assert "choose among" in refused("bench", "--engine", "tflite", name="engine tflite")
    assert "160x240" in refused("bench", "--shape", "160", name="--shape 160")
    assert "is not a kind of report" in refused("bench", "-o", "report.xml", name="report.xml")
    assert "exists already" in refused("bench", "-o", "report.json", name="report.json")
    assert darsr("bench", "--json", "--csv").exit_code == 2
    refused("bench", "missing.onnx", name="missing.onnx")


def test_a_model_file_needs_no_pytorch(measured, built_once):
    """As on a device: importing torch or onnx fails."""
    model = resolve_model(Subject(Source(scale=2)), "fp32")
    code = f"""
import sys
sys.modules["torch"] = sys.modules["onnx"] = None
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name in ("torch", "onnx") else find(name, *rest)
if __name__ == "__main__":
    import cli
    cli.app({["bench", str(model), "--shape", "8x8", "--json", *BRIEF]!r})
"""
    Path("device.py").write_text(code)
    environment = {"PYTHONPATH": str(Path(darsr_deploy.__file__).parent.parent), "DARSR_CACHE": "cache"}
    ended = subprocess.run([sys.executable, "device.py"], capture_output=True, text=True, env=environment)
    assert ended.returncode == 0, ended.stderr
    row = next(row for row in checked(json.loads(ended.stdout))["rows"] if row["n"])
    assert row["psnr_vs_torch_db"] is None and row["operator_bytes_per_lr_pixel"] is None
