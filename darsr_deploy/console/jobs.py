"""Several inputs in one command: what is read, what is written, and what happens when one of them fails."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from ..errors import DarsrError
from ..files.kinds import another_kind
from ..images.arrays import SUFFIXES, list_images

Item = TypeVar("Item")


def expand(inputs: Iterable[Path], complain: Callable[[DarsrError], None]) -> list[Path]:
    """Files as they are, folders as the images in them; a folder without images is said and the others are done.

    A missing file is not noticed here but when it is read.
    """
    found: list[Path] = []
    for path in inputs:
        if not os.path.isdir(path):
            found.append(path)
            continue
        images = list_images(path)
        if not images:
            why = f"holds no images ({', '.join(SUFFIXES)})"
            complain(
                another_kind(path, "image", "folder") or DarsrError(str(path), why, "give a folder with photographs")
            )
        found += images
    return found


def each(items: Iterable[Item], work: Callable[[Item], dict], complain: Callable[[DarsrError], None]) -> Iterator[dict]:
    """Do the work for every item; a failure is said and the others are still done."""
    for item in items:
        try:
            yield work(item)
        except DarsrError as error:
            complain(error)
