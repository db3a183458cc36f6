"""Which engines may be loaded: an engine is code that runs with the user's rights.

The list holds the sha256 of every engine that this toolkit built on this machine. It lies in the user's state folder (or
what DARSR_STATE names) and only its owner can read or write it.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

import platformdirs
from filelock import FileLock

from ..errors import DarsrError

_DIGEST = re.compile(r"[0-9a-f]{64}$", re.M)  # a torn line may stand before it


def trust_list() -> Path:
    """Return where the list lies: in the user's state folder, or what DARSR_STATE names."""
    return Path(os.environ.get("DARSR_STATE") or platformdirs.user_state_dir("darsr")) / "trusted-engines"


def trust(sha256: str) -> None:
    """Add an engine that was built just now to the list.

    Raises:
        DarsrError: the list cannot be written.
    """
    path = trust_list()
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with FileLock(path.with_suffix(".lock")):
            if sha256 in _read(path):
                return
            # Created for the owner alone from the first moment on; one write of one line, so that no reader sees half.
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                os.write(handle, f"{sha256}\n".encode())
            finally:
                os.close(handle)
    except OSError as error:
        raise DarsrError(
            str(path), f"cannot be written ({error.strerror})", "set DARSR_STATE to a folder of your own"
        ) from error


def require_trust(engine: Path, sha256: str) -> None:
    """Refuse an engine that was not built here.

    Raises:
        DarsrError: not on the list, or a list that others could have written.
    """
    if sha256 not in _read(trust_list()):
        raise DarsrError(
            str(engine),
            "was not built on this machine, and an engine is code that runs with your rights",
            "give --trust if you know where it comes from, or build it here with darsr export",
        )


def _read(path: Path) -> set[str]:
    try:
        status = path.stat()
        if os.name == "posix" and (status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) or status.st_uid != os.getuid()):
            raise DarsrError(
                str(path),
                "can be written by others, so it proves nothing",
                f"remove it, or chmod 600 {path} after a look",
            )
        return set(_DIGEST.findall(path.read_text()))
    except FileNotFoundError:
        return set()
    except (OSError, UnicodeDecodeError) as error:
        raise DarsrError(str(path), f"cannot be read ({error})", "remove it and build the engines again") from error
