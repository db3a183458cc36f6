"""The contract in an ONNX file, read without onnx and without a runtime: a device with TensorRT alone has neither.

Inputs of an ONNX file turned into constants, without the package onnx, which a device need not have.

In a runtime bundle the correction's weights are inputs, so that one file serves every adapter. A runtime that knows them when
it opens the file can rearrange them once and fuse what follows: ONNX Runtime then runs the correction in two thirds of the
time (docs/tiles-and-bundles.md).

Only the outermost two levels of the protobuf message are taken apart: a model's graph, and a graph's inputs. Field numbers
are those of onnx.proto.

A checksum inside an ONNX file: the format has none, and a flipped bit in a weight would be another picture.

It is one more entry of the model's ``metadata_props`` (field 14, key and value), written behind all others: protobuf reads
a message and what is appended to it as one. So it can be added and checked without the onnx package, on bytes, and
every runtime reads the file as before.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..errors import DarsrError
from .hashing import hash_bytes
from .model_spec import METADATA_KEY, ModelSpec

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


_MODEL_GRAPH = 7
_GRAPH_INITIALIZER, _GRAPH_INPUT = 5, 11
_VALUE_NAME = 1
_TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_NAME, _TENSOR_RAW = 1, 2, 8, 9
_FLOAT = 1  # TensorProto.DataType
_VARINT, _EIGHT_BYTES, _LENGTH, _FOUR_BYTES = 0, 1, 2, 5  # wire types


def bind(model: bytes, arrays: dict[str, np.ndarray]) -> bytes:
    """A model in which some inputs have become initializers.

    Args:
        model: a serialised ``ModelProto``.
        arrays: float32, by the name of the input; those that the model has no input for are left out.

    Raises:
        ValueError: the bytes are no model.
    """
    result = bytearray()
    for number, field, payload in _raw_fields(model):
        if number != _MODEL_GRAPH:
            result += field
            continue
        graph, bound = bytearray(), []
        for inner, raw, content in _raw_fields(payload):
            name = _name(content) if inner == _GRAPH_INPUT else None
            if name in arrays:
                bound.append(name)
            else:
                graph += raw
        for name in bound:
            graph += _delimited(_GRAPH_INITIALIZER, _tensor(name, arrays[name]))
        result += _delimited(_MODEL_GRAPH, bytes(graph))
    return bytes(result)


def _name(value_info: memoryview) -> str:
    return next((bytes(text).decode() for number, _, text in _raw_fields(value_info) if number == _VALUE_NAME), "")


def _tensor(name: str, array: np.ndarray) -> bytes:
    dims = b"".join(_number(_TENSOR_DIMS, side) for side in array.shape)
    raw = np.ascontiguousarray(array, "<f4").tobytes()
    return dims + _number(_TENSOR_TYPE, _FLOAT) + _delimited(_TENSOR_NAME, name.encode()) + _delimited(_TENSOR_RAW, raw)


def _raw_fields(message: bytes | memoryview) -> Iterator[tuple[int, memoryview, memoryview]]:
    """The fields of a message: number, all bytes, bytes of the content (empty where it is a number)."""
    view, position = memoryview(message), 0
    while position < len(view):
        start = position
        tag, position = _read_varint(view, position)
        kind, content = tag & 7, view[:0]
        if kind == _VARINT:
            _, position = _read_varint(view, position)
        elif kind == _LENGTH:
            length, position = _read_varint(view, position)
            content, position = view[position : position + length], position + length
        elif kind in (_EIGHT_BYTES, _FOUR_BYTES):
            position += 8 if kind == _EIGHT_BYTES else 4
        else:
            raise ValueError("is no protobuf message")
        if position > len(view):
            raise ValueError("is a truncated protobuf message")
        yield tag >> 3, view[start:position], content


def _read_varint(view: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while position < len(view):
        byte = view[position]
        value, shift, position = value | (byte & 127) << shift, shift + 7, position + 1
        if byte < 128:
            return value, position
    raise ValueError("is a truncated protobuf message")


def _write_varint(value: int) -> bytes:
    parts = bytearray()
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes(parts) + bytes([value])


def _number(field: int, value: int) -> bytes:
    return _write_varint(field << 3 | _VARINT) + _write_varint(value)


def _delimited(field: int, content: bytes) -> bytes:
    return _write_varint(field << 3 | _LENGTH) + _write_varint(len(content)) + content


KEY = b"darsr_sha256"
_HEX = 64
_ENTRY = b"\x0a" + bytes([len(KEY)]) + KEY + b"\x12" + bytes([_HEX])  # fields 1 and 2 of the entry, up to its value
_HEAD = b"\x72" + bytes([len(_ENTRY) + _HEX]) + _ENTRY  # field 14 of the model
_SEAL_LENGTH = len(_HEAD) + _HEX


def sealed(model: bytes) -> bytes:
    """The bytes of an ONNX model with the sha256 of themselves behind them."""
    return model + _HEAD + hash_bytes(model).encode()


def check_seal(path: str | Path, model: bytes) -> None:
    """Compare a sealed model with its checksum; one without a seal passes.

    Raises:
        DarsrError: it was damaged, or changed by another program, whose parity nobody has measured.
    """
    if KEY not in model:
        return
    content, seal = model[:-_SEAL_LENGTH], model[-_SEAL_LENGTH:]
    if seal != sealed(content)[-_SEAL_LENGTH:]:
        raise DarsrError(
            str(path),
            "is damaged, or was changed after its export: its checksum does not match its content",
            "copy it again, or export it again with darsr export",
        )
