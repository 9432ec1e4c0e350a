"""The two ways in which jobs are kept apart, for tests of both, and jobs to run in them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from avo.evaluator.sandbox import bubblewrap
from avo.evaluator.sandbox.jobs import Finished, ForkServer, Limits, Outcome
from avo.evaluator.sandbox.memory import LEAST_BYTES

WAYS = ("namespaces", "plain")
LIMITS = Limits(
    wall_s=600,
    cpu_s=20,
    memory_bytes=LEAST_BYTES,
    file_bytes=0,
    open_files=32,
    processes=64,
    result_bytes=1 << 20,
    confined=True,
)
FREE = replace(LIMITS, confined=False)
JOBS = "sandbox_jobs"
_missing = bubblewrap.missing


@contextmanager
def isolated(way: str) -> Iterator[None]:
    """Start servers in this way; skip the test where it cannot be had."""
    if way == "namespaces" and _missing():
        pytest.skip(_missing())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bubblewrap, "missing", _missing if way == "namespaces" else lambda: "switched off for a test")
        yield


def run(server: ForkServer, code: str, limits: Limits = LIMITS) -> Outcome:
    return server.run(f"{JOBS}:run", code.encode(), limits)


def result(server: ForkServer, code: str, limits: Limits = LIMITS) -> str:
    outcome = run(server, code, limits)
    assert isinstance(outcome, Finished), outcome
    return outcome.result.decode()
