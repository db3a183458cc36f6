"""The command line: parse, build options, one call, print. Heavy packages are imported by the command that needs them."""

from __future__ import annotations

import contextlib
import functools
import inspect
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from darsr_deploy.errors import DarsrError

app = typer.Typer(
    name="darsr",
    help="Blind super-resolution: adapt to one blurred photo in seconds, run it anywhere.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
backbone_app = typer.Typer(help="The frozen super-resolution networks.", no_args_is_help=True)
app.add_typer(backbone_app, name="backbone")

Scale = Annotated[int | None, typer.Option(help="Enlargement: 2 or 4.")]
BackboneOption = Annotated[str | None, typer.Option(help="Name of an installed backbone, or a weight file.")]
Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object (a list for several inputs) and nothing else on stdout.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace existing outputs.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Threads = Annotated[int, typer.Option(min=0, help="CPU threads; 0 leaves it to the runtime.")]


@app.callback(help="Blind super-resolution: adapt to one blurred photo in seconds, run it anywhere.")
def start(context: typer.Context) -> None:
    """Two distributions of ONNX Runtime overwrite each other's files: say so before anything fails strangely."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a file name that is no text must not stop the others
            stream.reconfigure(errors="backslashreplace")
    from darsr_deploy.ort_engine import REPAIR, installed_runtimes

    if len(installed_runtimes()) > 1 and context.invoked_subcommand != "doctor":
        say(f"warning: onnxruntime and onnxruntime-gpu are both installed and overwrite each other; repair: {REPAIR}")


class Failures:
    """Counts what could not be done; each is one line on stderr."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, error: DarsrError | str) -> None:
        self.count += 1
        print(f"error: {error}", file=sys.stderr)


def command(function: Callable) -> Callable:
    """A user's mistake is one line and exit 1; Ctrl-C is exit 130."""

    @functools.wraps(function)
    def wrapped(*args: object, **kwargs: object) -> None:
        failures = Failures()
        try:
            function(*args, **kwargs, failures=failures)
        except DarsrError as error:
            failures(error)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            raise typer.Exit(130) from None
        if failures.count:
            raise typer.Exit(1)

    # Typer reads the signature: it must not see the argument that this wrapper supplies.
    signature = inspect.signature(function, eval_str=True)
    wrapped.__signature__ = signature.replace(
        parameters=[p for p in signature.parameters.values() if p.name != "failures"]
    )
    wrapped.__annotations__ = {n: p.annotation for n, p in signature.parameters.items() if n != "failures"}
    return wrapped


def say(text: str) -> None:
    """Talk goes to stderr; results alone to stdout."""
    print(text, file=sys.stderr)


def print_json(rows: list[dict], several: bool) -> None:
    print(to_json(rows if several else (rows[0] if rows else {})))


def to_json(value: object) -> str:
    """Infinity and NaN, which JSON cannot hold, become null."""
    return json.dumps(json.loads(json.dumps(value), parse_constant=lambda _: None), indent=1)


@contextlib.contextmanager
def progress(title: str) -> Iterator[Callable[[dict], None]]:
    """A bar on stderr with loss and seconds left; silent where stderr is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TextColumn("{task.fields[figures]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not sys.stderr.isatty(), transient=True) as bar:
        tasks: dict[str, int] = {}

        def report(entry: dict) -> None:
            phase = entry.get("phase", title)
            if phase not in tasks:
                tasks[phase] = bar.add_task(
                    f"{title}: {phase}" if phase != title else title, total=entry["steps"], figures=""
                )
            figures = f"loss {entry['loss']:.4f}" + (f"  {entry['psnr_y']:.2f} dB" if "psnr_y" in entry else "")
            bar.update(tasks[phase], completed=entry["step"], figures=figures)

        yield report


def require_torch() -> None:
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise DarsrError(
            "this command", "needs PyTorch, which is not installed", 'install it: pip install "darsr[train]"'
        ) from error


def pick_device(device: str, threads: int) -> str:
    """Resolve ``auto``; refuse a device that is not there."""
    import torch

    if threads:
        torch.set_num_threads(threads)
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d+)?", device):
        raise DarsrError(f"device {device}", "is not known", "choose auto, cpu, cuda or cuda:N")
    index = int(device.partition(":")[2] or 0)
    if device != "cpu" and index >= torch.cuda.device_count():
        raise DarsrError(
            f"device {device}", f"PyTorch sees {torch.cuda.device_count()} CUDA devices", "use --device cpu"
        )
    return device


def checked_options(profile: str, scale: int, **changes: object):
    """Options of a profile; a value out of range is one line."""
    from darsr_train.config import AdaptOptions

    try:
        return AdaptOptions.profile(profile, scale, **changes)
    except ValueError as error:
        raise DarsrError("option", str(error), "see darsr adapt --help") from error


@app.command()
@command
def adapt(
    inputs: Annotated[list[Path], typer.Argument(metavar="INPUT", help="Images, or folders of images.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Adapter file; a folder for several images.")] = None,
    scale: Scale = 2,
    profile: Annotated[str, typer.Option(help="fast (seconds) or paper (the published procedure, hours).")] = "fast",
    backbone: BackboneOption = "edge",
    steps: Annotated[int | None, typer.Option(min=0, help="Steps of the per-image fit.")] = None,
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
    overwrite: Overwrite = False,
    as_json: Json = False,
    failures: Failures = None,
) -> None:
    """Fit the correction to each image and write one adapter (.darsr) beside it."""
    from darsr_deploy import jobs

    require_torch()
    images = jobs.expand(inputs, failures)
    several = len(images) > 1 or any(os.path.isdir(p) for p in inputs)
    if gt is not None and several:
        raise DarsrError("--gt", "belongs to one image, and several were given", "adapt that image alone")
    options = checked_options(profile, scale, seed=seed, steps=steps)
    device = pick_device(device, threads)
    from darsr_train.adapt import adapt_image
    from darsr_train.backbones import load_backbone
    from darsr_train.evaluate import check_truth, save_corrected, truth_figures

    network = load_backbone(backbone, scale, device)
    targets = jobs.Targets(overwrite)

    def one(image: Path) -> dict:
        target = jobs.adapter_target(image, out, several)
        corrected_target = jobs.output_path(image, corrected, several, "_corrected", ".png") if corrected else None
        done = resume and target.exists()  # nothing to go on with: adapt_image checks that it is the one asked for
        for written in filter(None, (None if done else target, corrected_target)):
            targets.claim(written)
        if gt is not None:
            check_truth(image, gt, scale)
        with progress(image.name) as report:
            adapter, seconds = adapt_image(image, target, network, options, device, resume, report)
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
    rows = list(jobs.each(images, one, failures))
    if as_json:
        print_json(rows, several)


def make_folder(folder: Path | None) -> None:
    if folder is not None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DarsrError(
                str(folder), f"cannot be made a folder ({error.strerror})", "choose another place"
            ) from error


@app.command()
@command
def export(
    adapter: Annotated[Path, typer.Argument(help="An adapter (.darsr).")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The model file; beside the adapter by default.")
    ] = None,
    backbone: BackboneOption = None,
    floor: Annotated[
        float | None, typer.Option(help="Least PSNR in dB against PyTorch; below it nothing is written.")
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    failures: Failures = None,
) -> None:
    """Write one ONNX file that computes what the adapter and its backbone compute, checked against PyTorch."""
    from darsr_deploy import jobs
    from darsr_deploy.adapter import Adapter

    Adapter.load(adapter)
    require_torch()
    from export.session import Source, load, require_onnx

    require_onnx()
    from export.to_onnx import export_onnx

    target = out or adapter.with_suffix(".onnx")
    jobs.Targets(overwrite).claim(target)
    pipeline, spec = load(Source(adapter=adapter, backbone=backbone))
    facts = export_onnx(pipeline, target, spec, floor)
    row = {"model": facts.pop("model"), "format": "onnx", "precision": spec.precision, "form": spec.form, **facts}
    print(
        json.dumps(row, indent=1)
        if as_json
        else f"{adapter} -> {target}  ({row['bytes'] / 1000:.0f} kB, {row['parity_psnr_db']:.0f} dB from PyTorch)"
    )


@app.command()
@command
def infer(
    inputs: Annotated[list[Path], typer.Argument(metavar="INPUT", help="Images, or folders of images.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Output file; a folder for several images.")] = None,
    adapter: Annotated[Path | None, typer.Option(help="Adapter; by default the one beside the image.")] = None,
    model: Annotated[Path | None, typer.Option(help="An exported model (.onnx) instead of an adapter.")] = None,
    no_adapter: Annotated[bool, typer.Option("--no-adapter", help="The backbone alone.")] = False,
    scale: Scale = None,
    backbone: BackboneOption = None,
    engine: Annotated[str, typer.Option(help="auto, ort (ONNX Runtime) or torch.")] = "auto",
    provider: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    corrected: Annotated[bool, typer.Option("--corrected", help="Also write the corrected LR image.")] = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
    failures: Failures = None,
) -> None:
    """Super-resolve images with their adapters, an exported model, or the backbone alone."""
    from darsr_deploy import jobs
    from darsr_deploy.adapter import Adapter
    from darsr_deploy.imaging import read_image, write_image
    from darsr_deploy.upscale import upscale
    from export.session import Source, open_engine

    if sum([adapter is not None, model is not None, no_adapter]) > 1:
        raise typer.BadParameter("give only one of --adapter, --model and --no-adapter")
    if corrected:
        if model is not None or no_adapter:
            raise DarsrError(
                "--corrected", "the corrected LR image comes from an adapter, and none is used", "give --adapter"
            )
        require_torch()
        from darsr_train.evaluate import save_corrected
    images = jobs.expand(inputs, failures)
    several = len(images) > 1 or any(os.path.isdir(p) for p in inputs)
    make_folder(out if several else None)
    targets = jobs.Targets(overwrite)
    opened: dict[Source, object] = {}  # one engine at a time stays open: that of the last image

    def source_of(image: Path) -> Source:
        if model is not None:
            return Source(model=model, scale=scale)
        if no_adapter:
            return Source(backbone=backbone, scale=scale)
        return Source(jobs.adapter_for(image, adapter, several), None, backbone, scale)

    def one(image: Path) -> dict:
        pixels = read_image(image)
        source = source_of(image)
        if source not in opened:
            opened.clear()
            opened[source] = open_engine(source, engine, provider, say)
        running = opened[source]
        target = jobs.output_path(image, out, several, f"_x{running.spec.scale}")
        targets.claim(target)
        beside = out if out is None or several or out.is_dir() else out.parent
        corrected_target = jobs.output_path(image, beside, several, "_corrected", ".png")
        if corrected:
            targets.claim(corrected_target)
        started = time.perf_counter()
        result = upscale(running, pixels)
        seconds = time.perf_counter() - started
        write_image(target, result)
        if corrected:
            save_corrected(image, Adapter.load(source.adapter), corrected_target)
        row = {"input": str(image), "output": str(target), "engine": running.name, "provider": running.provider}
        row |= {"seconds": round(seconds, 4), "height": result.shape[0], "width": result.shape[1]}
        if not as_json:
            print(f"{image} -> {target}  ({result.shape[1]}x{result.shape[0]}, {running.name}, {seconds:.2f} s)")
        return row

    rows = list(jobs.each(images, one, failures))
    if as_json:
        print_json(rows, several)


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
    from darsr_train.backbones import load_backbone
    from darsr_train.evaluate import evaluate_image, image_pairs, mean_of

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


@backbone_app.command("list")
@command
def backbone_list(as_json: Json = False, failures: Failures = None) -> None:
    """The backbones that come with this installation."""
    require_torch()
    from darsr_train.backbones import describe, embedded_names, load_backbone

    rows = [describe(load_backbone(name, int(name[-1]))) for name in embedded_names()]
    print(
        json.dumps(rows, indent=1)
        if as_json
        else "\n".join(
            f"{r['name']}  x{r['scale']}  {r['parameters']:,} parameters  {r['macs_per_lr_pixel']:,} multiply-adds per LR pixel"
            for r in rows
        )
    )


@backbone_app.command("info")
@command
def backbone_info(name: str, scale: Scale = None, as_json: Json = False, failures: Failures = None) -> None:
    """Size, cost and provenance of a backbone (a name or a weight file)."""
    require_torch()
    from darsr_train.backbones import describe, find_scale, load_backbone

    facts = describe(load_backbone(name, scale or find_scale(name)))
    print(json.dumps(facts, indent=1) if as_json else "\n".join(f"{key:20}{value}" for key, value in facts.items()))


@backbone_app.command("import")
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
    from darsr_train.backbones import describe, import_weights

    target = out or file.with_suffix(".safetensors")
    jobs.Targets(overwrite).claim(target)
    facts = describe(import_weights(file, target))
    print(
        json.dumps({"file": str(target), **facts}, indent=1)
        if as_json
        else f"{file} -> {target}  ({facts['architecture']} x{facts['scale']}, sha256 {facts['sha256'][:16]}...)"
    )


@backbone_app.command("train")
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
    from darsr_train.backbones import save_backbone
    from darsr_train.train_backbone import BackboneTraining, train_backbone

    try:
        options = BackboneTraining(
            architecture=arch, scale=scale, steps=steps, batch=batch, patch=patch, rate=rate, seed=seed, bf16=bf16
        )
    except ValueError as error:
        raise DarsrError("option", str(error), "see darsr backbone train --help") from error
    with progress(f"{arch}-x{scale}") as report:
        module = train_backbone(
            images, out, options, validate, device, resume, lambda entry: report({**entry, "steps": steps})
        )
    facts = {
        "licence": licence,
        "data": f"{images.name}: {len(list_images(images))} images",
        "command": f"darsr backbone train {images.name} --arch {arch} --scale {scale} --steps {steps} --batch {batch} "
        f"--patch {patch} --rate {rate} --seed {seed} --{'' if bf16 else 'no-'}bf16",
    }
    print(f"{out}  sha256 {save_backbone(module, out, facts)}")


if __name__ == "__main__":
    app()
