"""The process that runs one row of a bench: one engine, nothing else in its memory, told when to run.

Every row has a process of its own, so that its peak memory is its own, its start is cold, and an engine that crashes takes
no other row with it. All processes stay alive and take turns (see :mod:`.run`): one that waits does nothing.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ..engines.base import Engine
from ..errors import DarsrError
from ..images.arrays import to_image, to_tensor
from ..machine.energy import Meter
from ..processes import Worker

STAGES = ("decode", "copy_in", "compute", "copy_out", "encode")


@dataclass(frozen=True)
class Row:
    """One way to run the model.

    Attributes:
        engine, provider, precision, form: as ``darsr infer`` names them; precision and form are None for an engine that
            cannot run at all.
        opener: makes the engine; a function of a module, or a partial of one, for another process calls it.
        correction: makes a function of the input tensor that runs the correction alone, to tell it from the network.
        facts: of the model, for the report: ``model_sha256, model_bytes, macs_per_lr_pixel, parity_psnr_db, ...``.
        build_ms: what making the model took, where it was made now.
        one_image: the model takes no batch.
        reason: why it cannot run; then there is no opener.
    """

    engine: str
    provider: str
    precision: str | None
    form: str | None
    opener: Callable[[], Engine] | None = None
    correction: Callable[[], Callable[[np.ndarray], object] | None] | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    build_ms: float | None = None
    one_image: bool = False
    reason: str | None = None

    @property
    def name(self) -> str:
        """Return engine, provider, precision and form in one line."""
        return " ".join(part for part in (self.engine, self.provider, self.precision, self.form) if part)


def serve(pipe: Connection, row: Row, image: np.ndarray, batch: int) -> None:
    """Open the row's engine, run a first frame, then do what the parent asks until it hangs up.

    Args:
        image: uint8 H x W x 3.
        batch: images in a query.
    """
    try:
        run = _Run(row, image, batch)
        pipe.send(("ready", run.cold))
        while True:
            question, *arguments = pipe.recv()
            pipe.send(("answer", getattr(run, question)(*arguments)))
    except (EOFError, BrokenPipeError, ConnectionResetError):  # the parent is gone
        return
    except DarsrError as error:
        pipe.send(("error", error))
    except Exception as error:  # a runtime's own exception: one row's reason, not the end of the bench
        why = str(error).splitlines()[0][:200] if str(error) else ""
        pipe.send(("error", DarsrError("engine", f"failed ({type(error).__name__}: {why})", "try it with darsr infer")))


class _Run:
    """The engine and what is asked of it. Times are milliseconds of the wall clock, of one query each."""

    def __init__(self, row: Row, image: np.ndarray, batch: int) -> None:
        self.row, self.image, self.batch = row, image, batch
        self.base_mb = peak_memory_mb()
        started = time.perf_counter()
        assert row.opener is not None  # rows that cannot run have no process
        self.engine = row.opener()
        opened = time.perf_counter()
        self.lr = to_tensor(image)
        self.first = self.engine.run(self.lr)
        done = time.perf_counter()
        self.png = cv2.imencode(".png", np.ascontiguousarray(image[:, :, ::-1]))[1]
        self.together = np.ascontiguousarray(np.repeat(self.lr, 1 if row.one_image else batch, axis=0))
        self.cold = {
            "provider": self.engine.provider,
            "scale": self.engine.spec.scale,
            "load": 1e3 * (opened - started),
            "first_frame": 1e3 * (done - opened),
        }

    def output(self) -> np.ndarray:
        """Return the first frame, float32 1 x 3 x sH x sW."""
        return self.first

    def memory(self) -> dict:
        """Return ``peak_memory_mb`` and ``base_memory_mb`` of this process."""
        return {"peak_memory_mb": peak_memory_mb(), "base_memory_mb": self.base_mb}

    def warm(self, seconds: float) -> float:
        """Warm up; return the milliseconds of the last query."""
        return time_calls(self._query, seconds, 1)[-1]

    def compute(self, seconds: float, least: int, settle: bool) -> tuple[list[float], list[float]]:
        """Time queries through the engine alone, tensors in and out: wall clock, and CPU time of all threads.

        Args:
            settle: the first after the pause does not count: other rows had the caches.
        """
        if settle:
            self._query()
        own: list[float] = []

        def query() -> None:
            started = time.process_time()
            self._query()
            own.append(1e3 * (time.process_time() - started))

        return time_calls(query, seconds, least), own

    def end_to_end(self, seconds: float, least: int) -> list[dict[str, float]]:
        """Time each stage of queries from PNG bytes to PNG bytes, in memory."""
        stages: list[dict[str, float]] = []
        time_calls(lambda: stages.append(self._whole()), seconds, least)
        return stages

    def correction_share(self, seconds: float, least: int) -> float | None:
        """Return the correction's share of the compute time; both are run in turn."""
        if self.row.correction is None:
            return None
        correct = self.row.correction()
        if correct is None:
            return None
        correct(self.lr)
        alone: list[float] = []
        whole: list[float] = []

        def both() -> None:
            alone.append(time_call(lambda: correct(self.lr)))
            whole.append(time_call(lambda: self.engine.run(self.lr)))

        time_calls(both, seconds, least)
        return min(1.0, float(np.median(alone) / np.median(whole)))

    def _query(self) -> None:
        for _ in range(self.batch // len(self.together)):
            self.engine.run(self.together)

    def _whole(self) -> dict[str, float]:
        times = [time.perf_counter()]
        images = [np.asarray(cv2.imdecode(self.png, cv2.IMREAD_COLOR))[:, :, ::-1] for _ in range(self.batch)]
        times.append(time.perf_counter())
        tensors = np.concatenate([to_tensor(image) for image in images])
        times.append(time.perf_counter())
        step = len(self.together)
        results = [self.engine.run(tensors[i : i + step]) for i in range(0, self.batch, step)]
        times.append(time.perf_counter())
        # a bench counts values that are not finite; other commands refuse them
        pictures = [to_image(np.nan_to_num(one[None], copy=False)) for result in results for one in result]
        times.append(time.perf_counter())
        for picture in pictures:
            cv2.imencode(".png", np.ascontiguousarray(picture[:, :, ::-1]))
        times.append(time.perf_counter())
        return {stage: 1e3 * (b - a) for stage, a, b in zip(STAGES, times, times[1:])}


def time_calls(run: Callable[[], object], seconds: float, least: int) -> list[float]:
    """Call until both so many seconds have passed and at least so many calls are done; return the milliseconds of each."""
    samples: list[float] = []
    started = time.perf_counter()
    while len(samples) < least or time.perf_counter() - started < seconds:
        samples.append(time_call(run))
    return samples


def time_call(run: Callable[[], object]) -> float:
    """Return the milliseconds of one call."""
    started = time.perf_counter()
    run()
    return 1e3 * (time.perf_counter() - started)


def peak_memory_mb(status: Path = Path("/proc/self/status")) -> float | None:
    """Return the peak resident memory of this process: Linux's ``VmHWM``, which starts anew with a program.

    (``getrusage`` hands the parent's peak on to a child.)
    """
    try:
        found = re.search(r"^VmHWM:\s+(\d+) kB", status.read_text(), re.M)
    except OSError:
        return None
    return int(found[1]) / 1024 if found else None


@dataclass
class Measured:
    """What one row's process told."""

    row: Row
    worker: Worker = field(init=False)  # this, the output and the meter from when the row's process is started
    cold: dict = field(default_factory=dict)
    output: np.ndarray = field(init=False)
    slow: bool = False  # one query fills more than a turn
    blocks: list[list[float]] = field(default_factory=list)  # ms of the queries of each block
    queries: int = 0  # that took energy, those that did not count included
    cpu_ms: list[float] = field(default_factory=list)  # the processor's time of these queries, all threads together
    stages: list[dict[str, float]] = field(default_factory=list)
    memory: dict = field(default_factory=dict)
    device_mb: float | None = None
    correction_share: float | None = None
    meter: Meter = field(init=False)
    failure: str | None = None
