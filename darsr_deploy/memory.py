"""Memory: how much is free, and whether an image may be decoded into it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from .errors import DarsrError

MOST_PIXELS = 500_000_000  # of an input, unless --max-pixels says otherwise
_SHARE = 0.9  # of the free memory that decoding may take
# A photograph is never smaller than a 400th of its pixels; flat images may be, as long as they cost little to decode.
_RATIO, _CHEAP = 400, 256 << 20


@contextlib.contextmanager
def pixel_limit(pixels: object) -> Iterator[None]:
    """Set the most pixels of an input in this process and those that it starts; None leaves the limit as it is."""
    before = os.environ.get("DARSR_MAX_PIXELS")
    try:
        if pixels is not None:
            os.environ["DARSR_MAX_PIXELS"] = str(pixels)  # which worker processes inherit
        yield
    finally:
        os.environ["DARSR_MAX_PIXELS"] = before or ""


def check_decoding(path: Path, width: int, height: int, *, stored: int, needed: int, file_bytes: int) -> None:
    """Refuse an image before it is decoded: too large, implausibly well compressed, or more than memory holds.

    Args:
        stored: bytes of the pixels as the file declares them.
        needed: bytes that decoding takes at its peak.

    Raises:
        DarsrError: says which, and how it can be read all the same.
    """
    given = os.environ.get("DARSR_MAX_PIXELS", "")
    limit = int(given) if given.isascii() and given.isdigit() else None
    size, allow = f"is {width}x{height} pixels", f"--max-pixels {width * height}"
    if width * height > (MOST_PIXELS if limit is None else limit):
        why = f"{size}, more than the {(limit or MOST_PIXELS) / 1e6:.0f} million that are read"
        raise DarsrError(str(path), why, f"cut it into parts, or give {allow}")
    if limit is None and stored > max(_CHEAP, _RATIO * file_bytes):
        why = f"claims {width}x{height} pixels in {file_bytes:,} bytes, which no photograph does"
        raise DarsrError(str(path), why, f"give {allow} if it is right")
    free = free_memory()
    if free is not None and needed > _SHARE * free:
        why = f"{size} and takes {needed / 1e9:.1f} GB to decode, and {free / 1e9:.1f} GB of memory are free"
        raise DarsrError(str(path), why, "cut it into parts, or free some memory")


def free_memory() -> int | None:
    """Return the bytes that this process may still take: free memory, or less where a control group limits it.

    None where the system does not say (Windows, macOS).
    """
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        return None
    return min([free, *_left_in_groups()])


def _left_in_groups(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> Iterator[int]:
    """Yield the bytes left under each limit of this process's control groups (versions 1 and 2)."""
    try:
        entries = [line.split(":", 2) for line in own.read_text().splitlines()]
    except OSError:
        return
    for _, controllers, path in entries:
        if controllers not in ("", "memory"):
            continue
        base, limit, usage = (
            (root, "memory.max", "memory.current")
            if not controllers
            else (root / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes")
        )
        folder = Path(os.path.normpath(f"{base}/{path}"))
        for place in [folder, *folder.parents]:
            if base not in (place, *place.parents):
                break
            try:
                most, used = (int((place / name).read_text()) for name in (limit, usage))
                cached = _reclaimable(place)
            except (OSError, ValueError):  # no limit there ("max"), or no such file
                continue
            yield max(0, most - used + cached)


def _reclaimable(group: Path) -> int:
    """Return the bytes of file pages that the kernel gives back on demand."""
    lines = (line.split() for line in (group / "memory.stat").read_text().splitlines())
    return sum(int(value) for name, value in lines if name in ("inactive_file", "total_inactive_file"))
