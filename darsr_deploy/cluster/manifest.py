"""The manifest of a run: one JSON object a line for every input that is finished or failed; what it holds is not done again."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from ..errors import DarsrError

try:
    import fcntl
except ImportError:  # Windows, where two runs are not kept apart
    fcntl = None  # type: ignore[assignment]

_START = b'{"key": '  # of every line


class Manifest:
    """A manifest that lines are added to; a last line that a crash cut off is removed.

    While a run lasts, a file ``.begun`` beside it names the outputs whose work has begun: after a crash it says which
    outputs without a line are the run's own.

    Attributes:
        unfinished: keys of what an earlier run began and did not finish.

    Raises:
        DarsrError: the file is something else, cannot be written, or another run writes it.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._journal = path, path.with_name(f"{path.name}.begun")
        self._open: set[str] = set()
        try:
            self._file = path.open("a+b")
            self._lock()
            self._places = self._read()
            begun = self._journal.read_text(encoding="utf-8") if self._journal.exists() else ""
            self.unfinished = {key for key in begun.split("\n") if key and key not in self._places}
            self._begun = self._journal.open("a", encoding="utf-8", newline="\n")
        except OSError as error:
            why = f"the manifest cannot be written ({error.strerror})"
            raise DarsrError(str(path), why, "give another place with --manifest FILE") from error

    def _lock(self) -> None:
        try:
            if fcntl is not None:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            why = "another run writes this manifest"
            raise DarsrError(str(self.path), why, "wait for it, or give another place with --manifest FILE") from error
        except OSError:  # a file system without locks
            return

    def _read(self) -> dict[str, int]:
        """Return where the line of each key begins, the last one of several: a million lines are more than memory likes."""
        places, end = {}, 0
        self._file.seek(0)
        for data in self._file:
            if not data.startswith(_START[: len(data)]):
                raise DarsrError(str(self.path), "is not a manifest", "give another place with --manifest FILE")
            if not data.endswith(b"\n"):
                break
            with contextlib.suppress(ValueError):  # damaged: its image is done again
                line = json.loads(data)
                if "error" not in line:
                    places[line["key"]] = end
            end += len(data)
        self._file.truncate(end)
        return places

    def get(self, key: str) -> dict | None:
        """Return the line of what is finished; None where there is none."""
        if key not in self._places:
            return None
        self._file.seek(self._places[key])
        return json.loads(self._file.readline())

    def begin(self, key: str) -> None:
        """Note that work begins which will write an output."""
        self._open.add(key)
        self._begun.write(f"{key}\n")
        self._begun.flush()

    def add(self, key: str, line: dict) -> None:
        """Add a line, which is on the disk's way at once; with an ``error`` it is a failure."""
        data = json.dumps({"key": key, **_finite(line)}) + "\n"
        self._file.seek(0, 2)
        place = self._file.tell()
        self._file.write(data.encode())
        self._file.flush()
        self._open.discard(key)
        if "error" not in line:
            self._places[key] = place
            self.unfinished.discard(key)

    def close(self) -> None:
        """Close the files; without a line none stays, and where nothing is left unfinished no trace of what was begun."""
        empty = self._file.seek(0, 2) == 0
        self._file.close()
        self._begun.close()
        if empty:
            self.path.unlink(missing_ok=True)
        if not self._open and not self.unfinished:
            self._journal.unlink(missing_ok=True)


def _finite(line: dict) -> dict:
    """Return a line in which infinity and NaN, which JSON cannot hold, are null."""
    return json.loads(json.dumps(line), parse_constant=lambda _: None)
