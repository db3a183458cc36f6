"""The command line: register the commands. Heavy packages are imported by the command that needs them."""

from __future__ import annotations

import os

# NumPy's threads would wait for each other where other programs use the cores; with one the same cores give the same bytes.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from darsr_deploy.console import interrupts

interrupts.install_sigint_exit()  # before the imports below, which take the time in which Ctrl-C would be a traceback
interrupts.guard_streams()

import importlib.metadata
import sys
from typing import Annotated

import typer

from darsr_deploy.console.command import say
from darsr_deploy.console.front import Commands, Front
from darsr_train.commands import adapt, backbone, degrade, evaluate
from .commands import bench, demo, doctor, export, infer, report, ui, upscale

_HELP = (
    "Blind super-resolution: adapt to one blurred photo in seconds, run it anywhere.\n\n"
    "darsr photo.jpg adapts to it and enlarges it, short for darsr upscale photo.jpg."
)
app = typer.Typer(
    name="darsr",
    cls=Front,
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
evaluation = typer.Typer()
evaluation.command("eval")(evaluate.evaluate)
evaluation.command("degrade")(degrade.degrade)
app.add_typer(backbone.app, name="backbone", cls=Commands)
app.add_typer(evaluation)


def _version(asked: bool) -> None:
    if asked:
        print(importlib.metadata.version("darsr"))
        raise typer.Exit


@app.callback(help=_HELP)
def start(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", is_eager=True, callback=_version, help="Print it.")] = False,
) -> None:
    """Warn of two distributions of ONNX Runtime, which overwrite each other's files, before anything fails strangely."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a file name that is not text must not stop the others
            stream.reconfigure(errors="backslashreplace")
    from darsr_deploy.engines.ort import installed_runtimes, repair

    if len(installed_runtimes()) > 1 and context.invoked_subcommand != "doctor":
        say(f"warning: onnxruntime and onnxruntime-gpu are both installed and overwrite each other; repair: {repair()}")


first = (upscale.upscale, adapt.adapt, export.export, infer.infer)
for one in (*first, bench.bench, report.report, ui.ui, demo.demo, doctor.doctor):
    app.command()(one)
