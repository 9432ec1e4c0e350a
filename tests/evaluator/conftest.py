"""A judge, for the tests that ask for no other."""

from collections.abc import Iterator

import pytest

from avo.evaluator.judging.judge import Judge
from avo.evaluator.sandbox.jobs import ForkServer
from avo.evaluator.targets import get_target


@pytest.fixture(scope="session")
def judge(fork_server: ForkServer) -> Iterator[Judge]:
    """A judge for the tests that need no other."""
    with Judge(get_target("h100"), "quick", server=fork_server) as judge:
        yield judge
