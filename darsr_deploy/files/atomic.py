"""Write files and folders whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ..errors import DarsrError


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
    try:
        handle, name = tempfile.mkstemp(prefix=f".{target.stem[:40]}-", suffix=target.suffix, dir=target.parent)
    except OSError as error:
        raise DarsrError(
            str(target), f"cannot write there ({error.strerror})", "choose another place with -o"
        ) from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        _give_usual_mode(temporary)
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())  # a power cut right after the rename must not leave an empty file
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


@contextlib.contextmanager
def atomic_folder(target: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield an empty folder beside ``target``; it takes the place of ``target`` if the block ends well.

    On any exception the new folder is removed and an older ``target`` stays as it was. A link stays a link: what it points
    to is replaced.

    Raises:
        DarsrError: the place is missing or not writable, or the disk is full.
    """
    place = Path(os.path.realpath(target))
    try:
        temporary = Path(tempfile.mkdtemp(prefix=f".{place.name[:40]}-", dir=place.parent))
    except OSError as error:
        raise DarsrError(
            str(target), f"cannot write there ({error.strerror})", "choose another place with -o"
        ) from error
    older = temporary.with_name(temporary.name + "-older")
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o777 & ~umask)
        if os.path.lexists(place):  # a folder that is not empty cannot be renamed over
            os.rename(place, older)
        try:
            os.rename(temporary, place)
        except OSError:
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
