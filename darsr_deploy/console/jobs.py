"""Several inputs in one command: what is read, what is written, and what happens when one of them fails."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from ..errors import DarsrError, escape
from ..files.kinds import READ_SUFFIXES, UNREAD, another_kind
from ..files.places import AlreadyThere
from ..images.arrays import SUFFIXES, is_named_like_result, list_images, list_results, stem_of_source
from ..video.frames import SUFFIXES as VIDEOS
from .command import say

Item = TypeVar("Item")


def gather(inputs: Iterable[Path], complain: Callable[[DarsrError], None]) -> tuple[list[Path], bool]:
    """Return the files that inputs stand for, as :func:`expand`, and whether several were asked for, be it one in the end."""
    given = list(inputs)
    files = expand(given, complain)
    return files, len(files) > 1 or any(os.path.isdir(path) or _is_pattern(path) for path in given)


def expand(inputs: Iterable[Path], complain: Callable[[DarsrError], None]) -> list[Path]:
    """Return files as they are, folders as the images in them, and patterns (``*.jpg``) as the files that they match.

    A folder or a pattern without images is reported and the others are done; a missing file is noticed when it is read. One
    line says what is passed over: of folders and patterns results of this toolkit and what is not read, and of several
    files, as a shell expands a pattern, results that lie beside what they were made from.
    """
    found: list[Path] = []
    named: list[Path] = []
    for path in inputs:
        if os.path.isdir(path):
            images, line = list_images(path), _describe_skipped(path, sorted(path.iterdir()), list_results(path))
            why, hint = "holds no images", "give a folder with photographs"
        elif _is_pattern(path):
            images, line = _match(path)
            why, hint = "matches no images", "check the pattern"
        else:
            named.append(path)
            found.append(path)
            continue
        if line:
            say(line)
        if not images:
            other = another_kind(path, "image", "folder")
            complain(other or DarsrError(str(path), f"{why} ({', '.join(SUFFIXES)})", hint))
        found += images
    if results := _results_beside_sources(named):
        found = [path for path in found if path not in set(results)]
        text = f"{len(results)} named like results of this toolkit ({results[0].name})"
        say(escape(f"passed over {text}, beside what they were made from; give such a file alone if it is meant"))
    return found


def _is_pattern(path: Path) -> bool:
    return any(mark in str(path) for mark in "*?[") and not os.path.lexists(path)


def _match(pattern: Path) -> tuple[list[Path], str | None]:
    """Return the images that a pattern matches, and videos where its suffix is one of theirs; and what is passed over."""
    files = [Path(name) for name in sorted(glob.glob(str(pattern), recursive=True)) if os.path.isfile(name)]
    suffixes = (*READ_SUFFIXES, *VIDEOS) if pattern.suffix.lower() in VIDEOS else READ_SUFFIXES
    others = [path for path in files if path.suffix.lower() not in suffixes]
    read = [path for path in files if path.suffix.lower() in suffixes]
    results = [path for path in read if is_named_like_result(path)]
    return [path for path in read if not is_named_like_result(path)], _describe_skipped(pattern, others, results)


def _results_beside_sources(files: list[Path]) -> list[Path]:
    """Return those of several files that are named like results and lie beside what they were made from."""
    results = [path for path in files if is_named_like_result(path)] if len(files) > 1 else []
    beside: dict[Path, set[str]] = {}
    for folder in {path.parent for path in results if path.parent.is_dir()}:
        read = (one for one in folder.iterdir() if one.suffix.lower() in (*READ_SUFFIXES, *VIDEOS))
        beside[folder] = {one.stem for one in read}
    return [path for path in results if stem_of_source(path) in beside.get(path.parent, ())]


def _describe_skipped(given: Path, files: list[Path], results: list[Path]) -> str | None:
    """Return a line that counts the pictures and videos among files that are passed over; None where there are none."""
    suffixes = [path.suffix.lower() for path in files if not path.name.startswith(".")]
    parts = [f"{len(results)} named like results of this toolkit ({results[0].name})"] if results else []
    if videos := sum(suffix in VIDEOS for suffix in suffixes):
        parts.append(f"{videos} {'video' if videos == 1 else 'videos'}")
    if others := sorted({suffix for suffix in suffixes if suffix in UNREAD}):
        count = sum(suffix in UNREAD for suffix in suffixes)
        parts.append(f"{count} of formats that are not read ({' '.join(others)})")
    if not parts:
        return None
    return escape(f"{given}: passed over {', '.join(parts)}; give by name what is meant")


def say_skipped(rows: list[dict], by_manifest: bool = False) -> None:
    """Say how many of the rows stand for outputs that existed (``--skip-existing``), or that a manifest has as finished."""
    if count := sum(row.get("skipped", False) for row in rows):
        say(f"{count} done before and passed over ({'see the manifest' if by_manifest else '--skip-existing'})")


def each(items: Iterable[Item], work: Callable[[Item], dict], complain: Callable[[DarsrError], None]) -> Iterator[dict]:
    """Do the work for every item; a failure is reported and the others are still done.

    Yields:
        what the work returns; ``{"input", "output", "skipped": True}`` where the output exists and is to stay as it is.
    """
    for item in items:
        try:
            yield work(item)
        except AlreadyThere as there:
            yield {"input": str(item), "output": str(there.target), "skipped": True}
        except DarsrError as error:
            complain(error)
