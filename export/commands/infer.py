"""``darsr infer``: images and videos through an adapter, an exported model, or the backbone alone."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

import typer

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
    output_place,
    progress,
    say,
)
from darsr_deploy.engines.base import Engine
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
    from darsr_deploy.bundle.manifest import is_bundle
    from darsr_deploy.console import jobs
    from darsr_deploy.engines.tiled import TiledEngine, tile_side
    from darsr_deploy.files import places
    from darsr_deploy.files.adapter import Adapter
    from darsr_deploy.images.arrays import read_picture
    from darsr_deploy.images.formats import check_target
    from darsr_deploy.video.frames import STREAM

    from ..artefacts.subject import Source
    from ..inference.pictures import enlarge, result_shape, result_suffix
    from ..inference.session import open_engine

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
        from darsr_train.evaluation.measure import save_corrected
    if as_json and (out == str(STREAM) or (out is None and STREAM in inputs)):
        raise typer.BadParameter("--json and the video would both be written to stdout; give -o FILE")

    images, several = jobs.gather(inputs, failures)
    out = output_place(out, several)
    if out is not None and not several and not out.is_dir() and not any(map(is_clip, images)):
        check_target(out, 1, 1, 3, 8)  # by its suffix, before anything is opened or exported
    targets = places.Targets(overwrite, [*images, adapter, model, backbone], skip_existing=skip_existing)
    opened: dict[Source, Engine] = {}  # one engine at a time stays open: that of the last image
    held = contextlib.ExitStack()

    def open_source(source: Source) -> TiledEngine:
        options = {"precision": precision, "tile": side, "threads": threads, "trust": trust, "progress": progress}
        return open_engine(source, engine, provider, **options)

    def running(source: Source) -> Engine:
        if source not in opened:
            opened.clear()
            held.close()
            opened[source] = held.enter_context(open_source(source))
        return opened[source]

    def video(clip: Path) -> dict:
        from ..inference.video import VideoOptions, infer_video

        if corrected:
            raise DarsrError(str(clip), "--corrected is for images", "leave it out")
        given = source_of(clip) if model is not None or no_adapter else None
        opened.clear()  # a video's engines are its own: another may be opened while one runs
        held.close()
        more = {"backbone": backbone, "scale": scale, "readapt": readapt, "say": say, "progress": progress}
        row = infer_video(clip, out, several, targets, VideoOptions(open_source, given, adapter, **more))
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

    def one(image: Path) -> dict:
        if is_clip(image):
            return video(image)
        picture = read_picture(image)
        source = source_of(image)
        own = source.adapter if source.model is None else None  # which says its scale before anything is opened
        known = running(source).spec.scale if own is None else Adapter.load(own).scale
        target = places.output_path(image, out, several, f"_x{known}", result_suffix(image))
        check_target(target, *result_shape(picture.pixels, known))
        targets.claim(target)
        beside = out if out is None or several or out.is_dir() else out.parent
        corrected_target = places.output_path(image, beside, several, "_corrected", ".png")
        wanted = corrected and not (skip_existing and corrected_target.exists())
        if wanted:
            targets.claim(corrected_target)
        loaded = running(source)
        with progress(image.name) as loaded.report:
            row = enlarge(image, picture, loaded, target, replace=overwrite)
        if line := row.pop("say", None):
            say(line)
        if wanted:
            save_corrected(image, Adapter.load(source.adapter), corrected_target)
        if not as_json:
            size = f"{row['width']}x{row['height']}"
            print(f"{image} -> {target}  ({size}, {row['engine']}, {row['seconds']:.2f} s)")
        return row

    with held:
        rows = list(jobs.each(images, one, failures))
    jobs.say_skipped(rows)
    return one_or_list(rows, several) if as_json else None


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
