"""``darsr export``: files and engines, each checked against PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from darsr_deploy.console.command import (
    BackboneOption,
    Failures,
    Json,
    Overwrite,
    Printed,
    command,
    output_place,
    progress,
)


@command
def export(
    adapter: Annotated[
        Path, typer.Argument(help="An adapter (.darsr); for engines also a model (.onnx) or a runtime bundle.")
    ],
    *,
    out: Annotated[
        str | None, typer.Option("--out", "-o", help="The model file, or a folder; beside the adapter by default.")
    ] = None,
    precision: Annotated[str, typer.Option(help="fp32, fp16, bf16 or int8.")] = "fp32",
    form: Annotated[str | None, typer.Option(help="network, filters or global; by default the adapter's own.")] = None,
    backbone: BackboneOption = None,
    image: Annotated[
        Path | None, typer.Option(help="The adapted image; by default the one beside the adapter.")
    ] = None,
    calibration: Annotated[
        Path | None, typer.Option(help="int8: folder of photographs; by default the adapted image.")
    ] = None,
    floor: Annotated[
        float | None, typer.Option(help="Minimum PSNR in dB against PyTorch; below it nothing is written.")
    ] = None,
    triton: Annotated[
        Path | None, typer.Option(help="Also publish it to this model repository of NVIDIA Triton Inference Server.")
    ] = None,
    keep_function: Annotated[
        bool,
        typer.Option(
            "--keep-function",
            help="Keep the correction filter one node, for TensorRT with the plugin of export/plugin.",
        ),
    ] = False,
    split: Annotated[
        bool,
        typer.Option(
            "--split", help="Write a runtime bundle: a folder that runs any adapter of this kind, also in tiles."
        ),
    ] = False,
    format: Annotated[str, typer.Option(help="onnx, trt (TensorRT) or trt-rtx (TensorRT for RTX).")] = "onnx",
    shape: Annotated[str | None, typer.Option(help="Engines: one fixed input size, HxW.")] = None,
    shapes: Annotated[str | None, typer.Option(help="Engines: MIN,OPT,MAX, each HxW; 3x3,480x640,1920x1920.")] = None,
    target: Annotated[
        str | None, typer.Option(help="trt-rtx: compute capabilities to build for, sm_86,sm_89; no GPU is needed.")
    ] = None,
    workspace: Annotated[
        int, typer.Option(min=0, help="Engines: limit of scratch memory in MB while building; 0 for no limit.")
    ] = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
    failures: Failures = None,
) -> Printed:
    """Write a file (or a bundle) that computes what the adapter and its backbone compute, checked against PyTorch."""
    from ..artefacts.request import ExportRequest, run_export

    options = {"backbone": backbone, "image": image, "calibration": calibration, "floor_db": floor}
    engines = {"format": format, "shape": shape, "shapes": shapes, "target": target, "workspace": workspace}
    where = {"triton": triton, "split": split, "keep_function": keep_function, "overwrite": overwrite}
    row = run_export(
        ExportRequest(adapter, output_place(out), precision, form, **options, **engines, **where), progress
    )
    if as_json:
        return row
    macs = row["macs_per_lr_pixel"]
    cost = f"{row['bytes'] / 1000:.0f} kB" + (
        f", {macs / 1000:.1f}k multiply-adds per pixel" if macs is not None else ""
    )
    distance = row["psnr_from_network_db"]
    away = f", {distance:.1f} dB from form network" if distance is not None else ""
    print(f"{adapter} -> {row['model']}  ({cost}, {row['parity_psnr_db']:.0f} dB from PyTorch{away})")
    return None
