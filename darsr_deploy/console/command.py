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
from typing import Annotated, Any

import typer

from ..errors import DarsrError, escape
from ..images.formats import SUFFIXES as IMAGES
from ..memory import pixel_limit
from ..video.frames import STREAM
from ..video.frames import SUFFIXES as VIDEOS
from . import interrupts

Scale = Annotated[int | None, typer.Option("--scale", "-s", help="Enlargement: 2 or 4.")]
BackboneOption = Annotated[
    str | None, typer.Option(help="Name of an installed backbone, a weight file, or any network as .onnx.")
]
Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object (a list for several inputs) and nothing else on stdout.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace existing outputs.")]
SkipExisting = Annotated[
    bool, typer.Option("--skip-existing", help="Do only what is missing: outputs that exist stay as they are.")
]
Jobs = Annotated[
    int | None,
    typer.Option(
        "--jobs",
        min=1,
        help="Images at a time, each in a process with its share of threads (1); workers of --cluster (all).",
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
_OF_FILES = (*IMAGES, *VIDEOS, ".darsr", ".onnx", ".engine", ".json", ".html")  # suffixes that no folder is meant by
# What NumPy, OpenCV, PyTorch, ONNX Runtime and the system's loader say, in small letters, where memory does not suffice.
_NO_MEMORY = (
    *("out of memory", "outofmemory", "insufficient memory", "cannot allocate memory", "can't allocate memory"),
    *("failed to allocate", "bad_alloc", "can't start new thread", "failed to map segment", "not enough memory"),
)
SCALES = (2, 4)
_SEPARATORS = tuple({os.sep, os.altsep or os.sep})
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
        interrupts.raise_if_interrupted()
        self.errors.append(error)
        print(f"error: {error}", file=sys.stderr)

    def added_to(self, result: Printed) -> Printed:
        """Return a result with what could not be done: an object gets ``errors``, a list one more object that holds them."""
        if not self.errors:
            return result
        told = {"errors": [error.to_json() for error in self.errors]}
        return [*result, told] if isinstance(result, list) else {**(result or {}), **told}


def command(function: Callable) -> Callable:
    """Make a function a command: a user's mistake is one line and exit 1, Ctrl-C exit 130, SIGTERM exit 143.

    With ``--json`` the function returns what is to be printed, so that a failure is printed by the same rule everywhere.
    """

    @functools.wraps(function)
    def wrapped(*args: object, **kwargs: object) -> None:
        failures = Failures()
        log = logging.getLogger("darsr")
        log.addHandler(_TALK)  # a second time nothing happens
        log.setLevel(logging.INFO)
        try:
            interrupts.restore_sigint()
            _run(function, args, kwargs, failures)
        except KeyboardInterrupt:
            raise typer.Exit(interrupts.exit_code()) from None
        finally:
            interrupts.install_sigint_exit()  # nothing is left that could be half-written
        if failures.errors:
            raise typer.Exit(1)

    # Typer reads the signature: it must not see the argument that this wrapper supplies.
    signature = inspect.signature(function, eval_str=True)
    shown = [p for p in signature.parameters.values() if p.name != "failures"]
    wrapped.__dict__["__signature__"] = signature.replace(parameters=shown)
    wrapped.__annotations__ = {n: p.annotation for n, p in signature.parameters.items() if n != "failures"}
    return wrapped


def _run(function: Callable, args: tuple, kwargs: dict, failures: Failures) -> None:
    """Do the work and print its result; what fails goes into ``failures``, a bug and Ctrl-C through."""
    result = None
    _made.clear()
    try:
        if interrupts.is_closed("stdout"):
            raise DarsrError("standard output", "is closed", "redirect it to a file, or to /dev/null")
        if (scale := kwargs.get("scale")) not in (None, *SCALES):
            raise DarsrError(f"--scale {scale}", "there are networks for 2 and 4", "use --scale 2 or --scale 4")
        if kwargs.get("overwrite") and kwargs.get("skip_existing"):
            raise typer.BadParameter("give only one of --overwrite and --skip-existing")
        with pixel_limit(kwargs.get("max_pixels")):
            result = function(*args, **kwargs, failures=failures)
    except Exception as error:
        failures(_as_failure(error))
    finally:
        for folder in reversed(_made):
            with contextlib.suppress(OSError):  # not empty: it holds what was done
                folder.rmdir()
    try:
        if kwargs.get("as_json"):
            print(to_json(failures.added_to(result)))
        sys.stdout.flush()  # what is lost only when the process ends would be exit 0 without a result
    except OSError as error:
        failures(_as_failure(error))
        with contextlib.suppress(OSError, ValueError):  # what is still buffered for it is dropped
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, sys.stdout.fileno())
            os.close(null)


def _as_failure(error: Exception) -> DarsrError:
    """Turn what a machine lacks into one line; a bug, and a pipe whose reader has gone, are raised again."""
    interrupts.raise_if_interrupted()
    if isinstance(error, DarsrError):
        return error
    text = f"{type(error).__name__} {error}".lower()
    if isinstance(error, MemoryError) or any(sign in text for sign in _NO_MEMORY):
        hint = "close other programs, raise the limit, or give smaller images; large ones go in tiles (--tile)"
        return DarsrError("memory", "does not suffice", hint)
    if not isinstance(error, OSError) or error.errno == errno.EPIPE:  # Typer ends quietly
        raise error
    if error.errno == errno.ENOSPC:
        return DarsrError("output", f"could not be written ({error.strerror})", "free some space")
    if error.filename is None:
        why = f"cannot be used ({error.strerror or error})"
        return DarsrError("input or output", why, "check the files, their folders and the limits (ulimit)")
    # a name too long, a folder that may not be read, a drive that is gone
    return DarsrError(str(error.filename), f"cannot be used ({error.strerror})", "check the name")


def say(text: str) -> None:
    """Print talk to stderr; results alone go to stdout."""
    print("\n".join(map(escape, text.split("\n"))), file=sys.stderr)


def one_or_list(rows: list[dict], several: bool) -> Printed:
    """Return what ``--json`` prints of a command's inputs: a list for several, the object of one; None where it failed."""
    return rows if several else (rows[0] if rows else None)


def to_json(value: object) -> str:
    """Format as JSON; infinity and NaN, which it cannot hold, become null."""
    return json.dumps(json.loads(json.dumps(value), parse_constant=lambda _: None), indent=1)


@contextlib.contextmanager
def progress(title: str) -> Iterator[Callable[[dict], None]]:
    """Show a bar on stderr with figures and the seconds left; nothing where stderr is no terminal.

    Yields:
        a function that is told ``{"step", "steps"}`` (``steps`` None where nobody knows), and of what is shown beside it
        ``phase``, ``loss``, ``psnr_y``, ``fps``, ``rate``, ``left``, ``failed``; ``passing``: the bar goes when all steps are
        done, for the next one.
    """
    if not sys.stderr.isatty():
        yield lambda entry: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    figures = {"loss": "loss {:.4f}", "psnr_y": "{:.2f} dB", "fps": "{:.1f} fps"}
    figures |= {"rate": "{:.2f} images/s", "left": "{} left", "failed": "{} failed"}
    count = TextColumn("{task.completed:.0f}/{task.fields[steps]}")
    shown = TextColumn("{task.fields[figures]}")
    columns = (TextColumn("{task.description}"), BarColumn(), count, shown, TimeRemainingColumn())
    above = (
        sys.stdout.isatty()
    )  # a line printed meanwhile goes above the bar, on a terminal; to a file it goes as it is
    with Progress(*columns, console=Console(stderr=True), redirect_stdout=above, transient=True) as bar:
        tasks: dict[str, TaskID] = {}

        def report(entry: dict) -> None:
            phase, step, steps = entry.get("phase", title), entry["step"], entry["steps"]
            if phase not in tasks:
                name = f"{title}: {phase}" if phase != title else title
                tasks[phase] = bar.add_task(name, total=steps, figures="", steps="?")
            fields: dict[str, Any] = {"steps": "?" if steps is None else steps}
            fields["figures"] = "  ".join(form.format(entry[name]) for name, form in figures.items() if name in entry)
            over = entry.get("passing", False) and step >= steps
            bar.update(tasks[phase], completed=step, total=steps, visible=not over, **fields)

        yield report


def output_place(out: str | None, several: bool = False) -> Path | None:
    """Return the place of results as a path; a folder is made for several results, or where the name ends like one (``out/``).

    Raises:
        DarsrError: as :func:`make_folder`; or it is object storage.
    """
    if out is not None and "://" in out:
        raise DarsrError(f"-o {out}", "is object storage, which is written with --cluster alone", "give --cluster auto")
    path = None if out is None else Path(out)
    if path is not None and path != STREAM and (several or str(out).endswith(_SEPARATORS)):
        make_folder(path)
    return path


def make_folder(folder: Path | None) -> None:
    """Make a folder for results; it is removed when the command ends if nothing was written into it.

    Raises:
        DarsrError: it cannot be made, or its name is that of a file.
    """
    if folder is None or folder.is_dir():
        return
    if folder.suffix.lower() in _OF_FILES:
        raise DarsrError(str(folder), "is a file's name, and a folder is needed", "give a folder's name")
    missing = [part for part in (folder, *folder.parents) if not os.path.lexists(part)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DarsrError(str(folder), f"cannot be made a folder ({error.strerror})", "choose another place") from error
    finally:
        _made.extend(reversed(missing))
