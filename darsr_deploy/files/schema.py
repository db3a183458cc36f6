"""Read JSON strictly: a file's checksum says nothing about the types of its values."""

from __future__ import annotations

import collections.abc
import dataclasses
import json
import math
import types
import typing
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")
_INTEGERS = range(-(1 << 63), 1 << 63)
_SHOWN = 60  # characters of a value in an error


def parse_json(text: str | bytes) -> dict:
    """Parse one JSON object.

    Raises:
        ValueError: not JSON, not an object, a name given twice, NaN or infinity, or nested too deeply to be read.
    """
    try:
        values = json.loads(text, object_pairs_hook=_object, parse_float=_finite, parse_constant=_refuse)
    except RecursionError as error:
        raise ValueError("is nested too deeply") from error
    if not isinstance(values, dict):
        raise ValueError("is not an object")
    return values


def make_dataclass(kind: type[T], values: object) -> T:
    """Make a dataclass of JSON values, checked against its annotations.

    Lists become tuples and objects dataclasses where the annotations ask for them.

    Raises:
        ValueError: a field is missing, unknown or of another type; names it.
    """
    if not isinstance(values, dict):
        raise ValueError(f"is {shorten(values)}, expected an object")
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and field.name not in values:
            raise ValueError(f"field {field.name} is missing")
    made = {}
    for name, value in values.items():
        if name not in hints:
            raise ValueError(f"field {shorten(name)[1:-1]} is not known")
        try:
            made[name] = _convert(value, hints[name])
        except TypeError as error:
            expected = kind.__annotations__.get(name, hints[name])
            raise ValueError(f"field {name} is {shorten(value)}, expected {expected}") from error
    return kind(**made)


def shorten(value: object) -> str:
    """Return the repr of a value from a file for an error line, at most 60 characters long."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def _convert(value: Any, hint: Any) -> Any:
    """Return the value as its annotation has it, or raise TypeError."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return value if isinstance(value, hint) else make_dataclass(hint, value)
    if origin in (typing.Union, types.UnionType):
        for part in parts:
            try:
                return _convert(value, part)
            except TypeError:
                continue
        raise TypeError
    if origin in (dict, collections.abc.Mapping):
        _require(isinstance(value, dict))
        return {_convert(k, parts[0]): _convert(v, parts[1]) for k, v in value.items()}
    if origin is list:
        _require(isinstance(value, list))
        return [_convert(v, parts[0]) for v in value]
    if origin is tuple:  # tuple[X, ...] or tuple[X, Y]
        _require(isinstance(value, (list, tuple)))
        hints = parts[:1] * len(value) if parts[-1] is ... else parts
        _require(len(value) == len(hints))
        return tuple(map(_convert, value, hints))
    if hint in (int, float):  # JSON's true is not a number, and its 80 may be meant for 80.0
        _require(isinstance(value, (int, hint)) and not isinstance(value, bool))
        _require(isinstance(value, float) or value in _INTEGERS)
    else:
        _require(isinstance(value, hint))
    return value


def _require(condition: bool) -> None:
    if not condition:
        raise TypeError


def _object(pairs: list[tuple[str, object]]) -> dict:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("has a name twice")
    return values


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _refuse(text)


def _refuse(text: str) -> NoReturn:
    raise ValueError(f"holds {text}, which is not a finite number")
