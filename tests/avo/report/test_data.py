"""What a report knows of a run."""

from dataclasses import replace

import pytest

from avo.agents.mutate import Mutate
from avo.config import ISOLATION, START, TOOLS
from avo.evaluator.candidate import Candidate
from avo.evaluator.evaluation import Evaluation, Status
from avo.evaluator.targets import get_target
from avo.evaluator.units import rooflines_us
from avo.lineage_db.decision import Decision, Ruling
from avo.lineage_db.entries import Intervention
from avo.lineage_db.errors import UnknownRun
from avo.lineage_db.records import RunState, StepState, Submission
from avo.lineage_db.store import Store
from avo.report.data import MOST_DIFF_LINES, MOST_SOURCE, Report
from avo.report.reading import read_report
from tests.avo.recorded import Recorded
from tests.avo.sample_run import START as NOON
from tests.avo.sample_run import make_evaluation, make_measured
from tests.decisions import accept


def test_full_and_causal_cases_have_a_trajectory_each(sample: Report) -> None:
    assert sample.trajectory is not None
    assert (sample.trajectory.name, sample.trajectory.attempts, sample.trajectory.faulty) == ("all", 8, (3, 5, 7))
    full, causal = sample.trajectories
    assert (full.name, causal.name) == ("full", "causal")
    assert [line.name for line in full.cases] == ["8k-full"]
    assert full.scores == pytest.approx([110, 165, 231, 286])
    assert causal.best == pytest.approx([value / 1.1 for value in (100, 150, 210, 260)])
    assert full.records == (0, 1, 2, 3)
    assert [(level.name, level.value) for level in full.levels][-1] == ("FlashAttention-3", pytest.approx(646))
    assert sample.unit == full.unit == "predicted TFLOPS, h100"


def test_gains_are_over_the_fastest_parent_on_the_cases_of_each_trajectory(store: Store) -> None:
    run = Recorded(store)
    run.step(100.0)
    run.step(120.0, (0,))
    slow_but_causal = make_evaluation(110.0)
    assert slow_but_causal.score is not None
    causal, full = slow_but_causal.score.cases
    shifted = replace(slow_but_causal.score, cases=(replace(causal, tflops=130.0), full))
    run.step(replace(slow_but_causal, score=shifted), (0, 1))
    *_, last = read_report(store, "live", NOON).by_number
    assert last.gains == (pytest.approx(110 / 120 - 1), pytest.approx(130 * 1.1 / 120 - 1))
    assert last.gain == pytest.approx((130 * 121) ** 0.5 / 120 - 1)


def test_bars_hold_seed_best_and_the_baselines_of_the_target(sample: Report) -> None:
    group = sample.bars[0]
    assert group.name == "8k-causal"
    assert [(bar.name, bar.style) for bar in group.bars] == [
        ("seed", "seed"), ("best, v3", "best"), ("FlashAttention-2", "published"), ("Triton", "published"),
        ("cuDNN", "published"), ("FlashAttention-3", "published"),
    ]  # fmt: skip
    assert {baseline.target for baseline in sample.baselines} == {"h100"}


def test_bars_hold_the_roofline_where_nothing_was_published(store: Store) -> None:
    Recorded(store, target="rtx5090").step(make_evaluation(100.0, target="rtx5090"))
    bounds = rooflines_us("mha", "quick", "rtx5090")
    for group in read_report(store, "live", NOON).bars:
        _, bar = group.bars
        useful = 1e6  # FLOPs of the recorded cases, in millions
        assert (bar.name, bar.style, bar.value) == ("roofline", "roofline", pytest.approx(useful / bounds[group.name]))


def test_an_entry_has_diff_reason_and_the_attempts_of_its_step(store: Store) -> None:
    run = Recorded(store)
    run.step(100.0, source="a = 1\nb = 2\n")
    step = run.claim()
    run.evaluate(step, Status.INCORRECT, (0,), "first try")
    run.evaluate(step, 90.0, (0,), "second try")
    attempt = store.results.record_attempt(
        step_id=step.id,
        candidate=Candidate("mha", "a = 1\nb = 3\n"),
        change="b is 3",
        parents=(0,),
        evaluation=make_evaluation(120.0),
        started=NOON,
        finished=NOON,
        hypothesis="three is odd",
    )
    said = Submission(attempt.id, "b is 3", "three is odd", "20% faster", "20% faster, as expected")
    store.results.conclude(
        step.id, attempt_id=attempt.id, parents=(0,), reason="it paid", now=NOON, decide=accept,
        submission=said,
    )  # fmt: skip
    seed, entry = read_report(store, "live", NOON).by_number
    assert (entry.tried, entry.failed, entry.step.reason) == (3, 1, "it paid")
    assert (entry.version.attempt.hypothesis, entry.step.submission) == ("three is odd", said)
    assert entry.diff is not None
    assert (entry.diff.parent, entry.diff.lines) == (0, ("@@ -1,2 +1,2 @@", " a = 1", "-b = 2", "+b = 3"))
    assert seed.diff is None


def test_long_diffs_are_cut_and_endless_sources_not_compared(store: Store) -> None:
    run = Recorded(store)
    run.step(100.0, source="x = 1\n")
    run.step(110.0, (0,), source="".join(f"x = {number}\n" for number in range(1500)))
    run.step(120.0, (1,), source=f"x = '{'y' * MOST_SOURCE}'")
    run.step(130.0, (1,), source="y = '" + "z" * 20000 + "'")
    _, long, endless, wide = (entry.diff for entry in read_report(store, "live", NOON).by_number)
    assert long is not None
    assert endless is not None
    assert wide is not None
    assert len(long.lines) == MOST_DIFF_LINES
    assert long.left_out == 1501 - MOST_DIFF_LINES
    assert (endless.lines, endless.trouble[:12]) == ((), "not compared")
    assert sum(map(len, wide.lines)) < 20000
    assert wide.left_out > 0


def test_moves_are_counted_with_what_their_versions_gained(store: Store) -> None:
    run = Recorded(store)
    run.step(100.0)
    run.step(120.0, (0,), "stages: num_stages 1 -> 2; exp2: exp2, folded")
    run.step(Status.INCORRECT, (1,), "stages: num_stages 2 -> 3")
    run.step(150.0, (1,), "stages: num_stages 2 -> 4")
    run.step(140.0, (1,), "skip: skip blocks", accept=False)
    found = {move.name: move for move in read_report(store, "live", NOON).moves}
    assert list(found) == ["stages", "exp2", "skip"]
    stages = found["stages"]
    assert (stages.tried, stages.correct, stages.accepted) == (3, 2, 2)
    joint, alone = 1.2, 150 / 120
    assert stages.gains == pytest.approx([joint**0.5 * alone - 1] * 2), "half of the joint gain"
    assert found["exp2"].gains == pytest.approx([joint**0.5 - 1] * 2)
    assert (found["skip"].accepted, found["skip"].gains) == (0, (0, 0))
    assert [reason.words[:9] for reason in stages.why] == ["incorrect"]


def test_reasons_say_how_often_and_how_far_from_the_best(store: Store) -> None:
    run = Recorded(store)
    run.step(100.0)
    for gain in (-0.02, -0.3):
        decision = Decision(Ruling.NO_GAIN, f"{gain:+.1%} in the mean over version 0", gain)
        run.step(100 * (1 + gain), (0,), "skip: skip blocks", accept=False, decision=decision)
    run.step(Status.INCORRECT, (0,), "skip: skip blocks")
    (skip,) = read_report(store, "live", NOON).moves
    assert [(reason.count, reason.words) for reason in skip.why] == [
        (2, "no gain, -30% to -2.0%"),
        (1, "incorrect: case ragged: 12 of 77 rows are wrong, relative error 0.41"),
    ]
    assert (skip.tried, skip.correct, skip.refused) == (3, 2, 2)


def test_misses_are_ordered_by_how_near_they_were(store: Store) -> None:
    run = Recorded(store)
    run.step(100.0)
    no, open_ = Ruling.NO_GAIN, Ruling.UNRESOLVED
    for gain, ruling in ((0.001, no), (-0.2, no), (0.003, no), (0.002, open_)):
        run.step(100 * (1 + gain), (0,), accept=False, decision=Decision(ruling, "why", gain))
    gains = [attempt.decision.gain for attempt in read_report(store, "live", NOON).refused if attempt.decision]
    assert gains == [0.002, 0.003, 0.001, -0.2]


def test_words_of_another_operator_are_no_moves(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Recorded(store)
    run.step(100.0)
    monkeypatch.setattr(Mutate, "name", "another")
    run.step(120.0, (0,), "stages: more of them")
    report = read_report(store, "live", NOON)
    assert report.moves == ()
    assert [(idea.name, idea.accepted) for idea in report.ideas] == [("stages: more of them", 1)]


def test_what_was_built_on_an_earlier_attempt_is_told_by_all_that_it_changes(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Recorded(store)
    run.step(100.0)
    monkeypatch.setattr(Mutate, "name", "another")
    step = run.claim()
    first = run.evaluate(step, 110.0, (0,), "the idea", source="a")
    last = run.evaluate(step, 120.0, (0,), "a small edit", source="b", built_on=first.id)
    run.conclude(step, last, accept=True, seen="as hoped", change="the idea; then a small edit")
    ideas = read_report(store, "live", NOON).ideas
    assert {idea.name: idea.accepted for idea in ideas} == {"the idea": 0, "the idea; then a small edit": 1}


def test_model_calls_are_summed_by_model_and_interventions_kept(store: Store) -> None:
    run = Recorded(store)
    run.step(100.0)
    common = {"cached_tokens": 40, "output_tokens": 7, "seconds": 2.0, "now": NOON}
    for model, tokens, usd, error in (("a", 100, 0.5, ""), ("a", 50, None, "timed out"), ("b", 10, None, "")):
        store.journal.add_call(run.run.id, None, model=model, input_tokens=tokens, usd=usd, error=error, **common)
    store.journal.intervene(
        run.run.id, after_step=0, level="nudge", reason="stalled", directions=["think"], source="b", restart_from=None,
        now=NOON, seen=0,
    )  # fmt: skip
    report = read_report(store, "live", NOON)
    first, second = report.models
    assert (first.model, first.spend.calls, first.spend.input_tokens, first.failed, first.unpriced) == (
        "a",
        2,
        150,
        1,
        1,
    )
    assert (first.spend.usd, first.spend.output_tokens, first.seconds) == (0.5, 14, 4.0)
    assert (second.unpriced, second.spend.calls) == (1, 1)
    assert [type(each) for each in report.interventions] == [Intervention]
    assert report.steps == {StepState.DONE: 1}


def test_unverified_attempts_are_listed_apart_with_their_prediction(store: Store) -> None:
    run = Recorded(store)
    score = make_evaluation(500.0).score
    run.step(Evaluation(Status.UNVERIFIED, "Gluon", "h100", "quick", 1.0, predicted=score), (), "in Gluon")
    report = read_report(store, "live", NOON)
    (found,) = report.unverified
    assert found.change == "in Gluon"
    assert found.predicted is not None
    assert found.predicted.geomean_tflops == pytest.approx(500)
    assert report.trajectories == report.bars == report.entries == ()


def test_a_measured_run_names_its_card_and_takes_no_baseline_of_another_target(store: Store) -> None:
    run = Recorded(store, "mha-cuda", target="cuda")
    run.step(make_measured(600.0))
    run.step(make_measured(640.0), (0,))
    report = read_report(store, "mha-cuda", NOON)
    assert report.unit == "measured TFLOPS, NVIDIA H100 80GB HBM3"
    assert report.baselines == report.comparisons == ()
    assert [(bar.style, bar.low) for bar in report.bars[0].bars] == [("seed", 595), ("best", 635), ("roofline", 0)]
    assert report.entries[1].compared.startswith("faster than the best so far")
    assert ("measured on", "NVIDIA H100 80GB HBM3") in report.environment


def test_cases_of_a_problem_that_is_not_installed_stand_together(store: Store) -> None:
    run = store.create_run(
        name="own", problem="/gone/problem.py", target="h100", suite="quick", operator="x", seed=0, config={}, now=NOON
    )
    step = store.claims.claim(run.id, worker="w", operator="seed", now=NOON)
    attempt = store.results.record_attempt(
        step_id=step.id,
        candidate=Candidate("/gone/problem.py", "x = 1"),
        change="seed",
        parents=(),
        evaluation=make_evaluation(100.0),
        started=NOON,
        finished=NOON,
    )
    store.results.conclude(step.id, attempt_id=attempt.id, parents=(), reason="", now=NOON, decide=accept)
    (figure,) = read_report(store, "own", NOON).trajectories
    assert (figure.name, [line.name for line in figure.cases]) == ("all", ["8k-causal", "8k-full"])


def test_the_environment_says_what_the_run_was_made_with(store: Store) -> None:
    run = Recorded(store)
    config = {
        START: [{"origin": "mha/plain.py", "source": "x = 1"}],
        ISOLATION: ["namespaces", "none"],
        TOOLS: ["triton 3.6.0"],
        "min_gain": 0.01,
        "commit": "0123abc",
        "documents": [],
        "models": [{"name": "one"}, {"name": "two"}],
    }
    store.set_run_state(run.run.id, RunState.STOPPED, now=NOON, config=config)
    assert dict(read_report(store, "live", NOON).environment) == {
        "problem": "mha",
        "target": "h100 (NVIDIA H100 SXM5 80GB)",
        "predictions": get_target("h100").standing,
        "suite": "quick",
        "operator": "mutate",
        "random seed": "0",
        "seeds": "mha/plain.py",
        "candidates kept apart by": "namespaces; or by none",
        "releases": "triton 3.6.0",
        "min gain": "0.01",
        "commit": "0123abc",
        "models": "name: one, name: two",
    }


def test_an_unknown_run_is_the_stores_error(store: Store) -> None:
    with pytest.raises(UnknownRun):
        read_report(store, "nothing", NOON)
