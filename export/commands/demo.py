"""``darsr demo``: every step on one photo."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from darsr_deploy.console.command import (
    Failures,
    Json,
    Printed,
    command,
    make_folder,
    progress,
)
from darsr_train.runtime import require_torch


@command
def demo(
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.")] = Path("demo"),
    seed: Annotated[int, typer.Option(min=0, help="Draws the blur.")] = 0,
    as_json: Json = False,
    failures: Failures = None,
) -> Printed:
    """Run everything on a photo from an installed package: blur, adapt, export, infer, compare."""
    require_torch()
    from ..artefacts.subject import require_onnx

    require_onnx()
    make_folder(out)
    from .demo_run import run_demo

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
    print(f"\npicture: {result.files['comparison.png']}\n\nnext:")
    for line in next_lines(out):
        print(f"  {line}")
    return None


def next_lines(folder: Path) -> list[str]:
    """Return commands to type after the demo, with paths that exist."""
    called = Path(sys.argv[0])
    program = os.path.relpath(called) if called.name == "darsr" and called.is_file() else "darsr"
    words = (
        ("upscale", folder / "photo.png", "-o", "enlarged.png"),
        ("report", folder / "photo.darsr", "-o", "report.html"),
        ("bench", folder / "photo.onnx"),
    )
    return [shlex.join([program, *map(str, line)]) for line in words]
