"""``darsr backbone``: list, info, import, download and train."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from darsr_deploy.console.command import (
    Device,
    Failures,
    Json,
    Overwrite,
    Printed,
    Scale,
    Threads,
    command,
    output_place,
    progress,
    say,
)
from darsr_deploy.errors import escape, option_error

from ..runtime import pick_device, require_torch

if TYPE_CHECKING:
    from ..training.backbone import BackboneTraining

app = typer.Typer(help="The frozen super-resolution networks.", no_args_is_help=True)


@app.command("list")
@command
def backbone_list(as_json: Json = False, failures: Failures = None) -> Printed:
    """List the installed backbones and those that can be downloaded."""
    require_torch()
    from ..backbones import PUBLISHED, describe, installed_names, load_backbone

    installed = installed_names()
    rows = [{**describe(load_backbone(name, int(name[-1]))), "installed": True} for name in installed]
    rows += [
        {"name": p.name, "architecture": p.architecture, "scale": p.scale, "licence": p.licence, "installed": False}
        | {"command": p.command}
        for p in PUBLISHED.values()
        if p.name not in installed
    ]
    if as_json:
        return rows
    width = max(len(row["name"]) for row in rows)
    print("\n".join(_line(row, width) for row in rows))
    return None


def _line(row: dict, width: int) -> str:
    start = f"{row['name']:{width}}  x{row['scale']}  "
    if not row["installed"]:
        return f"{start}not installed: {row['command']}  licence: {row['licence']}"
    cost = f"{row['parameters']:,} parameters  {row['macs_per_lr_pixel']:,} multiply-adds per LR pixel"
    return f"{start}{cost}  licence: {row.get('licence', 'not stated')}"


@app.command("info")
@command
def backbone_info(
    name: Annotated[str, typer.Argument(help="A name, a weight file, or any network as .onnx.")],
    scale: Scale = None,
    as_json: Json = False,
    failures: Failures = None,
) -> Printed:
    """Print size, cost and provenance of a backbone."""
    require_torch()
    from ..backbones import describe, load_backbone

    facts = describe(load_backbone(name, scale))
    if as_json:
        return facts
    shown = {key: ", ".join(map(str, value)) if isinstance(value, list) else value for key, value in facts.items()}
    print("\n".join(escape(f"{key:20}{value}") for key, value in shown.items()))
    return None


@app.command("import")
@command
def backbone_import(
    file: Annotated[Path, typer.Argument(help="A published SRFBN-S weight file (.pth).")],
    out: Annotated[
        str | None, typer.Option("--out", "-o", help="Weight file to write, or a folder; beside FILE by default.")
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    failures: Failures = None,
) -> Printed:
    """Convert published weights to safetensors: loaded safely, every shape checked."""
    require_torch()
    from darsr_deploy.files import places

    from ..backbones import describe, import_weights

    target = output_place(out) or file.with_suffix(".safetensors")
    target = target / f"{file.stem}.safetensors" if target.is_dir() else target
    places.Targets(overwrite, [file]).claim(target)
    facts = describe(import_weights(file, target))
    if as_json:
        return {"file": str(target), **facts}
    print(f"{file} -> {target}  ({facts['architecture']} x{facts['scale']}, sha256 {facts['sha256'][:16]}...)")
    return None


@app.command("download")
@command
def backbone_download(
    name: Annotated[str, typer.Argument(help="srfbn-s-x2 or srfbn-s-x4.")],
    url: Annotated[
        str | None,
        typer.Option(help="Another place of the published file, such as a mirror: https://HOST/FOLDER."),
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    failures: Failures = None,
) -> Printed:
    """Download published weights, verify their sha256 and install them, so that --backbone finds them by name."""
    require_torch()
    from ..backbones import PUBLISHED, describe, download, load_backbone
    from ..backbones.store import installed_folder

    target = installed_folder() / f"{name}.safetensors"
    if name in PUBLISHED and target.is_file() and not overwrite:
        say(f"{name} is already installed")
    else:
        target = download(name, url)
    facts = describe(load_backbone(str(target), None))
    say(f"note: licence of these weights: {facts['licence']}; check with their authors what it allows")
    if as_json:
        return {"file": str(target), **facts}
    print(f"{name} -> {target}  ({facts['parameters']:,} parameters, sha256 {facts['sha256'][:16]}...)")
    return None


@app.command("train")
@command
def backbone_train(
    images: Annotated[Path, typer.Argument(help="Folder of photographs.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Weight file to write; checkpoint and log are kept beside it.")
    ],
    arch: Annotated[str, typer.Option(help="edge or srfbn-s.")] = "edge",
    scale: Scale = 2,
    channels: Annotated[int, typer.Option(min=0, help="Width; 0: the architecture's own.")] = 0,
    blocks: Annotated[int, typer.Option(min=0, help="Depth; 0: the architecture's own.")] = 0,
    steps: Annotated[int, typer.Option(min=1)] = 60_000,
    batch: Annotated[int, typer.Option(min=1, help="Crops a step.")] = 8,
    patch: Annotated[int, typer.Option(min=8, help="Side of an LR crop in pixels.")] = 48,
    rate: Annotated[float, typer.Option(help="Peak learning rate.")] = 1e-3,
    objective: Annotated[str, typer.Option(help="l1, or psnr for a shorter final training (--start).")] = "l1",
    luma: Annotated[float, typer.Option(help="Weight of Y in the loss; the rest is that of RGB.")] = 0.75,
    candidates: Annotated[
        int, typer.Option(min=1, help="Crops drawn for each one used: the most detailed is kept.")
    ] = 2,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    bf16: Annotated[bool, typer.Option(help="Compute in bfloat16 where it is safe.")] = True,
    validate: Annotated[Path | None, typer.Option(help="Folder of HR photographs to measure and log PSNR on.")] = None,
    start: Annotated[
        str | None, typer.Option(help="Backbone of the same architecture to start from (a name or a weight file).")
    ] = None,
    licence: Annotated[str, typer.Option(help="Recorded in the file.")] = "unstated",
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the checkpoint beside OUT.")] = False,
    overwrite: Overwrite = False,
    device: Device = "auto",
    threads: Threads = 0,
    failures: Failures = None,
) -> None:
    """Train a backbone on bicubic pairs made from any folder of photographs."""
    require_torch()
    from darsr_deploy.files import places
    from darsr_deploy.images.arrays import list_images

    places.Targets(overwrite, [start, *list_images(images)]).claim(out)
    device = pick_device(device, threads)
    from ..backbones import load_backbone, save_backbone
    from ..training.backbone import BackboneTraining, train_backbone

    try:
        options = BackboneTraining(
            architecture=arch, scale=scale, channels=channels, blocks=blocks, steps=steps, batch=batch, patch=patch,
            rate=rate, objective=objective, luma=luma, candidates=candidates, seed=seed, bf16=bf16,
        )  # fmt: skip
    except ValueError as error:
        raise option_error(error, "darsr backbone train") from error
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
        "command": f"darsr backbone train {images.name} --arch {arch} {_flags(options)}"
        + (f" --start {Path(start).name}" if start else ""),
    }
    print(f"{out}  sha256 {save_backbone(module, out, facts)}")


def _flags(options: BackboneTraining) -> str:
    """Return the options as typed, for the file's metadata: only those a training depends on."""
    names = "scale channels blocks steps batch patch rate objective luma candidates seed"
    values = {name: getattr(options, name) for name in names.split()}
    typed = [f"--{name} {value}" for name, value in values.items() if value or name not in ("channels", "blocks")]
    return " ".join([*typed, "--bf16" if options.bf16 else "--no-bf16"])
