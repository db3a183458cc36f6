"""Engines that were built once: found by a key, built by one process at a time, the longest unused removed first.

What TensorRT for RTX compiled for this GPU, kept from one process to the next: seconds at every start otherwise.

Compiled kernels are code, so a file is used only if its sha256 is on the list of :mod:`.trust`, as engines are.

Which engines that came from elsewhere were compared on this machine, so that it is done once for each GPU.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ..engines.ort import installed_runtimes
from ..errors import DarsrError
from ..files.atomic import write_bytes, write_text
from ..files.hashing import hash_bytes, hash_file, hash_json
from ..files.schema import parse_json
from .engine_file import SUFFIX, sidecar_path
from .library import Library
from .shapes import Shapes
from .trust import require_trust, trust

USUAL_LIMIT_MB = 2048


def cache_key(**facts: object) -> str:
    """Return a name for what an engine depends on: the same facts give the same key, any other fact another."""
    return hash_json(facts)[:32]


def engine_key(
    onnx: bytes, precision: str, library: Library, shapes: Shapes, *, gpu: str, target: str, workspace_mb: int = 0
) -> str:
    """Return the name of an engine in the cache, which is made of everything that a build depends on."""
    return cache_key(
        model=hash_bytes(onnx),
        precision=precision,
        shapes=shapes.to_json(),
        family=library.family.name,
        tensorrt=library.version,
        gpu=gpu,
        target=target,
        workspace_mb=workspace_mb,
    )


def limit_bytes() -> int:
    """Return how many bytes the cache may hold: DARSR_CACHE_LIMIT_MB, or 2 GB.

    Raises:
        DarsrError: no number.
    """
    text = os.environ.get("DARSR_CACHE_LIMIT_MB", "") or str(USUAL_LIMIT_MB)
    try:
        return int(text) * 2**20
    except ValueError as error:
        raise DarsrError(f"DARSR_CACHE_LIMIT_MB={text}", "is not a number", "give megabytes, such as 2048") from error


class EngineCache:
    """A folder of engines.

    Args:
        say: told when another process builds the same engine and this one waits.
    """

    def __init__(self, folder: Path, say: Callable[[str], None] = lambda _: None) -> None:
        self.folder, self._say = folder, say

    def path(self, key: str) -> Path:
        """Return where the engine of a key lies."""
        return self.folder / f"{key}{SUFFIX}"

    @contextlib.contextmanager
    def locked(self, key: str) -> Iterator[Path]:
        """Yield the engine's path while no other process looks it up, builds it or removes it.

        Raises:
            DarsrError: the folder cannot be made.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder / f"{key}.lock")
            try:
                lock.acquire(timeout=0)
            except Timeout:
                self._say("another process is building this engine: waiting for it")
                lock.acquire()
        except OSError as error:
            raise DarsrError(
                str(self.folder), f"the cache folder cannot be used ({error.strerror})",
                "set DARSR_CACHE to a folder that can be written",
            ) from error  # fmt: skip
        try:
            yield self.path(key)
        finally:
            lock.release()

    def used(self, key: str) -> None:
        """Note that an engine was used now."""
        for path in (self.path(key), sidecar_path(self.path(key))):
            with contextlib.suppress(FileNotFoundError):
                os.utime(path)

    def remove(self, key: str) -> None:
        """Remove an engine and what was compiled for it."""
        with contextlib.suppress(FileNotFoundError):
            digest = hash_file(self.path(key))
            (self.folder / f"{digest[:32]}{JIT_SUFFIX}").unlink(missing_ok=True)
        sidecar_path(self.path(key)).unlink(missing_ok=True)
        self.path(key).unlink(missing_ok=True)

    def report_unusable(self, key: str, error: DarsrError, say: Callable[[str], None], again: bool) -> None:
        """Say why an engine cannot be used; where it is built again, remove it first."""
        say(f"the engine in the cache cannot be used ({error.args[1]}){': building it again' if again else ''}")
        if again:
            self.remove(key)

    def shrink(self, keep: str, limit: int | None = None) -> list[str]:
        """Remove engines, the longest unused first, until the rest fits; return their keys.

        ``keep`` stays, and so does one that another process holds at the moment.
        """
        limit = limit_bytes() if limit is None else limit
        sizes, used = {}, {}
        for engine in self.folder.glob(f"*{SUFFIX}"):
            with contextlib.suppress(FileNotFoundError):  # another process removed it
                status = engine.stat()
                sizes[engine.stem], used[engine.stem] = status.st_size, status.st_mtime
        removed = []
        for key in sorted(used, key=used.__getitem__):
            if sum(sizes.values()) <= limit:
                break
            lock = FileLock(self.folder / f"{key}.lock")
            if key == keep:
                continue
            try:
                lock.acquire(timeout=0)
            except Timeout:
                continue
            try:
                self.remove(key)
            finally:
                lock.release()
            removed.append(key)
            del sizes[key]
        return removed


JIT_SUFFIX = ".jit"


class JitCache:
    """The compiled kernels of one engine on one GPU.

    Args:
        path: where they are kept; the file need not exist.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._loaded = path, ""
        self._cache: Any = None  # the library's

    def attach(self, config: Any) -> None:
        """Give a runtime configuration what is kept. The library itself refuses what is of another GPU, driver or version."""
        self._cache = config.create_runtime_cache()
        data = self._path.read_bytes() if self._path.is_file() else b""
        digest = hash_bytes(data)
        if data and _trusted(self._path, digest) and self._cache.deserialize(data):
            self._loaded = digest
        config.set_runtime_cache(self._cache)

    def save(self) -> None:
        """Write what was compiled since. Best effort: a failed write only costs recompilation."""
        if self._cache is None:
            return
        data = bytes(self._cache.serialize())
        digest = hash_bytes(data)
        if not data or digest == self._loaded:
            return
        try:
            trust(digest)
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(self._path, data)
        except (OSError, DarsrError):
            with contextlib.suppress(OSError):  # an older file that stays is only of less use
                self._path.unlink(missing_ok=True)


def _trusted(path: Path, digest: str) -> bool:
    try:
        require_trust(path, digest)
    except DarsrError:
        return False
    return True


VERIFIED_SUFFIX = ".compared"


def is_verified(folder: Path, sha256: str, gpu: str, target: str) -> bool:
    """Return whether an engine passed the parity check on a GPU of this machine.

    Where it ran before there was anything to compare with, that counts until there is.
    """
    try:
        note = parse_json(_note_path(folder, sha256, gpu, target).read_bytes())
        return note["sha256"] == sha256 and (note["parity_psnr_db"] is not None or len(installed_runtimes()) != 1)
    except (OSError, ValueError, TypeError, KeyError):  # none, or a damaged one: it is compared again
        return False


def record_verification(
    folder: Path, sha256: str, gpu: str, target: str, parity_psnr_db: float | None, say: Callable[[str], None]
) -> None:
    """Record that an engine passed the parity check. Best effort: a failed write only costs a check at every start.

    Args:
        folder: the cache's.
        parity_psnr_db: worst PSNR; None where there was nothing to compare with.
    """
    facts = {"sha256": sha256, "gpu": gpu, "target": target, "parity_psnr_db": parity_psnr_db}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(_note_path(folder, sha256, gpu, target), json.dumps(facts, sort_keys=True) + "\n")
    except (OSError, DarsrError) as error:
        why = error.args[1]  # of either kind: what went wrong
        say(f"{folder}: cannot be written ({why}), so engines are compared at every start; set DARSR_CACHE")


def _note_path(folder: Path, sha256: str, gpu: str, target: str) -> Path:
    return folder / f"{cache_key(engine=sha256, gpu=gpu, target=target)}{VERIFIED_SUFFIX}"
