"""Which engines that came from elsewhere were compared on this machine, so that it is done once for each GPU."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from .atomic import write_text
from .engine_cache import cache_key
from .errors import DarsrError
from .ort_engine import installed_runtimes

SUFFIX = ".compared"


def known(folder: Path, sha256: str, gpu: str, target: str) -> bool:
    """Whether an engine was compared on a GPU of this machine.

    Where it ran before there was anything to compare with, that counts until there is.
    """
    try:
        note = json.loads(_path(folder, sha256, gpu, target).read_bytes())
        return note["sha256"] == sha256 and (note["parity_psnr_db"] is not None or len(installed_runtimes()) != 1)
    except (OSError, ValueError, TypeError, KeyError):  # none, or a damaged one: it is compared again
        return False


def note(
    folder: Path, sha256: str, gpu: str, target: str, parity_psnr_db: float | None, say: Callable[[str], None]
) -> None:
    """Remember that an engine was compared, if that can be written anywhere; else it is compared at every start.

    Args:
        folder: the cache's.
        parity_psnr_db: worst PSNR; None where there was nothing to compare with.
    """
    facts = {"sha256": sha256, "gpu": gpu, "target": target, "parity_psnr_db": parity_psnr_db}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(_path(folder, sha256, gpu, target), json.dumps(facts, sort_keys=True) + "\n")
    except (OSError, DarsrError) as error:
        why = error.args[1]  # of either kind: what went wrong
        say(f"{folder}: cannot be written ({why}), so engines are compared at every start; set DARSR_CACHE")


def _path(folder: Path, sha256: str, gpu: str, target: str) -> Path:
    return folder / f"{cache_key(engine=sha256, gpu=gpu, target=target)}{SUFFIX}"
