"""What TensorRT for RTX compiled for this GPU, kept from one process to the next: seconds at every start otherwise.

Compiled kernels are code, so a file is used only if its sha256 is on the list of :mod:`.trust`, as engines are.
"""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path

from .atomic import write_bytes
from .errors import DarsrError
from .trust import require_trust, trust

SUFFIX = ".jit"


class JitCache:
    """The compiled kernels of one engine on one GPU.

    Args:
        path: where they are kept; the file need not exist.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._cache, self._loaded = path, None, ""

    def attach(self, config: object) -> None:
        """Give a runtime configuration what is kept. The library itself refuses what is of another GPU, driver or version."""
        self._cache = config.create_runtime_cache()
        data = self._path.read_bytes() if self._path.is_file() else b""
        digest = hashlib.sha256(data).hexdigest()
        if data and _trusted(self._path, digest) and self._cache.deserialize(data):
            self._loaded = digest
        config.set_runtime_cache(self._cache)

    def save(self) -> None:
        """Keep what was compiled since. What is kept only saves time, so where it cannot be written nothing is lost."""
        if self._cache is None:
            return
        data = bytes(self._cache.serialize())
        digest = hashlib.sha256(data).hexdigest()
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
