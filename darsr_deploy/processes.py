"""The same work on many items in several processes: progress comes back, a process that dies costs its item alone."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

from .errors import DarsrError

Item = TypeVar("Item")
Report = Callable[[dict], None]
_PATIENCE = 10.0  # seconds that a stopped process has for removing its temporary files


def each_in_processes(
    items: list[Item], work: Callable[[Item, Report], object], processes: int, threads: int, report: Report
) -> Iterator[tuple[int, object]]:
    """Do the work for every item in fresh processes (``spawn``); results come as they are finished.

    However the loop over the results ends (Ctrl-C, an exception, ``close``), no process is left behind.

    Args:
        items: picklable; ``str(item)`` names one in an error.
        work: a function of a module, for it is imported by the processes; what it returns is picklable.
        threads: of PyTorch in each process.
        report: gets what the work reports.

    Yields:
        ``(index of the item, result)``; the result is a :class:`DarsrError` where one was raised or a process died.

    Raises:
        RuntimeError: the work raised anything else; the message is its traceback.
    """
    waiting = list(enumerate(items))[::-1]
    workers: list[_Worker[Item]] = []
    try:
        while waiting or workers:
            while waiting and len(workers) < processes:
                workers.append(_Worker(work, threads))
                workers[-1].give(*waiting.pop())
            ready = wait([worker.pipe for worker in workers])
            for worker in [w for w in workers if w.pipe in ready]:
                kind, content = worker.receive()
                if kind == "report":
                    report(content)
                    continue
                if kind == "bug":
                    raise RuntimeError(content)
                yield worker.index, content
                if kind == "dead" or not waiting:
                    workers.remove(worker)
                    worker.stop()
                else:
                    worker.give(*waiting.pop())
    finally:
        for worker in workers:
            worker.stop()


class _Worker(Generic[Item]):
    """One process and the pipe to it."""

    def __init__(self, work: Callable[[Item, Report], object], threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, work, threads), daemon=True)
        with _interrupts_held():
            self.process.start()
        theirs.close()  # so that the pipe ends when the process does
        self.index, self.name = -1, ""

    def give(self, index: int, item: Item) -> None:
        self.index, self.name = index, str(item)
        with contextlib.suppress(BrokenPipeError):  # it died before its first item: receive() says so
            self.pipe.send(item)

    def receive(self) -> tuple[str, Any]:
        """``(report | done | dead | bug, content)``."""
        try:
            return self.pipe.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            why = f"the process that worked on it ended with code {self.process.exitcode}, perhaps for want of memory"
            return "dead", DarsrError(self.name, why, "use fewer --jobs")

    def stop(self) -> None:
        self.process.terminate()
        self.process.join(_PATIENCE)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.pipe.close()


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Ctrl-C reaches every process of a terminal. A process started in here never sees it: it is stopped by its parent."""
    resource_tracker.ensure_running()  # which starting a process would do, and let Ctrl-C through again
    held = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)


def _serve(pipe: Connection, work: Callable[[Item, Report], object], threads: int) -> None:
    """What a process does until it is stopped or its parent is gone."""
    import torch

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # an exception, so that what is half-written is removed
    torch.set_num_threads(threads)
    with contextlib.suppress(EOFError, BrokenPipeError):  # the parent is gone
        while True:
            item = pipe.recv()
            try:
                answer = ("done", work(item, lambda entry: pipe.send(("report", entry))))
            except DarsrError as error:
                answer = ("done", error)
            except Exception:
                answer = ("bug", traceback.format_exc())
            pipe.send(answer)


class Worker:
    """The parent's side: starts the process and asks it for one thing at a time.

    Raises:
        DarsrError: from every call, where the engine failed or its process died.
    """

    def __init__(self, serve: Callable[..., None], *arguments: object) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, *arguments), daemon=True)
        self.process.start()
        theirs.close()

    def ask(self, *question: object) -> Any:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it has died: receive says how
            self.pipe.send(question)
        return self.receive()

    def receive(self) -> Any:
        try:
            kind, answer = self.pipe.recv()
        except (EOFError, ConnectionResetError) as error:
            self.process.join(10)
            code = self.process.exitcode
            how = f"signal {signal.Signals(-code).name}" if code is not None and code < 0 else f"exit code {code}"
            raise DarsrError("engine", f"its process ended with {how}", "try it with darsr infer") from error
        if kind == "error":
            raise answer
        return answer

    def stop(self) -> None:
        self.pipe.close()  # the process ends when it sees that
        self.process.join(2)
        if self.process.is_alive():
            self.process.terminate()
            self.process.join(10)
