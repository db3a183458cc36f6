"""The exception for what a user can mend: a mistake, a damaged file, a missing library."""

from __future__ import annotations

import re


class DarsrError(Exception):
    """Something asked for cannot be done.

    The message is one line: what failed (the file or option by name), why, and a hint. Characters that a terminal would
    obey, which a file's name or content may hold, are escaped. The command line prints it and exits with 1.
    """

    def __init__(self, what: str, why: str, hint: str = "") -> None:
        super().__init__(what, why, hint)  # unpickled from these in another process

    def __str__(self) -> str:
        what, why, hint = self.args
        return escape(" ".join((f"{what}: {why}" + (f"; {hint}" if hint else "")).split()))

    def to_json(self) -> dict[str, str]:
        """Return ``{what, why, way_out}``, as ``--json`` prints it."""
        return dict(zip(("what", "why", "way_out"), (" ".join(text.split()) for text in self.args)))


class OutOfMemory(DarsrError):
    """A runtime ran out of memory; smaller tiles may fit."""


def option_error(error: ValueError, command: str) -> DarsrError:
    """Return the error of an option from what refused its value: "amount is 9; expected 0.1 to 4" is about --amount 9.

    Args:
        command: whose help says more.
    """
    name, _, why = str(error).partition(" ")
    if refused := re.fullmatch(r"is (.+); (expected .+)", why):
        name, why = f"{name} {refused[1].strip(chr(39))}", refused[2]
    return DarsrError(f"--{name}", why, f"see {command} -h")


def escape(text: str) -> str:
    """Return text as one line that a terminal only prints: control characters, which files may hold, are escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
