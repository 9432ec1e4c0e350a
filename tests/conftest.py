"""What all tests share."""

import gc
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from evaluator.allocator import keep_freed_memory

if TYPE_CHECKING:
    from evaluator.sandbox import ForkServer

keep_freed_memory()  # as a judge's process does: many tests judge
gc.set_threshold(10_000)  # full collections go through torch, triton and all tests; freezing these blinds hypothesis


@pytest.fixture(scope="session")
def fork_server() -> "Iterator[ForkServer]":
    """What judges, capturers and compilers run their jobs in: starting one takes seconds."""
    from evaluator.judge import JOB_MODULES
    from evaluator.sandbox import ForkServer

    with ForkServer(JOB_MODULES) as server:
        yield server
