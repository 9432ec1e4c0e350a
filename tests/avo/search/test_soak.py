"""Minutes of real worker processes under Ray of which one is killed at random, again and again: nothing is lost."""

import contextlib
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lineage_db.records import RunState, StepState
from tests.avo.search.test_workers import PATIENCE_S, Drivers, command_line, descent, parents, wait_for

KILLS = int(os.environ.get("AVO_SOAK_KILLS", "25"))


@pytest.fixture
def drivers(tmp_path: Path) -> Iterator[Drivers]:
    made = Drivers(tmp_path)
    yield made
    made.close()


def await_progress(drivers: Drivers, child: "subprocess.Popen[str]", killed: list[str]) -> None:
    before, deadline = drivers.attempts(), time.monotonic() + 4 * PATIENCE_S
    while child.poll() is None and drivers.attempts() <= before:
        assert time.monotonic() < deadline, killed
        time.sleep(0.05)


def await_end(members: set[int]) -> None:
    """Wait until nothing is left but Ray's agents, which stay a minute to tell that it died."""
    wait_for(lambda: all("Agent" in command_line(pid) for pid in members & parents().keys()))


@pytest.mark.long
def test_nothing_is_lost_however_many_processes_are_killed(drivers: Drivers) -> None:
    rng = random.Random(int(os.environ.get("AVO_SOAK_SEED", "7")))
    killed: list[str] = []
    child = drivers.start(workers=3, attempts=10**6)
    for _ in range(KILLS):
        await_progress(drivers, child, killed)
        time.sleep(rng.random())
        if child.poll() is None:
            # The driver, an operator, the pool, an evaluator, Ray's node, its head or a helper of theirs.
            members = descent(child.pid)
            victim = rng.choice(sorted(members))
            killed.append(command_line(victim)[-80:])
            print(victim == child.pid, killed[-1], drivers.attempts(), flush=True)
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
        if victim == child.pid or child.poll() is not None:
            output, _ = child.communicate(timeout=PATIENCE_S)
            assert victim == child.pid or "Ray" in output.splitlines()[-1], output
            await_end(members)
            child = drivers.start(workers=3, attempts=10**6)
    child.send_signal(signal.SIGKILL)
    child.wait()
    done = drivers.attempts()
    child = drivers.start(workers=2, attempts=done + 5)
    output, _ = child.communicate(timeout=PATIENCE_S)
    assert output.splitlines()[-1] == "finished", output

    run = drivers.store.run("fake")
    assert run.state is RunState.FINISHED
    attempts, steps = drivers.store.attempt_summaries(run.id), drivers.store.steps(run.id)
    assert len(attempts) == len({attempt.digest for attempt in attempts}) == done + 5, killed
    assert [step.number for step in steps] == list(range(len(steps)))
    assert {step.state for step in steps} <= {StepState.DONE, StepState.ABANDONED, StepState.FAILED}
    assert all(step.reason for step in steps if step.state is not StepState.DONE)
    redone = [step.redoes for step in steps if step.redoes is not None]
    assert len(redone) == len(set(redone))
    versions = drivers.store.versions(run.id)
    assert [version.number for version in versions] == list(range(len(versions)))
    assert len({version.attempt.id for version in versions}) == len(versions)
    speeds = [version.attempt.evaluation.geomean_tflops for version in versions]
    assert speeds == sorted(speeds)
