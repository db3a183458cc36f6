"""Commands run in this process, and how a test says what it expects of them; needs neither PyTorch nor a runtime."""

from __future__ import annotations

import contextlib
import json
import logging
import signal
from collections.abc import Iterator
from pathlib import Path

from typer.testing import CliRunner, Result

import cli

ALONE = ("--no-adapter", "--engine", "torch")
BRIEF = ("--steps", "2", "--device", "cpu", "--threads", "1")


def darsr(*arguments: object) -> Result:
    """Run a command in this process. What would be a traceback for the user fails the test."""
    result = CliRunner().invoke(cli.app, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def done(*arguments: object) -> Result:
    result = darsr(*arguments)
    assert result.exit_code == 0, result.stderr
    return result


def refused(*arguments: object, name: object, stdout: str = "") -> str:
    """Run a command that cannot be done: exit 1, nothing on stdout, and one line that begins with what it is about."""
    result = darsr(*arguments)
    assert result.exit_code == 1, (result.exit_code, result.stderr)
    assert result.stdout == stdout
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"error: {name}"), line
    assert "; " in line, f"no way out: {line}"
    return line


def strict_json(text: str):
    """Parsed as other languages do it: NaN and Infinity are no JSON."""

    def refuse(constant: str):
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


@contextlib.contextmanager
def told() -> Iterator[list[str]]:
    """Collect what the library says while it works: lines of the logger ``darsr``."""
    lines: list[str] = []
    log, handler = logging.getLogger("darsr"), logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    log.setLevel(logging.INFO)
    log.addHandler(handler)
    try:
        yield lines
    finally:
        log.removeHandler(handler)


def names(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir()}


def heed_ctrl_c() -> None:
    """Heed SIGINT in a new process, which inherits it ignored from a shell that runs the tests in the background."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
