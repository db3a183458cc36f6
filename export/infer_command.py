"""``darsr infer``: images through an adapter, an exported model, or the backbone alone."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated

import typer

from darsr_deploy.console import (
    BackboneOption,
    Failures,
    Json,
    Overwrite,
    Scale,
    command,
    make_folder,
    print_json,
    progress,
    say,
)
from darsr_deploy.errors import DarsrError
from darsr_train.runtime import require_torch


@command
def infer(
    inputs: Annotated[list[Path], typer.Argument(metavar="INPUT", help="Images, or folders of images.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Output file; a folder for several images.")] = None,
    adapter: Annotated[Path | None, typer.Option(help="Adapter; by default the one beside the image.")] = None,
    model: Annotated[
        Path | None, typer.Option(help="An exported model (.onnx) instead of an adapter, or a bundle to run it in.")
    ] = None,
    no_adapter: Annotated[bool, typer.Option("--no-adapter", help="The backbone alone.")] = False,
    scale: Scale = None,
    backbone: BackboneOption = None,
    engine: Annotated[str, typer.Option(help="auto, ort (ONNX Runtime) or torch.")] = "auto",
    provider: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    precision: Annotated[
        str | None, typer.Option(help="fp32 (default), fp16, bf16 or int8; a model file has its own.")
    ] = None,
    tile: Annotated[
        str, typer.Option(help="Pixels of the small image at a time, a side; auto: by free memory, 0: all at once.")
    ] = "auto",
    corrected: Annotated[bool, typer.Option("--corrected", help="Also write the corrected LR image.")] = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
    failures: Failures = None,
) -> None:
    """Super-resolve images with their adapters, an exported model, or the backbone alone."""
    from darsr_deploy import jobs
    from darsr_deploy.adapter import Adapter
    from darsr_deploy.bundle import is_bundle
    from darsr_deploy.imaging import read_image, write_image
    from darsr_deploy.tiled import TiledEngine, tile_side
    from darsr_deploy.upscale import upscale

    from .session import Source, open_engine

    in_bundle = model is not None and is_bundle(model)
    if sum([adapter is not None, model is not None and not in_bundle, no_adapter]) > 1 or (in_bundle and no_adapter):
        raise typer.BadParameter("give only one of --adapter, --model and --no-adapter")
    side = tile_side(tile)
    if corrected:
        if model is not None or no_adapter:
            raise DarsrError(
                "--corrected", "the corrected LR image comes from an adapter, and none is used", "give --adapter"
            )
        require_torch()
        from darsr_train.evaluate import save_corrected
    images = jobs.expand(inputs, failures)
    several = len(images) > 1 or any(os.path.isdir(p) for p in inputs)
    make_folder(out if several else None)
    targets = jobs.Targets(overwrite)
    opened: dict[Source, object] = {}  # one engine at a time stays open: that of the last image

    def source_of(image: Path) -> Source:
        if in_bundle:
            return Source(jobs.adapter_in_bundle(image, adapter, several), model, None, scale)
        if model is not None:
            return Source(model=model, scale=scale)
        if no_adapter:
            return Source(backbone=backbone, scale=scale)
        return Source(jobs.adapter_for(image, adapter, several), None, backbone, scale)

    def one(image: Path) -> dict:
        pixels = read_image(image)
        source = source_of(image)
        if source not in opened:
            opened.clear()
            opened[source] = TiledEngine(open_engine(source, engine, provider, say, precision), side, say)
        running = opened[source]
        target = jobs.output_path(image, out, several, f"_x{running.spec.scale}")
        targets.claim(target)
        beside = out if out is None or several or out.is_dir() else out.parent
        corrected_target = jobs.output_path(image, beside, several, "_corrected", ".png")
        if corrected:
            targets.claim(corrected_target)
        started = time.perf_counter()
        with progress(image.name) as running.report:
            result = upscale(running, pixels)
        seconds = time.perf_counter() - started
        write_image(target, result)
        if corrected:
            save_corrected(image, Adapter.load(source.adapter), corrected_target)
        row = {"input": str(image), "output": str(target), "engine": running.name, "provider": running.provider}
        row |= {"seconds": round(seconds, 4), "height": result.shape[0], "width": result.shape[1]}
        if not as_json:
            print(f"{image} -> {target}  ({result.shape[1]}x{result.shape[0]}, {running.name}, {seconds:.2f} s)")
        return row

    rows = list(jobs.each(images, one, failures))
    if as_json:
        print_json(rows, several)
