"""``darsr report``: one page to look at, for adapters and benchmarks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from darsr_deploy.console.command import (
    BackboneOption,
    Device,
    Failures,
    Json,
    Overwrite,
    Printed,
    command,
    output_place,
    say,
)
from darsr_deploy.errors import DarsrError
from darsr_deploy.files.adapter import SUFFIX
from darsr_train.runtime import pick_device, require_torch


@command
def report(
    adapters: Annotated[
        list[Path] | None, typer.Argument(metavar="ADAPTER", help="Adapters (.darsr), or folders of them.")
    ] = None,
    *,
    out: Annotated[str, typer.Option("--out", "-o", help="The page to write, or a folder for it.")] = "report.html",
    image: Annotated[
        Path | None,
        typer.Option(help="The image, or a folder of images; by default the adapted one, beside its adapter."),
    ] = None,
    gt: Annotated[
        Path | None, typer.Option(help="The true HR image, or a folder of them: PSNR and SSIM are shown.")
    ] = None,
    kernel: Annotated[
        Path | None,
        typer.Option(
            help="The true kernel (NPZ, as darsr degrade writes it), or a folder of them: drawn beside the others."
        ),
    ] = None,
    bench: Annotated[Path | None, typer.Option(help="A report of darsr bench --json, drawn as charts.")] = None,
    backbone: BackboneOption = None,
    device: Device = "auto",
    overwrite: Overwrite = False,
    as_json: Json = False,
    failures: Failures = None,
) -> Printed:
    """Write one self-contained HTML page: before and after, kernel, filters, losses, what was chosen and why."""
    from darsr_deploy.console import jobs
    from darsr_deploy.files import places
    from darsr_deploy.files.atomic import write_text

    paths = _expand(adapters or [], failures)
    if not paths and bench is None:
        raise DarsrError("darsr report", "nothing to show", "give an adapter (.darsr) or --bench")
    for name, given, kind in (("--image", image, "images"), ("--gt", gt, "images"), ("--kernel", kernel, "kernels")):
        if given is not None and len(paths) > 1 and not given.is_dir():
            raise DarsrError(name, f"is one file, and {len(paths)} adapters were given", f"give a folder of {kind}")
    place = output_place(out)
    target = place / "report.html" if place.is_dir() else place
    places.Targets(overwrite, [*paths, image, gt, kernel, bench, backbone]).claim(target)
    from ..report.bench import read_bench

    measured = read_bench(bench) if bench is not None else None
    if paths:
        require_torch()
    from ..report.page import build_page
    from ..report.subject import look_at

    device = pick_device(device, 0) if paths else "cpu"
    subjects = list(jobs.each(paths, lambda path: look_at(path, image, gt, backbone, device, kernel=kernel), failures))
    if not subjects and measured is None:
        return None  # each failure was said
    text = build_page(subjects, measured, None if subjects else "Benchmark")
    write_text(target, text)
    row = {"report": str(target), "bytes": len(text.encode()), "images": [_row(subject) for subject in subjects]}
    if as_json:
        return row
    say(f"open it in a browser: {target.resolve().as_uri()}")
    print(f"{', '.join(str(s.path) for s in subjects) or bench} -> {target}  ({row['bytes'] / 1e6:.1f} MB)")
    return None


def _row(subject) -> dict:
    scores = {
        f"{figure}_{name}" if name != "adapted" else figure: row[figure]
        for name, row in subject.scores.items()
        for figure in ("psnr_y", "ssim_y")
    }
    names = ("kernel_error", "kernel_error_gaussian")
    errors = {name: each.error for name, each in zip(names, subject.kernels) if each.error is not None}
    return {"adapter": str(subject.path), "image": str(subject.image), **scores, **errors}


def _expand(given: list[Path], complain) -> list[Path]:
    """List the files given and the adapters in the folders given."""
    found: list[Path] = []
    for path in given:
        inside = sorted(path.glob(f"*{SUFFIX}")) if path.is_dir() else [path]
        if not inside:
            complain(DarsrError(str(path), f"holds no adapters ({SUFFIX})", "make one with darsr adapt"))
        found += inside
    return found
