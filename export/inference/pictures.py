"""One picture: through an engine to a file, and the whole way, adapted to and enlarged, in this process or another."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from darsr_deploy.engines.base import Engine
from darsr_deploy.engines.tiled import TiledEngine
from darsr_deploy.engines.upscale import upscale
from darsr_deploy.files.adapter import Adapter
from darsr_deploy.images.arrays import read_picture, write_image
from darsr_deploy.images.formats import SUFFIXES, check_target
from darsr_deploy.images.reader import Picture
from darsr_deploy.images.writer import lost_metadata
from darsr_train.adaptation.options import AdaptOptions

from ..artefacts.subject import Source
from .session import open_engine


@dataclass(frozen=True)
class UpscaleTask:
    """One picture to adapt to and to enlarge.

    Attributes:
        adapter: where the adapter is kept; None: it is not.
        backbone: a name or a file; None: the default.
        device: that adapts.
        told: see :class:`darsr_train.commands.adapt_tasks.AdaptTask`.
        engine, provider, threads: as of :func:`.session.open_engine`.
        quality: of JPEG and WebP; None: their own.
        replace: whether outputs that appeared meanwhile are replaced.
    """

    image: Path
    target: Path
    adapter: Path | None
    backbone: str | None
    options: AdaptOptions
    device: str = "cpu"
    engine: str = "auto"
    provider: str = "cpu"
    threads: int = 0
    quality: int | None = None
    replace: bool = False
    told: bool = False

    def __str__(self) -> str:
        return str(self.image)

    @property
    def sources(self) -> tuple[Path, ...]:
        """Return the files that it reads, for the manifest of a cluster."""
        return (self.image,)

    @property
    def outputs(self) -> tuple[Path, ...]:
        """Return the files that it writes."""
        return (self.target, *filter(None, (self.adapter,)))


@dataclass(frozen=True)
class InferTask:
    """One picture to enlarge with what is given.

    Attributes:
        corrected: where the corrected LR image goes; None: it is not written.
        opening: options of :func:`.session.open_engine`.
        replace: whether outputs that appeared meanwhile are replaced.
    """

    image: Path
    target: Path
    source: Source
    corrected: Path | None = None
    opening: dict[str, Any] = field(default_factory=dict)
    replace: bool = False

    def __str__(self) -> str:
        return str(self.image)

    @property
    def sources(self) -> tuple[Path, ...]:
        """Return the files that it reads and that are its own, for the manifest of a cluster."""
        return (self.image, *filter(None, (self.source.adapter,)))

    @property
    def outputs(self) -> tuple[Path, ...]:
        """Return the files that it writes."""
        return (self.target, *filter(None, (self.corrected,)))


class LastEngine:
    """Keeps the engine of the last source open."""

    def __init__(self) -> None:
        self._source: Source | None = None
        self._held = contextlib.ExitStack()

    def get(self, source: Source, opening: Callable[[Source], TiledEngine]) -> TiledEngine:
        """Return the engine of a source; that of another is closed before it is opened."""
        if source != self._source:
            self.close()
            self._engine = self._held.enter_context(opening(source))
            self._source = source
        return self._engine

    def close(self) -> None:
        """Close the engine."""
        self._source = None
        self._held.close()


_last = LastEngine()  # of a process that works for others


def infer_picture(
    task: InferTask,
    report: Callable[[dict], None],
    engines: LastEngine = _last,
    opening: Callable[[Source], TiledEngine] | None = None,
) -> dict:
    """Enlarge a picture with what is given, write it, and write its corrected LR image if that is wanted.

    Args:
        report: told ``{step, steps}`` after each tile.
        engines: where its engine is looked for.
        opening: opens one; by default as the task says.

    Returns:
        The row of :func:`enlarge`.

    Raises:
        DarsrError: the picture cannot be read or written, or the engine cannot be opened or run it.
    """
    picture = read_picture(task.image)
    engine = engines.get(task.source, opening or (lambda source: open_engine(source, **task.opening)))
    check_target(task.target, *result_shape(picture.pixels, engine.spec.scale))
    engine.report = report
    row = enlarge(task.image, picture, engine, task.target, replace=task.replace)
    if task.corrected is not None:
        from darsr_train.evaluation.measure import save_corrected

        save_corrected(task.image, Adapter.load(task.source.adapter), task.corrected)
    return row


def upscale_picture(task: UpscaleTask, report: Callable[[dict], None]) -> dict:
    """Adapt to a picture, enlarge it with the adapter, and write it, as ``darsr adapt`` and ``darsr infer`` do.

    Args:
        report: told ``{phase, step, steps}`` after each tile.

    Returns:
        The row that ``--json`` prints, its seconds those of the whole, and what :func:`enlarge` has to ``say``.

    Raises:
        DarsrError: the picture cannot be read, adapted to or written.
    """
    from darsr_train.commands.adapt_tasks import AdaptTask, adapt_task

    started = time.perf_counter()
    picture = read_picture(task.image)
    check_target(task.target, *result_shape(picture.pixels, task.options.scale))  # before the work
    with tempfile.TemporaryDirectory(prefix="darsr-") as folder:
        path = task.adapter or Path(folder) / "picture.darsr"
        backbone = task.backbone or "edge"
        made = adapt_task(
            AdaptTask(
                task.image,
                path,
                backbone,
                task.options,
                task.device,
                replace=task.replace,
                told=task.told,
                threads=task.threads,
            ),
            lambda _: None,
        )
        options = {"tile": None, "threads": task.threads}
        with open_engine(Source(path, None, task.backbone), task.engine, task.provider, **options) as engine:
            engine.report = lambda entry: report({**entry, "phase": task.image.name, "passing": True})
            row = enlarge(task.image, picture, engine, task.target, replace=task.replace, quality=task.quality)
    row |= {"seconds": round(time.perf_counter() - started, 4)}
    row |= {"adapter": str(task.adapter)} if task.adapter else {}
    return row | what_was_done(made)


def what_was_done(facts: dict) -> dict:
    """Return of an adapter's facts what was found, where that is known, and what was decided, in words."""
    found = {"found": facts["found"]} if "found" in facts else {}
    usual = "nothing to correct" if facts["chosen"] == "none" else "corrected"
    return found | {"decision": facts.get("decision", usual)}


def enlarge(
    image: Path, picture: Picture, engine: Engine, target: Path, *, replace: bool, quality: int | None = None
) -> dict:
    """Enlarge a picture and write it.

    Returns:
        ``{input, output, engine, provider, seconds, height, width}``, the seconds those of the engine; with ``say``, a line
        that says what of the source the target cannot hold, if anything.

    Raises:
        DarsrError: the engine cannot run it, or it cannot be written.
    """
    started = time.perf_counter()
    result = upscale(engine, picture.pixels)
    seconds = time.perf_counter() - started
    write_image(target, result, picture, replace=replace, quality=quality)
    row = {"input": str(image), "output": str(target), "engine": engine.name, "provider": engine.provider}
    row |= {"seconds": round(seconds, 4), "height": result.shape[0], "width": result.shape[1]}
    lost = lost_metadata(target, picture)
    return row | ({"say": lost} if lost else {})


def result_suffix(image: Path) -> str | None:
    """Return the suffix of a picture's result: None for its own, ``.png`` where that is only read."""
    return None if image.suffix.lower() in SUFFIXES else ".png"


def result_shape(pixels: np.ndarray, scale: int) -> tuple[int, int, int, int]:
    """Return height, width, channels and bits of the result."""
    height, width = (side * scale for side in pixels.shape[:2])
    return height, width, 1 if pixels.ndim == 2 else pixels.shape[2], pixels.dtype.itemsize * 8
