"""``darsr upscale``: adapt to pictures and videos and enlarge them, in one command."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from darsr_deploy.console.cluster import Cluster, ManifestFile, on_cluster
from darsr_deploy.console.command import (
    BackboneOption,
    Failures,
    Jobs,
    Json,
    MaxPixels,
    Overwrite,
    Printed,
    Scale,
    SkipExisting,
    Threads,
    command,
    one_or_list,
    say,
)
from darsr_deploy.errors import DarsrError
from darsr_train.runtime import checked_options

from .infer import describe_clip


@command
def upscale(
    inputs: Annotated[
        list[Path], typer.Argument(metavar="INPUT", help='Images, folders of images, patterns ("*.jpg") or videos.')
    ],
    *,
    out: Annotated[str | None, typer.Option("--out", "-o", help="Output file; a folder for several inputs.")] = None,
    scale: Scale = 2,
    amount: Annotated[float | None, typer.Option(help="Sharpen less (down to 0.1) or more (up to 4) than 1.")] = None,
    denoise: Annotated[float | None, typer.Option(help="Share of the noise to take away, 0 to 1 (1).")] = None,
    deblock: Annotated[
        float | None, typer.Option(help="Share of JPEG's blocks and ringing to take away, 0 to 1 (1).")
    ] = None,
    backbone: BackboneOption = None,
    engine: Annotated[
        str, typer.Option(help="auto, ort (ONNX Runtime), trt or trt-rtx (TensorRT, for RTX) or torch.")
    ] = "auto",
    provider: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    format: Annotated[
        str | None, typer.Option(help="Of the pictures: png, jpg, webp or tiff; by default each one's own.")
    ] = None,
    quality: Annotated[int | None, typer.Option(min=1, max=100, help="Of JPEG and WebP (95).")] = None,
    keep_adapter: Annotated[
        bool,
        typer.Option("--keep-adapter", help="Keep each adapter beside its input, for darsr infer and darsr export."),
    ] = False,
    at_a_time: Jobs = None,
    threads: Threads = 0,
    cluster: Cluster = None,
    manifest: ManifestFile = None,
    max_pixels: MaxPixels = None,
    overwrite: Overwrite = False,
    skip_existing: SkipExisting = False,
    as_json: Json = False,
    failures: Failures = None,
) -> Printed:
    """Adapt to images and videos and enlarge them; darsr INPUT... is short for it."""
    from darsr_deploy.console import jobs
    from darsr_deploy.files import places

    from ..inference.session import needs_gpu
    from .upscale_run import Upscaling

    options = checked_options("fast", scale, amount=amount, denoise=denoise, deblock=deblock)
    files, several = jobs.gather(inputs, failures)

    def settings() -> dict:
        from darsr_train.commands.adapt_tasks import settings_of

        own = {"engine": engine, "provider": provider, "format": format, "quality": quality}
        return settings_of("upscale", backbone or "edge", options) | own

    how = {"settings": settings, "workers": at_a_time, "threads": threads, "gpu": needs_gpu(engine, provider)}
    with on_cluster(cluster, manifest, out, files, several, **how) as (run, place):
        upscaling = Upscaling(
            options, place, several, backbone=backbone, engine=engine, provider=provider, format=format,
            quality=quality, keep_adapter=keep_adapter, threads=threads, overwrite=overwrite, run=run,
        )  # fmt: skip
        targets = places.Targets(overwrite, [*files, backbone], skip_existing=skip_existing)
        plan = partial(upscaling.plan, targets)
        plans = list(jobs.each(files, run.recording(plan) if run else plan, failures))
        rows = [plan for plan in plans if isinstance(plan, dict)]  # of what is there already
        pictures, clips = (
            [plan for plan in plans if not isinstance(plan, dict) and plan.is_clip == kind] for kind in (False, True)
        )

        def show(row: dict | DarsrError) -> None:
            if isinstance(row, DarsrError):
                return failures(row)
            if line := row.pop("say", None):
                say(line)
            rows.append(row)
            if not as_json:
                print(describe_clip(row) if "frames" in row else _describe(row))

        if pictures or clips:  # else nothing heavy is imported
            from darsr_train.commands.adapt_tasks import prepare

            told, device = prepare(backbone or "edge", options, "auto", threads, here=run is None)
            for row in upscaling.pictures(pictures, at_a_time or 1, device, told) if pictures else ():
                show(row)
            for row in jobs.each(clips, upscaling.clip, failures):
                show(row)
        jobs.say_skipped(rows, run is not None)
    order = {str(file): place for place, file in enumerate(files)}
    return one_or_list(sorted(rows, key=lambda row: order[row["input"]]), several) if as_json else None


def _describe(row: dict) -> str:
    return f"{row['input']} -> {row['output']}  {row['decision']}  ({row['width']}x{row['height']}, {row['seconds']:.1f} s)"
