"""Minutes of a run as users start it, in which processes are killed at random, again and again: nothing is lost.

    AVO_SOAK_MINUTES=60 pytest -s -m long tests/avo/search/test_soak.py

AVO_SOAK_SEED draws what happens. Meanwhile the database is backed up and pruned, and the run paused and stopped.
"""

import json
import os
import random
import re
import signal
import sqlite3
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from itertools import pairwise
from pathlib import Path

import pytest

from avo.config import RunConfig
from avo.lineage_db.records import RunState, StepState
from avo.lineage_db.store import Store
from tests import postgresql
from tests.avo import walker
from tests.avo.fakes import NOW, make_run
from tests.avo.search.test_workers import PATIENCE_S, command_line, descent, wait_for
from tests.postgresql import Cluster

pytestmark = pytest.mark.long

MINUTES = float(os.environ.get("AVO_SOAK_MINUTES", "0"))
NO_START = "Ray does not start"
"""What a run says where Ray takes more than its minutes to start, as on a machine that is much too busy."""
LEAST = 15
"""How many things are done even if the minutes are over."""
NAME = "week"
ROOT = Path(__file__).parents[3]
JUDGE = f"{sys.executable} {ROOT / 'tests' / 'avo' / 'fake_judge.py'} slowly"
WORKERS = {
    "operator": "ray::OperatorWorker",
    "pool": "ray::EvaluatorPool",
    "evaluator": "ray::EvaluatorWorker",
    "judge": "fake_judge",
    "watcher": "temporary.py",
}
"""How the command lines of a run's processes begin or what is in them; all others but the driver are Ray's own."""
WEIGHTS = {
    "driver": 2, "operator": 3, "pool": 2, "evaluator": 3, "judge": 3, "Ray": 1, "watcher": 1,
    "database": 2, "backup": 2, "prune": 2, "pause": 1, "stop": 1,
}  # fmt: skip
"""What is done, and how often beside the others."""


class Soak:
    """A run that is continued whenever it ends, and what is done to it."""

    def __init__(self, folder: Path, url: str, server: Cluster | None) -> None:
        self._folder, self._url, self._server = folder, url, server
        self._chance = random.Random(int(os.environ.get("AVO_SOAK_SEED", "7")))
        walker.install(folder)
        config = RunConfig(operator="walker", evaluator_command=JUDGE, workers=3, evaluators=2)
        self.store = Store.open(url)
        self.run = make_run(self.store, config, NAME)
        self._old = make_run(self.store, config, "old")
        self._counted, self._last = 0, 0
        self._sessions = 0
        self._ray_killed = False
        self._temporary: set[str] = set()
        self.waits: dict[str, list[float]] = defaultdict(list)
        """Seconds until a step that began later had made an attempt, by what was done before."""
        self._continue()

    def attempts(self) -> int:
        self._read()
        return self._counted

    def _read(self) -> int:
        """Read what is new and return the number of the last step that made an attempt."""
        news = self.store.attempt_summaries(self.run.id, after=self._last)
        self._counted += len(news)
        self._last = news[-1].attempt_id if news else self._last
        return max((attempt.step_number for attempt in news), default=-1)

    def avo(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "avo", *arguments, "--db", self._url]
        return subprocess.run(
            command, capture_output=True, text=True, check=False, env=self._environment, timeout=PATIENCE_S
        )

    def go_on(self) -> None:
        """Do something to the run and wait until a step that began after it has made an attempt."""
        kinds = {kind: weight for kind, weight in WEIGHTS.items() if kind != ("backup" if self._server else "database")}
        (kind,) = self._chance.choices(list(kinds), list(kinds.values()))
        act = getattr(self, f"_{kind}", None)
        act() if act else self._kill(kind)
        begun, started = len(self.store.steps(self.run.id)), time.monotonic()
        while self._read() < begun:  # steps under way may still end where nobody is left to start others
            assert time.monotonic() < started + PATIENCE_S, (kind, self.said()[-2000:])
            if (code := self._child.poll()) is not None:
                assert code == 1, (kind, code, self.said()[-2000:])
                assert self._ray_killed or NO_START in self.said()[-2000:], (kind, self.said()[-2000:])
                self._continue()
            time.sleep(0.05)
        self.waits[kind].append(time.monotonic() - started)
        print(f"{kind}: {self.waits[kind][-1]:.1f} s, {self.attempts()} attempts", flush=True)
        time.sleep(self._chance.uniform(0, 3))

    def finish(self) -> int:
        """Kill the run a last time, let it finish, and return how many attempts it has to have."""
        self._child.kill()
        self._child.wait()
        wait_for(lambda: not self.processes())
        budget = self.attempts() + 5
        done = self.avo("resume", NAME, "--max-attempts", str(budget))
        while NO_START in done.stderr:
            done = self.avo("resume", NAME, "--max-attempts", str(budget))
        assert done.returncode == 0, done.stderr
        wait_for(lambda: not self.processes())
        return budget

    def processes(self) -> list[int]:
        """Return all processes of the run's sessions."""
        found = []
        for entry in Path("/proc").iterdir():
            with suppress(OSError):
                if entry.name.isdigit() and str(self._folder).encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
        return found

    def left(self) -> list[str]:
        """Return which of the temporary folders of its sessions are still there."""
        return [folder for folder in self._temporary if Path(folder).exists()]

    def said(self) -> str:
        return (self._folder / "said").read_text()

    def events(self) -> list[str]:
        """Return the events of the log."""
        return [json.loads(line)["event"] for line in (self._folder / "log").read_text().splitlines()]

    def figures(self) -> str:
        kinds = (
            f"{kind}: {len(waits)} times, {statistics.median(waits):.1f} s in the median and {max(waits):.1f} s at most"
            for kind, waits in sorted(self.waits.items())
        )
        steps = [step.state for step in self.store.steps(self.run.id)]
        ended = sorted(attempt.finished for attempt in self.store.attempt_summaries(self.run.id))
        gap = max(later - earlier for earlier, later in pairwise(ended)).total_seconds()
        minutes = (ended[-1] - ended[0]).total_seconds() / 60
        made = f"{len(ended)} attempts in {minutes:.0f} minutes, {gap:.0f} s between two of them at most"
        kept = f"{len(self.store.versions(self.run.id))} versions, {self._sessions} sessions"
        return "\n".join((made, f"{kept}, {steps.count(StepState.ABANDONED)} of {len(steps)} steps abandoned", *kinds))

    def close(self) -> None:
        self._child.kill()
        self._child.wait()
        self.store.close()

    @property
    def _environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": f"{self._folder}:{ROOT}", "TMPDIR": str(self._folder)}

    def _continue(self) -> None:
        command = [sys.executable, "-m", "avo", "resume", NAME, "--db", self._url, "--max-attempts", "1000000"]
        with (self._folder / "said").open("a") as said:
            self._child = subprocess.Popen(
                [*command, "--log", str(self._folder / "log")],
                stdout=said,
                stderr=said,
                env=self._environment,
                start_new_session=True,
            )
        self._sessions += 1
        self._ray_killed = False

    def _driver(self) -> None:
        self._child.kill()
        self._child.wait()
        self._continue()

    def _kill(self, kind: str) -> None:
        """Kill one of the processes of this kind, if there is one at the moment."""
        members = {pid: command_line(pid) for pid in descent(self._child.pid) - {self._child.pid}}
        self._temporary |= {found for line in members.values() for found in re.findall(r"/tmp/avo-run-\w+", line)}
        is_worker = {pid: [name for name, words in WORKERS.items() if words in line] for pid, line in members.items()}
        of_kind = [pid for pid, names in is_worker.items() if (names or ["Ray"])[0] == kind]
        self._ray_killed |= kind == "Ray"
        with suppress(IndexError, ProcessLookupError):
            os.kill(self._chance.choice(sorted(of_kind)), signal.SIGKILL)

    def _database(self) -> None:
        """Have the server crash, and be away for some seconds."""
        assert self._server is not None
        self._server.stop("QUIT")
        time.sleep(self._chance.uniform(0, 5))
        self._server.start()

    def _backup(self) -> None:
        copy = self._folder / "copy.db"
        done = self.avo("backup", "--out", str(copy))
        assert done.returncode == 0, done.stderr
        with closing(sqlite3.connect(copy)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        copy.unlink()

    def _prune(self) -> None:
        """Drop the transcripts of another run; those of this one are not to be had."""
        step = self.store.claims.claim(self._old.id, worker="w", operator="agent", now=NOW)
        for _ in range(20):
            self.store.journal.add_message(step.id, "message", {"text": "words " * 2000}, now=NOW)
        self.store.claims.fail(step.id, state=StepState.FAILED, reason="enough", now=NOW)
        done = self.avo("prune", "old")
        assert (done.returncode, done.stdout) == (0, "old: 20 messages dropped\n"), done.stderr
        refused = self.avo("prune", NAME)
        assert refused.returncode == 2 or self._ray_killed, refused.stdout

    def _pause(self) -> None:
        if self._ray_killed:  # the run is about to end, and would be continued here
            return
        for command in ("pause", "resume"):
            done = self.avo(command, NAME)
            assert done.returncode == 0, done.stderr

    def _stop(self) -> None:
        done = self.avo("stop", NAME, "--wait")
        code = self._child.wait(PATIENCE_S)
        assert (done.returncode, code) == (0, 130) or self._ray_killed, done.stderr
        self._continue()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=[pytest.mark.postgresql, pytest.mark.soak])])
def soak(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Soak]:
    with ExitStack() as stack:
        server, url = None, f"sqlite:///{tmp_path}/lineage.db"
        if request.param == "postgresql":
            if lacking := postgresql.missing():
                pytest.skip(f"needs PostgreSQL: {lacking}")
            server = stack.enter_context(closing(Cluster()))
            url = stack.enter_context(server.database())
        yield stack.enter_context(closing(Soak(tmp_path, url, server)))


def test_nothing_is_lost_however_many_processes_are_killed(soak: Soak) -> None:
    wait_for(lambda: soak.attempts() > 0)
    end = time.monotonic() + 60 * MINUTES
    while time.monotonic() < end or sum(map(len, soak.waits.values())) < LEAST:
        soak.go_on()
    budget = soak.finish()
    print(soak.figures())
    run = soak.store.run(NAME)
    assert (run.state, run.driver) == (RunState.FINISHED, None)
    attempts, steps = soak.store.attempt_summaries(run.id), soak.store.steps(run.id)
    assert len(attempts) == len({attempt.digest for attempt in attempts}) == budget
    assert [step.number for step in steps] == list(range(len(steps)))
    assert {step.state for step in steps} <= {StepState.DONE, StepState.ABANDONED, StepState.FAILED}
    assert all(step.reason for step in steps if step.state is not StepState.DONE)
    redone = [step.redoes for step in steps if step.redoes is not None]
    assert len(redone) == len(set(redone))
    versions = soak.store.versions(run.id)
    assert [version.number for version in versions] == list(range(len(versions)))
    assert len({version.attempt.id for version in versions}) == len(versions)
    speeds = [version.attempt.evaluation.geomean_tflops for version in versions]
    assert speeds == sorted(speeds)
    assert "attempt" in soak.events()
    assert soak.left() == []
