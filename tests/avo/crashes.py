"""Kills a small run where it writes, resumes it, and looks at what is left: ``crashes.py URL WORKERS STRIDE FOLDER``.

Each session is a process of its own, forked from this one, which has imported everything. Exit code 0: nothing is
lost; printed is the number of points.
"""

import itertools
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

from fakes import Climber, InlineCrew, judge, make_run

from avo.agents.operator import Brief, Proposal
from avo.config import RunConfig
from avo.evaluator.candidate import Candidate
from avo.evaluator.evaluation import Evaluation
from avo.evaluator.fake import FakeEvaluator
from avo.lineage_db.engine import Database
from avo.lineage_db.records import RunState, StepState
from avo.lineage_db.store import Store
from avo.search.leases import exclusive
from avo.search.run import RunSession, Stop, utc_now

SEEDS = ("tflops = 100.0", "tflops = 60.0")
ATTEMPTS = 4
USD = 0.25


class Ledger:
    """A file that survives: what was evaluated, and which calls of a model have ended."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, line: str) -> None:
        """Add a line; a killed process has written it or not."""
        with self.path.open("a") as file:
            file.write(f"{line}\n")

    def read(self, kind: str) -> list[str]:
        """Return the lines of one kind."""
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        return [line.split()[1] for line in lines if line.split()[0] == kind]


class Paying(Climber):
    """A climber that asks a model first."""

    def __init__(self, store: Store, run_id: int, ledger: Ledger) -> None:
        self.store = store
        self.run_id = run_id
        self.ledger = ledger

    def vary(self, brief: Brief) -> Proposal:
        """Submit one candidate."""
        self.ledger.write("asked -")
        sizes = {"input_tokens": 7, "cached_tokens": 0, "output_tokens": 1}
        self.store.journal.add_call(
            self.run_id, None, model="m", **sizes, usd=USD, seconds=1.0, error="", now=utc_now()
        )
        self.ledger.write("paid -")
        return super().vary(brief)


def work_on(url: str, name: str, ledger: Ledger, workers: int, watch: Callable[[str], None]) -> None:
    """Work on the run until it is finished, as ``avo resume`` does."""

    def verdict(candidate: Candidate) -> Evaluation:
        found = judge(candidate)
        if "canary" not in candidate.source:
            ledger.write(f"judged {candidate.digest}")
        return found

    with Store(Database(url, create=False, watch=watch)) as store:
        run = store.run(name)
        evaluator = FakeEvaluator(verdict)
        evaluator.held_out = judge
        crew = InlineCrew(store, run, Paying(store, run.id, ledger), evaluator)
        with exclusive(store, run, clock=utc_now, lost=partial(os._exit, 8), say=print):
            RunSession(
                store,
                run,
                RunConfig(workers=workers, max_attempts=ATTEMPTS),
                deadline=None,
                hire=crew.hire,
                stop=Stop(),
                say=print,
            ).drive()


def killed_at(point: int) -> Callable[[str], None]:
    """Return what kills this process at its ``point``-th point; 0 is never."""
    count = itertools.count(1)

    def watch(what: str) -> None:
        if next(count) == point:
            os.kill(os.getpid(), signal.SIGKILL)

    return watch


def forked(work: Callable[[], None]) -> int:
    """Do ``work`` in a process of its own and return its exit code, negative for a signal."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:
            sys.excepthook(*sys.exc_info())
            sys.stderr.flush()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def check(url: str, name: str, ledger: Ledger, kills: int) -> None:
    """Look at a run that was killed ``kills`` times and then finished."""
    with Store.open(url, create=False) as store:
        run = store.run(name)
        assert (run.state, run.driver) == (RunState.FINISHED, None)
        recorded = Counter(attempt.digest for attempt in store.attempt_summaries(run.id))
        assert set(recorded.values()) == {1}, "an attempt is there twice"
        assert len(recorded) == ATTEMPTS
        judged = Counter(ledger.read("judged"))
        assert recorded.keys() <= judged.keys()
        if kills < 2:  # a step that was left unfinished twice is given up
            assert recorded.keys() == judged.keys(), "an evaluated attempt is missing"
        assert sum(judged.values()) <= ATTEMPTS + kills, "evaluated again although it was recorded"

        versions = store.versions(run.id)
        assert [version.number for version in versions] == list(range(len(versions)))
        assert len({version.attempt.id for version in versions}) == len(versions)
        speeds = [version.attempt.evaluation.geomean_tflops for version in versions]
        assert speeds == sorted(set(speeds))
        assert [version.parents for version in versions[:2]] == [(), ()], "a seed is missing"

        spend = store.journal.spend(run.id)
        assert len(ledger.read("paid")) <= spend.calls <= len(ledger.read("asked"))
        assert len(ledger.read("asked")) - len(ledger.read("paid")) <= kills
        assert (spend.usd, spend.tokens) == (USD * spend.calls, 8 * spend.calls)

        steps = store.steps(run.id)
        assert [step.number for step in steps] == list(range(len(steps)))
        abandoned = [step for step in steps if step.state is StepState.ABANDONED]
        assert len(abandoned) <= kills
        assert all(step.reason for step in abandoned)
        assert {step.state for step in steps} - {StepState.ABANDONED} == {StepState.DONE}


def lineage(url: str, name: str) -> list[tuple[str, bool]]:
    """Return the sources that a run tried, in order, and whether each was accepted."""
    with Store.open(url, create=False) as store:
        run = store.run(name)
        attempts = store.attempt_summaries(run.id)
        return [(store.attempt(run.id, t.attempt_id).source, t.version is not None) for t in attempts]


def begin(url: str, name: str) -> None:
    """Create the run."""
    with Store.open(url, create=False) as store:
        make_run(store, name=name, seeds=SEEDS)


def main(url: str, workers: int, stride: int, folder: Path) -> None:
    """Kill runs at every ``stride``-th point, until one gets through."""
    with Store.open(url) as store:
        url = store.url
    undisturbed: list[tuple[str, bool]] = []
    for point in itertools.count(step=stride):
        name = f"killed-at-{point}"
        ledger = Ledger(folder / name)
        begin(url, name)
        code = forked(partial(work_on, url, name, ledger, workers, killed_at(point)))
        assert code in (0, -signal.SIGKILL), code
        kills = int(code != 0)
        if kills and point % 3 == 0:
            kills += forked(partial(work_on, url, name, ledger, workers, killed_at(point % 11 + 1))) != 0
        if kills:
            assert forked(partial(work_on, url, name, ledger, workers, killed_at(0))) == 0, name
        check(url, name, ledger, kills)
        found = lineage(url, name)
        undisturbed = undisturbed or found
        if workers == 1 and kills < 2:
            # The last attempt of the budget is not looked at again, so it may have missed its acceptance.
            assert [source for source, _ in found] == [source for source, _ in undisturbed], name
            assert found[:-1] == undisturbed[:-1], name
        if point and not kills:
            print(point)
            return


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
