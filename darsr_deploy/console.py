"""What the commands share: options of equal meaning, errors in one line, results on stdout, talk and bars on stderr."""

from __future__ import annotations

import contextlib
import functools
import inspect
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from .errors import DarsrError

Scale = Annotated[int | None, typer.Option(help="Enlargement: 2 or 4.")]
BackboneOption = Annotated[
    str | None, typer.Option(help="Name of an installed backbone, a weight file, or any network as .onnx.")
]
Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object (a list for several inputs) and nothing else on stdout.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace existing outputs.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Threads = Annotated[int, typer.Option(min=0, help="CPU threads; 0 leaves it to the runtime.")]


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
    # A line printed meanwhile goes above the bar, on a terminal; to a file it goes as it is.
    ways = {"disable": not sys.stderr.isatty(), "redirect_stdout": sys.stdout.isatty(), "transient": True}
    with Progress(*columns, console=console, **ways) as bar:
        tasks: dict[str, int] = {}

        def report(entry: dict) -> None:
            phase = entry.get("phase", title)
            if phase not in tasks:
                tasks[phase] = bar.add_task(
                    f"{title}: {phase}" if phase != title else title, total=entry["steps"], figures=""
                )
            figures = f"loss {entry['loss']:.4f}" if "loss" in entry else ""
            figures += f"  {entry['psnr_y']:.2f} dB" if "psnr_y" in entry else ""
            over = (
                entry.get("passing", False) and entry["step"] >= entry["steps"]
            )  # one of many: makes room for the next
            bar.update(tasks[phase], completed=entry["step"], total=entry["steps"], figures=figures, visible=not over)

        yield report


def make_folder(folder: Path | None) -> None:
    if folder is not None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DarsrError(
                str(folder), f"cannot be made a folder ({error.strerror})", "choose another place"
            ) from error
