"""Scoring where speed is measured: what is compared with what, at which price, and what is recorded."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from avo.agents.operator import Brief, Proposal, VariationOperator
from avo.config import RunConfig
from avo.evaluator.candidate import Candidate, Incumbent
from avo.evaluator.errors import EvaluatorUnavailable
from avo.evaluator.evaluation import Comparison, Evaluation, Status, Verdict
from avo.evaluator.evaluators import AnyRequest, Progress, Tell
from avo.lineage_db.records import Attempt, StepState
from avo.lineage_db.store import Store
from avo.search.acceptance import share_of_alpha
from avo.search.seeding import SeedOperator
from avo.search.step import StepOutcome
from tests.avo.fakes import Scripted, make_run, make_work, proposing, submit
from tests.avo.measured import MeasuringEvaluator, kernel

SEED = kernel(100.0)
ALPHA = 0.05


class Lab:
    """A measured run in a database of its own, its seed judged."""

    def __init__(self, path: Path) -> None:
        self.store = Store.open(str(path))
        self.run = make_run(self.store, RunConfig(target="cuda"))
        self.evaluator = MeasuringEvaluator()
        assert self.step(SeedOperator(SEED)).version == 0
        self.evaluator.calls.clear()

    def step(self, operator: VariationOperator, worker: str = "w0") -> StepOutcome:
        config = RunConfig(target="cuda", alpha=ALPHA, supervisor="off")
        return make_work(self.store, self.run, self.evaluator, config).perform(operator, worker)

    def attempts(self) -> list[Attempt]:
        return self.store.attempts(self.run.id)

    def comparison(self, attempt: int) -> Comparison:
        score = self.attempts()[attempt].evaluation.score
        assert score is not None
        assert score.comparison is not None
        return score.comparison

    def incumbents(self) -> list[tuple[str, str, float]]:
        """Candidate, incumbent and alpha of each comparison that was asked for."""
        return [(source, former.candidate.source, former.alpha) for source, former in self.evaluator.calls if former]


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = Lab(tmp_path / "lab.db")
    yield made
    made.store.close()


def test_a_candidate_is_compared_with_the_best_version_at_the_price_of_its_turn(lab: Lab) -> None:
    slower, faster, fastest = kernel(90.0), kernel(105.0), kernel(110.0)
    assert [lab.step(Scripted(proposing(source))).version for source in (slower, faster, fastest)] == [None, 1, 2]
    alphas = [share_of_alpha(ALPHA, number) for number in (1, 2, 3)]
    assert lab.incumbents() == [(slower, SEED, alphas[0]), (faster, SEED, alphas[1]), (fastest, faster, alphas[2])]
    assert lab.comparison(2).verdict is Verdict.FASTER
    assert lab.comparison(3).plan_digest == lab.attempts()[2].plan_digest


def test_how_far_a_measurement_is_is_told_while_it_is_made_be_it_the_seeds_the_judges_test_or_a_comparison(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    doing: list[str] = []

    def follow(evaluator: MeasuringEvaluator, request: AnyRequest, tell: Tell) -> Any:
        told = f"at {len(doing)}"
        tell(Progress(12, 256, told))
        (run,) = store.runs()
        (step,) = (step for step in store.steps(run.run.id) if step.state is StepState.RUNNING)
        doing.extend(each.what for each in step.doing or () if (each.done, each.of, each.words) == (12, 256, told))
        return evaluator.ask(request)

    monkeypatch.setattr(MeasuringEvaluator, "follow", follow)
    with Store.open(str(tmp_path / "lab.db")) as store:
        lab = Lab(tmp_path / "lab.db")
        lab.step(Scripted(proposing(kernel(90.0))))
        lab.store.close()
    judging = ["judging seed", *["testing the judge on a wrong and a slow variant of a seed"] * 3]
    assert doing == [*judging, "examining seed closely", "judging tflops = 90.0"]


def test_a_kernel_that_is_as_fast_is_no_version_however_its_score_came_out(lab: Lab) -> None:
    for number in range(6):
        assert lab.step(Scripted(proposing(kernel(100.0, f"twin {number}")))).version is None
    seed, *twins = [attempt.evaluation.geomean_tflops for attempt in lab.attempts()]
    assert max(twins) > seed


def test_candidates_with_the_same_plan_share_their_samples(lab: Lab) -> None:
    lab.step(Scripted(proposing(kernel(100.0, "a"))))
    lab.step(Scripted(proposing(kernel(150.0, "a"))))
    first, again = lab.attempts()[1:]
    assert again.source != first.source
    assert again.evaluation.score == first.evaluation.score
    assert len(lab.store.versions(lab.run.id)) == 1


def test_a_comparison_that_ended_undecided_is_made_again(lab: Lab) -> None:
    assert lab.step(Scripted(proposing(kernel(100.5, "a")))).version is None
    assert lab.comparison(1).verdict is Verdict.UNDECIDED
    assert lab.step(Scripted(proposing(kernel(110.0, "a")))).version == 1
    assert lab.comparison(2).alpha < lab.comparison(1).alpha


@pytest.mark.parametrize(
    ("status", "lasts"),
    [(Status.INCORRECT, True), (Status.RACE, True), (Status.DEADLOCK, True), (Status.TIMED_OUT, False)],
)
def test_a_plan_that_was_refused_stays_refused_under_every_judge(lab: Lab, status: Status, lasts: bool) -> None:
    """Each judge checks a sample of its own; what took too long may have been the machine's fault."""
    lab.evaluator.faults[kernel(140.0, "a")] = status
    lab.step(Scripted(proposing(kernel(140.0, "a"))))
    version = lab.step(Scripted(proposing(kernel(150.0, "a")))).version
    assert lab.attempts()[2].evaluation.status is (status if lasts else Status.CORRECT)
    assert version == (None if lasts else 1)


def test_a_plan_known_from_an_earlier_best_is_compared_with_the_present_one_and_scored_in_full_if_it_wins(
    lab: Lab,
) -> None:
    lab.step(Scripted(proposing(kernel(99.0, "a"))))
    lab.step(Scripted(proposing(kernel(105.0))))
    assert lab.step(Scripted(proposing(kernel(120.0, "a")))).version == 2
    first, again = (lab.attempts()[index].evaluation.score for index in (1, 3))
    assert first is not None
    assert again is not None
    assert again.cases != first.cases
    assert lab.comparison(3).plan_digest == lab.attempts()[2].plan_digest


def test_a_plan_of_the_lineage_is_not_accepted_however_it_is_timed(lab: Lab) -> None:
    assert lab.step(Scripted(proposing(kernel(150.0, "plan of 100.0")))).version is None


def overtaken(lab: Lab, source: str, *others: str) -> StepOutcome:
    """Propose ``source`` in a step during which another worker proposes ``others``."""

    def slow(brief: Brief) -> Proposal:
        attempt = submit(brief, source)
        for other in others:
            assert lab.step(Scripted(proposing(other)), worker="w1").version is not None
        return Proposal(attempt, "as told")

    return lab.step(Scripted(slow))


def test_an_attempt_whose_incumbent_was_surpassed_is_compared_with_the_new_best_and_recorded_once(lab: Lab) -> None:
    source, other = kernel(120.0), kernel(110.0)
    assert overtaken(lab, source, other).version == 2
    alphas = [share_of_alpha(ALPHA, number) for number in (1, 2, 3)]
    assert lab.incumbents() == [(source, SEED, alphas[0]), (other, SEED, alphas[1]), (source, other, alphas[2])]
    assert [attempt.source for attempt in lab.attempts()] == [SEED, source, other]
    assert (lab.comparison(1).plan_digest, lab.comparison(1).alpha) == ("plan of 110.0", alphas[2])
    assert lab.store.version(lab.run.id, 2).attempt == lab.attempts()[1]


def test_an_attempt_that_is_slower_than_the_new_best_is_no_version(lab: Lab) -> None:
    outcome = overtaken(lab, kernel(110.0), kernel(120.0))
    assert (outcome.version, outcome.state) == (None, StepState.DONE)
    assert lab.comparison(1).verdict is Verdict.SLOWER
    assert len(lab.attempts()) == 3


def test_an_attempt_that_was_not_faster_than_the_former_best_is_not_compared_again(lab: Lab) -> None:
    assert overtaken(lab, kernel(90.0), kernel(120.0)).version is None
    assert len(lab.incumbents()) == 2


def test_an_attempt_overtaken_during_a_second_comparison_is_compared_once_more(lab: Lab) -> None:
    source, others = kernel(130.0), [kernel(110.0), kernel(120.0)]

    def interrupt(judged: str) -> None:
        if judged == source and len(others) == 1:
            assert lab.step(Scripted(proposing(others.pop())), worker="w1").version == 2

    def slow(brief: Brief) -> Proposal:
        attempt = submit(brief, source)
        lab.step(Scripted(proposing(others.pop(0))), worker="w1")
        return Proposal(attempt, "as told")

    lab.evaluator.before_answering = interrupt
    assert lab.step(Scripted(slow)).version == 3
    assert [former for judged, former, _ in lab.incumbents() if judged == source] == [
        SEED,
        kernel(110.0),
        kernel(120.0),
    ]


def test_a_comparison_of_the_same_plan_with_the_new_best_is_not_made_again(lab: Lab) -> None:
    def twin(brief: Brief) -> Proposal:
        submit(brief, kernel(120.0, "a") + "; note = 1")
        return Proposal(None, "only looked")

    def slow(brief: Brief) -> Proposal:
        attempt = submit(brief, kernel(120.0, "a"))
        lab.step(Scripted(proposing(kernel(110.0))), worker="w1")
        lab.step(Scripted(twin), worker="w1")
        return Proposal(attempt, "as told")

    assert lab.step(Scripted(slow)).version == 2
    assert len(lab.incumbents()) == 3
    assert lab.comparison(1) == lab.comparison(3)


def test_fault_found_in_the_second_comparison_leaves_the_attempt_as_it_was(lab: Lab) -> None:
    source = kernel(120.0)
    lab.evaluator.before_answering = lambda judged: lab.evaluator.faults.update(
        {source: Status.TIMED_OUT} if judged == kernel(110.0) else {}
    )
    outcome = overtaken(lab, source, kernel(110.0))
    assert (outcome.version, outcome.state) == (None, StepState.DONE)
    assert lab.comparison(1).plan_digest == "plan of 100.0"
    assert lab.attempts()[1].evaluation.correct


def test_a_candidate_that_lowers_to_other_plans_the_second_time_is_no_version(lab: Lab) -> None:
    source = kernel(120.0)
    honest = lab.evaluator.evaluate

    def evaluate(candidate: Candidate, incumbent: Incumbent | None = None, tell: Tell | None = None) -> Evaluation:
        again = candidate.source == source and len(lab.evaluator.calls) > 1
        return replace(honest(candidate, incumbent), **({"plan_digest": "another"} if again else {}))

    lab.evaluator.evaluate = evaluate  # type: ignore[method-assign]
    assert overtaken(lab, source, kernel(110.0)).version is None
    assert lab.comparison(1).plan_digest == "plan of 100.0"


def test_a_faulty_candidate_uses_up_its_number(lab: Lab) -> None:
    lab.evaluator.faults[kernel(1.0)] = Status.RACE
    lab.step(Scripted(proposing(kernel(1.0))))
    lab.step(Scripted(proposing(kernel(110.0))))
    assert [alpha for *_, alpha in lab.incumbents()] == [share_of_alpha(ALPHA, number) for number in (1, 2)]


def spend_more(evaluator: MeasuringEvaluator) -> None:
    honest = evaluator.compare
    evaluator.compare = lambda speed, former: honest(speed, replace(former, alpha=0.5))  # type: ignore[method-assign]


def compare_with_another(evaluator: MeasuringEvaluator) -> None:
    honest = evaluator.compare

    def other(speed: float, former: Incumbent) -> Comparison:
        return replace(honest(speed, former), plan_digest="another")

    evaluator.compare = other  # type: ignore[method-assign]


def move(evaluator: MeasuringEvaluator) -> None:
    evaluator.card = "Another Card"


@pytest.mark.parametrize(
    ("trick", "words"),
    [
        (spend_more, "did not make the comparison it was asked for"),
        (compare_with_another, "lowers to other launch plans than when it was judged"),
        (move, "were measured on A Card, this is Another Card"),
    ],
)
def test_a_comparison_that_was_not_asked_for_is_no_verdict(lab: Lab, trick: object, words: str) -> None:
    trick(lab.evaluator)  # type: ignore[operator]
    with pytest.raises(EvaluatorUnavailable, match=words):
        lab.step(Scripted(proposing(kernel(110.0))))
    assert len(lab.attempts()) == 1
    assert lab.store.steps(lab.run.id)[-1].state is StepState.ABANDONED


def test_what_was_told_of_a_measured_attempt_is_told_again_unless_the_best_is_another_by_now(lab: Lab) -> None:
    told: list[str | None] = []

    def evaluate_alone(brief: Brief) -> Proposal:
        for tflops in (90.0, 150.0):
            decision = submit(brief, kernel(tflops)).decision
            told.append(None if decision is None else decision.answer)
        return Proposal(None, "not yet")

    lab.step(Scripted(evaluate_alone))
    lab.step(Scripted(proposing(kernel(110.0))))
    lab.step(Scripted(evaluate_alone))
    assert told[0] is not None
    assert told[0].startswith("would be accepted: no, slower than the best so far")
    assert told[1] is not None
    assert told[1].startswith("would be accepted: yes, faster than the best so far")
    assert told[2:] == [told[0], None]
