"""``darsr bench``: cost and quality of every engine that runs here, on one image."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from darsr_deploy.console.command import (
    BackboneOption,
    Failures,
    Json,
    Overwrite,
    Printed,
    Scale,
    Threads,
    command,
    progress,
)
from darsr_deploy.errors import DarsrError, option_error
from darsr_deploy.files.kinds import another_kind

_DEFAULT_SHAPE = (160, 240)  # height x width of a generated picture
_WRITERS = (".json", ".md", ".csv")


@command
def bench(
    source: Annotated[
        Path | None,
        typer.Argument(
            metavar="[MODEL|ADAPTER]", help="An .onnx file or a .darsr adapter; by default the backbone alone."
        ),
    ] = None,
    *,
    scale: Scale = None,
    backbone: BackboneOption = None,
    engine: Annotated[
        list[str] | None, typer.Option(help="torch, ort, trt or trt-rtx; repeatable; default all.")
    ] = None,
    provider: Annotated[list[str] | None, typer.Option(help="cpu or cuda; repeatable; default all.")] = None,
    precision: Annotated[
        list[str] | None, typer.Option(help="fp32, fp16, bf16 or int8; repeatable; default all.")
    ] = None,
    form: Annotated[list[str] | None, typer.Option(help="network, filters or global; repeatable; default all.")] = None,
    image: Annotated[
        Path | None, typer.Option(help="Input image; by default the adapted image, or a generated picture.")
    ] = None,
    shape: Annotated[str | None, typer.Option(metavar="HxW", help="Size of the generated picture (160x240).")] = None,
    gt: Annotated[
        Path | None, typer.Option(help="The true HR image of --image: each row's Y-PSNR is measured.")
    ] = None,
    scenario: Annotated[str, typer.Option(help="single-stream, multi-stream or offline (MLPerf's).")] = "single-stream",
    seconds: Annotated[float, typer.Option(min=0, help="Minimum seconds of measurement per row.")] = 3.0,
    iterations: Annotated[int, typer.Option(min=1, help="Minimum number of queries per row.")] = 10,
    warm_up: Annotated[float, typer.Option(min=0, help="Seconds of warm-up per row.")] = 0.2,
    threads: Threads = 0,
    compare: Annotated[
        tuple[Path, Path] | None, typer.Option(metavar="OLD NEW", help="Compare two JSON reports instead of measuring.")
    ] = None,
    fail_under: Annotated[
        float | None,
        typer.Option(
            help="Exit 1 if a row runs fewer frames per second than this; with --compare, if its speed relative to OLD "
            "is certainly below this (0.95: more than 5 % slower)."
        ),
    ] = None,
    out: Annotated[
        list[Path] | None,
        typer.Option("--out", "-o", help="Also write the report here: .json, .md or .csv; repeatable."),
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    verbose: Annotated[
        bool,
        typer.Option("--verbose", help="Say why rows did not run and figures are missing, instead of their number."),
    ] = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
    failures: Failures = None,
) -> Printed:
    """Measure latency, memory, power and PSNR of every engine, precision and form that runs here, in turn."""
    if as_json + markdown + as_csv > 1:
        raise typer.BadParameter("give only one of --json, --markdown and --csv")
    if compare is not None:
        if source is not None or as_csv or out:
            raise typer.BadParameter("--compare takes two reports and prints text, --markdown or --json")
        return _compare(*compare, fail_under, as_json, markdown, failures)
    from darsr_deploy.bench import tables as bench_tables
    from darsr_deploy.bench.run import Setting, measure
    from darsr_deploy.files import places
    from darsr_deploy.files.atomic import write_text

    try:
        setting = Setting(scenario, seconds, iterations, warm_up, threads)
    except ValueError as error:
        raise option_error(error, "darsr bench") from error
    targets = places.Targets(overwrite, [source, gt, image, backbone])
    for target in out or []:
        if target.suffix.lower() not in _WRITERS:
            raise DarsrError(str(target), "is not a kind of report", f"use one of {', '.join(_WRITERS)}")
        targets.claim(target)

    from .bench_plan import Choice

    choice = Choice(*(tuple(values or ()) for values in (engine, provider, precision, form)))
    picture = picture_of(source, image, shape)
    rows, known, why = _plan(source, backbone, scale, picture, choice, threads)
    if not rows:
        raise DarsrError("bench", "nothing matches --engine, --provider, --precision and --form", "leave one out")
    truth = truth_of(gt, picture, rows)
    with progress("bench") as report:
        result = measure(rows, picture, setting, known, truth, why_no_reference=why, report=report)
    texts: dict[str, Callable[[dict], str]] = {
        ".json": lambda r: json.dumps(r, indent=1, allow_nan=False),
        ".md": partial(bench_tables.markdown, verbose=verbose),
        ".csv": bench_tables.as_csv,
    }
    for target in out or []:
        write_text(target, texts[target.suffix.lower()](result).rstrip("\n") + "\n")
    if not as_json:
        shown = (
            texts[".md" if markdown else ".csv"] if markdown or as_csv else partial(bench_tables.text, verbose=verbose)
        )
        print(shown(result).rstrip("\n"))
    ran = [row for row in result["rows"] if row["n"] is not None]
    if not ran:
        failures(DarsrError("bench", "no engine runs here", "see darsr doctor"))
    for row in ran if fail_under is not None else []:
        if row["frames_per_second"] < fail_under:
            name = " ".join(row[key] for key in ("engine", "provider", "precision", "form") if row[key])
            speed = f"runs {row['frames_per_second']:.2f} frames a second"
            failures(DarsrError(name, speed, f"asked for with --fail-under {fail_under:g}"))
    return result if as_json else None


def picture_of(source: Path | None, image: Path | None, shape: str | None) -> np.ndarray:
    """Choose the picture to run: the image given, one of the shape given, the adapted image, or a generated one.

    Returns:
        uint8 H x W x 3, sides of at least 3.
    """
    from darsr_deploy.engines.upscale import pad_to_least
    from darsr_deploy.images.arrays import read_image, to_image
    from darsr_deploy.images.synthetic import natural_noise

    if image is not None and shape is not None:
        raise typer.BadParameter("give only one of --image and --shape")
    if image is None and shape is None and source is not None and source.suffix == ".darsr":
        from darsr_train.runtime import require_torch

        require_torch()
        from ..samples import find_photo

        image = find_photo(source)
    if image is not None:
        pixels = pad_to_least(read_image(image))
        return pixels if pixels.ndim == 3 else np.repeat(pixels[:, :, None], 3, axis=2)
    size = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", shape) if shape else None
    if shape and (not size or min(map(int, size.groups())) < 3):
        raise DarsrError(f"--shape {shape}", "is not HEIGHTxWIDTH of at least 3x3", "write it as 160x240")
    return to_image(natural_noise(*(map(int, size.groups()) if size else _DEFAULT_SHAPE)))


def truth_of(gt: Path | None, picture: np.ndarray, rows: list) -> np.ndarray | None:
    """Read the true image, uint8 sH x sW x 3: 2 or 4 times as large as the picture.

    Raises:
        DarsrError: another size.
    """
    if gt is None:
        return None
    from darsr_deploy.images.arrays import read_image

    truth = read_image(gt)
    truth = truth if truth.ndim == 3 else np.repeat(truth[:, :, None], 3, axis=2)
    fits = [s for s in (2, 4) if truth.shape[:2] == (s * picture.shape[0], s * picture.shape[1])]
    if not fits:
        sizes = (
            f"{truth.shape[1]}x{truth.shape[0]}, and the picture that is run is {picture.shape[1]}x{picture.shape[0]}"
        )
        raise DarsrError(str(gt), f"is {sizes}", "give the truth of --image, twice or four times as large")
    return truth


def _plan(source: Path | None, backbone: str | None, scale: int | None, picture: np.ndarray, choice, threads: int):
    """Return the rows, the reference outputs of PyTorch by form, and why those are missing."""
    from ..artefacts.subject import Source, Subject
    from . import bench_plan

    if source is not None and source.suffix != ".darsr":
        if another := another_kind(source, "model"):
            raise another
        return (
            bench_plan.of_model(source, choice, threads),
            {},
            "a model file has no network in PyTorch: give the adapter",
        )
    from darsr_train.runtime import require_torch

    require_torch()
    subject = Subject(Source(adapter=source, backbone=backbone, scale=scale or (2 if source is None else None)))
    rows = bench_plan.of_subject(subject, picture, choice, threads)
    return rows, bench_plan.references(subject, picture, rows), ""


def _compare(
    old: Path, new: Path, fail_under: float | None, as_json: bool, markdown: bool, failures: Failures
) -> Printed:
    from darsr_deploy.bench import compare as bench_compare

    result = bench_compare.compare(bench_compare.read(old), bench_compare.read(new))
    if not as_json:
        print(bench_compare.text(result, bars=markdown))
    for row in result["rows"] if fail_under is not None else []:
        if row["speed_high"] < fail_under:
            speed = f"runs at {row['speed']:.3f} of the old speed, at most {row['speed_high']:.3f}"
            failures(DarsrError(row["name"], speed, f"asked for with --fail-under {fail_under:g}"))
    return result if as_json else None
