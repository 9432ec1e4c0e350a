"""Transfer: what a run keeps of where it comes from, what its operator is told, and how soon it paid."""

from dataclasses import asdict, replace
from pathlib import Path

from avo.config import DIRECTIONS, TIMED_FIRST, TRANSFERRED, RunConfig
from avo.evaluator.evaluation import Status
from avo.evaluator.resolution import Difference
from avo.evaluator.target import ScoreKind
from avo.lineage_db.decision import Lead, Ruling
from avo.lineage_db.directions import Direction, Evidence
from avo.lineage_db.records import Run, RunState
from avo.lineage_db.store import Store
from avo.search.seeding import SeedOperator
from avo.search.transfer import Milestone, Use, in_words, progress, record, timed_first, timing_first, transferred
from tests.avo.fakes import NOW, SEED, Scripted, evaluator, make_run, make_work, proposing
from tests.avo.recorded import Recorded
from tests.avo.sample_run import START, make_measured, make_sample_run


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
    assert record(run, version.attempt, version, "mha", True) is None
    for problem, adapts, use in (("gqa", False, Use.SEED), ("fsa", True, Use.ADAPT), ("fsa", False, Use.NOTHING)):
        assert record(run, version.attempt, version, problem, adapts) == {"run": "mha-h100", "version": 2, "use": use}


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


def test_an_operator_gets_the_directions_that_its_run_took_over(store: Store) -> None:
    there = Evidence(2, ScoreKind.PREDICTED, 0.03, 0.01, resolved=True, run="old", problem="gqa", target="h100")
    taken = Direction("roles", "loads wait", (there,))
    operator = Scripted(proposing(SEED))
    run = make_run(store)
    config = {**run.config, DIRECTIONS: [asdict(taken)]}
    run = store.set_run_state(run.id, RunState.RUNNING, now=START, config=config)
    make_work(store, run, evaluator(), RunConfig(supervisor="off")).perform(operator, "w0")
    assert operator.briefs[0].directions == [taken]
    assert RunConfig.stored(run, {}).problem == run.problem


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
        "Took over old@3 (gqa), which its operator cannot adapt: it started from seeds of its own."
    )


def test_a_run_that_took_nothing_over_has_no_transfer(store: Store) -> None:
    run = Recorded(store)
    assert (progress(store, run.run), transferred(store, run.run)) == (None, None)


WHY = Lead(0, Difference(0.05, 0.7)).decide(0.01, 0.9)


def predicted(store: Store) -> Run:
    """Return a run with a version of 100 TFLOPS, and attempts 2 to 8 above and below it, all but one unresolved."""
    made = Recorded(store, "predicted")
    made.step(100.0)
    for number in range(6):
        tflops = 98.0 + 3 * number
        made.step(tflops, (0,), f"change {number}", accept=False, decision=WHY, source=f"tflops = {tflops}")
    made.step(200.0, (0,), accept=False, decision=replace(WHY, ruling=Ruling.EXAMINED), source="tflops = 200.0")
    return made.run


def test_a_run_that_starts_from_an_attempt_gets_it_and_the_lineage_of_its_parent(store: Store) -> None:
    run = predicted(store)
    attempt = store.attempt(run.id, 4)
    kept = record(run, attempt, None, "fsa", True)
    assert kept == {"run": "predicted", "version": 0, "attempt": 4, "use": Use.ADAPT}
    new = make_run(store, RunConfig(), "new")
    taken = transferred(store, replace(new, config={TRANSFERRED: kept}))
    assert taken is not None
    assert (taken.source, [version.number for version in taken.versions]) == (attempt.source, [0])


def test_a_gpu_times_the_fastest_unresolved_attempts_first_that_are_faster_than_the_start(store: Store) -> None:
    run = predicted(store)
    start = store.attempt(run.id, 1)
    names = [each["name"] for each in timed_first(store, run, start)]
    assert names == [f"predicted#{number}" for number in (7, 6, 5, 4, 3)]
    assert [each["name"] for each in timed_first(store, run, store.attempt(run.id, 6))] == ["predicted#7"]
    assert timed_first(store, run, replace(start, evaluation=make_measured(1.0))) == []


def test_what_is_timed_first_is_submitted_step_by_step_before_the_operator_works(tmp_path: Path) -> None:
    with Store.open(str(tmp_path / "new.db")) as store:
        waiting = timed_first(store, (origin := predicted(store)), store.attempt(origin.id, 5))
        assert [each["source"] for each in waiting] == ["tflops = 113.0", "tflops = 110.0"]
        run = replace(make_run(store, RunConfig(), "new"), config={TIMED_FIRST: waiting})
        inner = Scripted(proposing("tflops = 105.0"))
        for operator in (SeedOperator(SEED), *[timing_first(inner, run)] * 4):
            make_work(store, run, evaluator()).perform(operator, "w0")
        attempts = store.attempts(run.id)
    assert [attempt.source for attempt in attempts] == [
        SEED, "tflops = 113.0", "tflops = 110.0", "tflops = 105.0",
    ]  # fmt: skip
    assert [attempt.change for attempt in attempts[1:3]] == ["predicted#7: change 5", "predicted#6: change 4"]
    assert len(inner.briefs) == 2
    assert timing_first(inner, replace(run, config={})) is inner
