"""Results in object storage: written whole, listed once, told apart by size and date."""

from __future__ import annotations

import hashlib
import importlib
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from ..errors import DarsrError
from ..install import install

_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs"}  # what brings a protocol's package
_BLOCK = 1 << 20


def is_url(out: object) -> bool:
    """Return whether the place of results is object storage (``s3://bucket/prefix``), not a path."""
    return isinstance(out, str) and re.match(r"[a-z][a-z0-9+.-]+://", out) is not None


class Storage:
    """A prefix in object storage, through fsspec.

    Raises:
        DarsrError: fsspec, or the package of the URL's protocol, is not installed; or it cannot be reached.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        protocol = url.partition("://")[0]
        try:
            core = importlib.import_module("fsspec.core")
            self._files, self._root = core.url_to_fs(self.url, **({"auto_mkdir": True} if protocol == "file" else {}))
        except ImportError as error:
            extra = _EXTRAS.get(protocol, "cluster")
            hint = f"install it on every node: {install(extra)} (the extra {extra})"
            raise DarsrError(url, f"needs a package that is not installed ({error})", hint) from error
        except Exception as error:
            raise self._error(error) from error

    def names(self) -> dict[str, list]:
        """Return the stamps (size, date or tag) of what lies right under the prefix, by name.

        Raises:
            DarsrError: it cannot be listed.
        """
        try:
            listed = self._files.ls(self._root, detail=True, refresh=True)
        except FileNotFoundError:
            return {}
        except Exception as error:
            raise self._error(error) from error
        return {Path(entry["name"]).name: _stamp(entry) for entry in listed if entry["type"] == "file"}

    def check(self) -> None:
        """Write something and remove it, before the work.

        Raises:
            DarsrError: nothing can be written.
        """
        with tempfile.TemporaryDirectory(prefix="darsr-") as folder:
            probe = Path(folder, ".darsr-check")
            probe.touch()
            self.put(probe)
            try:
                self._files.rm_file(f"{self._root}/{probe.name}")
            except Exception as error:
                raise self._error(error) from error

    def put(self, file: Path) -> list:
        """Write a file under its name, whole or not at all; return its stamp.

        Raises:
            DarsrError: it cannot be written.
        """
        target = f"{self._root}/{file.name}"
        try:
            with self._files.transaction, file.open("rb") as source, self._files.open(target, "wb") as sink:
                shutil.copyfileobj(source, sink, _BLOCK)
            self._files.invalidate_cache()
            return _stamp(self._files.info(target))
        except Exception as error:
            raise self._error(error) from error

    def hash(self, name: str) -> str:
        """Return the sha256 of what lies under a name; empty where it cannot be read."""
        digest = hashlib.sha256()
        try:
            with self._files.open(f"{self._root}/{name}", "rb") as file:
                while block := file.read(_BLOCK):
                    digest.update(block)
        except Exception:
            return ""
        return digest.hexdigest()

    def _error(self, error: Exception) -> DarsrError:
        why = f"cannot be used ({type(error).__name__}: {error})"
        return DarsrError(self.url, why, "check its name, the credentials and the network")


def _stamp(entry: dict[str, Any]) -> list:
    """Return what changes when an object is written again: its size, and its tag or date where the storage has one."""
    mark = next((entry[name] for name in ("ETag", "etag", "LastModified", "mtime") if name in entry), "")
    return [entry["size"], str(mark)]
