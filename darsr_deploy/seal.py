"""A checksum inside an ONNX file: the format has none, and a flipped bit in a weight would be another picture.

It is one more entry of the model's ``metadata_props`` (field 14, key and value), written behind all others: protobuf reads
a message and what is appended to it as one. So it can be added and checked without the onnx package, on bytes, and
every runtime reads the file as before.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from .errors import DarsrError

KEY = b"darsr_sha256"
_HEX = 64
_ENTRY = b"\x0a" + bytes([len(KEY)]) + KEY + b"\x12" + bytes([_HEX])  # fields 1 and 2 of the entry, up to its value
_HEAD = b"\x72" + bytes([len(_ENTRY) + _HEX]) + _ENTRY  # field 14 of the model
_LENGTH = len(_HEAD) + _HEX


def sealed(model: bytes) -> bytes:
    """The bytes of an ONNX model with the sha256 of themselves behind them."""
    return model + _HEAD + hashlib.sha256(model).hexdigest().encode()


def check_seal(path: str | Path, model: bytes) -> None:
    """Compare a sealed model with its checksum; one without a seal passes.

    Raises:
        DarsrError: it was damaged, or changed by another program, whose parity nobody has measured.
    """
    if KEY not in model:
        return
    content, seal = model[:-_LENGTH], model[-_LENGTH:]
    if seal != sealed(content)[-_LENGTH:]:
        raise DarsrError(
            str(path),
            "is damaged, or was changed after its export: its checksum does not match its content",
            "copy it again, or export it again with darsr export",
        )
