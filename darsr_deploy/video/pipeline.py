"""Read, work and write at once, in order and with bounded memory."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
_END = object()
_POLL_SECONDS = 0.1  # between two looks at whether another stage has stopped


class _Stopped(Exception):
    """Another stage has failed or was interrupted."""


class _Lane:
    """A bounded queue between two stages, which both leave as soon as anything has stopped."""

    def __init__(self, depth: int, stopped: threading.Event) -> None:
        self._items: queue.Queue = queue.Queue(depth)
        self._stopped = stopped

    def put(self, item: object) -> None:
        while not self._stopped.is_set():
            try:
                return self._items.put(item, timeout=_POLL_SECONDS)
            except queue.Full:
                continue
        raise _Stopped

    def get(self) -> Any:
        while not self._stopped.is_set():
            try:
                return self._items.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                continue
        raise _Stopped


def pipelined(
    read: Iterable[Item], work: Callable[[Item], Result], write: Callable[[Result], None], depth: int = 4
) -> None:
    """Run ``for item in read: write(work(item))``, with reading and writing in threads of their own.

    ``work`` is called in the calling thread, where Ctrl-C arrives. At most ``depth`` items wait before and behind it.
    When it returns or raises, both threads have ended.

    Raises:
        The first error of any of the three; KeyboardInterrupt.
    """
    stopped, errors = threading.Event(), []
    before, behind = _Lane(depth, stopped), _Lane(depth, stopped)

    def guarded(stage: Callable[[], None]) -> None:
        try:
            stage()
        except _Stopped:
            return
        except BaseException as error:  # handed to the calling thread, which raises it
            errors.append(error)
            stopped.set()

    def reader() -> None:
        for item in read:
            before.put(item)
        before.put(_END)

    def writer() -> None:
        while (item := behind.get()) is not _END:
            write(item)

    threads = [threading.Thread(target=guarded, args=(stage,), daemon=True) for stage in (reader, writer)]
    for thread in threads:
        thread.start()
    try:
        while (item := before.get()) is not _END:
            behind.put(work(item))
        behind.put(_END)
        threads[1].join()
    except _Stopped:
        pass
    finally:
        stopped.set()
        for thread in threads:
            thread.join()
    if errors:
        raise errors[0]
