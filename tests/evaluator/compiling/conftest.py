"""What kernels are compiled in."""

import pytest
from triton.experimental.gluon.language.nvidia.hopper import mbarrier

from avo.evaluator.sandbox.jobs import ForkServer

# Its kernels have names in Gluon that Triton 3.6 does not know.
collect_ignore_glob = [] if hasattr(mbarrier, "allocate_mbarrier") else ["test_allocating.py"]


@pytest.fixture(scope="session")
def server(fork_server: ForkServer) -> ForkServer:
    """The tests' own: starting another takes seconds."""
    return fork_server
