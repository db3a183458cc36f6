"""One thread that computes, behind a queue: a closed connection takes a request out of it, or ends its work between tiles."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

_LOOKS = 0.25  # seconds between two looks at whether somebody still waits


class Gone(Exception):
    """Nobody waits for the result any more."""


class Late(Exception):
    """The result took longer than anybody should wait."""


class Ticket:
    """One request for work; the work asks it whether to go on."""

    def __init__(self) -> None:
        self._over = threading.Event()

    def end(self) -> None:
        """Let the work end when it next asks."""
        self._over.set()

    def check(self) -> None:
        """Go on, or raise :class:`Gone`."""
        if self._over.is_set():
            raise Gone


class Worker:
    """Runs one function at a time."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "darsr-page")
        self._tickets: set[Ticket] = set()

    async def run(
        self, work: Callable[[Ticket], Any], seconds: float, is_gone: Callable[[], Awaitable[bool]] | None = None
    ) -> Any:
        """Queue the work and return its result.

        Args:
            seconds: to wait at most, those in the queue included.
            is_gone: tells whether the one who asked has left.

        Raises:
            Gone: who asked has left.
            Late: it took too long. Work that never asks its ticket goes on to its end all the same.
        """
        ticket, latest = Ticket(), time.monotonic() + seconds
        self._tickets.add(ticket)
        result = asyncio.wrap_future(self._pool.submit(self._begin, work, ticket))
        result.add_done_callback(lambda done: done.cancelled() or done.exception())  # seen, should nobody wait for it
        try:
            while not (await asyncio.wait([result], timeout=_LOOKS))[0]:
                if is_gone is not None and await is_gone():
                    raise Gone
                if time.monotonic() > latest:
                    raise Late
            return result.result()
        finally:
            ticket.end()
            self._tickets.discard(ticket)
            result.cancel()  # out of the queue, if it is still there

    def close(self) -> None:
        """End all work, the one that runs when it next asks, and wait for that."""
        for ticket in list(self._tickets):
            ticket.end()
        self._pool.shutdown(cancel_futures=True)

    @staticmethod
    def _begin(work: Callable[[Ticket], Any], ticket: Ticket) -> Any:
        ticket.check()
        return work(ticket)
