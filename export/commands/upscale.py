"""``darsr upscale``: adapt to pictures and videos and enlarge them, in one command."""

from __future__ import annotations

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
    say,
)
from darsr_deploy.errors import DarsrError
from darsr_train.runtime import checked_options

from .infer import describe_clip, is_clip


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
    at_a_time: Annotated[
        int, typer.Option("--jobs", min=1, help="Images at a time, each in a process with its share of threads.")
    ] = 1,
    threads: Threads = 0,
    max_pixels: MaxPixels = None,
    overwrite: Overwrite = False,
    skip_existing: SkipExisting = False,
    as_json: Json = False,
    failures: Failures = None,
) -> Printed:
    """Adapt to images and videos and enlarge them; darsr INPUT... is short for it."""
    from darsr_deploy.console import jobs
    from darsr_deploy.files import places

    from .upscale_run import Upscaling

    options = checked_options("fast", scale, amount=amount, denoise=denoise, deblock=deblock)
    files, several = jobs.gather(inputs, failures)
    upscaling = Upscaling(
        options, output_place(out, several), several, backbone=backbone, engine=engine, provider=provider,
        format=format, quality=quality, keep_adapter=keep_adapter, threads=threads, overwrite=overwrite,
    )  # fmt: skip
    targets = places.Targets(overwrite, [*files, backbone], skip_existing=skip_existing)
    plans = list(jobs.each(files, lambda file: upscaling.plan(file, is_clip(file), targets), failures))
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

        told, device = prepare(backbone or "edge", options, "auto", threads)
        for row in upscaling.pictures(pictures, at_a_time, device, told) if pictures else ():
            show(row)
        for row in jobs.each(clips, upscaling.clip, failures):
            show(row)
    jobs.say_skipped(rows)
    order = {str(file): place for place, file in enumerate(files)}
    return one_or_list(sorted(rows, key=lambda row: order[row["input"]]), several) if as_json else None


def _describe(row: dict) -> str:
    return f"{row['input']} -> {row['output']}  {row['decision']}  ({row['width']}x{row['height']}, {row['seconds']:.1f} s)"
