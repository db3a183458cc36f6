"""What the experiments share: options, alternating runs (so that a busy or drifting machine does not decide), tables."""

from __future__ import annotations

import argparse
import os
import re
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from onnx import ModelProto
from torch import Tensor, nn

from darsr_deploy.engines.ort import import_onnxruntime
from darsr_deploy.errors import DarsrError
from darsr_train.pipeline import Pipeline

from ..onnx_graphs.build import build_model
from ..onnx_graphs.opset import OPSET
from ..onnx_graphs.quantize import quiet
from ..onnx_graphs.rewrites import slopes_as_convolutions

onnxruntime = import_onnxruntime()


def parser(doc: str, **defaults: object) -> argparse.ArgumentParser:
    """Return a parser with some of the options that experiments share, and ``--json`` where its default is False.

    Args:
        doc: the experiment's docstring, whose first line describes it.
        defaults: of the options ``size``, ``sizes``, ``scale``, ``threads``, ``repeats``, ``blocks``, ``limit``,
            ``backbone``, ``json``; a list takes several values.
    """
    kinds = {
        "size": {"type": _size, "metavar": "WIDTHxHEIGHT", "help": "of the LR image"},
        "sizes": {"type": _size, "metavar": "WIDTHxHEIGHT", "help": "of the image"},
        "scale": {"type": int, "choices": (2, 4)},
        "threads": {"type": _count, "help": "of the runtimes; with several, a table for each"},
        "repeats": {"type": _count, "help": "runs that count, after a warm-up"},
        "blocks": {"type": _count, "help": "of the default network"},
        "limit": {"type": _count, "help": "images of each set"},
        "backbone": {"help": "a name or a file"},
        "json": {"action": "store_true", "help": "JSON instead of tables"},
    }
    made = argparse.ArgumentParser(
        description=doc.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    for name, default in defaults.items():
        several = {"nargs": "+"} if isinstance(default, list) else {}
        made.add_argument(f"--{name}", default=default, **kinds[name], **several)
    return made


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number of at least 1")
    return int(text)


def _size(text: str) -> tuple[int, int]:
    """Return width and height."""
    found = re.fullmatch(r"(\d+)x(\d+)", text)
    if not found or min(map(int, found.groups())) < 3:
        raise argparse.ArgumentTypeError(f"{text} is not WIDTHxHEIGHT, at least 3x3")
    return int(found[1]), int(found[2])


def run(main: Callable[[], None]) -> None:
    """Run an experiment; what cannot be done is one line."""
    try:
        main()
    except DarsrError as error:
        sys.exit(f"error: {error}")


@dataclass(frozen=True)
class Setting:
    """The settings that all tables share."""

    height: int = 160  # of the LR image, in pixels
    width: int = 240
    scale: int = 2
    threads: int = 1  # of both runtimes
    repeats: int = 7  # runs that count; one before them warms up
    blocks: tuple[int, ...] = (13, 10)  # of the default network, 32 channels each: now, and as first shipped

    def image(self, channels: int = 3, scale: int = 1) -> Tensor:
        """Return 1 x channels x height x width of random values, ``scale`` times as large."""
        return torch.rand(1, channels, scale * self.height, scale * self.width)


def in_torch(module: nn.Module, x: Tensor) -> Callable[[], object]:
    """Return a call of a module without gradients."""

    @torch.inference_mode()
    def run() -> Tensor:
        return module(x)

    return run


def as_onnx(module: nn.Module, x: Tensor) -> ModelProto:
    """Export a module for one size of input, with nothing folded."""
    with quiet("torch.onnx"):
        return torch.onnx.export(module.eval(), (x,), dynamo=True, opset_version=OPSET, verbose=False).model_proto


def exported(pipeline: Pipeline) -> ModelProto:
    """Return what ``darsr export`` writes in fp32."""
    return slopes_as_convolutions(build_model(pipeline.eval()))


def ort_session(
    model: ModelProto, threads: int, level: str = "ALL", spinning: bool = True
) -> onnxruntime.InferenceSession:
    """Open a session on the CPU with the given number of threads and level of graph optimization."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, f"ORT_ENABLE_{level}")
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def in_ort(
    model: nn.Module | ModelProto, x: Tensor, threads: int, level: str = "ALL", spinning: bool = True
) -> Callable[[], object]:
    """Return a call of a model, or of a module after :func:`as_onnx`, in ONNX Runtime on the CPU."""
    if isinstance(model, nn.Module):
        model = as_onnx(model, x)
    session = ort_session(model, threads, level, spinning)
    feed = {model.graph.input[0].name: x.numpy()}
    return lambda: session.run(None, feed)[0]


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one call: wall clock (median, least, most), and the median of the processor's own time.

    On a busy machine the wall clock includes waiting, the processor's time does not; on one thread and an idle machine
    both are equal.
    """

    median_ms: float
    least_ms: float
    most_ms: float
    cpu_ms: float


def alternate(ways: dict[str, Callable[[], object]], repeats: int, warm_up: int = 1) -> dict[str, Timing]:
    """Call every way in turn, ``warm_up + repeats`` times; the first ones do not count."""
    wall: dict[str, list[float]] = {name: [] for name in ways}
    own: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(warm_up + repeats):
        for name, run in ways.items():
            started, started_own = time.perf_counter(), time.process_time()
            run()
            own[name].append(1e3 * (time.process_time() - started_own))
            wall[name].append(1e3 * (time.perf_counter() - started))
    return {name: _timing(wall[name][warm_up:], own[name][warm_up:]) for name in ways}


def _timing(wall: list[float], own: list[float]) -> Timing:
    figures = (statistics.median(wall), min(wall), max(wall), statistics.median(own))
    return Timing(*(round(figure, 3) for figure in figures))


def compared(timings: dict[str, Timing], base: str) -> list[dict]:
    """Return rows ``{name, median_ms, least_ms, most_ms, cpu_ms, times_faster, times_faster_cpu}``, compared with one."""
    one = timings[base]
    return [
        {
            "name": name,
            **asdict(timing),
            "times_faster": round(one.median_ms / timing.median_ms, 3),
            "times_faster_cpu": round(one.cpu_ms / timing.cpu_ms, 3) if timing.cpu_ms else None,
        }
        for name, timing in timings.items()
    ]


def machine(threads: int) -> dict:
    """Describe what the figures belong to: processor, cores, threads, load, versions."""
    names = [
        line.partition(":")[2].strip()
        for line in (Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else [])
        if line.startswith("model name")
    ]
    return {
        "processor": names[0] if names else "unknown",
        "vector_unit": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": threads,
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "torch": torch.__version__,
        "onnxruntime": onnxruntime.__version__,
    }


def markdown(title: str, base: str, rows: list[dict]) -> str:
    """Return the rows as a table."""
    lines = [
        f"| {title} | ms, median | min to max | processor ms | times faster than {base} | by processor time |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = (
            row["name"],
            f"{row['median_ms']:.1f}",
            f"{row['least_ms']:.1f} to {row['most_ms']:.1f}",
            f"{row['cpu_ms']:.1f}",
            f"{row['times_faster']:.2f}",
            "-" if row["times_faster_cpu"] is None else f"{row['times_faster_cpu']:.2f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def heading(facts: dict) -> str:
    """Return the facts that stand above a table, on one line."""
    return ", ".join(f"{name} {value}" for name, value in facts.items()) + "\n"
