"""What the examples are tried with."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from avo.evaluator.judging.judge import Judge
from avo.evaluator.sandbox.jobs import ForkServer
from avo.evaluator.targets import get_target


@pytest.fixture(scope="session")
def examples() -> Path:
    """The folder of the examples."""
    return Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="session")
def judge(fork_server: ForkServer) -> Iterator[Judge]:
    """A judge for the H100."""
    with Judge(get_target("h100"), "quick", server=fork_server) as judge:
        yield judge
