"""One command on a cluster: what the manifest has is passed over, the rest is done there, and every end is recorded."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.metadata
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ..errors import DarsrError
from ..files.hashing import hash_file, hash_json
from ..files.places import AlreadyThere, Targets
from ..processes import Report
from .connect import check_installed, connect
from .manifest import Manifest
from .pool import Pool, Unexpected
from .storage import Storage, is_url
from .worker import Demands

log = logging.getLogger("darsr")
T = TypeVar("T")


@dataclass(frozen=True)
class _Shipped:
    """A task on its way to a worker; with a URL outputs that would lie in ``folder`` go to object storage instead."""

    task: Any
    folder: Path | None = None
    url: str = ""

    def __str__(self) -> str:
        return str(self.task)


class ClusterRun:
    """A command's work on a cluster.

    Args:
        address: as of :func:`.connect.connect`.
        place: of the results, a path or a URL; None: beside each input.
        manifest: its file.
        settings: everything that results depend on beside what the tasks read, as JSON values.

    Attributes:
        out: where the command is to put its results: ``place``, or a folder that stands for the object storage.

    Raises:
        DarsrError: Ray or the storage's package is not installed, or the manifest cannot be written.
    """

    def __init__(
        self, address: str, demands: Demands, place: Path | str | None, manifest: Path, settings: dict[str, Any]
    ) -> None:
        check_installed()
        self.demands, self._address, self._storage = demands, address, None
        self._settings = hash_json(settings | {"version": importlib.metadata.version("darsr")})[:16]
        self._held = contextlib.ExitStack()
        self.out = None if place is None else Path(place)
        if is_url(place):
            self._storage = Storage(str(place))
            self._storage.check()
            self._stored = self._storage.names()
            self.out = Path(self._held.enter_context(tempfile.TemporaryDirectory(prefix="darsr-")))
        self.manifest = Manifest(manifest)
        self._held.callback(self.manifest.close)

    def __enter__(self) -> ClusterRun:
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    def recording(self, plan: Callable[[Path], T]) -> Callable[[Path], T]:
        """Return a command's function that plans the task of an input, so that what it refuses is in the manifest."""

        def planned(file: Path) -> T:
            try:
                return plan(file)
            except DarsrError as error:
                self._add_failure(os.path.abspath(file), file, error)
                raise

        return planned

    def check(self, sources: tuple[Path, ...], outputs: tuple[Path, ...], targets: Targets) -> None:
        """Look an input up before its outputs are claimed; what an earlier run left unfinished may be replaced.

        Raises:
            AlreadyThere: the manifest says that it is done, and nothing has changed since.
            DarsrError: an object of that name exists and is not to be replaced.
        """
        key = self._final(outputs[0])
        if self._is_done(self.manifest.get(key), sources, outputs):
            raise AlreadyThere(key if self._storage else outputs[0])
        if key in self.manifest.unfinished:
            targets.own.update(map(os.path.abspath, outputs))
        elif self._storage and outputs[0].name in self._stored:
            if targets.skip_existing:
                raise AlreadyThere(key)
            if not targets.overwrite:
                raise DarsrError(key, "exists already", "give --overwrite, or another place with -o")

    def row(self, key: str) -> dict | None:
        """Return the row of what the manifest has finished; None where it has not."""
        line = self.manifest.get(key)
        return None if line is None else line["row"]

    def each(
        self, tasks: list[Any], work: Callable[[Any, Report], dict], report: Report
    ) -> Iterator[tuple[int, dict | DarsrError]]:
        """Do the work for every task on the cluster.

        Args:
            tasks: frozen dataclasses whose text names the input, with ``sources``, the files that each reads, and ``outputs``,
                those that it writes: the first is what its line is found by, without any it has a ``key``. With a field
                ``replace`` it can be told to replace outputs that are there.
            work: see :func:`darsr_deploy.processes.each_in_processes`.
            report: told ``{step, steps, rate, left, failed}`` after each.

        Yields:
            ``(index of the task, its row)`` as they are finished; a :class:`DarsrError` is a result too.

        Raises:
            DarsrError: the cluster cannot be joined, or has no worker.
        """
        if not tasks:
            return
        started, failed, count = time.monotonic(), 0, len(tasks)
        with connect(self._address, self.demands) as ray:
            pool: Pool[_Shipped] = Pool(ray, functools.partial(_do, work), self.demands)
            with contextlib.closing(pool.each(map(self._ship, tasks), count, _again)) as results:
                for done, (index, result) in enumerate(results, 1):
                    row = self._record(tasks[index], result)
                    failed += isinstance(row, DarsrError)
                    seconds = time.monotonic() - started
                    entry = {"step": done, "steps": count, "rate": done / seconds}
                    report(entry | {"left": count - done, "failed": failed})
                    yield index, row
        text = "%d images in %.1f s (%.2f a second, %d workers), %d failed; manifest: %s"
        log.info(text, count, seconds, count / seconds, pool.most, failed, self.manifest.path)

    def _ship(self, task: Any) -> _Shipped:
        """Note that a task begins, and give it what its worker needs."""
        key = self._key(task)
        shipped = _Shipped(task, self.out, self._storage.url) if self._storage else _Shipped(task)
        shipped = _again(shipped) if key in self.manifest.unfinished else shipped
        self.manifest.begin(key)
        return shipped

    def _record(self, task: Any, result: Any) -> dict | DarsrError:
        key, source = self._key(task), task.sources[0]
        if isinstance(result, DarsrError):
            self._add_failure(key, source, result)
            return result
        row, sources, files = result
        line = {"input": os.path.abspath(source)} | ({"sha256": files[key][0]} if files else {})
        line |= {"decision": row["decision"]} if "decision" in row else {}
        self.manifest.add(key, line | {"settings": self._settings, "sources": sources, "files": files, "row": row})
        return row

    def _add_failure(self, key: str, source: Path, error: DarsrError) -> None:
        line = {"input": os.path.abspath(source), "settings": self._settings, "error": error.to_json()}
        line |= {"traceback": error.traceback} if isinstance(error, Unexpected) else {}
        self.manifest.add(key, line)

    def _key(self, task: Any) -> str:
        return self._final(task.outputs[0]) if task.outputs else task.key

    def _final(self, output: Path) -> str:
        """Return where an output ends up: its URL, or its whole path."""
        if self._storage and output.parent == self.out:
            return f"{self._storage.url}/{output.name}"
        return os.path.abspath(output)

    def _is_done(self, line: dict | None, sources: tuple[Path, ...], outputs: tuple[Path, ...]) -> bool:
        if line is None or line["settings"] != self._settings:
            return False
        read = all(_is_same(line["sources"].get(os.path.abspath(path)), path) for path in sources)
        return read and all(self._is_there(line["files"].get(self._final(path)), path) for path in outputs)

    def _is_there(self, recorded: list | None, output: Path) -> bool:
        if self._storage is None or output.parent != self.out:
            return _is_same(recorded, output)
        stamp = self._stored.get(output.name)
        if stamp is None or recorded is None or stamp[0] != recorded[1]:
            return False
        return stamp == recorded[1:] or self._storage.hash(output.name) == recorded[0]


def _do(work: Callable[[Any, Report], dict], shipped: _Shipped, report: Report) -> tuple[dict, dict, dict]:
    """Do a task in a worker's process; return its row, and what was read and written: sha256, size and date of each."""
    task = shipped.task
    sources = {}
    for path in task.sources:
        with contextlib.suppress(OSError):  # the work says it better
            sources[os.path.abspath(path)] = _facts(path)
    if not shipped.url:
        row = work(task, report)
        return row, sources, {os.path.abspath(path): _facts(path) for path in task.outputs}
    with tempfile.TemporaryDirectory(prefix="darsr-") as folder:
        values = {field.name: getattr(task, field.name) for field in dataclasses.fields(task)}
        here = {
            n: Path(folder, v.name) for n, v in values.items() if isinstance(v, Path) and v.parent == shipped.folder
        }
        task = dataclasses.replace(task, **here)
        row = work(task, report)
        storage, files = _storage(shipped.url), {}
        for path in task.outputs:
            if path in here.values():
                final = f"{shipped.url}/{path.name}"
                files[final] = [hash_file(path), *storage.put(path)]
                row = {name: final if value == str(path) else value for name, value in row.items()}
            else:
                files[os.path.abspath(path)] = _facts(path)
    return row, sources, files


_storage = functools.lru_cache(maxsize=1)(Storage)


def _again(shipped: _Shipped) -> _Shipped:
    """Return a task whose outputs may be there already: an earlier worker of it wrote them and did not say so any more."""
    if not hasattr(shipped.task, "replace"):
        return shipped
    return dataclasses.replace(shipped, task=dataclasses.replace(shipped.task, replace=True))


def _facts(path: Path) -> list:
    """Return sha256, size and date of a file."""
    status = path.stat()
    return [hash_file(path), status.st_size, status.st_mtime_ns]


def _is_same(recorded: list | None, path: Path) -> bool:
    """Return whether a file is as it was recorded; it is read only where its date has changed."""
    try:
        status = path.stat()
    except OSError:
        return False
    if recorded is None or status.st_size != recorded[1]:
        return False
    return status.st_mtime_ns == recorded[2] or hash_file(path) == recorded[0]
