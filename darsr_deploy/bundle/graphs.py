"""The graphs of a runtime bundle by name, and the order in which they run an adapter, whatever runtime computes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

STAGES = 2  # channel attentions of the correction network, each with an average over the whole image


@dataclass(frozen=True)
class Graph:
    """What a graph takes and gives, beside the arrays of an adapter that are bound to it.

    Attributes:
        pictures: inputs that are fed, with their channels: ``sr`` of the large image, others of the small one.
        output: its only output.
        pooled: how many averages it takes, named ``pooled0``, ``pooled1``.
    """

    pictures: Mapping[str, int]
    output: str
    pooled: int = 0

    @property
    def feeds(self) -> tuple[str, ...]:
        """Return the names of all inputs that change from run to run."""
        return (*self.pictures, *(f"pooled{stage}" for stage in range(self.pooled)))


GRAPHS = {
    "backbone": Graph({"lr": 3}, "sr"),
    "backprojection": Graph({"sr": 3, "lr": 3}, "better"),
    "correction": Graph({"lr": 3}, "corrected"),
    "correction_tile": Graph({"lr": 3}, "corrected", pooled=STAGES),
    "filter": Graph({"lr": 3}, "corrected"),
    **{f"stats{stage}": Graph({"lr": 3, "core": 1}, "sum", pooled=stage) for stage in range(STAGES)},
}
TILE_GRAPHS = ("correction_tile", *(f"stats{stage}" for stage in range(STAGES)))
_WHOLE = {"network": ("correction",), "global": ("filter",), "none": ()}
_TILE = {**_WHOLE, "network": ("correction_tile",)}


@dataclass(frozen=True)
class Step:
    """One graph's turn: buffers by the names of its inputs, and the buffer that its output goes to."""

    graph: str
    inputs: Mapping[str, str]
    output: str
    to: str


def step(graph: str, to: str = "", **inputs: str) -> Step:
    """Return the turn of a graph; buffers are named as its inputs and output where nothing else is given."""
    own = GRAPHS[graph]
    return Step(graph, {name: inputs.get(name, name) for name in own.feeds}, own.output, to or own.output)


def correction_steps(kind: str, tile: bool = False) -> list[Step]:
    """Return the steps from the buffer ``lr`` to ``corrected``; none for the kind ``none``."""
    return [step(graph) for graph in (_TILE if tile else _WHOLE)[kind]]


def all_steps(kind: str, rounds: int, tile: bool = False) -> list[Step]:
    """Return the steps of an adapter: its correction, the backbone, the rounds of back-projection.

    Args:
        kind: of the correction: ``network``, ``global`` or ``none``.
        tile: the averages of the whole image are fed, as ``pooled0`` and ``pooled1``.
    """
    steps = correction_steps(kind, tile)
    steps.append(step("backbone", lr=steps[-1].to if steps else "lr"))
    return [*steps, *_rounds(rounds)]


def _rounds(count: int) -> Iterator[Step]:
    before = "sr"
    for _ in range(count):
        after = "better" if before == "sr" else "sr"  # two buffers, written in turn
        yield step("backprojection", to=after, sr=before)
        before = after
