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
    progress,
    say,
)
from darsr_deploy.errors import DarsrError
from darsr_train.runtime import require_torch

from ..artefacts import triton_repository


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
    from darsr_deploy.bundle.manifest import is_bundle
    from darsr_deploy.files import places
    from darsr_deploy.files.adapter import Adapter

    from ..artefacts.cache import require_onnx
    from ..inference.session import check_precision
    from .export_engines import EngineOptions, export_engine, export_split_engine

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
    targets = places.Targets(overwrite)

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
        from .export_files import export_split

        row = export_split(*of_bundle)
    elif format == "onnx":
        from .export_files import export_adapter

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
