"""Several inputs in one command: what is read, what is written, and what happens when one of them fails."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from .adapter import SUFFIX, adapter_path
from .errors import DarsrError
from .imaging import SUFFIXES, list_images

Item = TypeVar("Item")


def expand(inputs: Iterable[Path]) -> list[Path]:
    """Files as they are, folders as the images in them.

    Raises:
        DarsrError: nothing of that name, or a folder without images.
    """
    found: list[Path] = []
    for path in inputs:
        if path.is_dir():
            images = list_images(path)
            if not images:
                raise DarsrError(
                    str(path), f"holds no images ({', '.join(SUFFIXES)})", "give a folder with photographs"
                )
            found += images
        else:
            found.append(path)  # a missing file is said when it is read, so that the others are still done
    return found


def output_path(image: Path, out: Path | None, several: bool, tail: str, suffix: str | None = None) -> Path:
    """Where the result of an image goes: ``photo<tail><suffix>`` beside it, in the folder ``out``, or at the file ``out``."""
    name = f"{image.stem}{tail}{suffix or image.suffix}"
    if out is None:
        return image.with_name(name)
    if several or out.is_dir():
        return out / name
    return out


def adapter_target(image: Path, out: Path | None, several: bool) -> Path:
    """Where the adapter of an image goes: beside it, or as ``out`` says."""
    if out is None:
        return adapter_path(image)
    return out / adapter_path(image).name if several or out.is_dir() else out


def adapter_for(image: Path, given: Path | None, several: bool) -> Path:
    """The adapter an image is run with: in a folder its own, then the given one; for one image the given one first.

    Raises:
        DarsrError: there is none.
    """
    own = next(
        (
            p
            for p in (adapter_path(image), image.with_suffix(SUFFIX), image.with_name(image.name + SUFFIX))
            if p.is_file()
        ),
        None,
    )
    chosen = (own or given) if several else (given or own)
    if chosen is None:
        raise DarsrError(
            str(image),
            f"there is no adapter beside it ({adapter_path(image).name})",
            f"make one with darsr adapt {image}, give --adapter, or use --no-adapter",
        )
    return chosen


def refuse_overwriting(target: Path, overwrite: bool) -> None:
    """Never lose a file that stands there.

    Raises:
        DarsrError: ``target`` exists and ``overwrite`` is off.
    """
    if target.exists() and not overwrite:
        raise DarsrError(str(target), "exists already", "give --overwrite, or another place with -o")


def each(items: Iterable[Item], work: Callable[[Item], dict], complain: Callable[[DarsrError], None]) -> Iterator[dict]:
    """Do the work for every item; a failure is said and the others are still done."""
    for item in items:
        try:
            yield work(item)
        except DarsrError as error:
            complain(error)
