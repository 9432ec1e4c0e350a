"""What kernels are compiled in."""

import pytest

from evaluator.sandbox.jobs import ForkServer


@pytest.fixture(scope="session")
def server(fork_server: ForkServer) -> ForkServer:
    """The tests' own: starting another takes seconds."""
    return fork_server
