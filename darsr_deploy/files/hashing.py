"""The checksum of this toolkit: sha256, in hexadecimal."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

_BLOCK = 1 << 20  # bytes of a file read at once


def hash_bytes(data: bytes) -> str:
    """Return the sha256 of bytes, 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def hash_file(path: str | Path) -> str:
    """Return the sha256 of a file's content, read block by block.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def hash_json(values: object) -> str:
    """Return the sha256 of JSON values; the order of keys does not matter."""
    return hash_bytes(json.dumps(values, sort_keys=True).encode())
