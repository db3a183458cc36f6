"""Work on many items by the workers of a cluster: whoever is free takes the next, and a death costs an item a retry."""

from __future__ import annotations

import contextlib
import importlib.metadata
import logging
import os
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Generic

from ..errors import DarsrError
from ..processes import Item, Report
from .worker import ClusterWorker, Demands, pack, variables_to_pass_on

MOST_DEATHS = 3  # of workers on one item, which is then given up
_TICK = 1.0  # seconds between looks at the cluster while nothing happens
_RECHECK = 5.0  # seconds between two looks for room for more workers
_BACKOFF = 10.0  # seconds before the next try where a worker did not start
_SILENCE = 30.0  # seconds without any worker before that is said
_PATIENCE = 15.0  # seconds for workers to stop what they do
log = logging.getLogger("darsr")


class Unexpected(DarsrError):
    """A bug, which costs its item and not the run.

    Attributes:
        traceback: of the worker's process.
    """

    def __init__(self, item: object, traceback: str) -> None:
        last = traceback.strip().splitlines()[-1]
        super().__init__(str(item), f"failed unexpectedly ({last})", "please report it; the manifest has the traceback")
        self.traceback = traceback


@dataclass
class _Job(Generic[Item]):
    index: int
    item: Item
    deaths: list[str] = field(default_factory=list)
    nodes: set[str] = field(default_factory=set)  # where workers died on it


@dataclass(eq=False)
class _Hand(Generic[Item]):
    """A worker as this side sees it: it has no node until it has started, and no job while it is idle."""

    actor: Any
    node: str = ""
    job: _Job[Item] | None = None


class Pool(Generic[Item]):
    """The workers of one command on a cluster.

    Args:
        ray: the module, connected.
        work: a function of a module, which all nodes have; what it returns is picklable.

    Attributes:
        most: workers that there were at a time.
    """

    def __init__(self, ray: Any, work: Callable[[Item, Report], object], demands: Demands) -> None:
        self._ray, self._demands = ray, demands
        self._version = importlib.metadata.version("darsr")
        paths = [os.path.abspath(path) for path in sys.path]
        self._arguments = (pack(work), demands.cpus, os.getcwd(), variables_to_pass_on(), paths)
        # Neither Ray's restarts nor its retries: deaths are counted here, and one costs its item alone.
        options: dict[str, Any] = {"num_cpus": demands.cpus, "num_gpus": demands.gpus}
        options |= {"max_restarts": 0, "max_task_retries": 0, "scheduling_strategy": "SPREAD"}
        self._actor = ray.remote(ClusterWorker).options(
            **options, max_concurrency=2
        )  # two: it is stopped while it works
        self._fresh: Iterator[tuple[int, Item]] = iter(())
        self._left = 0  # of them
        self._retries: list[_Job[Item]] = []
        self._pending: dict[Any, _Hand[Item]] = {}  # by what each was asked
        self._idle: list[_Hand[Item]] = []
        self._refused: list[_Hand[Item]] = []  # they keep their places, where others would fare no better
        self._next_hire, self._failed_starts = 0.0, 0
        self._seen = time.monotonic()  # when there last was a worker
        self.most = 0

    def each(
        self, items: Iterable[Item], count: int, again: Callable[[Item], Item]
    ) -> Generator[tuple[int, object], None, None]:
        """Do the work for every item, each worker one at a time; however the loop ends, no worker is left behind.

        Args:
            items: each is taken when its work begins.
            count: of them.
            again: makes of an item one whose outputs may be there already, for another try.

        Yields:
            ``(index of the item, result)`` as they are finished; a :class:`DarsrError` is a result too.

        Raises:
            DarsrError: no worker can be had.
        """
        self._fresh, self._left = iter(enumerate(items)), count
        try:
            while self._left or self._retries or any(hand.job for hand in self._pending.values()):
                self._hire()
                for hand in [*self._idle]:
                    self._give(hand)
                if not self._pending:
                    time.sleep(_TICK)
                    continue
                for answer in self._ray.wait([*self._pending], timeout=_TICK)[0]:
                    yield from self._settle(answer, again)
        finally:
            self._stop()

    def _hands(self) -> list[_Hand[Item]]:
        return [*self._pending.values(), *self._idle]

    def _started(self) -> int:
        return sum(bool(hand.node) for hand in self._hands())

    def _hire(self) -> None:
        """Start workers where there is room and something for them to do."""
        now, hands, started = time.monotonic(), self._hands(), self._started()
        self.most = max(self.most, started)
        if started:
            self._seen = now
        elif now - self._seen > _SILENCE:
            self._seen = now
            asked = (self._demands.cpus, self._demands.gpus)
            log.info("waiting for the cluster: no node has %d CPUs and %d GPUs free", *asked)
        if now < self._next_hire:
            return
        self._next_hire = now + _RECHECK
        room = (self._demands.workers or max(1, self._capacity())) - len(hands) - len(self._refused)
        wanted = self._left + len(self._retries) - sum(hand.job is None for hand in hands)
        for _ in range(min(room, wanted)):
            hand: _Hand[Item] = _Hand(self._actor.remote(*self._arguments))
            self._pending[hand.actor.start.remote(self._version)] = hand

    def _capacity(self) -> int:
        """Return how many workers the nodes have room for, were there no others."""
        asked = {"CPU": self._demands.cpus, "GPU": self._demands.gpus}
        alive = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        return sum(min(int(node.get(name, 0) // n) for name, n in asked.items() if n) for node in alive)

    def _give(self, hand: _Hand[Item]) -> None:
        """Give a worker its next job: a retry of what did not die on its node, else a new one; it is idle where there is none."""
        self._idle = [one for one in self._idle if one is not hand]
        hand.job = next((job for job in self._retries if hand.node not in job.nodes), None)
        if hand.job is None and self._left:
            self._left -= 1
            hand.job = _Job(*next(self._fresh))
        if hand.job is None:  # a retry may stay on its node if there is no other
            nodes = {one.node for one in self._hands()} - {""}
            hand.job = next((job for job in self._retries if nodes <= job.nodes), None)
        self._retries = [job for job in self._retries if job is not hand.job]
        if hand.job is None:
            self._idle.append(hand)
        else:
            self._pending[hand.actor.run.remote(pack(hand.job.item))] = hand

    def _settle(self, answer: Any, again: Callable[[Item], Item]) -> Generator[tuple[int, object], None, None]:
        """Take a worker's answer, and give it something else to do."""
        hand = self._pending.pop(answer)
        job, hand.job = hand.job, None
        try:
            content = self._ray.get(answer)
        except self._ray.exceptions.RayError as error:  # the actor, or its node, is gone
            why = str(error).strip().splitlines()[-1]
            with contextlib.suppress(self._ray.exceptions.RayError):
                self._ray.kill(hand.actor)  # it may only have been out of reach
            self._next_hire = 0.0
            if job is None:
                self._count_failed_start(why)
            else:
                yield from self._retry(job, hand.node, "the actor or its node is gone", again)
            return
        if job is None:
            self._welcome(hand, *content)
            return
        kind, result = content
        if kind == "dead":
            yield from self._retry(job, hand.node, str(result), again)
        else:
            yield job.index, Unexpected(job.item, result) if kind == "bug" else result
        self._give(hand)

    def _welcome(self, hand: _Hand[Item], node: str, problem: DarsrError | None) -> None:
        if problem is None:
            self._failed_starts, hand.node = 0, node
            self._give(hand)
            return
        self._refused.append(hand)
        if not self._hands():
            raise problem
        log.info("left out: %s", problem)

    def _count_failed_start(self, why: str) -> None:
        self._failed_starts += 1
        self._next_hire = time.monotonic() + _BACKOFF
        if self._failed_starts >= MOST_DEATHS and not self._started():
            hint = f"install darsr {self._version} on every node"
            raise DarsrError("the cluster", f"starts no worker ({why})", hint)

    def _retry(
        self, job: _Job[Item], node: str, why: str, again: Callable[[Item], Item]
    ) -> Generator[tuple[int, object], None, None]:
        """Put a job on which a worker died back into the queue; yield its error where that was one death too many."""
        job.deaths.append(why)
        job.nodes.add(node)
        job.item = again(job.item)
        if len(job.deaths) < MOST_DEATHS:
            log.info("%s: its worker died (%s); it is tried again", job.item, why)
            self._retries.append(job)
            return
        told = f"{len(job.deaths)} workers died on it ({'; '.join(dict.fromkeys(job.deaths))})"
        hint = "look at the picture; for want of memory let fewer work at a time (--jobs)"
        yield job.index, DarsrError(str(job.item), told, hint)

    def _stop(self) -> None:
        """Let the workers remove what is half-written, and end them."""
        everyone = [*self._hands(), *self._refused]
        stops = [hand.actor.stop.remote() for hand in everyone if hand.node]
        with contextlib.suppress(self._ray.exceptions.RayError):
            self._ray.wait(stops, num_returns=len(stops), timeout=_PATIENCE) if stops else None
        for hand in everyone:
            with contextlib.suppress(self._ray.exceptions.RayError):
                self._ray.kill(hand.actor)
