"""The command line: parse, build options, one call, print. Heavy packages are imported by the command that needs them."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from darsr_deploy.console import (
    BackboneOption,
    Device,
    Failures,
    Json,
    Overwrite,
    Scale,
    Threads,
    command,
    make_folder,
    print_json,
    progress,
    say,
)
from darsr_deploy.errors import DarsrError
from darsr_train import backbone_commands, evaluation_commands
from darsr_train.runtime import checked_options, pick_device, require_torch
from export import infer_command

app = typer.Typer(
    name="darsr",
    help="Blind super-resolution: adapt to one blurred photo in seconds, run it anywhere.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(backbone_commands.app, name="backbone")
app.add_typer(evaluation_commands.app)


@app.callback(help="Blind super-resolution: adapt to one blurred photo in seconds, run it anywhere.")
def start(context: typer.Context) -> None:
    """Two distributions of ONNX Runtime overwrite each other's files: say so before anything fails strangely."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a file name that is no text must not stop the others
            stream.reconfigure(errors="backslashreplace")
    from darsr_deploy.ort_engine import REPAIR, installed_runtimes

    if len(installed_runtimes()) > 1 and context.invoked_subcommand != "doctor":
        say(f"warning: onnxruntime and onnxruntime-gpu are both installed and overwrite each other; repair: {REPAIR}")


@app.command()
@command
def adapt(
    inputs: Annotated[list[Path], typer.Argument(metavar="INPUT", help="Images, or folders of images.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Adapter file; a folder for several images.")] = None,
    scale: Scale = 2,
    profile: Annotated[str, typer.Option(help="fast (seconds) or paper (the published procedure, hours).")] = "fast",
    backbone: BackboneOption = "edge",
    steps: Annotated[int | None, typer.Option(min=0, help="Steps of the per-image fit.")] = None,
    budget: Annotated[
        float | None, typer.Option(help="Seconds of work; as many steps as fit in. The adapter tells how many.")
    ] = None,
    start: Annotated[
        Path | None, typer.Option("--from", help="Another image's adapter to start from (a burst, the next scene).")
    ] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    device: Device = "auto",
    threads: Threads = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was stopped.")] = False,
    gt: Annotated[
        Path | None, typer.Option(help="The true HR image: PSNR is reported, nothing is chosen by it.")
    ] = None,
    corrected: Annotated[
        Path | None, typer.Option(help="Also write the corrected LR image here (a folder for several).")
    ] = None,
    preview: Annotated[
        Path | None, typer.Option(help="A page to look at: before, after, kernel, filters (PNG; a folder for several).")
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    failures: Failures = None,
) -> None:
    """Fit the correction to each image and write one adapter (.darsr) beside it."""
    from darsr_deploy import jobs
    from darsr_deploy.adapter import Adapter

    require_torch()
    images = jobs.expand(inputs, failures)
    several = len(images) > 1 or any(os.path.isdir(p) for p in inputs)
    if gt is not None and several:
        raise DarsrError("--gt", "belongs to one image, and several were given", "adapt that image alone")
    if steps is not None and budget is not None:
        raise typer.BadParameter("give only one of --steps and --budget")
    options = checked_options(profile, scale, seed=seed, steps=steps, budget=budget)
    started_from = Adapter.load(start) if start is not None else None
    device = pick_device(device, threads)
    from darsr_train.adapt import adapt_image
    from darsr_train.backbones import load_backbone
    from darsr_train.evaluate import check_truth, save_corrected, truth_figures
    from darsr_train.preview import save_preview

    network = load_backbone(backbone, scale, device)
    targets = jobs.Targets(overwrite)

    def one(image: Path) -> dict:
        target = jobs.adapter_target(image, out, several)
        corrected_target = jobs.output_path(image, corrected, several, "_corrected", ".png") if corrected else None
        preview_target = jobs.output_path(image, preview, several, "_preview", ".png") if preview else None
        done = resume and target.exists()  # nothing to go on with: adapt_image checks that it is the one asked for
        for written in filter(None, (None if done else target, corrected_target, preview_target)):
            targets.claim(written)
        if gt is not None:
            check_truth(image, gt, scale)
        with progress(image.name) as report:
            adapter, seconds = adapt_image(image, target, network, options, device, resume, report, started_from)
        row = {
            "input": str(image),
            "adapter": str(target),
            "scale": scale,
            "profile": profile,
            "backbone": network.name,
            "seconds": round(seconds, 3),
        }
        row |= {
            "steps": adapter.facts["steps"],
            "chosen": adapter.facts["chosen"],
            "kernel_sum": adapter.facts["kernel_sum"],
            "seed": seed,
            "device": device,
        }
        if corrected_target:
            save_corrected(image, adapter, corrected_target, device)
        if preview_target:
            save_preview(image, adapter, network, preview_target, device)
        if gt is not None:
            row |= truth_figures(image, gt, adapter, network, device)
        if not as_json:
            gain = (
                f", {row['psnr_y']:.2f} dB (backbone alone {row['psnr_y_backbone']:.2f} dB)" if gt is not None else ""
            )
            print(f"{image} -> {target}  ({seconds:.1f} s{gain})")
        return row

    make_folder(out if several else None)
    make_folder(corrected if several else None)
    make_folder(preview if several else None)
    rows = list(jobs.each(images, one, failures))
    if as_json:
        print_json(rows, several)


@app.command()
@command
def export(
    adapter: Annotated[Path, typer.Argument(help="An adapter (.darsr).")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The model file; beside the adapter by default.")
    ] = None,
    precision: Annotated[str, typer.Option(help="fp32, fp16, bf16 or int8.")] = "fp32",
    form: Annotated[
        str | None, typer.Option(help="network, filters or global; by default what the adapter holds.")
    ] = None,
    backbone: BackboneOption = None,
    image: Annotated[
        Path | None, typer.Option(help="The adapted image; by default the one that lies beside the adapter.")
    ] = None,
    calibration: Annotated[
        Path | None, typer.Option(help="int8: folder of photographs; by default the adapted image.")
    ] = None,
    floor: Annotated[
        float | None, typer.Option(help="Least PSNR in dB against PyTorch; below it nothing is written.")
    ] = None,
    split: Annotated[
        bool, typer.Option("--split", help="A folder that runs any adapter of this kind, in tiles too: runtime bundle.")
    ] = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
    failures: Failures = None,
) -> None:
    """Write one ONNX file that computes what the adapter and its backbone compute, checked against PyTorch."""
    from darsr_deploy import jobs
    from darsr_deploy.adapter import Adapter
    from export.session import check_precision, require_onnx

    check_precision(precision)
    Adapter.load(adapter)
    require_torch()
    require_onnx()
    from export.command import export_adapter, export_split

    targets = jobs.Targets(overwrite)
    if split:
        row = export_split(adapter, out, precision, form, backbone, image, floor, targets.claim, say)
    else:
        row = export_adapter(adapter, out, precision, form, backbone, image, calibration, floor, targets.claim, say)
    if as_json:
        print(json.dumps(row, indent=1))
        return
    cost = f"{row['bytes'] / 1000:.0f} kB, {row['macs_per_lr_pixel'] / 1000:.1f}k multiply-adds a pixel"
    distance = row["psnr_from_network_db"]
    away = f", {distance:.1f} dB from form network" if distance is not None else ""
    print(f"{adapter} -> {row['model']}  ({cost}, {row['parity_psnr_db']:.0f} dB from PyTorch{away})")


app.command()(infer_command.infer)


@app.command()
@command
def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.")] = Path("demo"),
    seed: Annotated[int, typer.Option(min=0, help="Draws the blur.")] = 0,
    as_json: Json = False,
    failures: Failures = None,
) -> None:
    """The whole way on a photo that comes with an installed package: blur, adapt, export, infer, compare."""
    require_torch()
    from export.session import require_onnx

    require_onnx()
    make_folder(out)
    from export.demo import run_demo

    with progress("demo") as report:
        result = run_demo(out, seed, report)
    if as_json:
        print(
            json.dumps(
                {
                    "psnr_y": result.psnr,
                    "seconds": result.seconds,
                    "files": {k: str(v) for k, v in result.files.items()},
                },
                indent=1,
            )
        )
        return
    print(f"{'':18}Y-PSNR")
    for name, decibels in result.psnr.items():
        print(f"{name:18}{decibels:6.2f} dB")
    print(f"{'gain by adapting':18}{result.psnr['adapted'] - result.psnr['backbone alone']:+6.2f} dB\n")
    for name, seconds in result.seconds.items():
        print(f"{name:18}{seconds:6.2f} s")
    print(f"\npicture: {result.files['comparison.png']}")


@app.command()
@command
def doctor(as_json: Json = False, failures: Failures = None) -> None:
    """What this machine can run, what is missing, and the command that installs it. Exit 0 when infer works."""
    from darsr_deploy.doctor import can_infer, examine, to_json

    findings = examine()
    if as_json:
        print(json.dumps({"works": can_infer(findings), "parts": to_json(findings)}, indent=1))
    else:
        for f in findings:
            print(
                f"{f.state:8}{f.part:14}{f.detail}  (for {f.purpose})" + (f"\n{'':22}-> {f.repair}" if f.repair else "")
            )
    if not can_infer(findings):
        failures("infer cannot run here: see the parts above that are missing or broken")


if __name__ == "__main__":
    app()
