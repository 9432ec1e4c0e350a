"""Transfer: what a run keeps of where it comes from, what its operator is told, and how soon it paid."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from avo.config import TRANSFERRED, RunConfig
from avo.search.transfer import Milestone, Use, in_words, progress, record, transferred
from evaluator.evaluation import Status
from lineage_db.records import Run, RunState
from lineage_db.store import Store
from tests.avo.fakes import NOW, SEED, Scripted, evaluator, make_work, proposing
from tests.avo.recorded import Recorded
from tests.avo.sample_run import START, make_sample_run


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(str(tmp_path / "lineage.db")) as opened:
        yield opened


def taken_over(store: Store, use: Use) -> Recorded:
    """A run that starts from version 3 of a run for ``gqa``."""
    store.create_run(
        name="old", problem="gqa", target="h100", suite="quick", operator="mutate", seed=0, config={}, now=START
    )
    run = Recorded(store)
    config = {TRANSFERRED: {"run": "old", "version": 3, "use": use}}
    run.run = store.set_run_state(run.run.id, RunState.RUNNING, now=START, config=config)
    return run


def test_a_version_of_the_same_entry_function_is_the_seed_and_another_is_to_be_adapted(store: Store) -> None:
    run = store.run(make_sample_run(store.url))
    version = store.version(run.id, 2)
    assert record(run, version, "mha", True) is None
    for problem, adapts, use in (("gqa", False, Use.SEED), ("fsa", True, Use.ADAPT), ("fsa", False, Use.NOTHING)):
        assert record(run, version, problem, adapts) == {"run": "mha-h100", "version": 2, "use": use}


def test_an_operator_gets_the_version_and_those_before_it(store: Store) -> None:
    origin = store.run(make_sample_run(store.url))
    kept = {TRANSFERRED: {"run": origin.name, "version": 2, "use": Use.ADAPT}}
    told = []
    for name, config in (("adapted", kept), ("plain", {})):
        operator = Scripted(proposing(SEED))
        run: Run = store.create_run(
            name=name, problem="fsa", target="h100", suite="quick", operator="x", seed=0, config=config, now=NOW
        )
        make_work(store, run, evaluator(), RunConfig(supervisor="off")).perform(operator, "w0")
        told.append(operator.briefs[0].transferred)
    adapted, plain = told
    assert plain is None
    assert adapted is not None
    assert (adapted.run, [version.number for version in adapted.versions]) == (origin, [0, 1, 2])
    assert adapted.source == store.version(origin.id, 2).attempt.source


def test_the_first_correct_and_the_first_better_attempt_are_counted_without_pauses(store: Store) -> None:
    run = taken_over(store, Use.SEED)
    run.step(Status.INCORRECT, seconds=60)
    run.wait(3600)
    run.step(100.0, seconds=90)
    run.step(90.0, (0,), accept=False, seconds=30)
    found = progress(store, run.run)
    assert found is not None
    assert (found.origin, found.problem, found.correct, found.better) == ("old@3", "gqa", Milestone(2, 2.5), None)
    run.step(120.0, (0,), seconds=60)
    run.step(130.0, (1,), seconds=60)
    found = progress(store, run.run)
    assert found is not None
    assert (found.correct, found.better) == (Milestone(2, 2.5), Milestone(4, 4.0))
    assert in_words(found.to_json()) == (
        "Took over old@3 (gqa) as its seed: first correct at attempt 2, 2.5 min, first better at attempt 4, 4.0 min."
    )


def test_a_seed_of_its_own_is_not_the_first_correct_attempt(store: Store) -> None:
    run = taken_over(store, Use.ADAPT)
    run.step(100.0, seconds=30)
    found = progress(store, run.run)
    assert found is not None
    assert found.correct is None
    assert "first correct not yet" in in_words(found.to_json())
    run.step(90.0, (0,), accept=False, seconds=30)
    found = progress(store, run.run)
    assert found is not None
    assert (found.correct, found.better) == (Milestone(2, 1.0), None)


def test_nothing_is_counted_where_the_operator_cannot_adapt(store: Store) -> None:
    run = taken_over(store, Use.NOTHING)
    run.step(100.0)
    run.step(120.0, (0,))
    found = progress(store, run.run)
    assert found is not None
    assert (found.correct, found.better) == (None, None)
    assert in_words(found.to_json()) == (
        "Took over old@3 (gqa), which its operator cannot adapt: it started from a seed of its own."
    )


def test_a_run_that_took_nothing_over_has_no_transfer(store: Store) -> None:
    run = Recorded(store)
    assert (progress(store, run.run), transferred(store, run.run)) == (None, None)
