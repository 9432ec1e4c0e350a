"""Drives a run with real worker processes in the world of fakes: ``driver.py DB WORKERS ATTEMPTS TRICK``."""

import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from fakes import SEED, Climber, judge

from avo.agents.operator import Brief, Proposal
from avo.config import RunConfig
from avo.evaluator.evaluators import AnyRequest, EvaluateRequest, Progress, Tell, VerifyRequest
from avo.evaluator.fake import FakeEvaluator
from avo.lineage_db.store import Store
from avo.search import run as runs
from avo.search.run import RunSession, Stop, stop_on_signals
from avo.search.workers import hire


def once(marker: Path) -> bool:
    """Whether this is the first call for ``marker``, by any process."""
    try:
        marker.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


class TrickyOperator(Climber):
    """A climber whose process dies in its third step, once, if it is told so."""

    def __init__(self, folder: Path, trick: str) -> None:
        if trick == "no-operator":
            raise ValueError("it is Sunday")
        self.folder = folder
        self.dies = trick == "deaths"

    def vary(self, brief: Brief) -> Proposal:
        """Submit one candidate, or die."""
        if self.dies and len(brief.attempts) > 3 and once(self.folder / "operator-died"):
            os._exit(7)
        return super().vary(brief)


class TrickyEvaluator(FakeEvaluator):
    """Takes a moment, or an hour, for what is not the seed or its canary; its process dies on the sixth candidate or
    so, once, if it is told so. Where it is ``watched``, it examines the seed until the file ``seen`` is there.
    """

    def __init__(self, folder: Path, trick: str) -> None:
        super().__init__(judge)
        assert os.environ["OMP_NUM_THREADS"] == "1"
        if trick == "no-evaluator":
            raise ValueError("it is Sunday")
        self.folder = folder
        self.dies = trick == "deaths"
        self.watched = trick == "watched"
        self.pause_s = 3600.0 if trick == "slow" else 0.05
        self.count = 0

    def ask(self, request: AnyRequest) -> Any:
        """Return the verdict, or die."""
        if isinstance(request, EvaluateRequest) and request.candidate.source.partition("\n")[0] != SEED:
            self.count += 1
            if self.dies and self.count > 2 and once(self.folder / "evaluator-died"):
                os._exit(7)
            time.sleep(self.pause_s)
        return super().ask(request)

    def follow(self, request: AnyRequest, tell: Tell) -> Any:
        """Return the verdict; of a seed that is watched, say how far it is, and go on when that was seen."""
        if self.watched and isinstance(request, VerifyRequest) and request.candidate.source == SEED:
            tell(Progress(3, 7))
            while not (self.folder / "seen").exists():
                time.sleep(0.05)
        return self.ask(request)


class Late:
    """Becomes ``make`` in the processes that it is sent to: at once in the first, and after a while in later ones."""

    def __init__(self, make: Callable[[], TrickyEvaluator], marker: Path) -> None:
        self.make = make
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return late, (self.make, self.marker)

    def __call__(self) -> TrickyEvaluator:
        return self.make()


def late(make: Callable[[], TrickyEvaluator], marker: Path) -> Callable[[], TrickyEvaluator]:
    """Return ``make``."""
    if not once(marker):
        time.sleep(15)
    return make


def main() -> None:
    """Drive the run and print its state."""
    db, workers, attempts, trick = sys.argv[1:]
    config = RunConfig(workers=int(workers), max_attempts=int(attempts))
    folder, stop = Path(db).parent, Stop()
    make = partial(TrickyEvaluator, folder, trick)
    if trick.startswith("no-"):
        runs.MAX_TROUBLES = 2  # each starts processes
    with Store.open(db, create=False) as store, stop_on_signals(stop):
        run = RunSession(
            store,
            store.run("fake"),
            config,
            deadline=None,
            hire=partial(
                hire,
                store.url,
                "fake",
                config,
                make_operator=partial(TrickyOperator, folder, trick),
                make_evaluator=Late(make, folder / "pool-started") if trick == "late" else make,
            ),
            stop=stop,
            say=partial(print, flush=True),
        ).drive()
    print(run.state)


if __name__ == "__main__":
    main()
