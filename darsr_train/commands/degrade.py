"""``darsr degrade``: making sets whose truth is known."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from darsr_deploy.console.command import (
    Failures,
    Json,
    Overwrite,
    Printed,
    command,
    make_folder,
    one_or_list,
)
from darsr_deploy.errors import DarsrError

from ..runtime import require_torch


@command
def degrade(
    folder: Annotated[Path, typer.Argument(help="HR photographs (PNG, JPEG).")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for LR/, HR/, kernel/ and manifest.json.")],
    kind: Annotated[
        list[str],
        typer.Option(
            help="gaussian, narrow, variant, motion, disk, other (motion or disk) or none (only reduced); "
            "several make a set each in OUT."
        ),
    ] = ("gaussian",),
    scale: Annotated[int, typer.Option(help="2 or 4.")] = 2,
    crop: Annotated[int | None, typer.Option(min=1, help="Take the middle: largest side of HR in pixels.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first images, by name.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Draws the blurs, together with the images' names.")] = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
    failures: Failures = None,
) -> Printed:
    """Make sets with known truth for darsr eval: blur photographs by random kernels, reduce, keep the kernels."""
    require_torch()
    from darsr_deploy.files import places
    from darsr_deploy.images.arrays import list_images

    from ..evaluation.degrade import KINDS, make_set

    if unknown := [k for k in kind if k not in KINDS]:
        raise DarsrError(f"kind {unknown[0]}", "is not known", f"choose of {', '.join(KINDS)}")
    if scale not in (2, 4):
        raise DarsrError(f"scale {scale}", "is not supported", "choose 2 or 4")
    photos = list_images(folder)[:limit]
    if not photos:
        raise DarsrError(str(folder), "holds no images (PNG, JPEG)", "give a folder with photographs")
    manifests = []
    for one in dict.fromkeys(kind):
        target = out / f"{one}_x{scale}" if len(kind) > 1 else out
        manifest = make_set(photos, target, one, scale, seed, crop, places.Targets(overwrite), failures, make_folder)
        manifests.append({"folder": str(target), **manifest})
        if not as_json:
            print(f"{target}: {len(manifest['images'])} images, {one} x{scale}, seed {seed}")
    return one_or_list(manifests, len(kind) > 1) if as_json else None
