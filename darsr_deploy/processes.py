"""Processes started anew (``spawn``): the same work on many items, or one that is asked for one thing at a time."""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

from .errors import DarsrError

Item = TypeVar("Item")
Report = Callable[[dict], None]
_PATIENCE = 10.0  # seconds that a stopped process has for removing its temporary files


class Worker:
    """A process and the pipe to it. Ctrl-C never reaches it: its parent stops it.

    Args:
        serve: a function of a module, or a partial of one: ``serve(pipe, *arguments)`` runs in the process, and sends pairs
            ``(kind, content)``; ``("error", DarsrError)`` for what it cannot do.
    """

    def __init__(self, serve: Callable[..., None], *arguments: object) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_start, args=(serve, theirs, *arguments), daemon=True)
        with _interrupts_held():
            self.process.start()
        theirs.close()  # so that the pipe ends when the process does

    def send(self, message: object) -> None:
        """Send something; where the process has died, the next ``receive`` says so."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.pipe.send(message)

    def receive(self) -> tuple[str, Any]:
        """Return the next pair; ``("dead", how it ended)`` where there is none any more."""
        try:
            return self.pipe.recv()
        except (EOFError, ConnectionResetError):
            self.process.join(_PATIENCE)
            code = self.process.exitcode
            if code is not None and code < 0:
                return "dead", f"signal {signal.Signals(-code).name}"
            return "dead", f"exit code {code}"

    def ask(self, *question: object) -> Any:
        """Send a question and return the answer to it; without a question, what the process says of its own accord.

        Raises:
            DarsrError: the one that it answered, or it died.
        """
        if question:
            self.send(question)
        kind, content = self.receive()
        if kind == "dead":
            raise DarsrError("engine", f"its process ended with {content}", "try it with darsr infer")
        if kind == "error":
            raise content
        return content

    def stop(self, patience: float = 0.0) -> None:
        """End the process.

        Args:
            patience: seconds that it may take to end by itself when it sees that the pipe is closed.
        """
        self.pipe.close()
        if patience:
            self.process.join(patience)
        self.process.terminate()
        self.process.join(_PATIENCE)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


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
    workers: dict[Worker, int] = {}  # and the item that each has

    def give(worker: Worker) -> None:
        workers[worker], item = waiting.pop()
        worker.send(item)

    try:
        while waiting or workers:
            while waiting and len(workers) < processes:
                give(Worker(functools.partial(serve_items, work, threads)))
            ready = wait([worker.pipe for worker in workers])
            for worker in [one for one in workers if one.pipe in ready]:
                kind, content = worker.receive()
                if kind == "report":
                    report(content)
                    continue
                if kind == "bug":
                    raise RuntimeError(content)
                if kind == "dead":
                    why = f"the process that worked on it ended with {content}, perhaps for want of memory"
                    content = DarsrError(str(items[workers[worker]]), why, "use fewer --jobs")
                yield workers[worker], content
                if kind == "dead" or not waiting:
                    del workers[worker]
                    worker.stop()
                else:
                    give(worker)
    finally:
        for worker in workers:
            worker.stop()


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Keep Ctrl-C, which reaches every process of a terminal, from a process started in here: its parent stops it."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows, where a process can only ignore it once it runs
        yield
        return
    resource_tracker.ensure_running()  # which starting a process would do, and let Ctrl-C through again
    held = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)


def _start(serve: Callable[..., None], pipe: Connection, *arguments: object) -> None:
    """Run in a process, until it is stopped or its parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # see _interrupts_held
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # an exception, so that what is half-written is removed
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the parent is gone
        serve(pipe, *arguments)


def _end_with_parent() -> None:
    """Stop this process when its parent is gone, which may have been killed while there is work to do here."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)


def serve_items(work: Callable[[Item, Report], object], threads: int, pipe: Connection) -> None:
    """Do the work for each item that comes through the pipe, and send back what it reports and what it returns."""
    os.environ.update(OMP_NUM_THREADS=str(threads))  # for PyTorch where the work imports it
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
    while True:
        item = pipe.recv()
        try:
            answer = ("done", work(item, lambda entry: pipe.send(("report", entry))))
        except DarsrError as error:
            answer = ("done", error)
        except Exception:
            answer = ("bug", traceback.format_exc())
        pipe.send(answer)
