"""The one exception that a user's mistake or a machine's lack may raise."""

from __future__ import annotations


class DarsrError(Exception):
    """Something asked for cannot be done.

    The message is one line: what failed (with the file's or the option's name), why, and the way out.
    The command line prints it and exits with 1; Python callers may catch it.
    """

    def __init__(self, what: str, why: str, hint: str = "") -> None:
        super().__init__(what, why, hint)  # what it is made from again in another process

    def __str__(self) -> str:
        what, why, hint = self.args
        return " ".join((f"{what}: {why}" + (f"; {hint}" if hint else "")).split())

    def to_json(self) -> dict[str, str]:
        """What ``--json`` prints of it: ``{what, why, way_out}``."""
        return dict(zip(("what", "why", "way_out"), (" ".join(text.split()) for text in self.args)))


class OutOfMemory(DarsrError):
    """A runtime could not have the memory that it asked for; less of the image at a time may do."""
