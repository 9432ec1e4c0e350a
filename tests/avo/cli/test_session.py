"""``avo run`` as users start it, with real workers and ``mutate``: it obeys other processes, and outlives its Ray."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from avo.lineage_db.records import RunState, StepState
from avo.lineage_db.store import Store
from tests.avo.search.test_workers import PATIENCE_S, command_line, family, wait_for

pytestmark = pytest.mark.long

NAME = "week"
JUDGE = f"{sys.executable} {Path(__file__).parents[1] / 'fake_judge.py'} kernels"


class Driving:
    """A process of ``avo run``, and others that are started next to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.db = str(folder / "lineage.db")
        with (folder / "out").open("w") as out, (folder / "err").open("w") as err:
            self.child = subprocess.Popen(
                [*self.avo("run"), "--name", NAME, "--evaluator-command", JUDGE, "--workers", "2", "--json"],
                stdout=out,
                stderr=err,
                cwd=folder,
                start_new_session=True,
            )
        wait_for(lambda: Path(self.db).exists() and self.attempts() > 3)

    def avo(self, command: str) -> list[str]:
        return [sys.executable, "-m", "avo", command, "--db", self.db]

    def call(self, command: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [*self.avo(command), NAME, *arguments],
            capture_output=True,
            text=True,
            check=False,
            cwd=self.folder,
            timeout=PATIENCE_S,
        )

    def attempts(self) -> int:
        with Store.open(self.db) as store:
            return sum(store.count_attempts(found.run.id)[0] for found in store.runs())

    def steps(self) -> list[StepState]:
        with Store.open(self.db, create=False) as store:
            return [step.state for step in store.steps(store.run(NAME).id)]

    def said(self) -> str:
        return (self.folder / "err").read_text()

    def summary(self) -> Any:
        """Return what the command printed, which is the summary and nothing else."""
        return json.loads((self.folder / "out").read_text())

    def kill(self, words: str) -> None:
        """Kill one of the processes behind the command."""
        member = next(pid for pid in sorted(family(self.child.pid)) if words in command_line(pid))
        os.kill(member, signal.SIGKILL)

    def close(self) -> None:
        self.child.kill()
        self.child.wait()


@pytest.fixture
def driving(tmp_path: Path) -> Iterator[Driving]:
    made = Driving(tmp_path)
    yield made
    made.close()


def test_a_run_pauses_goes_on_and_stops_as_other_processes_ask(driving: Driving) -> None:
    assert driving.call("pause").returncode == 0
    wait_for(lambda: "paused: all steps have ended" in driving.said())
    before = driving.steps()
    assert StepState.RUNNING not in before
    assert json.loads(driving.call("status", "--json").stdout)["paused"] is True
    assert driving.steps() == before

    assert driving.call("resume").returncode == 0
    wait_for(lambda: len(driving.steps()) > len(before))
    assert "the pause is over" in driving.said()

    assert driving.call("stop", "--wait").returncode == 0
    assert driving.child.wait(PATIENCE_S) == 130
    assert "stopping, as requested" in driving.said()
    assert set(driving.steps()) == {StepState.DONE}
    assert driving.summary()["state"] == RunState.STOPPED


@pytest.mark.parametrize(
    ("process", "words"), [("raylet/raylet", "Ray has no node left"), ("gcs_server", "Ray's head does not answer")]
)
def test_a_run_whose_ray_is_killed_says_so_and_can_be_resumed(driving: Driving, process: str, words: str) -> None:
    driving.kill("ray::OperatorWorker")
    wait_for(lambda: "w0: the operator's process died" in driving.said() or "w1: the" in driving.said())
    driving.kill(process)
    assert driving.child.wait(PATIENCE_S) == 1
    assert f"avo: {words}" in driving.said()
    assert "raylet" not in driving.said(), "Ray's words"
    assert "Traceback" not in driving.said()
    assert driving.summary()["state"] == RunState.STOPPED
    assert StepState.RUNNING not in driving.steps()

    budget = driving.attempts() + 3
    resumed = driving.call("resume", "--max-attempts", str(budget), "--workers", "1", "--json")
    assert resumed.returncode == 0, resumed.stderr
    found = json.loads(resumed.stdout)
    assert (found["state"], found["attempts"]) == (RunState.FINISHED, budget)
