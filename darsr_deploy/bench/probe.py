"""What the processor reaches at most: a short matrix product and a copy on every core.

It stands for the roof of the roofline model (Williams et al., 2009), and it is run once a round, so that two reports can
tell a machine that became slower from a model that did.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection

import numpy as np

from ..processes import Worker

_SIDE = 640  # of the square float32 matrices: some megabytes, 10 ms a core at 50 GFLOP/s
_COPY_MB = 64  # all cores together, read and written: more than most caches
_REPEATS = 3
_THREADS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


def start_probe(threads: int) -> Worker:
    """Start the process; ``ask("probe")`` gives ``(GFLOP/s, GB/s)``, the best of three tries each."""
    with _one_thread_each():
        probe = Worker(serve, threads)
    probe.ask()
    return probe


def serve(pipe: Connection, threads: int) -> None:
    """Run both pieces of work when asked; the process of :func:`start_probe`."""
    random = np.random.default_rng(0)
    factors = [random.standard_normal((2, _SIDE, _SIDE)).astype(np.float32) for _ in range(threads)]
    products = [np.empty((_SIDE, _SIDE), np.float32) for _ in range(threads)]
    sources = [np.ones(_COPY_MB * 2**20 // threads // 4, np.float32) for _ in range(threads)]
    targets = [np.ones_like(source) for source in sources]
    with ThreadPoolExecutor(threads) as pool:

        def best(work: Callable[[int], object], amount: float) -> float:
            rates = []
            for _ in range(_REPEATS):
                started = time.perf_counter()
                list(pool.map(work, range(threads)))
                rates.append(amount / (time.perf_counter() - started))
            return max(rates) / 1e9

        def multiply(i: int) -> None:
            np.matmul(factors[i][0], factors[i][1], out=products[i])

        def copy(i: int) -> None:
            np.copyto(targets[i], sources[i])

        pipe.send(("ready", None))
        moved = 2 * sum(source.nbytes for source in sources)
        while pipe.recv():
            pipe.send(("answer", (best(multiply, 2 * threads * _SIDE**3), best(copy, moved))))


@contextlib.contextmanager
def _one_thread_each() -> Iterator[None]:
    """Let each matrix product use one core: the libraries behind numpy read that when they are loaded."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
