"""Frozen dataclasses from plain data: the way back from ``dataclasses.asdict`` and JSON, for data from elsewhere."""

from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from functools import cache
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")
_Reader = Callable[[Any], Any]


def rebuild(kind: type[T], data: object) -> T:
    """Return the dataclass ``kind`` that ``data`` describes; raise ``TypeError`` or ``ValueError`` when it does not.

    Its fields may be dataclasses, enumerations, numbers, texts, tuples, mappings and either of them or None. Fields
    that have defaults may be missing.
    """
    if not isinstance(data, Mapping):
        raise TypeError(f"{kind.__name__} is an object, not {type(data).__name__}")
    readers, required = _form(kind)  # type: ignore[arg-type]
    if wrong := (data.keys() - readers.keys()) | (required - data.keys()):
        raise TypeError(f"{kind.__name__}: unknown or missing: {', '.join(sorted(map(str, wrong)))}")
    return kind(**{name: readers[name](value) for name, value in data.items()})


@cache
def _form(kind: Any) -> tuple[Mapping[str, _Reader], frozenset[str]]:
    """Return what reads each field of a dataclass, and the fields that have no default."""
    readers = {name: _reader(hint, f"{kind.__name__}.{name}") for name, hint in get_type_hints(kind).items()}
    required = (field.name for field in fields(kind) if field.default is field.default_factory is MISSING)
    return readers, frozenset(required)


def _reader(hint: Any, place: str) -> _Reader:
    """Return what makes a value of the type ``hint`` of plain data, or raises."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        inner = next(_reader(argument, place) for argument in arguments if argument is not NoneType)
        return lambda data: None if data is None else inner(data)
    if origin is tuple and arguments[-1] is ...:
        item = _reader(arguments[0], place)
        return lambda data: tuple(map(item, _typed(data, (list, tuple), place)))
    if origin is tuple:
        items = [_reader(argument, place) for argument in arguments]

        def read_items(data: Any) -> tuple[Any, ...]:
            if len(_typed(data, (list, tuple), place)) != len(items):
                raise _mistaken(data, place)
            return tuple(read(item) for read, item in zip(items, data, strict=True))

        return read_items
    if origin is Mapping:
        key, value = (_reader(argument, place) for argument in arguments)
        return lambda data: {key(k): value(v) for k, v in _typed(data, (Mapping,), place).items()}
    if is_dataclass(hint):
        return lambda data: rebuild(hint, data)  # type: ignore[arg-type]
    if issubclass(hint, Enum):
        return lambda data: hint(data)

    def read(data: Any) -> Any:
        if type(data) is hint:
            return data
        if hint is float and type(data) is int:
            return float(data)
        raise _mistaken(data, place)

    return read


def _typed(data: Any, kinds: tuple[type, ...], place: str) -> Any:
    if not isinstance(data, kinds):
        raise _mistaken(data, place)
    return data


def _mistaken(data: Any, place: str) -> TypeError:
    return TypeError(f"{place} cannot be {str(data)[:40]!r}")
