"""Fixtures for the lineage database: a store on a fresh database of every kind, and records to put in."""

import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from avo.evaluator.candidate import Candidate
from avo.evaluator.evaluation import CaseScore, Evaluation, Score, Status
from avo.evaluator.target import ScoreKind
from avo.lineage_db import engine
from avo.lineage_db.connecting import sqlite
from avo.lineage_db.decision import Decision
from avo.lineage_db.records import Attempt, Run, Step, Submission
from avo.lineage_db.store import Store
from tests.decisions import accept
from tests.postgresql import Cluster, empty

NOW = datetime(2030, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


@pytest.fixture(autouse=True)
def new_databases_are_migrated(monkeypatch: pytest.MonkeyPatch) -> None:
    """As everywhere but in the other tests."""
    monkeypatch.setattr(engine, "sqlite", sqlite)


@pytest.fixture(scope="session")
def shared_database(cluster: Cluster) -> Iterator[str]:
    """A PostgreSQL database with the newest schema; the tests that use it empty it."""
    with cluster.database() as url:
        Store.open(url).close()
        yield url


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A store on an empty database of either kind."""
    if request.param == "sqlite":
        url = str(shutil.copy(request.getfixturevalue("empty_file"), tmp_path))
    else:
        url = request.getfixturevalue("shared_database")
        empty(url)
    with Store.open(url) as store:
        yield store


@pytest.fixture
def make() -> "Maker":
    """Makes records with everything that does not matter filled in."""
    return Maker()


class Maker:
    """Short forms of the store's writing methods."""

    now = NOW

    def evaluation(self, tflops: float = 0.0, message: str = "wrong", **values: object) -> Evaluation:
        """Correct with one case of ``tflops``, or incorrect with ``message`` when 0."""
        fields: dict[str, object] = {
            "status": Status.CORRECT if tflops else Status.INCORRECT,
            "message": message,
            "target": "h100",
            "suite": "paper",
            "seconds": 1.5,
            "score": Score(ScoreKind.PREDICTED, "h100", (CaseScore("c", tflops, 7.0, "tensor"),)) if tflops else None,
        }
        return Evaluation(**(fields | values))  # type: ignore[arg-type]

    def run(self, store: Store, name: str = "mha-h100", **values: object) -> Run:
        """Create a run."""
        fields: dict[str, object] = {
            "problem": "mha",
            "target": "h100",
            "suite": "paper",
            "operator": "mutate",
            "seed": 7,
            "config": {"steps": 10},
            "now": NOW,
        }
        return store.create_run(name=name, **(fields | values))  # type: ignore[arg-type]

    def step(self, store: Store, run: Run) -> Step:
        """Claim a step."""
        return store.claims.claim(run.id, worker="w0", operator="mutate", now=NOW)

    def attempt(
        self,
        store: Store,
        step: Step,
        tflops: float = 0.0,
        source: str = "x = 1\n",
        parents: tuple[int, ...] = (),
        evaluation: Evaluation | None = None,
        decision: Decision | None = None,
        built_on: int | None = None,
        change: str = "tile 64",
        hypothesis: str = "",
        once: bool = False,
    ) -> Attempt:
        """Record an attempt."""
        return store.results.record_attempt(
            step_id=step.id, candidate=Candidate("mha", source), change=change, parents=parents,
            evaluation=evaluation or self.evaluation(tflops), started=NOW, finished=NOW + timedelta(seconds=2),
            decision=decision, built_on=built_on, hypothesis=hypothesis, once=once,
        )  # fmt: skip

    def version(self, store: Store, run: Run, tflops: float, parents: tuple[int, ...] = ()) -> None:
        """Add a version of that speed."""
        step = self.step(store, run)
        attempt = self.attempt(store, step, tflops, parents=parents)
        self.conclude(store, step, attempt, parents=parents, decide=accept)

    def conclude(
        self,
        store: Store,
        step: Step,
        attempt: Attempt | None,
        *,
        parents: tuple[int, ...] = (),
        decide: Callable[..., Decision | None],
        submission: Submission | None = None,
    ) -> object:
        """Conclude a step."""
        return store.results.conclude(
            step.id,
            attempt_id=attempt.id if attempt else None,
            parents=parents,
            reason="tried tiles",
            now=NOW,
            decide=decide,
            submission=submission,
        )
