"""ONNX files as bytes, without the package onnx, which a device need not have.

Only the two outermost levels of the protobuf message are parsed: a model's graph and metadata, and a graph's inputs
(wire format: protobuf.dev/programming-guides/encoding; field numbers: onnx.proto).

- The contract is read from the model's ``metadata_props``.
- Inputs become constants: a runtime bundle's correction takes its weights as inputs, so that one file serves every
  adapter, and a runtime that knows them when it opens the file can fuse what follows (docs/tiles-and-bundles.md).
- A checksum is one more entry of ``metadata_props``, appended: protobuf reads a message and what is appended to it as
  one, so that every runtime reads the file as before.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..errors import DarsrError
from .hashing import hash_bytes
from .model_spec import METADATA_KEY, ModelSpec
from .schema import shorten

_MODEL_GRAPH, _MODEL_METADATA = 7, 14
_ENTRY_KEY, _ENTRY_VALUE = 1, 2
_GRAPH_INITIALIZER, _GRAPH_INPUT = 5, 11
_VALUE_NAME = 1
_TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_NAME, _TENSOR_RAW = 1, 2, 8, 9
_GRAPH_NODE, _NODE_ATTRIBUTE, _ATTRIBUTE_TENSOR, _TENSOR_FLOATS = 1, 5, 5, 4
_FLOAT = 1  # TensorProto.DataType
_DTYPES = {_FLOAT: "<f4", 10: "<f2", 11: "<f8"}  # those that can hold NaN, but for bfloat16
_VARINT, _EIGHT_BYTES, _LENGTH, _FOUR_BYTES = 0, 1, 2, 5  # wire types


def read_spec(path: str | Path) -> tuple[bytes, ModelSpec]:
    """Return the bytes of a model file and the spec in its metadata.

    Raises:
        DarsrError: cannot be read, is not an ONNX file, or was not made by this toolkit.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise DarsrError(str(path), f"cannot be read ({error.strerror})", "make it with darsr export") from error
    try:
        entries = [_contents(content) for number, _, content in _fields(data) if number == _MODEL_METADATA]
        key = METADATA_KEY.encode()
        text = next((entry.get(_ENTRY_VALUE, b"").decode() for entry in entries if entry.get(_ENTRY_KEY) == key), "")
    except ValueError as error:
        why = "is not an ONNX file, or is damaged"
        raise DarsrError(str(path), why, "export it again with darsr export") from error
    return data, ModelSpec.from_json(text, str(path))


def bind(model: bytes, arrays: dict[str, np.ndarray]) -> bytes:
    """Turn inputs of a model into initializers.

    Args:
        model: a serialised ``ModelProto``.
        arrays: float32, by input name; those that the model has no input for are left out.

    Raises:
        ValueError: the bytes are not a model.
    """
    result = bytearray()
    for number, field, payload in _fields(model):
        if number != _MODEL_GRAPH:
            result += field
            continue
        graph, bound = bytearray(), []
        for inner, raw, content in _fields(payload):
            name = _contents(content).get(_VALUE_NAME, b"").decode() if inner == _GRAPH_INPUT else None
            if name in arrays:
                bound.append(name)
            else:
                graph += raw
        for name in bound:
            graph += _delimited(_GRAPH_INITIALIZER, _tensor(name, arrays[name]))
        result += _delimited(_MODEL_GRAPH, bytes(graph))
    return bytes(result)


def _tensor(name: str, array: np.ndarray) -> bytes:
    dims = b"".join(_number(_TENSOR_DIMS, side) for side in array.shape)
    raw = np.ascontiguousarray(array, "<f4").tobytes()
    return dims + _number(_TENSOR_TYPE, _FLOAT) + _delimited(_TENSOR_NAME, name.encode()) + _delimited(_TENSOR_RAW, raw)


def _contents(message: bytes | memoryview) -> dict[int, bytes]:
    return {number: bytes(content) for number, _, content in _fields(message)}


def _fields(message: bytes | memoryview) -> Iterator[tuple[int, memoryview, memoryview]]:
    """Yield number, all bytes and bytes of the content (empty for a number) of each field; ValueError if damaged."""
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
            raise ValueError("is not a protobuf message")
        if position > len(view):
            raise ValueError("is a truncated protobuf message")
        yield tag >> 3, view[start:position], content


def _read_varint(view: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while position < len(view) and shift < 64:
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
_SEAL_LENGTH = len(_delimited(_MODEL_METADATA, _delimited(_ENTRY_KEY, KEY) + _delimited(_ENTRY_VALUE, bytes(_HEX))))


def sealed(model: bytes) -> bytes:
    """Return an ONNX model with its own sha256 appended."""
    entry = _delimited(_ENTRY_KEY, KEY) + _delimited(_ENTRY_VALUE, hash_bytes(model).encode())
    return model + _delimited(_MODEL_METADATA, entry)


def check_seal(path: str | Path, model: bytes) -> None:
    """Compare a sealed model with its checksum; search the weights of one without a seal for NaN.

    Raises:
        DarsrError: damaged, or changed by another program, so that its parity is unknown; or a weight is NaN, which some
            runtimes turn into black.
    """
    if KEY not in model:
        try:
            name = next(_with_nan(model), None)
        except ValueError:  # the runtime says more of what is not a model
            return
        if name is not None:
            why = f"its weight {shorten(name)} holds NaN"
            raise DarsrError(str(path), why, "export it again from sound weights")
        return
    content, seal = model[:-_SEAL_LENGTH], model[-_SEAL_LENGTH:]
    if seal != sealed(content)[-_SEAL_LENGTH:]:
        raise DarsrError(
            str(path),
            "is damaged, or was changed after its export: its checksum does not match its content",
            "copy it again, or export it again with darsr export",
        )


def _with_nan(model: bytes) -> Iterator[str]:
    """Yield the names of weights with NaN: initializers, and constants among the nodes. Infinity may be a mask."""
    for graph in _inside(model, _MODEL_GRAPH):
        constants = (_inside(node, _NODE_ATTRIBUTE) for node in _inside(graph, _GRAPH_NODE))
        tensors = [tensor for attributes in constants for a in attributes for tensor in _inside(a, _ATTRIBUTE_TENSOR)]
        for tensor in [*_inside(graph, _GRAPH_INITIALIZER), *tensors]:
            fields = list(_fields(tensor))
            name = next((bytes(content).decode() for number, _, content in fields if number == _TENSOR_NAME), "")
            # the type is a number: behind its tag of one byte
            kind = next((raw[1] for number, raw, _ in fields if number == _TENSOR_TYPE), 0)
            for number, _, content in fields:
                if number in (_TENSOR_RAW, _TENSOR_FLOATS) and kind in _DTYPES:
                    dtype = np.dtype(_DTYPES[kind])
                    if np.isnan(np.frombuffer(content, dtype, len(content) // dtype.itemsize)).any():
                        yield name


def _inside(message: bytes | memoryview, wanted: int) -> Iterator[memoryview]:
    return (content for number, _, content in _fields(message) if number == wanted)
