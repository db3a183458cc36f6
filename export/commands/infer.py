"""``darsr infer``: images and videos through an adapter, an exported model, or the backbone alone."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from darsr_deploy.console.cluster import Cluster, ManifestFile, on_cluster, refuse_on_cluster
from darsr_deploy.console.command import (
    BackboneOption,
    Failures,
    Json,
    MaxPixels,
    Overwrite,
    Printed,
    Scale,
    SkipExisting,
    Threads,
    command,
    one_or_list,
    progress,
    say,
)
from darsr_deploy.errors import DarsrError
from darsr_train.runtime import require_torch


@command
def infer(
    inputs: Annotated[
        list[Path], typer.Argument(metavar="INPUT", help="Images, folders of images, videos, or - for y4m on stdin.")
    ],
    *,
    out: Annotated[str | None, typer.Option("--out", "-o", help="Output file; a folder for several images.")] = None,
    adapter: Annotated[Path | None, typer.Option(help="Adapter; by default the one beside the image.")] = None,
    model: Annotated[
        Path | None, typer.Option(help="An exported model (.onnx), engine (.engine) or bundle instead of an adapter.")
    ] = None,
    no_adapter: Annotated[bool, typer.Option("--no-adapter", help="Run the backbone alone.")] = False,
    scale: Scale = None,
    backbone: BackboneOption = None,
    engine: Annotated[
        str, typer.Option(help="auto, ort (ONNX Runtime), trt or trt-rtx (TensorRT, for RTX) or torch.")
    ] = "auto",
    provider: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    precision: Annotated[
        str | None, typer.Option(help="fp32 (default), fp16, bf16 or int8; a model file has its own.")
    ] = None,
    tile: Annotated[
        str, typer.Option(help="Side of the tiles in LR pixels; auto: by free memory, 0: no tiles.")
    ] = "auto",
    threads: Threads = 0,
    readapt: Annotated[
        str, typer.Option(help="Videos: never, or scene (adapt again in the background when the scene changes).")
    ] = "never",
    cluster: Cluster = None,
    manifest: ManifestFile = None,
    trust: Annotated[
        bool, typer.Option("--trust", help="Load an engine that was not built on this machine. An engine is code.")
    ] = False,
    corrected: Annotated[bool, typer.Option("--corrected", help="Also write the corrected LR image.")] = False,
    max_pixels: MaxPixels = None,
    overwrite: Overwrite = False,
    skip_existing: SkipExisting = False,
    as_json: Json = False,
    failures: Failures = None,
) -> Printed:
    """Super-resolve images and videos with their adapters, an exported model, or the backbone alone."""
    from darsr_deploy.bundle.manifest import MANIFEST, is_bundle
    from darsr_deploy.console import jobs
    from darsr_deploy.engines.tiled import TiledEngine, tile_side
    from darsr_deploy.files import places
    from darsr_deploy.files.adapter import Adapter
    from darsr_deploy.images.formats import check_target
    from darsr_deploy.images.reader import size_of
    from darsr_deploy.video.frames import STREAM

    from ..artefacts.subject import Source
    from ..inference.pictures import InferTask, LastEngine, infer_picture, result_suffix
    from ..inference.session import needs_gpu, open_engine

    in_bundle = model is not None and is_bundle(model)
    if sum([adapter is not None, model is not None and not in_bundle, no_adapter]) > 1 or (in_bundle and no_adapter):
        raise typer.BadParameter(
            "give only one of --adapter, --model and --no-adapter; a bundle alone takes an adapter"
        )
    side = tile_side(tile)
    if readapt not in ("never", "scene"):
        raise DarsrError(f"--readapt {readapt}", "is not known", "choose never or scene")
    if corrected:
        if model is not None or no_adapter:
            raise DarsrError(
                "--corrected", "the corrected LR image comes from an adapter, and none is used", "give --adapter"
            )
        require_torch()
    if as_json and (out == str(STREAM) or (out is None and STREAM in inputs)):
        raise typer.BadParameter("--json and the video would both be written to stdout; give -o FILE")

    images, several = jobs.gather(inputs, failures)
    if (
        out is not None
        and not several
        and not os.path.isdir(out)
        and not any(map(is_clip, images))
        and "://" not in out
    ):
        check_target(Path(out), 1, 1, 3, 8)  # by its suffix, before anything is opened or exported
    targets = places.Targets(overwrite, [*images, adapter, model, backbone], skip_existing=skip_existing)
    running = LastEngine()  # that of the last image stays open
    opening = {"engine": engine, "provider": provider, "precision": precision, "tile": side, "trust": trust}

    def settings() -> dict:
        from darsr_deploy.files.hashing import hash_file
        from darsr_train.backbones.store import locate

        given = model / MANIFEST if in_bundle else model
        files = {"model": given, "backbone": None if backbone is None else locate(backbone, scale or 2)}
        return {"command": "infer", "scale": scale, **opening} | {k: v and hash_file(v) for k, v in files.items()}

    def open_source(source: Source) -> TiledEngine:
        return open_engine(source, **opening, threads=threads, progress=progress)

    def video(clip: Path) -> dict:
        from ..inference.video import VideoOptions, infer_video

        if corrected:
            raise DarsrError(str(clip), "--corrected is for images", "leave it out")
        given = source_of(clip) if model is not None or no_adapter else None
        running.close()  # a video's engines are its own: another may be opened while one runs
        more = {"backbone": backbone, "scale": scale, "readapt": readapt, "say": say, "progress": progress}
        row = infer_video(clip, place, several, targets, VideoOptions(open_source, given, adapter, **more))
        if not as_json:
            line = describe_clip(row)
            say(line) if row["output"] == str(STREAM) else print(line)
        return row

    def source_of(image: Path) -> Source:
        if no_adapter:
            return Source(backbone=backbone, scale=scale)
        if model is not None:
            return Source(places.adapter_in_bundle(image, adapter, several) if in_bundle else None, model, None, scale)
        return Source(places.adapter_for(image, adapter, several), None, backbone, scale)

    def plan(image: Path) -> InferTask:
        """Check the image and claim the paths of its results."""
        if is_clip(image):
            refuse_on_cluster(run, image, "a video")
        size_of(image)
        source = source_of(image)
        own = source.adapter if source.model is None else None  # which says its scale before anything is opened
        known = running.get(source, open_source).spec.scale if own is None else Adapter.load(own).scale
        target = places.output_path(image, place, several, f"_x{known}", result_suffix(image))
        check_target(target, 1, 1, 3, 8)  # the suffix; sizes are checked when the image has been read
        beside = place if place is None or several or place.is_dir() else place.parent
        extra = places.output_path(image, beside, several, "_corrected", ".png") if corrected else None
        more = {"opening": {**opening, "threads": run.demands.cpus if run else threads}, "replace": overwrite}
        task = InferTask(image, target, source, extra, **more)
        if run is not None:
            run.check(task.sources, task.outputs, targets)
        targets.claim(target)
        if extra is not None and skip_existing and extra.exists():
            return dataclasses.replace(task, corrected=None)
        if extra is not None:
            targets.claim(extra)
        return task

    def show(row: dict) -> dict:
        if line := row.pop("say", None):
            say(line)
        if not as_json:
            size = f"{row['width']}x{row['height']}"
            print(f"{row['input']} -> {row['output']}  ({size}, {row['engine']}, {row['seconds']:.2f} s)")
        return row

    def one(image: Path) -> dict:
        if is_clip(image):
            return video(image)
        task = plan(image)
        with progress(image.name) as report:
            row = infer_picture(task, report, running, open_source)
        return show(row)

    def all_on_cluster() -> Iterator[dict]:
        plans = list(jobs.each(images, run.recording(plan), failures))
        yield from (plan for plan in plans if isinstance(plan, dict))  # of what is there already
        tasks = [plan for plan in plans if not isinstance(plan, dict)]
        with progress("infer") as report, contextlib.closing(run.each(tasks, infer_picture, report)) as results:
            for _, row in results:
                if isinstance(row, DarsrError):
                    failures(row)
                else:
                    yield show(row)

    how = {"settings": settings, "threads": threads, "gpu": needs_gpu(engine, provider)}
    with contextlib.closing(running), on_cluster(cluster, manifest, out, images, several, **how) as (run, place):
        rows = list(jobs.each(images, one, failures) if run is None else all_on_cluster())
        jobs.say_skipped(rows, run is not None)
    order = {str(image): index for index, image in enumerate(images)}
    return one_or_list(sorted(rows, key=lambda row: order[row["input"]]), several) if as_json else None


def is_clip(path: Path) -> bool:
    """Return whether an input is a video: its content decides, where that can be told."""
    from darsr_deploy.files.kinds import recognised
    from darsr_deploy.video.frames import STREAM, is_video

    kind = recognised(path) if path != STREAM else None
    return kind == "video" or (kind is None and is_video(path))


def describe_clip(row: dict) -> str:
    """Return the line that is printed of a clip that was enlarged."""
    decision = f"  {row['decision']}" if "decision" in row else ""
    size, speed = f"{row['width']}x{row['height']}", f"{row['engine']}, {row['fps']:.1f} fps"
    return f"{row['input']} -> {row['output']}{decision}  ({size}, {row['frames']} frames, {speed})"
