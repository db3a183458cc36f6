"""The program's front door: a path in the place of a command's name, and what a mistyped name may have meant."""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import Any

from typer.core import TyperGroup

_ENLARGE = "upscale"  # the command that a path alone means


class Commands(TyperGroup):
    """A group of commands that says which of them a mistyped name is close to."""

    elsewhere = ""  # what else a name might have been

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return a command's name, the command and its arguments; wrong usage where there is none of that name."""
        if args[0] not in self.commands and not ctx.resilient_parsing:
            close = difflib.get_close_matches(args[0], self.commands)
            hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
            ctx.fail(f"No such command {args[0]!r}{self.elsewhere}.{hint}")
        return super().resolve_command(ctx, args)


class Front(Commands):
    """All commands of ``darsr``; ``darsr PATH...`` is ``darsr upscale PATH...``."""

    elsewhere = ", nor a file or folder of that name"

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments before a command's name, which ``upscale`` is where a path or an option of it comes first."""
        if args and args[0] not in self.commands and (looks_like_path(args[0]) or self._is_option_of_upscale(args[0])):
            args = [_ENLARGE, *args]
        return super().parse_args(ctx, args)

    def _is_option_of_upscale(self, word: str) -> bool:
        own, theirs = (
            {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
            for command in (self, self.commands[_ENLARGE])
        )
        return word.startswith("-") and word.partition("=")[0] in theirs - own


def looks_like_path(word: str) -> bool:
    """Return whether a word names a file: one that exists, or a name with a suffix, a separator or a pattern in it."""
    if word == "-" or os.path.lexists(word):
        return True
    marks = (os.sep, os.altsep or os.sep, *"*?[")
    return not word.startswith("-") and (bool(Path(word).suffix) or any(mark in word for mark in marks))
