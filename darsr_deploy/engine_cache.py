"""Engines that were built once: found by a key, built by one process at a time, the longest unused removed first."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from .engine_file import SUFFIX, sidecar_path
from .errors import DarsrError
from .jit_cache import SUFFIX as JIT_SUFFIX
from .shapes import Shapes
from .trt_library import Library

USUAL_LIMIT_MB = 2048


def cache_key(**facts: object) -> str:
    """A name for what an engine depends on: the same facts give the same key, any other fact another."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def engine_key(
    onnx: bytes, precision: str, library: Library, shapes: Shapes, gpu: str, target: str, workspace_mb: int = 0
) -> str:
    """The name of an engine in the cache: everything that a build depends on."""
    return cache_key(
        model=hashlib.sha256(onnx).hexdigest(),
        precision=precision,
        shapes=shapes.to_json(),
        family=library.family.name,
        tensorrt=library.version,
        gpu=gpu,
        target=target,
        workspace_mb=workspace_mb,
    )


def limit_bytes() -> int:
    """How much the cache may hold: DARSR_CACHE_LIMIT_MB, or 2 GB.

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
        """An engine, and what was compiled for it."""
        with contextlib.suppress(FileNotFoundError):
            digest = hashlib.sha256(self.path(key).read_bytes()).hexdigest()
            (self.folder / f"{digest[:32]}{JIT_SUFFIX}").unlink(missing_ok=True)
        sidecar_path(self.path(key)).unlink(missing_ok=True)
        self.path(key).unlink(missing_ok=True)

    def shrink(self, keep: str, limit: int | None = None) -> list[str]:
        """Remove engines, the longest unused first, until the rest fits; returns their keys.

        ``keep`` stays, and so does one that another process holds at the moment.
        """
        limit = limit_bytes() if limit is None else limit
        sizes, used = {}, {}
        for engine in self.folder.glob(f"*{SUFFIX}"):
            with contextlib.suppress(FileNotFoundError):  # another process removed it
                status = engine.stat()
                sizes[engine.stem], used[engine.stem] = status.st_size, status.st_mtime
        removed = []
        for key in sorted(used, key=used.get):
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
