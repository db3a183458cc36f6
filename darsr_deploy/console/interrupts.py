"""Ctrl-C and SIGTERM: one line and exit 130 or 143 whenever they come, and a program started with closed streams.

Nothing heavy is imported here: this runs before the imports that take time.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_WORDS: dict[int, str] = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
_received: list[int] = []  # since the command began
_closed: set[str] = set()  # streams that were closed when the program started


def install_sigint_exit() -> None:
    """Let both signals end the process at once, where it runs ``darsr``; what imports this program has its own ways."""
    program = os.path.splitext(os.path.basename(sys.argv[0]))[0] if sys.argv else ""
    for number in _SIGNALS if program in ("darsr", "cli") else ():
        if signal.getsignal(number) in (signal.default_int_handler, signal.SIG_DFL, _raise):
            signal.signal(number, _leave)


def restore_sigint() -> None:
    """Make both signals exceptions from now on, so that what is half-written is removed."""
    _received.clear()
    for number in _SIGNALS:
        if signal.getsignal(number) is _leave:
            signal.signal(number, _raise)


def raise_if_interrupted() -> None:
    """Raise what a signal raised before, where something has turned it into an error of its own, as an import may.

    Raises:
        KeyboardInterrupt: a signal came since the command began.
    """
    if _received:
        raise KeyboardInterrupt


def exit_code() -> int:
    """Say on stderr which signal ended the command, and return its exit code."""
    number = _received[0] if _received else signal.SIGINT
    print(_WORDS[number], file=sys.stderr)
    return 128 + number


def guard_streams() -> None:
    """Put the null device in the place of standard streams that are closed, so that no file of ours gets their numbers."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115, as long as the program runs
            _closed.add(name)


def is_closed(stream: str) -> bool:
    """Return whether ``stdin``, ``stdout`` or ``stderr`` was closed when the program started."""
    return stream in _closed


def _raise(number: int, frame: FrameType | None) -> None:
    _received.append(number)
    if number == signal.SIGTERM:
        signal.signal(number, signal.SIG_IGN)  # a second one must not stop the first from tidying up
    raise KeyboardInterrupt


def _leave(number: int, frame: FrameType | None) -> None:
    os.write(2, f"{_WORDS[number]}\n".encode())
    os._exit(128 + number)
