"""Frozen dataclasses from plain data: the way back from ``dataclasses.asdict`` and JSON, for data from elsewhere."""

from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


def rebuild(kind: type[T], data: object) -> T:
    """Return the dataclass ``kind`` that ``data`` describes; raise ``TypeError`` or ``ValueError`` when it does not.

    Its fields may be dataclasses, enumerations, numbers, texts, tuples, mappings and either of them or None. Fields
    that have defaults may be missing.
    """
    if not isinstance(data, Mapping):
        raise TypeError(f"{kind.__name__} is an object, not {type(data).__name__}")
    hints = get_type_hints(kind)
    required = {f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING}  # type: ignore[arg-type]
    if wrong := (data.keys() - hints.keys()) | (required - data.keys()):
        raise TypeError(f"{kind.__name__}: unknown or missing: {', '.join(sorted(map(str, wrong)))}")
    return kind(**{name: _value(hints[name], value, f"{kind.__name__}.{name}") for name, value in data.items()})


def _value(hint: Any, data: Any, place: str) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        inner = [argument for argument in arguments if argument is not NoneType]
        return None if data is None else _value(inner[0], data, place)
    if origin is tuple and isinstance(data, list | tuple):
        hints = (arguments[0],) * len(data) if arguments[-1] is ... else arguments
        if len(hints) == len(data):
            return tuple(_value(inner, item, place) for inner, item in zip(hints, data, strict=True))
    elif origin is Mapping and isinstance(data, Mapping):
        return {_value(arguments[0], key, place): _value(arguments[1], item, place) for key, item in data.items()}
    elif is_dataclass(hint) and isinstance(hint, type):
        return rebuild(hint, data)
    elif isinstance(hint, type) and issubclass(hint, Enum):
        return hint(data)
    elif hint is float and type(data) in (int, float):
        return float(data)
    elif type(data) is hint:
        return data
    raise TypeError(f"{place} cannot be {str(data)[:40]!r}")
