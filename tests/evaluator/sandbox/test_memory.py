"""A job that wants too much memory is refused with the limit, and a machine that has too little is not its fault."""

import secrets
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from avo.evaluator.errors import EvaluatorUnavailable
from avo.evaluator.sandbox import memory
from avo.evaluator.sandbox.jobs import ForkServer, OutOfMemory
from avo.evaluator.temporary import TemporaryFolder
from tests.evaluator.sandbox.isolation import FREE, LIMITS, result, run

GIB = 2**30
TOGETHER = """import os, time
for _ in range(4): os.fork() or (x := b'x' * (150 << 20), time.sleep(600))
time.sleep(600)"""
V2 = ("0::/user/run", "user/memory.max", "user/memory.current", "user/memory.stat", "inactive_file")
V1_IN_A_CONTAINER = (
    *("4:memory:/docker/a:b\n3:cpu:/", "memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    *("memory/memory.stat", "total_active_file"),
)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes the kernel's files say what a machine has, where no fork server is counted that was started before."""
    for name, value in {"FOLDER": secrets.token_hex(8), "ROOT": tmp_path, "WAIT_S": 0.0}.items():
        monkeypatch.setattr(memory, name, value)

    def has(free: int, **files: object) -> None:
        for name, text in {"proc/meminfo": f"MemFree: 1 kB\nMemAvailable: {free // 1024} kB", **files}.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(f"{text}\n")

    return has


@pytest.mark.parametrize("group", [V2, V1_IN_A_CONTAINER], ids=["v2", "v1"])
def test_what_the_machine_or_a_cgroup_has_less_of_is_free(machine: Callable[..., None], group: tuple[str, ...]) -> None:
    machine(8 * GIB)
    assert memory.free_bytes() == 8 * GIB
    name, limit, usage, stat, files = group
    contents = {limit: 4 * GIB, usage: 2 * GIB, stat: f"anon 1\n{files} {GIB}"}
    machine(8 * GIB, **{"proc/self/cgroup": name}, **{f"sys/fs/cgroup/{file}": text for file, text in contents.items()})
    assert memory.free_bytes() == 3 * GIB


def test_free_memory_is_shared_among_the_servers_of_the_machine(machine: Callable[..., None]) -> None:
    machine(2 * GIB)
    with TemporaryFolder("run") as parent, TemporaryFolder(memory.FOLDER, parent), TemporaryFolder(memory.FOLDER):
        assert (memory.share(8 * GIB, 1), memory.share(GIB // 2, 1)) == (GIB, GIB // 2)
    assert memory.share(8 * GIB, 1) == 2 * GIB


@pytest.mark.parametrize("code", ["bytearray(8 << 30)", TOGETHER], ids=["one process", "all together"])
def test_a_job_that_wants_more_memory_than_any_machine_grants_is_told_the_limit(server: ForkServer, code: str) -> None:
    outcome = run(server, code, replace(FREE, wall_s=4))
    assert isinstance(outcome, OutOfMemory), outcome
    assert outcome.reason == "wanted more memory than the 0.5 GiB that a job may take on any machine"


def test_a_machine_with_too_little_memory_is_at_fault(server: ForkServer, machine: Callable[..., None]) -> None:
    machine(memory.LEAST_BYTES)
    asks = replace(LIMITS, memory_bytes=GIB)
    assert result(server, "result = b'small'", asks) == "small"
    with pytest.raises(EvaluatorUnavailable, match="each of which needs 1 GiB: lower --workers"):
        run(server, "bytearray(600 << 20)", asks)
    machine(memory.LEAST_BYTES // 2)
    with pytest.raises(EvaluatorUnavailable, match=r"this machine has 0.25 GiB of free memory .* needs 0.5 GiB"):
        run(server, "result = b'small'", asks)


def test_kills_count_where_a_job_crashed_alone(server: ForkServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "kills", iter(range(9)).__next__)
    assert result(server, "result = b'done'") == "done"
    before_s = server.processor_s
    with pytest.raises(EvaluatorUnavailable, match="run out of memory twice"):
        run(server, "raise ValueError")
    assert server.processor_s == before_s > 0
