"""What the process that runs a script writes down, as bytes."""

from typing import Any

import msgspec
import numpy as np

from evaluator.tune import Ran


def encode(record: Ran) -> bytes:
    """Return a record as bytes."""
    return msgspec.msgpack.encode(record, enc_hook=_to_bytes)


def decode(data: bytes) -> Ran:
    """Return the record that was encoded. Raises ``ValueError`` for other bytes."""
    return msgspec.msgpack.decode(data, type=Ran, dec_hook=_to_array)


def _to_bytes(array: Any) -> bytes:
    return np.asarray(array, np.int64).tobytes()


def _to_array(kind: Any, data: bytes) -> Any:
    return np.frombuffer(data, np.int64)
