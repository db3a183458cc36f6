"""Images in tiles: every tile is computed with its surroundings, whose result is thrown away."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

LEAST_TILE = 16  # LR pixels; below it a tile is all surroundings
MOST_TILE = 1024
_SHARE = 0.5  # of the free memory
_BUDGET = 1 << 30  # bytes for one tile, however much is free: larger ones are not faster
# What a runtime takes beyond the values that are alive at a time: copies in another layout, gaps. Measured at 1.1 to 1.9 with
# ONNX Runtime on CPU, and at 1.6 for large images as a whole (docs/tiles-and-bundles.md).
_OVERHEAD, _WHOLE_OVERHEAD = 2.0, 1.6


@dataclass(frozen=True)
class Span:
    """Rows or columns of a tile: ``start:stop`` are its own, ``first:last`` what is computed."""

    start: int
    stop: int
    first: int
    last: int

    @property
    def outer(self) -> slice:
        """Return the rows or columns of the image."""
        return slice(self.first, self.last)

    def inner(self, scale: int = 1) -> slice:
        """Return its own part of what was computed, at a scale."""
        return slice((self.start - self.first) * scale, (self.stop - self.first) * scale)

    def own(self, scale: int = 1) -> slice:
        """Return its part of the whole result, at a scale."""
        return slice(self.start * scale, self.stop * scale)


def spans(side: int, tile: int, halo: int, alignment: int = 1) -> list[Span]:
    """Cut rows (or columns) into tiles; those of all tiles together are each row once.

    What is computed has the same size for every tile, which is what runtimes and their memory like best: a tile at a border
    takes more of its surroundings on the other side. Only where ``alignment`` does not divide ``side`` may the last be smaller.

    Args:
        side: of the image, in LR pixels.
        tile: a tile's own rows, rounded up to a multiple of ``alignment``.
        halo: rows that are needed around it.
        alignment: what is computed begins at multiples of it.
    """
    tile = -(-tile // alignment) * alignment
    halo = -(-halo // alignment) * alignment
    size = tile + 2 * halo
    if side <= size:
        return [Span(0, side, 0, side)]
    latest = -(-(side - size) // alignment) * alignment
    found = []
    for start in range(0, side, tile):
        first = min(max(0, start - halo), latest)
        found.append(Span(start, min(start + tile, side), first, min(first + size, side)))
    return found


def grid(height: int, width: int, tile: int, halo: int, alignment: int = 1) -> Iterator[tuple[Span, Span]]:
    """Yield the rows and the columns of each tile of an image, row by row."""
    columns = spans(width, tile, halo, alignment)
    for rows in spans(height, tile, halo, alignment):
        for column in columns:
            yield rows, column


def overlap_factor(height: int, width: int, tile: int, halo: int, alignment: int = 1) -> float:
    """Return how many times an image's pixels are computed in tiles with their surroundings; 1 for the whole image."""
    rows, columns = (
        sum(span.last - span.first for span in spans(side, tile, halo, alignment)) for side in (height, width)
    )
    return rows * columns / (height * width)


def automatic_tile(height: int, width: int, halo: int, bytes_per_pixel: int, free: int | None) -> int:
    """Return the side of the tiles for an image, in LR pixels; 0 where the whole image fits.

    Args:
        bytes_per_pixel: values that are alive at a time, per LR pixel.
        free: bytes; None where nobody knows.
    """
    budget = _BUDGET if free is None else min(_BUDGET, int(free * _SHARE))
    pixels = int(budget / (_OVERHEAD * bytes_per_pixel))
    if height * width <= pixels:
        return 0
    return max(LEAST_TILE, min(MOST_TILE, int(pixels**0.5) - 2 * halo) // LEAST_TILE * LEAST_TILE)


def whole_bytes(height: int, width: int, bytes_per_pixel: int) -> int:
    """Return what a runtime takes for an image as a whole, its result included.

    Args:
        bytes_per_pixel: values that are alive at a time, per LR pixel.
    """
    return int(_WHOLE_OVERHEAD * bytes_per_pixel * height * width)
