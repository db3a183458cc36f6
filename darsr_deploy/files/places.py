"""Where results go: none is lost, neither an older one nor one written a moment ago. And what lies beside an image."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from ..errors import DarsrError
from .adapter import SUFFIX, adapter_path


class Targets:
    """The files one command writes: none is lost, neither an older one nor one written a moment ago."""

    def __init__(self, overwrite: bool) -> None:
        self.overwrite = overwrite
        self.taken: set[str] = set()
        self.writable: set[str] = set()  # folders in which a file could be made

    def claim(self, target: Path, folder: bool = False) -> Path:
        """Reserve a file (or a folder) before the work for it begins.

        Raises:
            DarsrError: it is a folder where a file is to be written, or exists and may not be overwritten, another input
                of this command has it, or its folder cannot be written.
        """
        name = os.path.abspath(target)
        if name in self.taken:
            raise DarsrError(
                str(target), "another input of this command has the same output", "do them one after the other"
            )
        if not folder and os.path.isdir(target):
            raise DarsrError(str(target), "is a folder, and a file is to be written", "give a file's name")
        if _exists(target) and not self.overwrite:
            raise DarsrError(str(target), "exists already", "give --overwrite, or another place with -o")
        self._check_folder(target, os.path.dirname(name))
        self.taken.add(name)
        return target

    def _check_folder(self, target: Path, folder: str) -> None:
        """By making a file: whether that is possible permissions alone do not tell (``/proc``, network drives)."""
        if folder not in self.writable:
            try:
                with tempfile.TemporaryFile(dir=folder):
                    self.writable.add(folder)
            except OSError as error:
                raise DarsrError(
                    str(target), "its folder is missing or cannot be written", "choose another place with -o"
                ) from error


def _exists(target: Path) -> bool:
    """Whether there is anything of that name.

    Raises:
        DarsrError: there can be nothing of that name: it is too long, for one.
    """
    try:
        os.lstat(target)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return False
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise DarsrError(str(target), f"cannot be written ({why})", "choose another name with -o") from error
    return True


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
    chosen = adapter_in_bundle(image, given, several)
    if chosen is None:
        raise DarsrError(
            str(image),
            f"there is no adapter beside it ({adapter_path(image).name})",
            f"make one with darsr adapt {image}, give --adapter, or use --no-adapter",
        )
    return chosen


def adapter_in_bundle(image: Path, given: Path | None, several: bool) -> Path | None:
    """As :func:`adapter_for`, but a runtime bundle has an adapter for images that have none: then None."""
    places = (adapter_path(image), image.with_suffix(SUFFIX), image.with_name(image.name + SUFFIX))
    own = next((p for p in places if os.path.isfile(p)), None)
    return (own or given) if several else (given or own)
