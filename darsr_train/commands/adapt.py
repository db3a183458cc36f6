"""``darsr adapt``: write one adapter per image."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from darsr_deploy.console.cluster import Cluster, ManifestFile, on_cluster
from darsr_deploy.console.command import (
    BackboneOption,
    Device,
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
    output_place,
    progress,
)
from darsr_deploy.errors import DarsrError

from ..runtime import checked_options


@command
def adapt(
    inputs: Annotated[list[Path], typer.Argument(metavar="INPUT", help="Images, or folders of images.")],
    out: Annotated[str | None, typer.Option("--out", "-o", help="Adapter file; a folder for several images.")] = None,
    scale: Scale = 2,
    profile: Annotated[
        str, typer.Option(help="fast (a second), thorough (half a minute) or paper (as published, hours).")
    ] = "fast",
    backbone: BackboneOption = "edge",
    steps: Annotated[
        int | None, typer.Option(min=0, help="Steps of a per-image fit (fast needs none; thorough: 600).")
    ] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Crops a step of a fit (4; thorough: 8; paper: 16).")] = None,
    crop: Annotated[
        int | None,
        typer.Option(min=1, help="Side of a crop of the image in pixels (64; thorough: 32; paper: 128 / scale)."),
    ] = None,
    budget: Annotated[
        float | None, typer.Option(help="Seconds of work: as many fitting steps as fit. The adapter records how many.")
    ] = None,
    amount: Annotated[
        float | None,
        typer.Option(
            help="Sharpen less (down to 0.1) or more (up to 4) than 1: multiplies the estimated blur's variance, or the "
            "strength of the correction of a camera's image."
        ),
    ] = None,
    denoise: Annotated[
        float | None, typer.Option(help="Share of the noise that was found to take away, 0 to 1. 1 if not given.")
    ] = None,
    deblock: Annotated[
        float | None, typer.Option(help="Share of JPEG's blocks and ringing to take away, 0 to 1. 1 if not given.")
    ] = None,
    start: Annotated[
        Path | None, typer.Option("--from", help="Another image's adapter to start from (a burst, the next scene).")
    ] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    device: Device = "auto",
    threads: Threads = 0,
    at_a_time: Jobs = None,
    cluster: Cluster = None,
    manifest: ManifestFile = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")] = False,
    gt: Annotated[
        Path | None, typer.Option(help="The true HR image: PSNR is reported; it is never used to choose.")
    ] = None,
    corrected: Annotated[
        str | None, typer.Option(help="Also write the corrected LR image here (a folder for several).")
    ] = None,
    preview: Annotated[
        str | None,
        typer.Option(help="Also draw before, after, kernel and filters on a page (PNG; a folder for several)."),
    ] = None,
    kernel: Annotated[
        Path | None,
        typer.Option(help="The true kernel (NPZ, as darsr degrade writes it): --preview draws it and the errors."),
    ] = None,
    max_pixels: MaxPixels = None,
    overwrite: Overwrite = False,
    skip_existing: SkipExisting = False,
    as_json: Json = False,
    failures: Failures = None,
) -> Printed:
    """Fit the correction to each image and write one adapter (.darsr) beside it."""
    from darsr_deploy.console import jobs
    from darsr_deploy.files import places
    from darsr_deploy.files.adapter import Adapter
    from darsr_deploy.files.hashing import hash_file
    from darsr_deploy.images.formats import check_target
    from darsr_deploy.images.reader import size_of

    from ..adaptation.inputs import check_input
    from ..adaptation.options import FIT_STEPS
    from ..evaluation.sets import read_kernel

    images, several = jobs.gather(inputs, failures)
    for name, given in (("--gt", gt), ("--kernel", kernel)):
        if given is not None and several:
            raise DarsrError(name, "applies to one image, and several were given", "adapt that image alone")
    if kernel is not None:
        if preview is None:
            raise DarsrError("--kernel", "is drawn on the page of --preview alone", "give --preview too")
        read_kernel(kernel)  # refused before minutes of work
    if steps is not None and budget is not None:
        raise typer.BadParameter("give only one of --steps and --budget")
    if start is not None and steps is None and budget is None and profile == "fast":
        steps = FIT_STEPS  # the other image's adapter is fitted to this image, not just copied
    sizes = {"steps": steps, "batch": batch, "crop": crop, "budget": budget}
    options = checked_options(profile, scale, seed=seed, amount=amount, denoise=denoise, deblock=deblock, **sizes)
    started_from = Adapter.load(start) if start is not None else None
    targets = places.Targets(overwrite, [*images, gt, kernel, start, backbone])
    corrected, preview = (output_place(place, several) for place in (corrected, preview))

    def settings() -> dict:
        from .adapt_tasks import settings_of

        read = {"from": start, "truth": gt, "kernel": kernel}
        own = {name: hash_file(path) if path else None for name, path in read.items()}
        return settings_of("adapt", backbone, options) | own | {"device": device}

    def plan(image: Path) -> dict:
        """Check the image and claim the paths of its results."""
        check_input(image, options)
        if gt is not None:
            size_of(gt)
        target = places.adapter_target(image, out, several)
        corrected_target = places.output_path(image, corrected, several, "_corrected", ".png") if corrected else None
        preview_target = places.output_path(image, preview, several, "_preview", ".png") if preview else None
        written = [target, *filter(None, (corrected_target, preview_target))]
        if run is not None:
            run.check((image,), tuple(written), targets)
        if skip_existing and all(path.exists() for path in written):
            raise places.AlreadyThere(target)
        if skip_existing:  # some are missing: the others stay as they are
            corrected_target, preview_target = (
                None if path is None or path.exists() else path for path in (corrected_target, preview_target)
            )
        goes_on = (resume or skip_existing) and target.exists()  # adapt_image checks that it is the one asked for
        for path in filter(None, (None if goes_on else target, corrected_target, preview_target)):
            targets.claim(path)
        for picture in filter(None, (corrected_target, preview_target)):
            check_target(picture, 1, 1, 3, 8)  # the suffix; sizes are checked when it is written
        own = {"image": image, "target": target, "corrected": corrected_target, "preview": preview_target}
        return own | {"resume": resume or goes_on}

    how = {"settings": settings, "workers": at_a_time, "threads": threads, "gpu": device.startswith("cuda")}
    with on_cluster(cluster, manifest, out, images, several, **how) as (run, out):
        plans = list(jobs.each(images, run.recording(plan) if run else plan, failures))
        rows = [{"input": row["input"], "adapter": row["output"], "skipped": True} for row in plans if "skipped" in row]
        plans = [plan for plan in plans if "skipped" not in plan]
        jobs.say_skipped(rows, run is not None)
        if not plans:  # reported before the seconds that importing PyTorch takes
            return one_or_list(rows, several) if as_json else None
        from .adapt_tasks import AdaptTask, adapt_tasks, prepare

        compares = bool(gt or corrected or preview)
        told, device = prepare(
            backbone, options, device, threads, start=started_from, compares=compares, here=run is None
        )
        same = {"backbone": backbone, "options": options, "device": device, "told": told}
        tasks = [AdaptTask(**own, **same, replace=overwrite, start=started_from, gt=gt, kernel=kernel) for own in plans]
        with progress("adapt") as report:
            for row in adapt_tasks(tasks, at_a_time or 1, threads, report, failures, run):
                rows.append(row)
                if not as_json:
                    print(_line(row))
        order = {str(image): place for place, image in enumerate(images)}
        return one_or_list(sorted(rows, key=lambda row: order[row["input"]]), several) if as_json else None


def _line(row: dict) -> str:
    gain = f", {row['psnr_y']:.2f} dB (backbone alone {row['psnr_y_backbone']:.2f} dB)" if "psnr_y" in row else ""
    decision = f"  {row['decision']}" if "decision" in row else ""
    return f"{row['input']} -> {row['adapter']}{decision}  ({row['seconds']:.1f} s{gain})"
