"""``darsr backbone``: list, info, import, train."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from darsr_deploy.console import Device, Failures, Json, Overwrite, Scale, Threads, command, progress
from darsr_deploy.errors import DarsrError

from .runtime import pick_device, require_torch

app = typer.Typer(help="The frozen super-resolution networks.", no_args_is_help=True)


@app.command("list")
@command
def backbone_list(as_json: Json = False, failures: Failures = None) -> None:
    """The backbones that come with this installation."""
    require_torch()
    from .backbones import describe, embedded_names, load_backbone

    rows = [describe(load_backbone(name, int(name[-1]))) for name in embedded_names()]
    print(
        json.dumps(rows, indent=1)
        if as_json
        else "\n".join(
            f"{r['name']}  x{r['scale']}  {r['parameters']:,} parameters  {r['macs_per_lr_pixel']:,} multiply-adds per LR pixel"
            for r in rows
        )
    )


@app.command("info")
@command
def backbone_info(name: str, scale: Scale = None, as_json: Json = False, failures: Failures = None) -> None:
    """Size, cost and provenance of a backbone (a name or a weight file)."""
    require_torch()
    from .backbones import describe, find_scale, load_backbone

    facts = describe(load_backbone(name, scale or find_scale(name)))
    print(json.dumps(facts, indent=1) if as_json else "\n".join(f"{key:20}{value}" for key, value in facts.items()))


@app.command("import")
@command
def backbone_import(
    file: Annotated[Path, typer.Argument(help="A published SRFBN-S weight file (.pth).")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Weight file to write; beside FILE by default.")
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    failures: Failures = None,
) -> None:
    """Convert published weights to safetensors: loaded safely, every shape checked."""
    require_torch()
    from darsr_deploy import jobs

    from .backbones import describe, import_weights

    target = out or file.with_suffix(".safetensors")
    jobs.Targets(overwrite).claim(target)
    facts = describe(import_weights(file, target))
    print(
        json.dumps({"file": str(target), **facts}, indent=1)
        if as_json
        else f"{file} -> {target}  ({facts['architecture']} x{facts['scale']}, sha256 {facts['sha256'][:16]}...)"
    )


@app.command("train")
@command
def backbone_train(
    images: Annotated[Path, typer.Argument(help="Folder of photographs.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Weight file to write; checkpoint and log stand beside it.")],
    arch: Annotated[str, typer.Option(help="edge or srfbn-s.")] = "edge",
    scale: Scale = 2,
    steps: Annotated[int, typer.Option(min=1)] = 60_000,
    batch: Annotated[int, typer.Option(min=1, help="Crops a step.")] = 8,
    patch: Annotated[int, typer.Option(min=8, help="Side of an LR crop in pixels.")] = 48,
    rate: Annotated[float, typer.Option(help="Peak learning rate.")] = 1e-3,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    bf16: Annotated[bool, typer.Option(help="Compute in bfloat16 where it is safe.")] = True,
    validate: Annotated[
        Path | None, typer.Option(help="Folder of HR photographs whose PSNR is shown and logged.")
    ] = None,
    start: Annotated[
        str | None, typer.Option(help="Backbone of the same architecture to go on from (a name or a weight file).")
    ] = None,
    licence: Annotated[str, typer.Option(help="Noted in the file.")] = "unstated",
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint beside OUT.")] = False,
    overwrite: Overwrite = False,
    device: Device = "auto",
    threads: Threads = 0,
    failures: Failures = None,
) -> None:
    """Train a backbone on bicubic pairs made from any folder of photographs."""
    require_torch()
    from darsr_deploy import jobs
    from darsr_deploy.imaging import list_images

    jobs.Targets(overwrite).claim(out)
    device = pick_device(device, threads)
    from .backbones import load_backbone, save_backbone
    from .train_backbone import BackboneTraining, train_backbone

    try:
        options = BackboneTraining(
            architecture=arch, scale=scale, steps=steps, batch=batch, patch=patch, rate=rate, seed=seed, bf16=bf16
        )
    except ValueError as error:
        raise DarsrError("option", str(error), "see darsr backbone train --help") from error
    with progress(f"{arch}-x{scale}") as report:
        module = train_backbone(
            images,
            out,
            options,
            validation=validate,
            start=load_backbone(start, None).module if start else None,
            device=device,
            resume=resume,
            report=lambda entry: report({**entry, "steps": steps}),
        )
    facts = {
        "licence": licence,
        "data": f"{images.name}: {len(list_images(images))} images",
        "command": f"darsr backbone train {images.name} --arch {arch} --scale {scale} --steps {steps} --batch {batch} "
        f"--patch {patch} --rate {rate} --seed {seed} --{'' if bf16 else 'no-'}bf16"
        + (f" --start {Path(start).name}" if start else ""),
    }
    print(f"{out}  sha256 {save_backbone(module, out, facts)}")
