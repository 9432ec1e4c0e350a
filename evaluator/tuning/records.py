"""What the process that runs a script writes down, as bytes."""

from typing import Any

import msgspec
import numpy as np

from avo.evaluator.tune import Ran


def encode(record: Ran) -> bytes:
    """Return a record as bytes."""
    return msgspec.msgpack.encode(record, enc_hook=_plain)


def decode(data: bytes) -> Ran:
    """Return the record that was encoded. Raises ``ValueError`` for other bytes."""
    return msgspec.msgpack.decode(data, type=Ran, dec_hook=_made)


def _plain(value: Any) -> Any:
    return [value.start, value.stop] if isinstance(value, range) else np.asarray(value, np.int64).tobytes()


def _made(kind: Any, data: Any) -> Any:
    return range(*data) if kind is range else np.frombuffer(data, np.int64)
