"""``darsr eval``: measuring adaptation on sets whose truth is known."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from darsr_deploy.console import BackboneOption, Device, Failures, Json, Scale, Threads, command, progress, to_json
from darsr_deploy.errors import DarsrError

from .runtime import checked_options, pick_device, require_torch

app = typer.Typer()


@app.command("eval")
@command
def evaluate(
    folder: Annotated[Path, typer.Argument(help="Holds LR/ and HR/ with equal names.")],
    method: Annotated[
        str, typer.Option(help="fast, prior (fast without its per-image fit), paper, or none (the backbone alone).")
    ] = "fast",
    scale: Scale = 2,
    backbone: BackboneOption = "edge",
    steps: Annotated[int | None, typer.Option(min=0)] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    device: Device = "auto",
    threads: Threads = 0,
    as_json: Json = False,
    failures: Failures = None,
) -> None:
    """Adapt to every LR image of a set with known truth and measure PSNR and SSIM (Y, border = scale)."""
    from darsr_deploy import jobs

    require_torch()
    device = pick_device(device, threads)
    from .backbones import load_backbone
    from .evaluate import evaluate_image, image_pairs, mean_of

    if method == "prior":
        options = checked_options("fast", scale, seed=seed, steps=0)
    else:
        options = None if method == "none" else checked_options(method, scale, seed=seed, steps=steps)
    network = load_backbone(backbone, scale, device)
    pairs = image_pairs(folder)

    def one(pair: tuple[Path, Path]) -> dict:
        with progress(pair[0].name) as report:
            return evaluate_image(*pair, network, options, device, report)

    rows = list(jobs.each(pairs, one, failures))
    if not rows:
        raise DarsrError(str(folder), "no image could be measured", "see the lines above")
    summary = {"folder": str(folder), "method": method, "backbone": network.name, "images": rows, "mean": mean_of(rows)}
    if as_json:
        print(to_json(summary))
    else:
        show_evaluation(summary)


def show_evaluation(summary: dict) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{summary['folder']}: {summary['method']}, {summary['backbone']} (Y-PSNR dB / SSIM)")
    for column in ("image", "bicubic", "backbone alone", summary["method"], "gain dB", "seconds", "chosen"):
        table.add_column(column, justify="left" if column in ("image", "chosen") else "right")
    for row in [*summary["images"], {"name": "mean", "chosen": "", **summary["mean"]}]:
        pair = lambda tail, row=row: f"{row['psnr_y' + tail]:.2f} / {row['ssim_y' + tail]:.4f}"  # noqa: E731
        table.add_row(
            row["name"],
            pair("_bicubic"),
            pair("_backbone"),
            pair(""),
            f"{row['psnr_y'] - row['psnr_y_backbone']:+.2f}",
            f"{row['seconds']:.1f}",
            row["chosen"],
        )
    Console(width=None if sys.stdout.isatty() else 140).print(table)
