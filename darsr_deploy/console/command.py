"""What the commands share: options of equal meaning, errors in one line, results on stdout, talk and bars on stderr."""

from __future__ import annotations

import contextlib
import errno
import functools
import inspect
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from ..errors import DarsrError, escape
from ..images.formats import SUFFIXES as IMAGES
from ..memory import pixel_limit
from ..video.frames import SUFFIXES as VIDEOS
from . import interrupts

Scale = Annotated[int | None, typer.Option(help="Enlargement: 2 or 4.")]
BackboneOption = Annotated[
    str | None, typer.Option(help="Name of an installed backbone, a weight file, or any network as .onnx.")
]
Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object (a list for several inputs) and nothing else on stdout.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace existing outputs.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
_OF_FILES = (*IMAGES, *VIDEOS, ".darsr", ".onnx", ".engine", ".json", ".html")  # suffixes that no folder is meant by
_made: list[Path] = []  # folders made by the command that runs
Printed = dict | list | None  # by --json; None where the command printed its result itself, or has none
MaxPixels = Annotated[
    int | None, typer.Option(min=1, help="Most pixels of an input (500 million, and none that memory does not hold).")
]
Threads = Annotated[int, typer.Option(min=0, help="CPU threads; 0 leaves it to the runtime.")]


class _Talk(logging.Handler):
    """What the library says while it works, on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        say(record.getMessage())


_TALK = _Talk()


class Failures:
    """Collects what could not be done; each is one line on stderr."""

    def __init__(self) -> None:
        self.errors: list[DarsrError] = []

    def __call__(self, error: DarsrError) -> None:
        self.errors.append(error)
        print(f"error: {error}", file=sys.stderr)

    def added_to(self, result: Printed) -> Printed:
        """A result with what could not be done: an object gets ``errors``, a list one more object that holds them."""
        if not self.errors:
            return result
        told = {"errors": [error.to_json() for error in self.errors]}
        return [*result, told] if isinstance(result, list) else {**(result or {}), **told}


def command(function: Callable) -> Callable:
    """A user's mistake is one line and exit 1; Ctrl-C is exit 130.

    With ``--json`` the function returns what is to be printed, so that a failure is printed by the same rule everywhere.
    """

    @functools.wraps(function)
    def wrapped(*args: object, **kwargs: object) -> None:
        failures, result = Failures(), None
        _made.clear()
        log = logging.getLogger("darsr")
        log.addHandler(_TALK)  # a second time nothing happens
        log.setLevel(logging.INFO)
        try:
            interrupts.restore_sigint()
            with pixel_limit(kwargs.get("max_pixels")):
                result = function(*args, **kwargs, failures=failures)
        except DarsrError as error:
            failures(error)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                failures(_no_space(error))
            elif error.filename is not None:  # a name too long, a folder that may not be read, a drive that is gone
                failures(DarsrError(str(error.filename), f"cannot be used ({error.strerror})", "check the name"))
            else:
                raise
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            raise typer.Exit(130) from None
        finally:
            for folder in reversed(_made):
                with contextlib.suppress(OSError):  # not empty: it holds what was done
                    folder.rmdir()
        try:
            if kwargs.get("as_json"):
                print(to_json(failures.added_to(result)))
            sys.stdout.flush()  # what is lost only when the process ends would be exit 0 without a result
        except OSError as error:
            if error.errno != errno.ENOSPC:  # a closed pipe, for one: Typer ends quietly
                raise
            failures(_no_space(error))
        if failures.errors:
            raise typer.Exit(1)

    # Typer reads the signature: it must not see the argument that this wrapper supplies.
    signature = inspect.signature(function, eval_str=True)
    shown = [p for p in signature.parameters.values() if p.name != "failures"]
    wrapped.__dict__["__signature__"] = signature.replace(parameters=shown)
    wrapped.__annotations__ = {n: p.annotation for n, p in signature.parameters.items() if n != "failures"}
    return wrapped


def _no_space(error: OSError) -> DarsrError:
    """The error for standard output on a full disk; what is still buffered for it is dropped."""
    with contextlib.suppress(OSError, ValueError):  # no file of the system
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
    return DarsrError("output", f"could not be written ({error.strerror})", "free some space")


def say(text: str) -> None:
    """Talk goes to stderr; results alone to stdout."""
    print("\n".join(map(escape, text.split("\n"))), file=sys.stderr)


def one_or_list(rows: list[dict], several: bool) -> Printed:
    """What ``--json`` prints of a command's inputs: a list for several, the object of one; None where it failed."""
    return rows if several else (rows[0] if rows else None)


def to_json(value: object) -> str:
    """Infinity and NaN, which JSON cannot hold, become null."""
    return json.dumps(json.loads(json.dumps(value), parse_constant=lambda _: None), indent=1)


@contextlib.contextmanager
def progress(title: str) -> Iterator[Callable[[dict], None]]:
    """A bar on stderr with loss and seconds left; silent where stderr is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TextColumn("{task.fields[figures]}"),
        TimeRemainingColumn(),
    )
    # A line printed meanwhile goes above the bar, on a terminal; to a file it goes as it is.
    hidden, above = not sys.stderr.isatty(), sys.stdout.isatty()
    with Progress(*columns, console=console, disable=hidden, redirect_stdout=above, transient=True) as bar:
        tasks: dict[str, TaskID] = {}

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
    """Make a folder for results; if nothing is written into it, it is gone when the command ends.

    Raises:
        DarsrError: it cannot be made, or its name is that of a file.
    """
    if folder is None or folder.is_dir():
        return
    if folder.suffix.lower() in _OF_FILES:
        raise DarsrError(
            str(folder), "is a file's name, and a folder is needed for several results", "give a folder's name"
        )
    missing = [part for part in (folder, *folder.parents) if not os.path.lexists(part)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DarsrError(str(folder), f"cannot be made a folder ({error.strerror})", "choose another place") from error
    finally:
        _made.extend(reversed(missing))
