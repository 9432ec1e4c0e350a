"""Column types of the lineage database, the same in every SQL dialect."""

import json
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import msgspec
from sqlalchemy import DateTime, Dialect, Integer, LargeBinary, String, Text, TypeDecorator


class Id(TypeDecorator[int]):
    """A row's id or number. A value outside the column's range becomes the nearest one, which no row has."""

    impl = Integer
    cache_ok = True

    def process_bind_param(self, value: int | None, dialect: Dialect) -> int | None:
        """Clamp: on large integers some drivers raise, and some databases."""
        return None if value is None else max(-1, min(value, 2**31 - 1))


class UtcDateTime(TypeDecorator[datetime]):
    """An aware datetime, kept in UTC. A naive one is a ``ValueError``."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Convert to UTC."""
        if value is not None and value.tzinfo is None:
            raise ValueError(f"a time without time zone cannot be stored: {value}")
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return it aware; SQLite gives it back without a time zone."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Json(TypeDecorator[Any]):
    """Plain data as ASCII JSON text, which unlike a native JSON type takes NaN, NUL and lone surrogates too."""

    impl = Text
    cache_ok = True

    def __init__(self, kind: Any = Any) -> None:
        """``kind`` is the type of what a record holds."""
        super().__init__()
        self.kind = kind

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        """Encode; None is SQL NULL."""
        return None if value is None else json.dumps(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        """Decode; SQL NULL, as an outer join makes it, is None."""
        return None if value is None else msgspec.convert(json.loads(value), self.kind)


class Choice(TypeDecorator[StrEnum]):
    """A member of an enumeration, kept as its value."""

    impl = String
    cache_ok = True

    def __init__(self, kind: type[StrEnum], length: int) -> None:
        super().__init__(length)
        self.kind = kind

    def process_bind_param(self, value: StrEnum | None, dialect: Dialect) -> str | None:
        """Return the value."""
        return None if value is None else str(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> StrEnum | None:
        """Return the member; ``ValueError`` where the enumeration has none of this value."""
        return None if value is None else self.kind(value)


class Prose(TypeDecorator[str]):
    """Text for people. Characters that no UTF-8 column takes (NUL, lone surrogates) become ``?``."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Make it storable."""
        return None if value is None else value.replace("\0", "?").encode("utf-8", "replace").decode()


class Source(TypeDecorator[str]):
    """A source text, exactly as written: UTF-8 bytes, where NUL and lone surrogates survive."""

    impl = LargeBinary
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> bytes | None:
        """Encode."""
        return None if value is None else value.encode("utf-8", "surrogatepass")

    def process_result_value(self, value: bytes | None, dialect: Dialect) -> str | None:
        """Decode."""
        return None if value is None else value.decode("utf-8", "surrogatepass")
