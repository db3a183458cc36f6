"""``darsr eval``: measure on test sets with ground truth."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from darsr_deploy.console.cluster import Cluster, ManifestFile, on_cluster
from darsr_deploy.console.command import (
    BackboneOption,
    Device,
    Failures,
    Jobs,
    Json,
    Overwrite,
    Printed,
    Threads,
    command,
    make_folder,
    progress,
    say,
    to_json,
)
from darsr_deploy.errors import DarsrError
from darsr_deploy.files.atomic import write_text

from ..runtime import pick_device, require_torch

if TYPE_CHECKING:
    from darsr_deploy.cluster.run import ClusterRun

_PARTS = ("LR", "HR", "kernel", "mask")  # folders of a set


@command
def evaluate(
    folders: Annotated[
        list[Path],
        typer.Argument(metavar="FOLDER", help="A folder with LR/ and HR/ of equal names, or a folder of such folders."),
    ],
    method: Annotated[
        str,
        typer.Option(
            help="fast, thorough or paper (adaptation), prior (the pre-trained correction as it is), nonblind (a filter in closed "
            "form from the true kernel/NAME.npz) or none (the backbone alone)."
        ),
    ] = "fast",
    with_prior: Annotated[bool, typer.Option("--with-prior", help="Measure the prior beside the method.")] = False,
    kernels: Annotated[
        bool,
        typer.Option("--kernels", help="Compare the estimated kernel with kernel/NAME.npz (fast, thorough, paper)."),
    ] = False,
    scale: Annotated[
        int | None, typer.Option("--scale", "-s", help="2 or 4; from the image sizes if not given.")
    ] = None,
    backbone: BackboneOption = "edge",
    steps: Annotated[
        int | None, typer.Option(min=0, help="Steps of the per-image fit (fast, thorough, paper).")
    ] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Keep the result here as JSON, written after every image.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue from OUT: its rows of the same images and options are kept.")
    ] = False,
    markdown: Annotated[Path | None, typer.Option(help="Write the tables here as Markdown.")] = None,
    sheet: Annotated[Path | None, typer.Option(help="Write a contact sheet here (PNG): crops side by side.")] = None,
    jobs: Jobs = None,
    cluster: Cluster = None,
    manifest: ManifestFile = None,
    overwrite: Overwrite = False,
    device: Device = "auto",
    threads: Threads = 0,
    as_json: Json = False,
    failures: Failures = None,
) -> Printed:
    """Measure PSNR and SSIM on test sets, per set and in total, beside bicubic and the backbone alone."""
    if resume and out is None:
        raise typer.BadParameter("--resume needs --out, the file to continue from")
    if steps is not None and method in ("none", "prior", "nonblind"):
        raise typer.BadParameter(f"--steps applies to fast, thorough and paper, not to {method}")
    if kernels and method in ("none", "prior", "nonblind"):
        raise typer.BadParameter(f"--kernels applies to fast, thorough and paper, which estimate one, not to {method}")
    require_torch()
    from darsr_deploy.files import places

    from ..evaluation.report import build_summary, show, write_sheet
    from ..evaluation.report import markdown as as_markdown
    from ..evaluation.run import read_rows, run
    from ..evaluation.sets import find_sets
    from ..evaluation.tasks import Request, prepare

    given = [path for folder in folders for path in folder.rglob("*") if path.parent.name in _PARTS]
    targets = places.Targets(overwrite or resume, given)
    for target in filter(None, (out, markdown, sheet)):
        targets.claim(target)
    if sheet is not None and sheet.suffix.lower() != ".png":
        raise DarsrError(str(sheet), "a contact sheet is a PNG", "give a name that ends with .png")
    if cluster is None or not device.startswith("cuda"):  # else the workers have it
        device = pick_device(device, threads)
    request = Request(method, backbone, seed, steps, with_prior, device, sheet is not None, resume, kernels)
    known = read_rows(out) if resume else {}
    how = {"settings": dict, "workers": jobs, "threads": threads, "gpu": device.startswith("cuda")}
    place = None if out is None else str(out)
    with (
        on_cluster(cluster, manifest, place, [folders[0] / "LR"], False, **how) as (on, _),
        _work_folder(out, on) as work,
    ):
        tasks, head, parts = prepare(find_sets(folders, scale, failures, say), request, work, failures)

        def keep(rows: list[dict]) -> None:
            if out is not None and rows:
                write_text(out, to_json(build_summary(head, parts, rows)))

        with progress("eval") as report, _resume_hint(out):
            rows = run(tasks, known, jobs or 1, threads, failures, report, keep, on)
        if not rows:
            return None  # every reason has been reported
        summary = build_summary(head, parts, rows)
        keep(rows)
        if sheet is not None:
            write_sheet(sheet, summary, {task.fingerprint: task.strip for task in tasks})
            for task in tasks if not failures.errors else []:  # else the next --resume uses them
                task.strip.unlink(missing_ok=True)
    if markdown is not None:
        write_text(markdown, as_markdown(summary))
    if as_json:
        return summary
    show(summary, None if sys.stdout.isatty() else 160)
    return None


@contextlib.contextmanager
def _work_folder(out: Path | None, on: ClusterRun | None) -> Iterator[Path]:
    """Provide a folder for unfinished adaptations and contact sheet crops, beside OUT so that a later run finds it."""
    if out is None:
        beside = None if on is None else on.manifest.path.parent  # which all nodes see
        with tempfile.TemporaryDirectory(prefix=".darsr-", dir=beside) as folder:
            yield Path(folder)
        return
    folder = out.with_name(f"{out.name}.work")
    make_folder(folder)
    try:
        yield folder
    finally:
        with contextlib.suppress(OSError):  # not empty: still needed
            folder.rmdir()


@contextlib.contextmanager
def _resume_hint(out: Path | None) -> Iterator[None]:
    """Tell on Ctrl-C how to continue."""
    try:
        yield
    except KeyboardInterrupt:
        if out is not None and out.is_file():
            say(f"finished images are in {out}: repeat the command with --resume to continue")
        raise
