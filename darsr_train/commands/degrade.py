"""``darsr degrade``: make test sets with ground truth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from darsr_deploy.console.command import (
    Failures,
    Json,
    Overwrite,
    Printed,
    Scale,
    command,
    make_folder,
    one_or_list,
)
from darsr_deploy.errors import DarsrError

from ..runtime import require_torch


@command
def degrade(
    inputs: Annotated[list[Path], typer.Argument(metavar="INPUT", help="HR photographs, or folders of them.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for LR/, HR/, kernel/ and manifest.json.")],
    kind: Annotated[
        list[str],
        typer.Option(
            help="gaussian, narrow, variant, motion, disk, other (motion or disk), odd (what no Gaussian describes) or none "
            "(only reduced); give several for one set each in OUT."
        ),
    ] = ("gaussian",),
    scale: Scale = 2,
    crop: Annotated[int | None, typer.Option(min=1, help="Crop HR to its centre, at most this wide and high.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Use only the first images.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="With an image's name, determines its blur.")] = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
    failures: Failures = None,
) -> Printed:
    """Make test sets for darsr eval: blur photographs with random kernels, reduce them, keep the kernels."""
    require_torch()
    from darsr_deploy.console import jobs
    from darsr_deploy.files import places

    from ..evaluation.degrade import KINDS, make_set

    if unknown := [k for k in kind if k not in KINDS]:
        raise DarsrError(f"kind {unknown[0]}", "is not known", f"choose one of {', '.join(KINDS)}")
    photos = jobs.expand(inputs, failures)[:limit]
    manifests = []
    for one in dict.fromkeys(kind) if photos else ():
        target = out / f"{one}_x{scale}" if len(kind) > 1 else out
        same = {"seed": seed, "side": crop, "targets": places.Targets(overwrite, photos)}
        manifest = make_set(photos, target, one, scale, **same, complain=failures, make_folder=make_folder)
        if not manifest["images"]:
            continue  # every reason has been reported
        manifests.append({"folder": str(target), **manifest})
        if not as_json:
            print(f"{target}: {len(manifest['images'])} images, {one} x{scale}, seed {seed}")
    return one_or_list(manifests, len(kind) > 1) if as_json else None
