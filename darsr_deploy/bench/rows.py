"""What was measured, as the rows of a report: figures, or null and the reason."""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING, Any

import numpy as np

from ..images.arrays import to_image
from ..images.metrics import psnr, psnr_y
from .stats import STEADY_CV, percentile, summary, upper_bound
from .worker import STAGES

if TYPE_CHECKING:
    from .worker import Measured

FIGURES = [
    *("n", "min_ms", "mean_ms", "median_ms", "p90_ms", "p95_ms", "p99_ms", "max_ms", "cv_percent"),
    *("cpu_median_ms", "e2e_n", "e2e_median_ms", "e2e_p90_ms", "frames_per_second", "e2e_frames_per_second"),
    *("output_megapixels_per_second", "peak_memory_mb", "base_memory_mb", "peak_device_memory_mb", "power_w"),
    *("energy_per_frame_j", "psnr_vs_torch_db", "psnr_y_truth_db", "not_finite"),
]
FACTS = [
    *("model_sha256", "model_bytes", "macs_per_lr_pixel", "operator_bytes_per_lr_pixel"),
    *("parity_psnr_db", "psnr_from_network_db"),
]
_NESTED = ("stages_ms", "cold_start_ms", "roofline", "judged", "blocks_ms")
_JUDGED = {"single-stream": 90, "multi-stream": 99}
_EQUAL_DB = 200.0  # stands for infinity, which JSON has not


def finish_row(one: Measured, context: dict) -> dict:
    """Return one row of the report.

    Args:
        context: ``shape, batch, scenario, roof, image, references, why_no_reference, truth`` of the whole bench.
    """
    named = {"engine": one.row.engine, "provider": one.row.provider, "precision": one.row.precision}
    result: dict = {**named, "form": one.row.form, "shape": context["shape"], "scenario": context["scenario"]}
    result |= dict.fromkeys([*FIGURES, *FACTS, *_NESTED]) | one.row.facts
    if one.failure is not None:
        return result | {"warnings": [], "reasons": {}, "reason": one.failure}
    reasons: dict[str, str] = {}
    samples = [ms for block in one.blocks for ms in block]
    result |= summary(samples) | _speed(one, samples, context) | _stages(one, reasons)
    result |= _memory_and_energy(one, context["batch"], reasons) | _quality(one, context, reasons)
    result["judged"] = _judge(samples, result, context["scenario"], reasons)
    result["roofline"] = _roofline(result, one.cold["scale"], context, reasons)
    result["provider_name"] = one.cold["provider"]
    result["cold_start_ms"] = {"build": one.row.build_ms, "load": one.cold["load"]}
    result["cold_start_ms"]["first_frame"] = one.cold["first_frame"]
    if one.row.build_ms is None:
        reasons["cold_start_ms.build"] = "nothing had to be built" if one.row.engine == "torch" else "was built before"
    for name in FACTS:
        if result[name] is None:
            reasons.setdefault(name, "not known of this model")
    reasons = {name: why for name, why in reasons.items() if why}
    result["blocks_ms"] = [[round(ms, 4) for ms in block] for block in one.blocks]
    result |= {"warnings": _warnings(result), "reasons": reasons}
    return _round(result) | {"reason": "; ".join(f"{name}: {why}" for name, why in reasons.items()) or None}


def _speed(one: Measured, samples: list[float], context: dict) -> dict:
    height, width = context["image"].shape[:2]
    scale, batch = one.cold["scale"], context["batch"]
    whole = [sum(stages.values()) for stages in one.stages]
    frames = 1e3 * batch / statistics.fmean(samples)
    return {
        "cpu_median_ms": percentile(one.cpu_ms, 50),
        "e2e_n": len(whole),
        "e2e_median_ms": percentile(whole, 50),
        "e2e_p90_ms": percentile(whole, 90),
        "frames_per_second": frames,
        "e2e_frames_per_second": 1e3 * batch / statistics.fmean(whole),
        "output_megapixels_per_second": frames * scale**2 * height * width / 1e6,
    }


def _stages(one: Measured, reasons: dict[str, str]) -> dict:
    """Return medians of the stages; the engine's own time is split into correction (``filter``) and ``network``."""
    median = {stage: percentile([query[stage] for query in one.stages], 50) for stage in STAGES}
    share = one.correction_share
    if one.row.form == "none":
        share, reasons["stages_ms.filter"] = 0.0, ""
    if share is None:
        reasons["stages_ms.filter"] = reasons["stages_ms.network"] = "the engine runs both as one"
    split = {
        "filter": None if share is None else share * median["compute"],
        "network": None if share is None else (1 - share) * median["compute"],
    }
    order = ("decode", "copy_in", "filter", "network", "copy_out", "encode")
    return {"stages_ms": {stage: (median | split)[stage] for stage in order} | {"compute": median["compute"]}}


def _memory_and_energy(one: Measured, batch: int, reasons: dict[str, str]) -> dict:
    if one.memory["peak_memory_mb"] is None:
        reasons["peak_memory_mb"] = reasons["base_memory_mb"] = "this system does not tell a process's peak"
    if one.device_mb is None:
        on_cpu = one.row.provider == "cpu"
        reasons["peak_device_memory_mb"] = "runs on the processor" if on_cpu else "NVML does not tell"
    watts = one.meter.watts
    if watts is None:
        reasons["power_w"] = reasons["energy_per_frame_j"] = one.meter.reason
    energy = None if watts is None else one.meter.joules / (batch * one.queries)
    figures = {"peak_device_memory_mb": one.device_mb, "power_w": watts, "energy_per_frame_j": energy}
    return one.memory | figures | {"power_source": one.meter.source}


def _quality(one: Measured, context: dict, reasons: dict[str, str]) -> dict:
    output, scale = one.output, one.cold["scale"]
    finite = np.isfinite(output)
    figures: dict[str, float] = {"not_finite": int(output.size - finite.sum())}
    shown = np.where(finite, output, 0.0)
    reference = context["references"].get(one.row.form)
    if reference is not None:
        figures["psnr_vs_torch_db"] = min(psnr(shown, reference, peak=1.0), _EQUAL_DB)
    else:
        reasons["psnr_vs_torch_db"] = context["why_no_reference"]
    if context["truth"] is not None:
        figures["psnr_y_truth_db"] = min(psnr_y(to_image(shown), context["truth"], scale), _EQUAL_DB)
    else:
        reasons["psnr_y_truth_db"] = "no truth was given (--gt)"
    return figures


def _judge(samples: list[float], result: dict, scenario: str, reasons: dict[str, str]) -> dict:
    """Return the scenario's own figure: a percentile with its upper bound (99 % sure), or samples a second."""
    if scenario == "offline":
        return {"name": "frames_per_second", "value": result["frames_per_second"], "bound": None}
    percent = _JUDGED[scenario]
    bound = upper_bound(samples, percent)
    if bound is None:
        least = math.ceil(math.log(0.01) / math.log(percent / 100))
        reasons["judged.bound"] = f"a bound of the {percent}th percentile needs {least} queries"
    return {"name": f"p{percent}_ms", "value": percentile(samples, percent), "bound": bound}


def _roofline(result: dict, scale: int, context: dict, reasons: dict[str, str]) -> dict | None:
    """Return the least time by the measured roofs, and the share of it that was reached.

    A query must do the model's multiply-adds, and read input and weights and write the output once, whatever is fused:
    ``least_ms`` is the larger of both times. ``unfused_ms`` is the time that the traffic of operators run one by one takes.
    """
    if result["provider"] != "cpu":
        reasons["roofline"] = "the probe measures the processor alone"
        return None
    macs = result["macs_per_lr_pixel"]
    if macs is None:
        reasons["roofline"] = "the model's multiply-adds are not known"
        return None
    height, width = context["image"].shape[:2]
    pixels, batch = height * width, context["batch"]
    flops = 2.0 * macs * pixels * batch
    moved = 4 * 3 * pixels * (1 + scale**2) * batch + (result["model_bytes"] or 0)
    roof = context["roof"]
    least = max(flops / roof["gflops"], moved / roof["gbytes_per_s"]) / 1e6
    operators = result["operator_bytes_per_lr_pixel"]
    return {
        "gflop": flops / 1e9,
        "gbytes": moved / 1e9,
        "least_ms": least,
        "reached": least / result["median_ms"],
        "gflops": flops / result["median_ms"] / 1e6,
        "unfused_ms": None if operators is None else operators * pixels * batch / roof["gbytes_per_s"] / 1e6,
    }


def _warnings(result: dict) -> list[str]:
    found = []
    if result["cv_percent"] > STEADY_CV:
        found.append(f"the times vary by more than {STEADY_CV} % (cv)")
    if result["n"] < 100:
        found.append("of fewer than 100 queries (n) the 99th percentile is the largest")
    if result["not_finite"]:
        found.append(f"{result['not_finite']} values of the output are not finite")
    return found


def _round(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _round(item) for key, item in value.items()}
    return value
