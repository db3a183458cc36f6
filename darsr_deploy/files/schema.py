"""Values from JSON against the annotations of the dataclass that they are for: a file's checksum says nothing of its types."""

from __future__ import annotations

import dataclasses
import types
import typing


def check_types(kind: type, values: dict) -> None:
    """Check the values that a dataclass is about to be made of.

    Args:
        values: by the names of fields. Unknown and missing ones are left to the dataclass.

    Raises:
        TypeError: a value is not of its field's type; names the field.
    """
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        if field.name in values and not _fits(values[field.name], hints[field.name]):
            raise TypeError(f"field {field.name} is {values[field.name]!r}, expected {field.type}")


def _fits(value: object, hint: object) -> bool:
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, part) for part in parts)
    if origin is dict:
        return isinstance(value, dict) and all(_fits(k, parts[0]) and _fits(v, parts[1]) for k, v in value.items())
    if origin is tuple:  # tuple[X, ...] or tuple[X, Y]
        if not isinstance(value, tuple):
            return False
        kinds = parts[:1] * len(value) if parts[-1] is ... else parts
        return len(value) == len(kinds) and all(map(_fits, value, kinds))
    if hint in (int, float):  # JSON's true is no number, and its 80 may be meant for 80.0
        return isinstance(value, (int, hint)) and not isinstance(value, bool)
    return isinstance(value, hint)
