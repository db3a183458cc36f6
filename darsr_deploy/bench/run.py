"""Every row of a bench measured in turn, so that a machine that drifts or has other work hits all rows alike."""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timezone

import numpy as np

from ..errors import DarsrError
from ..machine import facts as machine
from ..machine import gpu as nvml
from ..machine.energy import Meter
from ..processes import Worker
from .probe import start_probe
from .rows import finish_row
from .worker import Measured, Row, serve

SCHEMA_VERSION = 1
SAMPLES_PER_QUERY = {"single-stream": 1, "multi-stream": 8, "offline": 8}
_ROUNDS = 20
_SHORTEST_BLOCK_S = 0.1
_PATIENCE_S = 2.0  # that an engine has to free what it holds


@dataclass(frozen=True)
class Setting:
    """How long and how each row is measured.

    A scenario is MLPerf's: ``single-stream`` sends one sample after the other and is judged by the 90th percentile of its
    latency, ``multi-stream`` sends queries of 8 samples (99th percentile of a query's latency), ``offline`` has all samples
    at once and counts samples a second; they go through in batches of 8.
    """

    scenario: str = "single-stream"
    seconds: float = 3.0  # of counted queries a row, at least
    iterations: int = 10  # counted queries a row, at least
    warm_up: float = 0.2  # seconds a row before anything counts
    threads: int = 0  # of the processor; 0 leaves it to each runtime
    seed: int = 0  # of the order of the rows in each round

    def __post_init__(self) -> None:
        if self.scenario not in SAMPLES_PER_QUERY:
            raise ValueError(f"scenario is {self.scenario}; expected one of {', '.join(SAMPLES_PER_QUERY)}")
        if self.seconds < 0 or self.warm_up < 0 or self.iterations < 1 or self.threads < 0:
            raise ValueError("seconds and warm-up are at least 0, iterations at least 1")

    @property
    def rounds(self) -> int:
        """Return the blocks a row: 20 of a twentieth of the time each, fewer where they would be too short."""
        return max(1, min(_ROUNDS, max(self.iterations, int(self.seconds / _SHORTEST_BLOCK_S))))


def measure(
    rows: list[Row],
    image: np.ndarray,
    setting: Setting,
    references: dict[str, np.ndarray] | None = None,
    truth: np.ndarray | None = None,
    *,
    why_no_reference: str = "PyTorch is not installed",
    report: Callable[[dict], None] = lambda _: None,
) -> dict:
    """Measure all rows on one image.

    Args:
        image: uint8 H x W x 3, sides of at least 3.
        references: what PyTorch makes of the image in float32, by form: float32 1 x 3 x sH x sW.
        truth: the true HR image, uint8 sH x sW x 3.
        report: told ``{phase, step, steps}`` for a progress bar.

    Returns:
        The report; ``bench_schema.json`` describes it.
    """
    batch = SAMPLES_PER_QUERY[setting.scenario]
    threads = setting.threads or machine.usable_cores()
    began, facts, before = datetime.now(timezone.utc), machine.facts(), machine.state()
    measured = [Measured(row, failure=row.reason) for row in rows]
    peaks: list[tuple[float, float]] = []
    with contextlib.ExitStack() as stack:
        probe = start_probe(threads)
        stack.callback(probe.stop, _PATIENCE_S)
        for index, one in enumerate(measured):
            report({"phase": "open", "step": index, "steps": len(measured), "passing": True})
            if one.row.opener is not None:
                _open(one, image, batch, setting, stack)
        report({"phase": "open", "step": len(measured), "steps": len(measured), "passing": True})
        order = random.Random(setting.seed)
        for index in range(setting.rounds):
            report({"phase": "measure", "step": index, "steps": setting.rounds})
            peaks.append(probe.ask("probe"))
            turn = [one for one in measured if one.failure is None and not (one.slow and index % 2)]
            order.shuffle(turn)
            for one in turn:
                with _failure_noted(one):
                    _take_turn(one, setting)
        for one in measured:
            if one.failure is None:
                with _failure_noted(one):
                    one.memory = one.worker.ask("memory")
                    one.correction_share = one.worker.ask("correction_share", setting.seconds / 6, 3)
    after = machine.state()
    roof = {"gflops": max(p[0] for p in peaks), "gbytes_per_s": max(p[1] for p in peaks)}
    size = f"{batch}x3x{image.shape[0]}x{image.shape[1]}"
    context = {"shape": size, "batch": batch, "scenario": setting.scenario, "roof": roof, "image": image}
    context |= {"references": references or {}, "why_no_reference": why_no_reference, "truth": truth}
    return {
        "schema_version": SCHEMA_VERSION,
        "started": began.isoformat(timespec="seconds"),
        "setting": asdict(setting) | {"samples_per_query": batch, "rounds": setting.rounds},
        "machine": facts
        | {"start": before, "end": after, "throttled": machine.throttled_between(before, after)}
        | {
            "probe": roof
            | {"threads": threads, "precision": "fp32", "gflops_by_round": [round(p[0], 2) for p in peaks]}
        },
        "rows": [finish_row(one, context) for one in measured],
    }


def _open(one: Measured, image: np.ndarray, batch: int, setting: Setting, stack: contextlib.ExitStack) -> None:
    """Start the row's process, run its first frame and warm it up."""
    on_gpu = one.row.provider != "cpu"
    used = nvml.memory_used_mb() if on_gpu else None
    with _failure_noted(one):
        one.worker = Worker(serve, one.row, image, batch)
        stack.callback(one.worker.stop, _PATIENCE_S)
        one.cold = one.worker.ask()
        one.output = one.worker.ask("output")
        took = one.worker.ask("warm", setting.warm_up)
        one.slow = setting.seconds > 0 and took > 2e3 * setting.seconds / setting.rounds
        one.meter = Meter(on_gpu)
        if used is not None:  # processes start one after the other, so the difference is this one's
            one.device_mb = max(0.0, (nvml.memory_used_mb() or used) - used)


def _take_turn(one: Measured, setting: Setting) -> None:
    """Measure one block of each kind. Slow rows have every second turn, so that no row takes much longer than it has to."""
    seconds, turns = setting.seconds / setting.rounds, math.ceil(setting.rounds / (2 if one.slow else 1))
    least = math.ceil(setting.iterations / turns)
    one.meter.start()
    try:
        wall, own = one.worker.ask("compute", seconds, least, not one.slow)
    finally:
        one.meter.stop()
    one.blocks.append(wall)
    one.cpu_ms += own
    one.queries += len(wall) + (not one.slow)
    one.stages += one.worker.ask("end_to_end", seconds / 3, least)


@contextlib.contextmanager
def _failure_noted(one: Measured) -> Iterator[None]:
    """Note why a row fails; the others go on."""
    try:
        yield
    except DarsrError as error:
        one.failure = str(error)
