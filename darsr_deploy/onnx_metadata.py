"""The contract in an ONNX file, read without onnx and without a runtime: a device with TensorRT alone has neither."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from .errors import DarsrError
from .spec import METADATA_KEY, ModelSpec

_METADATA_PROPS = 14  # field of ModelProto, a StringStringEntryProto each: key is its field 1, value its field 2


def read_spec(path: str | Path) -> tuple[bytes, ModelSpec]:
    """The bytes of a model file and the spec in its metadata.

    Raises:
        DarsrError: cannot be read, is no ONNX file, or was not made by this toolkit.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise DarsrError(str(path), f"cannot be read ({error.strerror})", "make it with darsr export") from error
    try:
        entries = [dict(_fields(value)) for number, value in _fields(data) if number == _METADATA_PROPS]
        text = next((e[2].decode() for e in entries if e.get(1) == METADATA_KEY.encode()), "")
    except (IndexError, ValueError, AttributeError, TypeError) as error:
        raise DarsrError(str(path), "is no ONNX file, or is damaged", "export it again with darsr export") from error
    return data, ModelSpec.from_json(text, str(path))


def _fields(message: bytes) -> Iterator[tuple[int, bytes | int]]:
    """Number and content of every field of a protobuf message (its wire format: protobuf.dev/programming-guides/encoding)."""
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        kind = tag & 7
        if kind == 0:
            value, position = _varint(message, position)
        else:
            size, position = {1: (8, position), 5: (4, position)}.get(kind) or _varint(message, position)
            if kind not in (1, 2, 5) or position + size > len(message):
                raise ValueError("not a protobuf message")
            value, position = message[position : position + size], position + size
        yield tag >> 3, value


def _varint(message: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position
        if shift > 63:
            raise ValueError("not a protobuf message")
