"""Servers for the sandbox's tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from avo.evaluator.sandbox.jobs import ForkServer
from tests.evaluator.sandbox.isolation import JOBS, WAYS, isolated


@pytest.fixture(scope="module", params=WAYS)
def server(request: pytest.FixtureRequest) -> Iterator[ForkServer]:
    """A server in namespaces, and one without."""
    with isolated(request.param), ForkServer((JOBS,), path=[Path(__file__).parent]) as server:
        yield server
