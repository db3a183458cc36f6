"""Where results go and adapters lie."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterable
from pathlib import Path

from ..errors import DarsrError
from .adapter import SUFFIX, adapter_path


class AlreadyThere(Exception):
    """An output exists and is to stay as it is: nothing is left to be done for it.

    Attributes:
        target: the output.
    """

    def __init__(self, target: Path | str) -> None:
        super().__init__(str(target))
        self.target = target


class Targets:
    """The files that one command writes: each is claimed before the work for it begins, so that none replaces another."""

    def __init__(
        self, overwrite: bool, inputs: Iterable[Path | str | None] = (), *, skip_existing: bool = False
    ) -> None:
        """Begin without claims.

        Args:
            inputs: files that no result may replace, whatever ``overwrite`` says; what is not a file is passed over.
            skip_existing: a claim of what exists raises :class:`AlreadyThere`.
        """
        self.overwrite, self.skip_existing = overwrite, skip_existing
        self.inputs = {identity for path in inputs if path is not None and (identity := _identity(path))}
        self.taken: set[str] = set()
        self.own: set[str] = set()  # whole paths that an earlier run of the same command left, which may be replaced
        self.writable: set[str] = set()  # folders in which a file could be made

    def claim(self, target: Path, folder: bool = False) -> Path:
        """Reserve a file (or a folder).

        Raises:
            DarsrError: it is an input (by any name: a link is the file it leads to), a folder instead of a file, exists
                and may not be overwritten, is the output of another input too, or its folder cannot be written.
            AlreadyThere: it exists, and what exists is to be skipped.
        """
        name = os.path.abspath(target)
        if name in self.taken:
            raise DarsrError(
                str(target), "another input of this command has the same output", "do them one after the other"
            )
        if not folder and os.path.isdir(target):
            raise DarsrError(str(target), "is a folder, and a file is to be written", "give a file's name")
        if _identity(target) in self.inputs:
            raise DarsrError(str(target), "is an input of this command", "choose another place with -o")
        exists = _exists(target) and name not in self.own
        if exists and self.skip_existing:
            raise AlreadyThere(target)
        if exists and not self.overwrite:
            raise DarsrError(str(target), "exists already", "give --overwrite, or another place with -o")
        self._check_folder(target, os.path.dirname(name))
        self.taken.add(name)
        return target

    def _check_folder(self, target: Path, folder: str) -> None:
        """Try to make a file: permissions alone do not tell (``/proc``, network drives)."""
        if folder not in self.writable:
            try:
                with tempfile.TemporaryFile(dir=folder):
                    self.writable.add(folder)
            except OSError as error:
                raise DarsrError(
                    str(target), "its folder is missing or cannot be written", "choose another place with -o"
                ) from error


def _identity(path: Path | str) -> tuple[int, int] | None:
    """Return device and number of a file, which all of its links share; None for a folder or what is missing."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return (status.st_dev, status.st_ino) if stat.S_ISREG(status.st_mode) else None


def _exists(target: Path) -> bool:
    """Tell whether anything has that name, a dangling link included.

    Raises:
        DarsrError: nothing can have that name: it is too long, for one.
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
    """Return where an image's result goes: ``photo<tail><suffix>`` beside it or in the folder ``out``, or the file ``out``."""
    name = f"{image.stem}{tail}{suffix or image.suffix}"
    if out is None:
        return image.with_name(name)
    if several or out.is_dir():
        return out / name
    return out


def adapter_target(image: Path, out: Path | None, several: bool) -> Path:
    """Return where an image's adapter goes: beside it, or as ``out`` says."""
    if out is None:
        return adapter_path(image)
    return out / adapter_path(image).name if several or out.is_dir() else out


def adapter_for(image: Path, given: Path | None, several: bool) -> Path:
    """Return the adapter to run an image with: in a folder its own before the given one, else the given one first.

    Raises:
        DarsrError: there is none.
    """
    chosen = adapter_in_bundle(image, given, several)
    if chosen is None:
        raise DarsrError(
            str(image),
            f"there is no adapter beside it ({adapter_path(image).name})",
            f"darsr upscale {image} needs none; or make one with darsr adapt {image}, give --adapter, or use --no-adapter",
        )
    return chosen


def adapter_in_bundle(image: Path, given: Path | None, several: bool) -> Path | None:
    """Return as :func:`adapter_for`, but None where there is none: a runtime bundle brings its own."""
    places = (adapter_path(image), image.with_suffix(SUFFIX), image.with_name(image.name + SUFFIX))
    own = next((p for p in places if os.path.isfile(p)), None)
    return (own or given) if several else (given or own)
