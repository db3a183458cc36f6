"""Write files and folders whole or not at all."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from ..errors import DarsrError

try:
    import fcntl
except ImportError:  # Windows, where an open file cannot be renamed: nothing is locked there, and nothing removed
    fcntl = None  # type: ignore[assignment]

_MARK = ".darsr-"  # in the names of temporary files and folders; eight letters follow
_OLD_S = 60.0  # younger ones may belong to a process that has not locked them yet


@contextlib.contextmanager
def atomic_path(target: str | os.PathLike[str], replace: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside ``target``; rename it over ``target`` if the block ends well.

    The temporary name keeps the suffix, by which image writers choose the format. On any exception, Ctrl-C included, the
    temporary file is removed and an older ``target`` stays as it was.

    Args:
        replace: False refuses a target that exists at the end: of several processes exactly one succeeds.

    Raises:
        DarsrError: the folder is missing or not writable, the disk is full, or the target exists.
    """
    target = Path(target)
    start = f".{target.stem[:40]}{_MARK}"
    _remove_leftovers(target.parent, start, target.suffix)
    handle: int | None
    try:
        handle, name = tempfile.mkstemp(prefix=start, suffix=target.suffix, dir=target.parent)
    except OSError as error:
        raise DarsrError(
            str(target), f"cannot write there ({error.strerror})", "choose another place with -o"
        ) from error
    temporary = Path(name)
    try:
        handle = _locked(handle)
        yield temporary
        with open(temporary, "r+b") as written:  # to be written: Windows flushes no other
            os.fsync(written.fileno())  # a power cut right after the rename must not leave an empty file
        _give_usual_mode(temporary)
        if replace:
            os.replace(temporary, target)
        else:
            _rename_to_new(temporary, target)
    except FileExistsError as error:
        raise DarsrError(
            str(target), "exists already: another program wrote it meanwhile", "give --overwrite"
        ) from error
    except OSError as error:
        raise DarsrError(
            str(target), f"could not be written ({error.strerror or error})", "free some space or choose another place"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
        if handle is not None:
            os.close(handle)


@contextlib.contextmanager
def atomic_folder(target: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield an empty folder beside ``target``; it takes the place of ``target`` if the block ends well.

    On any exception the new folder is removed and an older ``target`` stays as it was. A link stays a link: what it points
    to is replaced.

    Raises:
        DarsrError: the place is missing or not writable, or the disk is full.
    """
    place = Path(os.path.realpath(target))
    start = f".{place.name[:40]}{_MARK}"
    _remove_leftovers(place.parent, start, "")
    handle = None
    try:
        temporary = Path(tempfile.mkdtemp(prefix=start, dir=place.parent))
    except OSError as error:
        raise DarsrError(
            str(target), f"cannot write there ({error.strerror})", "choose another place with -o"
        ) from error
    older = temporary.with_name(temporary.name + "-older")
    try:
        handle = _locked(os.open(temporary, os.O_RDONLY)) if fcntl else None
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o777 & ~umask)
        try:
            if os.path.lexists(place):  # a folder that is not empty cannot be renamed over
                os.rename(place, older)
            os.rename(temporary, place)
        except BaseException:  # Ctrl-C between the two included
            if os.path.lexists(older):
                os.rename(older, place)
            raise
    except OSError as error:
        raise DarsrError(
            str(target), f"could not be written ({error.strerror or error})", "free some space or choose another place"
        ) from error
    finally:
        for leftover in (temporary, older):
            shutil.rmtree(leftover, ignore_errors=True)
        if handle is not None:
            os.close(handle)


def write_bytes(target: str | os.PathLike[str], data: bytes, replace: bool = True) -> None:
    """Write ``data`` to ``target``, whole or not at all; see :func:`atomic_path`."""
    with atomic_path(target, replace) as temporary:
        temporary.write_bytes(data)


def write_text(target: str | os.PathLike[str], text: str) -> None:
    """Write ``text`` as UTF-8 to ``target``, whole or not at all."""
    write_bytes(target, text.encode())


def _rename_to_new(temporary: Path, target: Path) -> None:
    """Give a file a name that nothing has; raises FileExistsError."""
    try:
        os.link(temporary, target)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links: the name is taken first
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        os.replace(temporary, target)


def _give_usual_mode(path: Path) -> None:
    """Set the mode that ``open`` would have given; mkstemp's files are readable by their owner only."""
    umask = os.umask(0)
    os.umask(umask)
    path.chmod(0o666 & ~umask)


def _locked(handle: int) -> int | None:
    """Lock an open file as long as this process lives, so that others see that it is in use; None where that cannot be."""
    if fcntl is None:
        os.close(handle)
        return None
    with contextlib.suppress(OSError):  # a file system without locks
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    return handle


def _remove_leftovers(folder: Path, start: str, suffix: str) -> None:
    """Remove the temporary files of a target whose process was killed: nobody holds their locks any more."""
    pattern = re.compile(f"{re.escape(start)}[a-z0-9_]{{8}}{re.escape(suffix)}")
    for name in _hidden(str(folder)) if fcntl else ():
        path = folder / name
        with contextlib.suppress(OSError):  # somebody else removed it, or it is in use
            if not pattern.fullmatch(name) or time.time() - path.stat().st_mtime < _OLD_S:
                continue
            handle = os.open(path, os.O_RDONLY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            finally:
                os.close(handle)


@functools.lru_cache(maxsize=64)
def _hidden(folder: str) -> tuple[str, ...]:
    """List the temporary names in a folder, once a process: what is left over is older than that."""
    try:
        return tuple(name for name in os.listdir(folder or ".") if name.startswith(".") and _MARK in name)
    except OSError:
        return ()
