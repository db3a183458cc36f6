"""The command line: parse, build options, one call, print. Heavy packages are imported by the command that needs them."""

from __future__ import annotations

from darsr_deploy import interrupts

interrupts.quiet()  # before the imports below, which take the time in which Ctrl-C would be a traceback

import importlib.metadata
import sys
from pathlib import Path
from typing import Annotated

import typer

from darsr_deploy.console import (
    BackboneOption,
    Failures,
    Json,
    Overwrite,
    Printed,
    command,
    make_folder,
    progress,
    say,
)
from darsr_deploy.errors import DarsrError
from darsr_train import adapt_command, backbone_commands, evaluation_commands
from darsr_train.runtime import require_torch
from export import bench_command, infer_command, report_command, triton_repository

app = typer.Typer(
    name="darsr",
    help="Blind super-resolution: adapt to one blurred photo in seconds, run it anywhere.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(backbone_commands.app, name="backbone")
app.add_typer(evaluation_commands.app)


def _version(asked: bool) -> None:
    if asked:
        print(importlib.metadata.version("darsr"))
        raise typer.Exit


@app.callback(help="Blind super-resolution: adapt to one blurred photo in seconds, run it anywhere.")
def start(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", is_eager=True, callback=_version, help="Print it.")] = False,
) -> None:
    """Two distributions of ONNX Runtime overwrite each other's files: say so before anything fails strangely."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a file name that is no text must not stop the others
            stream.reconfigure(errors="backslashreplace")
    from darsr_deploy.ort_engine import installed_runtimes, repair

    if len(installed_runtimes()) > 1 and context.invoked_subcommand != "doctor":
        say(f"warning: onnxruntime and onnxruntime-gpu are both installed and overwrite each other; repair: {repair()}")


app.command()(adapt_command.adapt)


@app.command()
@command
def export(
    adapter: Annotated[
        Path, typer.Argument(help="An adapter (.darsr); for engines also a model (.onnx) or a runtime bundle.")
    ],
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
    triton: Annotated[
        Path | None, typer.Option(help="Also put it into this model repository of NVIDIA Triton Inference Server.")
    ] = None,
    split: Annotated[
        bool, typer.Option("--split", help="A folder that runs any adapter of this kind, in tiles too: runtime bundle.")
    ] = False,
    format: Annotated[str, typer.Option(help="onnx, trt (TensorRT) or trt-rtx (TensorRT for RTX).")] = "onnx",
    shape: Annotated[str | None, typer.Option(help="Engines: the one size it takes, HxW.")] = None,
    shapes: Annotated[str | None, typer.Option(help="Engines: MIN,OPT,MAX, each HxW; 3x3,480x640,1920x1920.")] = None,
    target: Annotated[
        str | None, typer.Option(help="trt-rtx: compute capabilities to build for, sm_86,sm_89; no GPU is needed.")
    ] = None,
    workspace: Annotated[
        int, typer.Option(min=0, help="Engines: most scratch memory in MB while building; 0 for no limit.")
    ] = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
    failures: Failures = None,
) -> Printed:
    """Write a file (or a bundle) that computes what the adapter and its backbone compute, checked against PyTorch."""
    from darsr_deploy import jobs
    from darsr_deploy.adapter import Adapter
    from darsr_deploy.bundle import is_bundle
    from export.engine_command import EngineOptions, export_engine, export_split_engine
    from export.session import check_precision, require_onnx

    check_precision(precision)
    engines = EngineOptions(format, shape, shapes, target, workspace)
    in_bundle = is_bundle(adapter) and format != "onnx"
    split = split or in_bundle
    if triton is not None and (split or form == "filters"):
        why = "a bundle runs one adapter after another" if split else "form filters belongs to one image"
        raise DarsrError("--triton", why, "serve the form network or global")
    if calibration is not None and split:
        raise DarsrError(
            "--calibration", "is for int8, and bundles are fp32 or fp16", "leave it out, or leave out --split"
        )
    ready = in_bundle or (adapter.suffix == ".onnx" and format != "onnx" and not split)
    if not ready:  # a device without PyTorch builds engines from what was exported
        Adapter.load(adapter)
        require_torch()
        require_onnx()
    targets = jobs.Targets(overwrite)

    def claim(target: Path) -> Path:
        if triton is not None:
            triton_repository.check_free(target, triton, overwrite)
        return targets.claim(target, folder=split)

    what = (adapter, out, precision, form, backbone, image, calibration, floor, claim, say)
    of_bundle = (adapter, out, precision, form, backbone, image, floor, claim, say)
    if split and format != "onnx":
        with progress("TensorRT") as report:
            row = export_split_engine(*of_bundle, engines, report)
    elif split:
        from export.command import export_split

        row = export_split(*of_bundle)
    elif format == "onnx":
        from export.command import export_adapter

        row = export_adapter(*what)
    else:
        with progress("TensorRT") as report:
            row = export_engine(*what, engines, report)
    if triton is not None:
        row["triton"] = str(triton_repository.publish(Path(row["model"]), triton, overwrite))
    if as_json:
        return row
    cost = f"{row['bytes'] / 1000:.0f} kB, {row['macs_per_lr_pixel'] / 1000:.1f}k multiply-adds a pixel"
    distance = row["psnr_from_network_db"]
    away = f", {distance:.1f} dB from form network" if distance is not None else ""
    print(f"{adapter} -> {row['model']}  ({cost}, {row['parity_psnr_db']:.0f} dB from PyTorch{away})")
    return None


app.command()(infer_command.infer)
app.command()(bench_command.bench)
app.command()(report_command.report)


@app.command()
@command
def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.")] = Path("demo"),
    seed: Annotated[int, typer.Option(min=0, help="Draws the blur.")] = 0,
    as_json: Json = False,
    failures: Failures = None,
) -> Printed:
    """The whole way on a photo that comes with an installed package: blur, adapt, export, infer, compare."""
    require_torch()
    from export.session import require_onnx

    require_onnx()
    make_folder(out)
    from export.demo import run_demo

    with progress("demo") as report:
        result = run_demo(out, seed, report)
    if as_json:
        files = {name: str(file) for name, file in result.files.items()}
        return {"psnr_y": result.psnr, "seconds": result.seconds, "files": files}
    print(f"{'':18}Y-PSNR")
    for name, decibels in result.psnr.items():
        print(f"{name:18}{decibels:6.2f} dB")
    print(f"{'gain by adapting':18}{result.psnr['adapted'] - result.psnr['backbone alone']:+6.2f} dB\n")
    for name, seconds in result.seconds.items():
        print(f"{name:18}{seconds:6.2f} s")
    print(f"\npicture: {result.files['comparison.png']}")
    return None


@app.command()
@command
def doctor(
    as_json: Json = False,
    self_test: Annotated[
        bool, typer.Option("--self-test", help="Build, compare and time every engine that this machine has.")
    ] = False,
    model: Annotated[
        Path | None, typer.Option(help="--self-test: a model (.onnx); by default the default backbone.")
    ] = None,
    failures: Failures = None,
) -> Printed:
    """What this machine can run, what is missing, and the command that installs it. Exit 0 when infer works."""
    if self_test:
        from export.self_test import run_self_test

        with progress("self-test") as report:
            rows = run_self_test(model, say, report)
        if any(row.state == "failed" for row in rows):
            failures(DarsrError("the self-test", "failed", "see the rows that say failed"))
        if as_json:
            return [row.to_json() for row in rows]
        print("\n".join(map(str, rows)))
        return None
    from darsr_deploy.doctor import can_infer, examine, to_json

    findings = examine()
    works = can_infer(findings)
    if not works:
        failures(DarsrError("infer", "cannot run here", "see the parts that are missing or broken"))
    if as_json:
        return {"works": works, "parts": to_json(findings)}
    for f in findings:
        print(f"{f.state:8}{f.part:14}{f.detail}  (for {f.purpose})" + (f"\n{'':22}-> {f.repair}" if f.repair else ""))
    return None


if __name__ == "__main__":
    app()
