"""Several processes on one database: nothing is lost, nothing is half written."""

import json
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from avo.lineage_db.decision import Decision
from avo.lineage_db.records import Attempt, RunState, StepState, Version
from avo.lineage_db.store import Store
from tests.decisions import decided

WRITER = Path(__file__).parent / "writer.py"


def start(url: str, mode: str) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, str(WRITER), url, mode], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    process.stdout.readline()
    return process


@pytest.mark.long
def test_four_writers_of_fifty_attempts_lose_nothing(store: Store, make: Any) -> None:
    run = make.run(store, "shared")
    processes = [start(store.url, "write") for _ in range(4)]
    for process in processes:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    reports = [json.loads(process.communicate()[0]) for process in processes]
    assert [process.returncode for process in processes] == [0] * 4

    steps = store.steps(run.id)
    assert [step.number for step in steps] == list(range(40))
    assert all(step.state is StepState.DONE for step in steps)
    written = sorted(tuple(item) for report in reports for item in report["written"])
    assert written == sorted((attempt.step_number, attempt.attempt_id) for attempt in store.attempt_summaries(run.id))
    assert len(written) == 200
    assert len({attempt.source for attempt in store.attempts(run.id)}) == 200
    assert sorted(number for report in reports for number in report["accepted"]) == [0, 1, 2, 3, 4]
    assert [version.number for version in store.versions(run.id)] == [0, 1, 2, 3, 4]
    assert store.revision(run.id)[1] == 40 + 200 + 40


def test_a_snapshot_sees_nothing_of_what_is_written_during_it(store: Store, make: Any) -> None:
    run = make.run(store)
    with Store.open(store.url) as other:

        def look() -> tuple[tuple[int, int], int]:
            return store.revision(run.id), store.snapshot(lambda: len(store.attempts(run.id)))

        def read() -> list[object]:
            before = look()
            make.attempt(other, make.step(other, run), 5.0)
            return [before, look()]

        before, after = store.snapshot(read)
    assert before == after == ((0, 0), 0)
    assert look()[1] == 1, "afterwards it is seen"


def test_a_writer_killed_in_a_transaction_leaves_no_trace_of_it(store: Store, make: Any) -> None:
    run = make.run(store, "shared")
    process = start(store.url, "die")
    process.communicate("go\n")
    assert process.returncode == 9

    (step,) = store.steps(run.id)
    assert step.state is StepState.RUNNING
    assert store.versions(run.id) == []
    assert len(store.attempts(run.id)) == 5
    assert store.claims.abandon_running(run.id, reason="killed", now=make.now) == 1
    make.version(store, run, 5.0)
    assert [step.number for step in store.steps(run.id)] == [0, 1]


def test_two_workers_are_never_both_accepted_against_the_same_best(store: Store, make: Any) -> None:
    run = make.run(store)
    make.version(store, run, 5.0)
    steps = [make.step(store, run) for _ in range(2)]
    attempts = [make.attempt(store, step, 6.0) for step in steps]
    inside, seen = threading.Event(), []

    def decide(versions: Sequence[Version], attempt: Attempt) -> Decision | None:
        seen.append(len(versions))
        if len(seen) == 1:
            inside.set()
            other.join(timeout=0.3)  # give the other every chance to read the lineage too early
        best = max(version.attempt.evaluation.geomean_tflops for version in versions)
        return decided(attempt, attempt.evaluation.geomean_tflops > best)

    def second() -> None:
        inside.wait(600)
        make.conclude(store, steps[1], attempts[1], decide=decide)

    other = threading.Thread(target=second)
    other.start()
    make.conclude(store, steps[0], attempts[0], decide=decide)
    other.join()
    assert seen == [1, 2]
    assert [version.attempt.id for version in store.versions(run.id)][1:] == [attempts[0].id]


def test_a_reader_works_while_a_writer_is_in_its_transaction(store: Store, make: Any) -> None:
    run = make.run(store)
    step = make.step(store, run)
    attempt = make.attempt(store, step, 5.0)
    seen = []

    def decide(versions: Sequence[Version], attempt: Attempt) -> Decision | None:
        with Store.open(store.url, create=False) as reader:
            seen.append((reader.steps(run.id)[0].state, reader.runs()[0].run.state))
        return decided(attempt, True)

    make.conclude(store, step, attempt, decide=decide)
    assert seen == [(StepState.RUNNING, RunState.RUNNING)]
