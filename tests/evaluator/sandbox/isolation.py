"""The two ways in which jobs are kept apart, for tests of both: in namespaces, and where there are none."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from evaluator.sandbox import bubblewrap

WAYS = ("namespaces", "plain")
_missing = bubblewrap.missing


@contextmanager
def isolated(way: str) -> Iterator[None]:
    """Start servers in this way; skip the test where it cannot be had."""
    if way == "namespaces" and _missing():
        pytest.skip(_missing())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bubblewrap, "missing", _missing if way == "namespaces" else lambda: "switched off for a test")
        yield
