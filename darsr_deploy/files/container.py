"""Files of named arrays with strict metadata: safetensors, one JSON object, one checksum over everything.

Adapters and backbone weights are such files. The same content always gives the same bytes.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save

from ..errors import DarsrError
from .atomic import write_bytes
from .hashing import hash_bytes
from .kinds import KINDS, another_kind
from .schema import parse_json, shorten

METADATA_KEY = "darsr"  # in the header of a safetensors file
_DTYPES = {"F32": np.float32, "F16": np.float16, "I64": np.int64}


def write_container(
    path: str | Path, kind: str, version: int, facts: dict, arrays: dict[str, np.ndarray], *, replace: bool = True
) -> str:
    """Write arrays and facts (JSON values), and return the file's sha256; see :func:`.atomic_path` for ``replace``."""
    arrays = {name: np.ascontiguousarray(a) for name, a in arrays.items()}
    header = {"kind": kind, "version": version, "facts": facts}
    header["checksum"] = _checksum(header, arrays)
    data = save(arrays, {METADATA_KEY: json.dumps(header, sort_keys=True, allow_nan=False)})
    write_bytes(path, data, replace)
    return hash_bytes(data)


def read_container(path: str | Path, kind: str, version: int, hint: str) -> tuple[dict, dict[str, np.ndarray], str]:
    """Read a file of the given kind and version: ``(facts, arrays, sha256)``.

    Args:
        hint: what to do about a file that cannot be used; ends every error line.

    Raises:
        DarsrError: missing file, another kind or version, a damaged file (checksum), NaN or infinity in an array.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise _another(path, kind) or DarsrError(str(path), f"cannot be read ({error.strerror})", hint) from error
    try:
        header = _read_header(data)
        found, facts = (header["kind"], header["version"]), header["facts"]
    except (ValueError, KeyError, TypeError, MemoryError, OverflowError) as error:
        raise _another(path, kind) or DarsrError(
            str(path), f"is not a darsr {kind} file, or is damaged", hint
        ) from error
    if not isinstance(facts, dict):
        raise DarsrError(str(path), "field facts is not an object", hint)
    if found[0] != kind:
        raise _another(path, kind) or DarsrError(
            str(path), f"is a darsr {shorten(found[0])} file, expected {kind}", hint
        )
    if found[1] != version:
        raise DarsrError(str(path), f"has format version {shorten(found[1])}, this program reads {version}", hint)
    try:
        entries = {name: (entry["dtype"], entry["shape"], entry["data"]) for name, entry in deserialize(data)}
        arrays = {
            name: np.frombuffer(raw, _DTYPES[dtype]).reshape(shape) for name, (dtype, shape, raw) in entries.items()
        }
    except (SafetensorError, KeyError, ValueError) as error:
        raise DarsrError(str(path), f"is damaged ({error})", hint) from error
    if header.pop("checksum", None) != _checksum(header, arrays):
        raise DarsrError(str(path), "is damaged: its checksum does not match its content", hint)
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise DarsrError(str(path), f"array {shorten(name)[1:-1]} holds NaN or infinity", hint)
    return facts, arrays, hash_bytes(data)


def _read_header(data: bytes) -> dict:
    """Return our metadata, JSON within the JSON header of a safetensors file."""
    outer = parse_json(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return parse_json(outer["__metadata__"][METADATA_KEY])


def _another(path: str | Path, kind: str) -> DarsrError | None:
    return another_kind(path, kind) if kind in KINDS else None


def _checksum(header: dict, arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
