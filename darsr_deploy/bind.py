"""Inputs of an ONNX file turned into constants, without the package onnx, which a device need not have.

In a runtime bundle the correction's weights are inputs, so that one file serves every adapter. A runtime that knows them when
it opens the file can rearrange them once and fuse what follows: ONNX Runtime then runs the correction in two thirds of the
time (docs/tiles-and-bundles.md).

Only the outermost two levels of the protobuf message are taken apart: a model's graph, and a graph's inputs. Field numbers
are those of onnx.proto.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

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
    for number, field, payload in _fields(model):
        if number != _MODEL_GRAPH:
            result += field
            continue
        graph, bound = bytearray(), []
        for inner, raw, content in _fields(payload):
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
    return next((bytes(text).decode() for number, _, text in _fields(value_info) if number == _VALUE_NAME), "")


def _tensor(name: str, array: np.ndarray) -> bytes:
    dims = b"".join(_number(_TENSOR_DIMS, side) for side in array.shape)
    raw = np.ascontiguousarray(array, "<f4").tobytes()
    return dims + _number(_TENSOR_TYPE, _FLOAT) + _delimited(_TENSOR_NAME, name.encode()) + _delimited(_TENSOR_RAW, raw)


def _fields(message: bytes | memoryview) -> Iterator[tuple[int, memoryview, memoryview]]:
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


def _varint(value: int) -> bytes:
    parts = bytearray()
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes(parts) + bytes([value])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3 | _VARINT) + _varint(value)


def _delimited(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | _LENGTH) + _varint(len(content)) + content
