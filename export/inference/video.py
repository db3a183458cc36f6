"""A video through an engine: decoding, inference and encoding at once."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from darsr_deploy.engines.base import Engine
from darsr_deploy.engines.upscale import upscale
from darsr_deploy.errors import DarsrError
from darsr_deploy.files import places
from darsr_deploy.files.adapter import adapter_path
from darsr_deploy.files.atomic import atomic_path
from darsr_deploy.video.frames import STREAM, Frame, Passed, Reader, check_video_target
from darsr_deploy.video.open_video import open_reader, open_writer
from darsr_deploy.video.pipeline import pipelined
from darsr_deploy.video.scenes import most_detailed
from darsr_train.runtime import require_torch

from ..artefacts.subject import Source
from .session import Progress, no_progress

_FIRST_FRAMES = 24  # that the one to adapt to is chosen from
_FIRST_BYTES = 200_000_000  # and the memory that they may take


@dataclass(frozen=True)
class VideoOptions:
    """What the command line says of a video.

    Attributes:
        open_source: from what is to be run to an engine, which is closed here.
        source: a model or a backbone alone; None where it is an adapter, given or beside the clip or to be made.
        adapter: the adapter given, if any.
        readapt: ``never`` or ``scene``.
        say: told what the user should know beside the result.
        progress: shows how far an adaptation is.
    """

    open_source: Callable[[Source], Engine]
    source: Source | None
    adapter: Path | None = None
    backbone: str | None = None
    scale: int | None = None
    readapt: str = "never"
    say: Callable[[str], None] = print
    progress: Progress = no_progress


def infer_video(clip: Path, out: Path | None, several: bool, targets: places.Targets, options: VideoOptions) -> dict:
    """Super-resolve a video.

    Raises:
        DarsrError: the clip cannot be read, its adapter is missing or unfit, or the result cannot be written. Nothing
            is left under the result's name then.
    """
    if options.readapt not in ("never", "scene"):
        raise DarsrError(f"--readapt {options.readapt}", "is not known", "choose never or scene")
    if options.readapt == "scene":
        require_torch()
    with open_reader(clip) as reader, contextlib.ExitStack() as held:
        items = iter(reader)
        source, items = _source(clip, several, targets, options, reader, items)
        engine = held.enter_context(options.open_source(source))
        target = _target(clip, out, several, engine.spec.scale)
        check_video_target(target)
        if target != STREAM:
            targets.claim(target)
        frames, seconds, last = _run(reader, items, target, engine, source, options)
    row = {"input": str(clip), "output": str(target), "engine": last.name, "provider": last.provider}
    info = reader.info.enlarged(engine.spec.scale)
    row |= {"seconds": round(seconds, 4), "height": info.height, "width": info.width}
    return row | {"frames": frames, "fps": round(frames / seconds, 3)}


def _target(clip: Path, out: Path | None, several: bool, scale: int) -> Path:
    if clip == STREAM and out is None:
        return STREAM
    if clip == STREAM and (several or out.is_dir()):
        return out / f"stream_x{scale}.y4m"
    return out if out == STREAM else places.output_path(clip, out, several, f"_x{scale}")


def _run(
    reader: Reader,
    items: Iterator[Frame | Passed],
    target: Path,
    engine: Engine,
    source: Source,
    options: VideoOptions,
) -> tuple[int, float, Engine]:
    """Returns the number of frames, the seconds, and the engine that ran last."""
    scale, count = engine.spec.scale, 0
    choose, started = _chooser(engine, source, options), time.perf_counter()
    with contextlib.ExitStack() as stack:
        stack.callback(choose.close)
        path = target if target == STREAM else stack.enter_context(atomic_path(target))
        writer = open_writer(path, target, reader.info.enlarged(scale), reader, options.say)
        stack.enter_context(writer)
        report = stack.enter_context(options.progress(str(target)))

        def work(item: Frame | Passed) -> Frame | Passed:
            nonlocal count
            if isinstance(item, Passed):
                return item
            result = replace(item, pixels=upscale(choose.engine_for(item.pixels), item.pixels))
            count += 1
            report({"step": count, "steps": reader.info.frames, "fps": count / (time.perf_counter() - started)})
            return result

        pipelined(items, work, writer.write)
        writer.finish()
    return count, time.perf_counter() - started, choose.engine


class _Always:
    """One engine for every frame."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def engine_for(self, pixels: np.ndarray) -> Engine:
        return self.engine

    def close(self) -> None:
        """Nothing runs beside it."""


def _chooser(engine: Engine, source: Source, options: VideoOptions):
    if options.readapt == "never":
        return _Always(engine)
    from .readapt import Readaptation, adapt_to_frame

    def adapt(pixels: np.ndarray, path: Path, report: Callable[[dict], None]) -> None:
        adapt_to_frame(pixels, path, options.backbone, engine.spec.scale, report)

    def opener(path: Path) -> Engine:
        return options.open_source(Source(path, None, options.backbone, engine.spec.scale))

    return Readaptation(engine, adapt, opener, options.say)


def _source(
    clip: Path,
    several: bool,
    targets: places.Targets,
    options: VideoOptions,
    reader: Reader,
    items: Iterator[Frame | Passed],
) -> tuple[Source, Iterator[Frame | Passed]]:
    """What the clip is run with, and its frames; where it has no adapter, one is made from the first of them."""
    if options.source is not None:
        return options.source, items
    try:
        own = (
            options.adapter
            if clip == STREAM and options.adapter
            else places.adapter_for(clip, options.adapter, several)
        )
    except DarsrError:
        own = None
    if own is None:
        _require_torch_to_adapt(clip)
        own, items = _adapted_to_first(clip, targets, options, reader, items)
    return Source(own, None, options.backbone, options.scale), items


def _require_torch_to_adapt(clip: Path) -> None:
    try:
        require_torch()
    except DarsrError as error:
        raise DarsrError(
            str(clip),
            "has no adapter, and making one from its first frames needs PyTorch, which is not installed",
            "run darsr export where you adapted and give the file with --model",
        ) from error


def _adapted_to_first(
    clip: Path, targets: places.Targets, options: VideoOptions, reader: Reader, items: Iterator[Frame | Passed]
) -> tuple[Path, Iterator[Frame | Passed]]:
    from .readapt import adapt_to_frame

    if clip == STREAM:
        raise DarsrError(
            "standard input", "has no place for an adapter beside it", "give --adapter, --model or --no-adapter"
        )
    target, info = targets.claim(adapter_path(clip)), reader.info
    most = max(1, min(_FIRST_FRAMES, _FIRST_BYTES // (info.width * info.height * 3 * info.bits // 8)))
    head, frames = [], []
    for item in items:
        head.append(item)
        if isinstance(item, Frame):
            frames.append(item.pixels)
        if len(frames) == most:
            break
    options.say(f"adapting to the first frames -> {target}")
    with options.progress(clip.name) as report:
        adapt_to_frame(most_detailed(frames), target, options.backbone, options.scale or 2, report=report)
    return target, itertools.chain(head, items)
