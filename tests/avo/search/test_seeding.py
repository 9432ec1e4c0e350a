"""Seeding a run: all seeds are judged and examined, several at a time, and the judge is tested on one."""

from dataclasses import replace
from threading import Barrier

from avo.evaluator.candidate import Candidate
from avo.evaluator.evaluation import Evaluation, Status
from avo.evaluator.fake import FakeEvaluator
from avo.lineage_db.records import StepState
from avo.lineage_db.store import Store
from avo.search.seeding import no_versions, seed_operator
from tests.avo.fakes import correct, judge, make_run, make_work

SLOW, FAST = "tflops = 50.0", "tflops = 80.0"


def test_seeds_are_judged_and_examined_several_at_a_time(store: Store) -> None:
    run, together = make_run(store, seeds=(FAST, SLOW)), Barrier(2, timeout=600)

    def meet(candidate: Candidate) -> Evaluation:
        if "canary" not in candidate.source:
            together.wait()
        return judge(candidate)

    evaluator = FakeEvaluator(meet)
    evaluator.held_out = meet
    outcome = make_work(store, run, evaluator).perform(seed_operator(run, judges=3), "w0")
    assert (outcome.state, outcome.tried, outcome.version) == (StepState.DONE, 2, 1)
    assert [version.attempt.source for version in store.versions(run.id)] == [SLOW, FAST]


def test_the_judge_is_tested_on_the_seed_that_it_judged_most_quickly(store: Store) -> None:
    seconds = {"tflops = 90.0": 2.0, FAST: 0.5, SLOW: 1.0}
    run = make_run(store, seeds=(*seconds, "nonsense"))
    evaluator = FakeEvaluator(lambda candidate: replace(judge(candidate), seconds=seconds.get(candidate.source, 0.1)))
    outcome = make_work(store, run, evaluator).perform(seed_operator(run), "w0")
    assert outcome.reason == "seed; canary: the wrong variant is incorrect, the slow one 0.50 times as fast"
    tested = [each.source.partition("\n")[0] for each in evaluator.calls if "canary" in each.source]
    assert tested == [FAST, FAST]


def test_what_is_no_version_is_told_in_one_line_each_and_the_best_of_the_others_is_where_the_run_starts(
    store: Store,
) -> None:
    gluon = Evaluation(Status.UNVERIFIED, "kernel k is in Gluon", "h100", "quick", 0.1, predicted=correct(900.0).score)
    run = make_run(store, seeds=("gluon", FAST, "tflops = 90.0", SLOW, "again"))
    verdicts = {"gluon": gluon, "again": correct(50.0)}
    evaluator = FakeEvaluator(lambda candidate: verdicts.get(candidate.source) or judge(candidate))
    evaluator.held_out = lambda candidate: (
        Evaluation(Status.INCORRECT, "no", "h100", "held_out", 0.1)
        if candidate.source == "tflops = 90.0"
        else judge(candidate)
    )
    make_work(store, run, evaluator).perform(seed_operator(run), "w0")
    assert [version.attempt.source for version in store.versions(run.id)] == [SLOW, FAST]
    examined = "correct on the suite, but incorrect at other shapes or in a larger sample"
    assert no_versions(store, run) == [
        "seed 0.py is no version: unverified: kernel k is in Gluon",
        f"seed 2.py is no version: not accepted: {examined}",
        "seed 4.py is no version: not accepted: lowers to the same launch plans as version 0",
    ]
