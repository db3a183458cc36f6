"""Ctrl-C while the program is still being imported: one line and exit 130, as later."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType


def install_sigint_exit() -> None:
    """Let Ctrl-C end the process at once, where it runs ``darsr``; what imports this program otherwise has its own ways."""
    program = os.path.splitext(os.path.basename(sys.argv[0]))[0] if sys.argv else ""
    if program in ("darsr", "cli") and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)


def restore_sigint() -> None:
    """From now on Ctrl-C is an exception again, so that what is half-written can be removed."""
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _leave(number: int, frame: FrameType | None) -> None:
    os.write(2, b"interrupted\n")
    os._exit(130)
