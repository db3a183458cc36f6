"""Images of any size through an engine, in bounded memory: tile by tile, with the result of the whole image.

Where a model averages over the whole image (the channel attentions of the correction network), each average is collected in
a pass of its own over all tiles, the second with the first known. Then every tile is computed with these.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import cast

import numpy as np

from ..errors import DarsrError, OutOfMemory
from ..images.arrays import to_image, to_tensor
from ..memory import free_memory
from .base import Staged, Tileable
from .tiling import LEAST_TILE, Span, automatic_tile, grid, overlap_factor, whole_bytes

_COSTLY = 1.25  # times the multiply-adds of the tiles that memory allows: more is worth a line
_Take = Callable[[Span, Span], np.ndarray]
_Put = Callable[[Span, Span, np.ndarray], None]


def tile_side(text: str) -> int | None:
    """Parse the side of tiles: ``auto`` (None), 0 for whole images, or LR pixels.

    Raises:
        DarsrError: none of these.
    """
    if text == "auto":
        return None
    if not text.isascii() or not text.isdigit() or 0 < int(text) < LEAST_TILE:
        raise DarsrError(f"--tile {text}", "is no size of tiles", f"give auto, 0, or at least {LEAST_TILE} pixels")
    return int(text)


class TiledEngine:
    """Wraps an engine and is one. Small images still run whole; large ones in tiles.

    Args:
        engine: one that can run tiles. Another is asked for whole images, unless tiles of a size were asked for.
        tile: side of a tile's own pixels, in LR pixels; 0: never; None: as the free memory allows.
        say: told where memory did not suffice, or may not.
        report: told ``{"step", "steps"}`` after each tile.
        free: bytes that may be taken, None where nobody knows; by default what the engine's ``free_memory`` says, such as of
            a GPU, or what this machine has.

    Raises:
        DarsrError: tiles of a size were asked for, and the model takes whole images alone.
    """

    def __init__(
        self,
        engine: Tileable,
        tile: int | None = None,
        say: Callable[[str], None] = lambda _: None,
        report: Callable[[dict], None] = lambda _: None,
        free: Callable[[], int | None] | None = None,
    ) -> None:
        self.engine, self.tile, self._say, self.report = engine, tile, say, report
        self._free: Callable[[], int | None] = getattr(engine, "free_memory", free_memory) if free is None else free
        self.spec, self.name, self.provider = engine.spec, engine.name, engine.provider
        self.locality = engine.locality
        self._warned = False
        self._chosen: tuple[tuple[int, int], int] = (0, 0), 0  # of the last image: its size, and the side of its tiles
        if tile and self.locality.halo is None:
            raise DarsrError(f"--tile {tile}", self.locality.why or "this model takes whole images", self._hint())

    def run(self, lr: np.ndarray) -> np.ndarray:
        """Enlarge images: float32 N x 3 x H x W in [0, 1] -> float32 N x 3 x sH x sW in [0, 1]."""
        n, _, height, width = lr.shape
        s = self.spec.scale
        tile = self._choose(height, width)
        if tile == 0:
            try:
                return self.engine.run(lr)
            except (OutOfMemory, MemoryError) as error:
                tile = self._halve(max(height, width), error)
        sr = np.empty((n, 3, height * s, width * s), np.float32)

        def put(rows: Span, columns: Span, part: np.ndarray) -> None:
            sr[:, :, rows.own(s), columns.own(s)] = part

        self.engine.check_size(lr)
        self._try_tiles(height, width, tile, lambda rows, columns: lr[:, :, rows.outer, columns.outer], put)
        return sr

    def upscale(self, image: np.ndarray) -> np.ndarray | None:
        """Enlarge uint8 or uint16, H x W or H x W x 3, tile by tile; only one tile is float32 at a time.

        None where the image fits in whole.
        """
        (height, width), s = image.shape[:2], self.spec.scale
        tile = self._choose(height, width)
        if tile == 0:
            return None
        # stored as writers of image files want colours, BGR, and seen as RGB: turning them around copies nothing
        stored = np.empty((height * s, width * s, *image.shape[2:]), image.dtype)
        result = stored if image.ndim == 2 else stored[:, :, ::-1]

        def put(rows: Span, columns: Span, part: np.ndarray) -> None:
            result[rows.own(s), columns.own(s)] = to_image(part, gray=image.ndim == 2, dtype=image.dtype.type)

        self.engine.check_size(np.broadcast_to(np.float32(0), (1, 3, height, width)))
        self._try_tiles(height, width, tile, lambda rows, columns: to_tensor(image[rows.outer, columns.outer]), put)
        return result

    def __enter__(self) -> TiledEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.engine.__exit__(kind, error, trace)

    def _choose(self, height: int, width: int) -> int:
        """Return the side of the tiles, 0 for the whole image; decided once for images of a size."""
        if self._chosen[0] != (height, width):
            self._chosen = (height, width), self._decide(height, width)
        return self._chosen[1]

    def _decide(self, height: int, width: int) -> int:
        tile, most = self._fit_memory(height, width), self._most_tile()
        longest = self.locality.most
        if most is None or longest is None or self.tile == 0 or (tile == 0 and max(height, width) <= longest):
            return tile
        if self.tile is not None and tile > most:
            self._say(f"the engine takes {longest} pixels at a time: tiles of {most} instead of {tile}")
        return min(tile or most, most)

    def _most_tile(self) -> int | None:
        """Return the largest tile that the engine computes with its surroundings; None if any size fits, or it takes no tiles."""
        local = self.locality
        if local.most is None or local.halo is None:
            return None
        # the surroundings begin and end at multiples of the alignment
        most = local.most // local.alignment * local.alignment - 2 * (
            -(-local.halo // local.alignment) * local.alignment
        )
        if most < LEAST_TILE:
            raise DarsrError("this engine", f"takes {local.most} pixels at a time, too few for tiles", self._hint())
        return most

    def _fit_memory(self, height: int, width: int) -> int:
        """Return what was asked for, or what the memory has room for."""
        local, free = self.locality, self._free()
        if self.tile is not None:
            tile = 0 if self.tile >= max(height, width) else self.tile
            self._say_what_overlap_costs(height, width, tile, free)
            return tile
        if not local.bytes_per_pixel:
            return 0
        if local.halo is not None:
            return automatic_tile(height, width, local.halo, local.bytes_per_pixel, free)
        needs = whole_bytes(height, width, local.bytes_per_pixel)
        if free is not None and needs > free:
            why = f"takes about {needs / 1e9:.1f} GB at once, {free / 1e9:.1f} GB are free, and this model takes no tiles "
            raise OutOfMemory(
                f"an image of {width}x{height}", f"{why}({local.why})", f"{self._hint()}, or try --tile 0"
            )
        return 0

    def _say_what_overlap_costs(self, height: int, width: int, tile: int, free: int | None) -> None:
        """Say once where tiles are far smaller than they have to be: each is computed with its surroundings."""
        local = self.locality
        if not tile or local.halo is None or not local.bytes_per_pixel or self._warned:
            return
        allowed = automatic_tile(height, width, local.halo, local.bytes_per_pixel, free)
        allowed = min(allowed or max(height, width), self._most_tile() or max(height, width))
        factors = [overlap_factor(height, width, side, local.halo, local.alignment) for side in (tile, allowed)]
        if 2 * tile <= allowed and factors[0] > _COSTLY * factors[1]:
            self._warned = True
            room = f"tiles of {allowed}" if allowed < max(height, width) else "the whole image at once (--tile 0)"
            self._say(f"--tile {tile}: overlap makes {factors[0]:.1f} times the multiply-adds; memory allows {room}")

    def _try_tiles(self, height: int, width: int, tile: int, take: _Take, put: _Put) -> None:
        while True:
            try:
                return self._run_tiles(height, width, tile, take, put)
            except (OutOfMemory, MemoryError) as error:
                tile = self._halve(tile, error)
                self._chosen = (height, width), tile  # what did not fit will not fit the next image either

    def _run_tiles(self, height: int, width: int, tile: int, take: _Take, put: _Put) -> None:
        local, s = self.locality, self.spec.scale
        assert local.halo is not None  # a model without one runs whole images
        passes = [list(grid(height, width, tile, halo, local.alignment)) for halo in (*local.stage_halos, local.halo)]
        step, steps = 0, sum(map(len, passes))
        pooled: list[np.ndarray] = []
        for tiles in passes[:-1]:
            total = np.float64(0)
            for rows, columns in tiles:
                lr = take(rows, columns)
                core = np.zeros((1, 1, *lr.shape[2:]), np.float32)
                core[:, :, rows.inner(), columns.inner()] = 1
                total = total + cast(Staged, self.engine).sums(lr, core, pooled).astype(np.float64)
                step += 1
                self.report({"step": step, "steps": steps})
            pooled.append((total / (height * width)).astype(np.float32))
        for rows, columns in passes[-1]:
            part = self.engine.run_tile(take(rows, columns), pooled, rows.outer, columns.outer)
            put(rows, columns, part[:, :, rows.inner(s), columns.inner(s)])
            step += 1
            self.report({"step": step, "steps": steps})

    def _halve(self, tile: int, error: BaseException) -> int:
        """Say that memory did not suffice, and return half the tile.

        Raises:
            DarsrError: no smaller ones are possible.
        """
        if self.locality.halo is None or self.tile == 0 or tile <= LEAST_TILE:
            if isinstance(error, DarsrError):
                what, why, _ = error.args
                raise error if self.locality.halo is not None else OutOfMemory(what, why, self._hint())
            raise OutOfMemory("memory", "does not suffice for this image", self._hint()) from error
        smaller = max(LEAST_TILE, tile // 2)
        self._say(f"out of memory with {tile} pixels at a time; going on with tiles of {smaller}")
        return smaller

    def _hint(self) -> str:
        return self.locality.hint
