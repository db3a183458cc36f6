"""Several inputs in one command: what is read, what is written, and what happens when one of them fails."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from ..errors import DarsrError, escape
from ..files.kinds import UNREAD, another_kind
from ..images.arrays import SUFFIXES, list_images, list_results
from ..video.frames import SUFFIXES as VIDEOS
from .command import say

Item = TypeVar("Item")


def expand(inputs: Iterable[Path], complain: Callable[[DarsrError], None]) -> list[Path]:
    """Return files as they are, and folders as the images in them.

    A folder without images is reported and the others are done; a missing file is noticed when it is read. One line says
    what of a folder is passed over.
    """
    found: list[Path] = []
    for path in inputs:
        if not os.path.isdir(path):
            found.append(path)
            continue
        images = list_images(path)
        if line := _describe_skipped(path):
            say(line)
        if not images:
            why = f"holds no images ({', '.join(SUFFIXES)})"
            complain(
                another_kind(path, "image", "folder") or DarsrError(str(path), why, "give a folder with photographs")
            )
        found += images
    return found


def _describe_skipped(folder: Path) -> str | None:
    """Return a line that counts the pictures and videos of a folder that are passed over; None where there are none."""
    names = [name for name in os.listdir(folder) if not name.startswith(".")]
    suffixes = [os.path.splitext(name)[1].lower() for name in names]
    results = list_results(folder)
    parts = [f"{len(results)} named like results of this toolkit ({results[0].name})"] if results else []
    if videos := sum(suffix in VIDEOS for suffix in suffixes):
        parts.append(f"{videos} {'video' if videos == 1 else 'videos'}")
    if others := sorted({suffix for suffix in suffixes if suffix in UNREAD}):
        count = sum(suffix in UNREAD for suffix in suffixes)
        parts.append(f"{count} of formats that are not read ({' '.join(others)})")
    if not parts:
        return None
    return escape(f"{folder}: passed over {', '.join(parts)}; give by name what is meant")


def each(items: Iterable[Item], work: Callable[[Item], dict], complain: Callable[[DarsrError], None]) -> Iterator[dict]:
    """Do the work for every item; a failure is reported and the others are still done."""
    for item in items:
        try:
            yield work(item)
        except DarsrError as error:
            complain(error)
