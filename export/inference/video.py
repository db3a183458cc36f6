"""Super-resolve a video: decoding, inference and encoding at once."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from darsr_deploy.engines.base import Engine
from darsr_deploy.engines.upscale import upscale
from darsr_deploy.errors import DarsrError
from darsr_deploy.files import places
from darsr_deploy.files.adapter import Adapter, adapter_path
from darsr_deploy.files.atomic import atomic_path, write_bytes
from darsr_deploy.video.frames import STREAM, Frame, Passed, Reader, check_video_target, result_suffix
from darsr_deploy.video.open_video import open_reader, open_writer, sample_frames
from darsr_deploy.video.pipeline import pipelined
from darsr_deploy.video.scenes import moving_part, typical_frames

from ..artefacts.subject import Source
from .readapt import Readaptation, adapt_to_frame, require_adapting
from .session import Progress, no_progress

_VOTERS = 8  # frames of a clip that are adapted to


@dataclass(frozen=True)
class VideoOptions:
    """The options that the command line gives for a video.

    Attributes:
        open_source: from what is to be run to an engine, which is closed here.
        source: a model or a backbone alone; None where it is an adapter, given or beside the clip or to be made.
        adapter: the adapter given, if any.
        adapt: makes the adapter of every clip anew and returns its path; by default one is made only where there is none.
        readapt: ``never`` or ``scene``.
        say: told what the user should know beside the result.
        progress: shows how far an adaptation is.
    """

    open_source: Callable[[Source], Engine]
    source: Source | None
    adapter: Path | None = None
    adapt: Callable[[Path], Path] | None = None
    backbone: str | None = None
    scale: int | None = None
    readapt: str = "never"
    say: Callable[[str], None] = print
    progress: Progress = no_progress


def infer_video(clip: Path, out: Path | None, several: bool, targets: places.Targets, options: VideoOptions) -> dict:
    """Super-resolve a video.

    Raises:
        DarsrError: the clip cannot be read, its adapter is missing or unfit, or the result cannot be written. Nothing
            is left under the result's name then. Of a clip with frames missing, the others are kept as
            ``NAME.incomplete.SUFFIX``.
    """
    if options.readapt not in ("never", "scene"):
        raise DarsrError(f"--readapt {options.readapt}", "is not known", "choose never or scene")
    if options.readapt == "scene":
        require_adapting(options.backbone, options.scale or 2)
    with open_reader(clip, options.say) as reader, contextlib.ExitStack() as held:
        source = _source(clip, several, targets, options)
        engine = held.enter_context(options.open_source(source))
        target = clip_target(clip, out, several, engine.spec.scale)
        check_video_target(target)
        if target != STREAM:
            targets.claim(target)
        choose = _chooser(engine, options)
        held.callback(choose.close)
        frames, seconds = _run(clip, reader, target, choose, options)
    row = {"input": str(clip), "output": str(target), "engine": choose.engine.name, "provider": choose.engine.provider}
    info = reader.info.enlarged(engine.spec.scale)
    row |= {"seconds": round(seconds, 4), "height": info.height, "width": info.width}
    return row | {"frames": frames, "fps": round(frames / seconds, 3)}


def clip_target(clip: Path, out: Path | None, several: bool, scale: int) -> Path:
    """Return where the result of a clip goes."""
    if clip == STREAM and out is None:
        return STREAM
    if clip == STREAM and (several or out.is_dir()):
        return out / f"stream_x{scale}.y4m"
    return out if out == STREAM else places.output_path(clip, out, several, f"_x{scale}", result_suffix(clip))


def _run(
    clip: Path, reader: Reader, target: Path, choose: _Always | Readaptation, options: VideoOptions
) -> tuple[int, float]:
    """Return the number of frames and the seconds that they took."""
    scale, count, started = choose.engine.spec.scale, 0, time.perf_counter()
    with contextlib.ExitStack() as stack:
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

        pipelined(reader, work, writer.write)
        writer.finish()
        if lost := reader.lost:
            kept = "" if target == STREAM else f", kept in {_keep_apart(path, target)}"
            raise DarsrError(str(clip), f"{lost}; {count} frames are there{kept}", "copy it again from its source")
    return count, time.perf_counter() - started


def _keep_apart(path: Path, target: Path) -> Path:
    """Rename what was written of a clip that is not whole, so that nobody takes it for the result; return its name."""
    names = (target.with_name(f"{target.stem}.incomplete{number}{target.suffix}") for number in ("", *range(2, 1000)))
    kept = next(name for name in names if not os.path.lexists(name))
    with atomic_path(kept) as temporary:
        os.replace(path, temporary)
    return kept


class _Always:
    """One engine for every frame."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def engine_for(self, pixels: np.ndarray) -> Engine:
        return self.engine

    def close(self) -> None:
        """Stop nothing: nothing runs beside it."""


def _chooser(engine: Engine, options: VideoOptions) -> _Always | Readaptation:
    if options.readapt == "never":
        return _Always(engine)

    def adapt(pixels: np.ndarray, path: Path, report: Callable[[dict], None]) -> None:
        adapt_to_frame(pixels, path, options.backbone, engine.spec.scale, report, threads=1)

    def opener(path: Path) -> Engine:
        return options.open_source(Source(path, None, options.backbone, engine.spec.scale))

    return Readaptation(engine, adapt, opener, options.say)


def _source(clip: Path, several: bool, targets: places.Targets, options: VideoOptions) -> Source:
    """Return what the clip is run with; where it has no adapter, one is made from its own frames."""
    if options.source is not None:
        return options.source
    if options.adapt is not None:
        own = options.adapt(clip)
    elif clip == STREAM and options.adapter:
        own = options.adapter
    else:
        try:
            own = places.adapter_for(clip, options.adapter, several)
        except DarsrError:
            own = _adapt(clip, targets, options)
    return Source(own, None, options.backbone, options.scale)


def _adapt(clip: Path, targets: places.Targets, options: VideoOptions) -> Path:
    """Adapt to the frame that stands for a clip, among some that are spread over it; return the adapter beside the clip."""
    try:
        require_adapting(options.backbone, options.scale or 2)
    except DarsrError as error:
        raise DarsrError(
            str(clip),
            f"has no adapter, and one cannot be made from its frames here ({error})",
            "run darsr export where you adapted and give the file with --model",
        ) from error
    if not clip.is_file():  # a stream can be read but once
        name = "standard input" if clip == STREAM else str(clip)
        raise DarsrError(name, "has no place for an adapter beside it", "give --adapter, --model or --no-adapter")
    target = targets.claim(adapter_path(clip))
    options.say(f"adapting to one of its frames -> {target}")
    adapt_to_clip(clip, target, options.backbone, options.scale or 2, options.progress)
    return target


def adapt_to_clip(
    clip: Path, target: Path, backbone: str | None, scale: int, progress: Progress = no_progress, **wishes: float | None
) -> None:
    """Adapt to the frames that stand for a clip and write the adapter ``target``: of the frame in which most was found as in others.

    Args:
        wishes: ``amount``, ``denoise`` and ``deblock`` of :class:`darsr_train.adaptation.options.AdaptOptions`.

    Raises:
        DarsrError: the clip cannot be read, or its frames are too small to adapt to.
    """
    frames = typical_frames(sample_frames(clip), _VOTERS)
    rows, columns = moving_part(frames)
    frames = [np.ascontiguousarray(frame[rows, columns]) for frame in frames]
    with progress(clip.name) as report, tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{index}.darsr" for index in range(len(frames))]
        facts: list[dict] = []
        for path, frame in zip(paths, frames):
            adapt_to_frame(frame, path, backbone, scale, report=report, **wishes)
            facts.append(Adapter.load(path).facts)
            if not isinstance(facts[0].get("found"), dict):
                break  # by a procedure that finds nothing to vote on
        write_bytes(target, paths[choose_by_vote(facts)].read_bytes())


def choose_by_vote(facts: list[dict]) -> int:
    """Return the index of the adapter that stands for all, by their facts; those of better frames come first.

    What was drawn over some frames, such as a subtitle, may be taken for a treatment of the whole picture: what was decided of
    most frames counts, and of these the one of median blur.
    """

    def decision(found: dict) -> tuple:
        return (found["enlarged_before"] > 1, found["camera"], found["blur_px"] > 0)

    if not isinstance(facts[0].get("found"), dict):
        return 0
    decisions = [decision(one["found"]) for one in facts]
    most = max(decisions, key=decisions.count)
    alike = [index for index, own in enumerate(decisions) if own == most]
    return sorted(alike, key=lambda index: facts[index]["found"]["blur_px"])[(len(alike) - 1) // 2]
