"""One step: every way it can end, and what is written then."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from avo.agents.errors import BudgetSpent
from avo.agents.operator import Brief, Proposal, VariationOperator
from avo.evaluator.candidate import Candidate, Incumbent
from avo.evaluator.errors import EvaluatorUnavailable
from avo.evaluator.evaluation import Evaluation, Status
from avo.evaluator.evaluators import Tell
from avo.evaluator.fake import FakeEvaluator
from avo.lineage_db.decision import Ruling
from avo.lineage_db.errors import DatabaseUnavailable
from avo.lineage_db.records import Attempt, StepState
from avo.lineage_db.store import Store
from avo.search.budget import Allowance
from avo.search.scoring import EVALUATOR_TRIES
from avo.search.seeding import SeedOperator
from avo.search.step import StepOutcome
from tests.avo.fakes import NOW, SEED, Climber, Scripted, correct, judge, make_run, make_work, proposing, submit


class Desk:
    """A run in a database of its own, and steps on it."""

    def __init__(self, path: Path) -> None:
        self.store = Store.open(str(path))
        self.run = make_run(self.store)
        self.evaluator = FakeEvaluator(judge)

    def step(self, operator: VariationOperator, worker: str = "w0") -> StepOutcome:
        return make_work(self.store, self.run, self.evaluator).perform(operator, worker)

    def judged(self) -> list[str]:
        """What was evaluated, but for the canary's variants of the seed."""
        return [call.source for call in self.evaluator.calls if "canary" not in call.source]

    def sources(self) -> list[str]:
        return [attempt.source for attempt in self.store.attempts(self.run.id)]

    def decided(self, attempt_id: int) -> str:
        """Return the decision on an attempt, in words, which its summaries have too."""
        found = self.store.attempt(self.run.id, attempt_id).decision
        assert found == self.store.history(self.run.id).attempts[attempt_id - 1].decision
        assert found == self.store.attempt_summaries(self.run.id)[attempt_id - 1].decision
        return found.told if found else ""


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path / "empty.db")
    yield desk
    desk.store.close()


@pytest.fixture
def seeded(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path / "seeded.db")
    assert desk.step(SeedOperator(SEED)).version == 0
    yield desk
    desk.store.close()


def test_a_correct_seed_becomes_version_0_without_parents(empty: Desk) -> None:
    reason = "seed; canary: the wrong variant is incorrect, the slow one 0.50 times as fast"
    assert empty.step(SeedOperator(SEED)) == StepOutcome(0, StepState.DONE, 1, 0, reason)
    (version,) = empty.store.versions(empty.run.id)
    assert (version.number, version.parents, version.attempt.source) == (0, (), SEED)


def test_a_faulty_seed_is_recorded_with_its_verdict_and_is_no_version(empty: Desk) -> None:
    outcome = empty.step(SeedOperator("nonsense"))
    assert outcome.version is None
    assert outcome.reason == "parse error: not a kernel: nonsense"
    assert [attempt.status for attempt in empty.store.attempt_summaries(empty.run.id)] == [Status.PARSE_ERROR]
    assert empty.store.versions(empty.run.id) == []


def test_a_faster_attempt_becomes_the_next_version(seeded: Desk) -> None:
    assert seeded.step(Scripted(proposing("tflops = 110.0"))) == StepOutcome(1, StepState.DONE, 1, 1, "as told")
    version = seeded.store.version(seeded.run.id, 1)
    assert (version.parents, version.attempt.source) == ((0,), "tflops = 110.0")


def test_what_would_become_a_version_is_judged_on_shapes_held_out_and_its_speed_there_recorded(seeded: Desk) -> None:
    seeded.evaluator.held_out = lambda candidate: correct(70.0, suite="held_out")
    assert seeded.step(Scripted(proposing("tflops = 110.0"))).version == 1
    assert seeded.step(Scripted(proposing("tflops = 105.0"))).version is None
    versions = seeded.store.versions(seeded.run.id)
    scored = [(version.attempt.source, version.attempt.plan_digest) for version in versions]
    assert [(asked.candidate.source, asked.plan_digest) for asked in seeded.evaluator.verified] == scored
    assert [version.attempt.evaluation.held_out_tflops for version in versions] == [None, pytest.approx(70.0)]


def test_what_fails_on_shapes_held_out_is_no_version_and_the_reason_does_not_give_them_away(seeded: Desk) -> None:
    wrong = Evaluation(Status.RACE, "case 6k-causal: programs 1 and 2 race", "h100", "held_out", 0.1)
    seeded.evaluator.held_out = lambda candidate: wrong
    reason = "as told; not accepted: correct on the suite, but race at other shapes or in a larger sample"
    assert seeded.step(Scripted(proposing("tflops = 110.0"))) == StepOutcome(1, StepState.DONE, 1, None, reason)
    assert seeded.store.steps(seeded.run.id)[1].reason == reason
    assert [attempt.status for attempt in seeded.store.attempt_summaries(seeded.run.id)] == [Status.CORRECT] * 2


def test_what_is_compiled_wrong_is_no_version_and_the_reason_names_the_pass(seeded: Desk) -> None:
    made = "kernel k is compiled wrong: right in Triton IR, wrong after pass 41, tritongpu-pipeline"
    wrong = Evaluation(Status.MISCOMPILED, f"{made}: case 6k-causal: off", "h100", "held_out", 0.1, compiled=made)
    seeded.evaluator.held_out = lambda candidate: wrong
    first = seeded.step(Scripted(proposing("tflops = 110.0")))
    second = seeded.step(Scripted(proposing("tflops = 110.0\n# the same plan")))
    assert first.reason == second.reason == f"as told; not accepted: correct on the suite, but {made}"
    assert len(seeded.evaluator.verified) == 2, "the seed and the first"


def test_a_version_says_what_was_not_checked_of_what_the_compiler_made_of_it(seeded: Desk) -> None:
    unchecked = "Not all that the compiler made was checked: no time was left (3 of 20 cases)"
    seeded.evaluator.held_out = lambda candidate: replace(correct(70.0, suite="held_out"), compiled=unchecked)
    assert seeded.step(Scripted(proposing("tflops = 110.0"))).version == 1
    assert seeded.store.version(seeded.run.id, 1).attempt.evaluation.compiled == unchecked


@pytest.mark.parametrize("again", ["tflops = 110.0", "tflops = 110.0\n# the same plan"])
def test_what_fails_a_closer_look_is_not_looked_at_again(seeded: Desk, again: str) -> None:
    """A sample may be lucky, so a wrong kernel that is sampled often enough would pass in the end."""
    seeded.evaluator.held_out = lambda candidate: Evaluation(Status.INCORRECT, "off", "h100", "held_out", 0.1)
    first = seeded.step(Scripted(proposing("tflops = 110.0")))
    seeded.evaluator.held_out, seeded.evaluator.verified = None, []
    second = seeded.step(Scripted(proposing(again)))
    assert (second.version, second.reason) == (None, first.reason)
    assert seeded.evaluator.verified == []
    assert seeded.step(Scripted(proposing("tflops = 111.0"))).version == 1


def test_an_operator_is_told_at_once_that_launch_plans_have_failed_a_closer_look(seeded: Desk) -> None:
    seeded.evaluator.verdict = lambda candidate: correct(110.0, plan="plan of both")
    seeded.evaluator.held_out = lambda candidate: Evaluation(Status.INCORRECT, "off", "h100", "held_out", 0.1)
    seeded.step(Scripted(proposing("one")))
    seeded.step(Scripted(lambda brief: Proposal(None, submit(brief, "the other").change)))
    why = "not accepted: correct on the suite, but incorrect at other shapes or in a larger sample"
    assert seeded.decided(3) == seeded.decided(2) == why


def test_what_took_too_long_when_it_was_looked_at_closely_may_try_again(seeded: Desk) -> None:
    seeded.evaluator.held_out = lambda candidate: Evaluation(Status.TIMED_OUT, "slow", "h100", "held_out", 0.1)
    assert seeded.step(Scripted(proposing("tflops = 110.0"))).version is None
    why = "not accepted: correct on the suite, but timed out at other shapes or in a larger sample"
    assert seeded.decided(2) == why
    seeded.evaluator.held_out = None
    assert seeded.step(Scripted(proposing("tflops = 110.0"))).version == 1
    assert seeded.decided(2) == "accepted: +10% in the mean over version 0"


def test_a_seed_that_fails_on_shapes_held_out_is_no_version(empty: Desk) -> None:
    empty.evaluator.held_out = lambda candidate: Evaluation(Status.INCORRECT, "off", "h100", "held_out", 0.1)
    outcome = empty.step(SeedOperator(SEED))
    assert outcome.version is None
    assert outcome.reason.endswith("correct on the suite, but incorrect at other shapes or in a larger sample")


def known(*neighbours: float) -> Callable[[Candidate], Evaluation]:
    """Return a closer look that finds these neighbours."""
    found = correct(70.0, suite="held_out")
    assert found.score is not None
    looked = replace(found, score=replace(found.score, neighbours=tuple((each,) for each in neighbours)))
    return lambda candidate: looked


def test_what_gains_by_the_order_of_its_instructions_alone_is_unresolved(empty: Desk) -> None:
    empty.evaluator.held_out = known(99.0, 100.0, 101.0)
    assert empty.step(SeedOperator(SEED)).version == 0
    empty.evaluator.held_out = known(99.1, 100.0, 101.0)
    assert empty.step(Scripted(proposing("tflops = 110.0"))).version is None
    why = "unresolved: +0.0% in the mean over version 0 with its neighbours and +10% alone, +0.2% is needed"
    assert empty.decided(2) == why
    empty.evaluator.held_out = known(111.0, 112.0, 113.0)
    assert empty.step(Scripted(proposing("tflops = 110.5"))).version == 1
    score = empty.store.version(empty.run.id, 1).attempt.evaluation.score
    assert score is not None
    assert score.neighbours == ((111.0,), (112.0,), (113.0,))
    ranks = [attempt.geomean_tflops for attempt in empty.store.pages.attempts(empty.run.id, [1, 2, 3])]
    assert ranks == pytest.approx([100.0, 100.0, 112.0], rel=1e-3)  # each was examined, so its neighbours count


def test_a_problem_may_hold_no_shapes_out(seeded: Desk) -> None:
    seeded.evaluator.held_out = lambda candidate: correct(70.0, suite="quick")
    assert seeded.step(Scripted(proposing("tflops = 110.0"))).version == 1
    evaluation = seeded.store.version(seeded.run.id, 1).attempt.evaluation
    assert (evaluation.examined, evaluation.held_out_tflops) == (Status.CORRECT, None)


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("tflops = 90.0", "; not accepted: -10% in the mean over version 0, +0.2% is needed"),
        ("tflops = 100.1", "; not accepted: +0.1% in the mean over version 0, +0.2% is needed"),
        ("nonsense", ""),
    ],
)
def test_a_slower_equal_or_faulty_attempt_is_kept_but_no_version(seeded: Desk, source: str, why: str) -> None:
    assert seeded.step(Scripted(proposing(source))) == StepOutcome(1, StepState.DONE, 1, None, f"as told{why}")
    assert seeded.sources() == [SEED, source]
    assert len(seeded.store.versions(seeded.run.id)) == 1


def test_a_proposal_may_be_any_attempt_of_the_step_or_none(seeded: Desk) -> None:
    def first_of_two(brief: Brief) -> Proposal:
        good = submit(brief, "tflops = 120.0")
        submit(brief, "tflops = 80.0")
        return Proposal(good, "the first")

    assert seeded.step(Scripted(first_of_two)) == StepOutcome(1, StepState.DONE, 2, 1, "the first")
    nothing = seeded.step(Scripted(lambda brief: Proposal(None, "exhausted")))
    assert nothing == StepOutcome(2, StepState.DONE, 0, None, "exhausted")


def test_an_attempt_is_in_the_database_before_the_operator_sees_it(seeded: Desk) -> None:
    def looks(brief: Brief) -> Proposal:
        attempt = submit(brief, "tflops = 110.0")
        assert seeded.store.attempt(seeded.run.id, attempt.id) == attempt
        return Proposal(attempt, "looked")

    assert seeded.step(Scripted(looks)).reason == "looked"


def test_an_operator_that_raises_fails_its_step_and_loses_no_attempt(seeded: Desk) -> None:
    def stumbles(brief: Brief) -> Proposal:
        submit(brief, "tflops = 110.0")
        raise KeyError("lost")

    outcome = seeded.step(Scripted(stumbles))
    assert outcome == StepOutcome(1, StepState.FAILED, 1, None, "KeyError: 'lost'")
    assert seeded.sources() == [SEED, "tflops = 110.0"]
    assert seeded.step(Scripted(proposing("tflops = 111.0"))).version == 1


def test_an_operator_that_imports_a_package_by_the_name_it_had_hears_the_new_one(seeded: Desk) -> None:
    def imports(brief: Brief) -> Proposal:
        raise ModuleNotFoundError("No module named 'agents.operator'")

    assert seeded.step(Scripted(imports)).reason.endswith(": write avo.agents.operator if AVO's is meant")


def test_an_operator_that_names_a_version_that_is_none_fails_its_step(seeded: Desk) -> None:
    outcome = seeded.step(Scripted(lambda brief: Proposal(submit(brief, "tflops = 110.0", (7,)), "")))
    assert outcome.state is StepState.FAILED
    assert "7" in outcome.reason


SLOWER = "; not accepted: -10% in the mean over version 0, +0.2% is needed"


def test_a_candidate_tried_before_is_not_evaluated_again(seeded: Desk) -> None:
    seeded.step(Scripted(proposing("tflops = 90.0")))
    seen: list[Attempt] = []

    def repeats(brief: Brief) -> Proposal:
        seen.append(submit(brief, "tflops = 90.0  # with a comment"))
        return Proposal(seen[0], "again")

    assert seeded.step(Scripted(repeats)) == StepOutcome(2, StepState.DONE, 0, None, f"again{SLOWER}")
    assert seen == [seeded.store.attempts(seeded.run.id)[1]]
    assert seeded.judged() == [SEED, "tflops = 90.0"]


def test_a_candidate_tried_by_another_worker_meanwhile_is_not_evaluated_again(seeded: Desk) -> None:
    def slow(brief: Brief) -> Proposal:
        seeded.step(Scripted(proposing("tflops = 110.0")), worker="w1")
        return proposing("tflops = 110.0")(brief)

    assert seeded.step(Scripted(slow)).tried == 0
    assert seeded.judged() == [SEED, "tflops = 110.0"]
    assert len(seeded.store.versions(seeded.run.id)) == 2


def test_a_candidate_under_evaluation_by_another_worker_is_refused(seeded: Desk) -> None:
    inner: list[StepOutcome] = []

    def busy(candidate: Candidate) -> Evaluation:
        if not inner:
            inner.append(seeded.step(Scripted(proposing("tflops = 110.0")), worker="w1"))
        return judge(candidate)

    seeded.evaluator.verdict = busy
    assert seeded.step(Scripted(proposing("tflops = 110.0"))).version == 1
    assert inner[0].state is StepState.FAILED
    assert "CandidateTaken" in inner[0].reason
    assert seeded.sources() == [SEED, "tflops = 110.0"]


def test_every_candidate_that_a_step_has_under_evaluation_is_refused_to_other_workers(seeded: Desk) -> None:
    def both(brief: Brief) -> Proposal:
        def busy(candidate: Candidate) -> Evaluation:
            if candidate.source == "tflops = 110.0" and len(seeded.judged()) == 2:
                submit(brief, "tflops = 120.0")  # as beside it, in another thread
                outcome = seeded.step(Scripted(proposing("tflops = 110.0")), worker="w1")
                assert "CandidateTaken" in outcome.reason
            return judge(candidate)

        seeded.evaluator.verdict = busy
        return proposing("tflops = 110.0")(brief)

    assert seeded.step(Scripted(both)).state is StepState.DONE
    assert seeded.judged() == [SEED, "tflops = 110.0", "tflops = 120.0"]


def test_attempts_under_way_count_against_the_limit_of_the_run(seeded: Desk) -> None:
    """Several evaluations of several workers may be under way when the last attempt is begun."""
    limited = make_work(seeded.store, seeded.run, seeded.evaluator, allowance=Allowance(max_attempts=3))
    left: list[int | None] = []

    def many(brief: Brief) -> Proposal:
        def busy(candidate: Candidate) -> Evaluation:
            seeded.evaluator.verdict = judge
            submit(brief, SEED)  # on record
            assert limited.perform(Scripted(other), "w1").state is StepState.DONE
            return judge(candidate)

        seeded.evaluator.verdict = busy
        return proposing("tflops = 110.0")(brief)

    def other(brief: Brief) -> Proposal:
        def busy(candidate: Candidate) -> Evaluation:
            with pytest.raises(BudgetSpent, match=r"has reached --max-attempts \(2 under way\)"):
                submit(brief, "tflops = 130.0")
            return judge(candidate)

        seeded.evaluator.verdict, _ = busy, left.append(brief.desk.left().evaluations)
        submit(brief, "tflops = 120.0")
        seeded.evaluator.verdict, _ = judge, left.append(brief.desk.left().evaluations)
        return Proposal(None, "")

    assert limited.perform(Scripted(many), "w0").state is StepState.DONE
    assert (left, len(seeded.sources())) == ([1, 0], 3)


def test_a_candidate_that_another_step_records_meanwhile_is_not_recorded_again(seeded: Desk) -> None:
    """The lease of a worker may run out while its evaluator works."""
    recorded: list[Attempt] = []

    def judged_by_both(candidate: Candidate) -> Evaluation:
        step, found = seeded.store.claims.claim(seeded.run.id, worker="w1", operator="other", now=NOW), judge(candidate)
        recorded.append(
            seeded.store.results.record_attempt(
                step_id=step.id, candidate=candidate, change="", parents=(0,), evaluation=found,
                started=NOW, finished=NOW,
            )
        )  # fmt: skip
        seeded.evaluator.verdict = judge
        return found

    seeded.evaluator.verdict = judged_by_both
    assert seeded.step(Scripted(proposing("tflops = 110.0"))).tried == 0
    assert [each.id for each in seeded.store.attempts(seeded.run.id)] == [1, recorded[0].id]


def test_acceptance_is_against_the_lineage_at_the_end_of_the_step(seeded: Desk) -> None:
    def overtaken(brief: Brief) -> Proposal:
        attempt = submit(brief, "tflops = 110.0")
        seeded.step(Scripted(proposing("tflops = 120.0")), worker="w1")
        return Proposal(attempt, "too late")

    assert seeded.step(Scripted(overtaken)).version is None
    assert seeded.decided(2) == "overtaken: -8.3% in the mean over version 1, +0.2% is needed"


def with_draws(*tflops: float, plan: str = "", doubt: float = 1.0) -> Evaluation:
    """Return a correct evaluation of the first of ``tflops`` in the mean and the others in the draws."""
    evaluation = correct(tflops[0], plan=plan or f"plan of {tflops}")
    assert evaluation.score is not None
    case = replace(evaluation.score.cases[0], draws=tflops[1:], doubt=doubt)
    return replace(evaluation, score=replace(evaluation.score, cases=(case,)))


def test_what_is_better_in_the_mean_and_not_in_enough_draws_is_unresolved(empty: Desk) -> None:
    verdicts = {
        "a": with_draws(100.0, 90.0, 100.0, 110.0),
        "b": with_draws(110.0, 120.0, 120.0, 100.0),
        "c": with_draws(120.0, 120.0, 120.0, 120.0),
    }
    empty.evaluator.verdict = lambda candidate: verdicts.get(candidate.source, judge(candidate))
    assert empty.step(SeedOperator("a")).version == 0
    outcome = empty.step(Scripted(proposing("b")))
    why = "unresolved: +10% in the mean over version 0, resolved from +21%, faster in 66% of draws, 90% are needed"
    assert (outcome.version, outcome.reason) == (None, f"as told; {why}")
    assert empty.decided(2) == why
    assert empty.step(Scripted(proposing("c"))).version == 1
    assert empty.decided(3) == "accepted: +20% in the mean over version 0, resolved from +10%, faster in 100% of draws"


def test_what_another_worker_leaves_better_in_the_mean_only_is_unresolved_and_may_be_built_on(empty: Desk) -> None:
    verdicts = {
        "a": with_draws(100.0, 100.0, 100.0, 100.0),
        "b": with_draws(110.0, 110.0, 110.0, 110.0),
        "c": with_draws(115.0, 125.0, 125.0, 101.0),
    }
    empty.evaluator.verdict = lambda candidate: verdicts.get(candidate.source, judge(candidate))
    empty.step(SeedOperator("a"))

    def overtaken(brief: Brief) -> Proposal:
        attempt = submit(brief, "c")
        empty.step(Scripted(proposing("b")), worker="w1")
        return Proposal(attempt, "in doubt now")

    assert empty.step(Scripted(overtaken)).version is None
    assert (
        empty.decided(2)
        == "unresolved: +4.5% in the mean over version 1, resolved from +14%, faster in 66% of draws, 90% are needed"
    )
    told: list[int] = []

    def look(brief: Brief) -> Proposal:
        told.extend(each.attempt_id for each in brief.unresolved)
        return Proposal(None, "looked")

    empty.step(Scripted(look))
    assert told == [2]


def test_the_launch_plans_of_an_earlier_version_or_attempt_are_named(seeded: Desk) -> None:
    verdicts = {
        "again": correct(100.0, plan="plan of 100.0"),
        "slow": correct(90.0, plan="p"),
        "twin": correct(90.0, plan="p"),
    }
    seeded.evaluator.verdict = lambda candidate: verdicts[candidate.source]
    for source in verdicts:
        seeded.step(Scripted(proposing(source)))
    assert seeded.decided(2) == "not accepted: lowers to the same launch plans as version 0"
    assert seeded.decided(4) == "not accepted: lowers to the same launch plans as attempt 3"


def test_what_a_step_does_not_submit_is_decided_when_the_step_ends(seeded: Desk) -> None:
    def second_of_three(brief: Brief) -> Proposal:
        attempts = [submit(brief, f"tflops = {tflops}") for tflops in (110.0, 120.0, 90.0)]
        assert [each.decision and each.decision.ruling for each in attempts] == [
            Ruling.ACCEPTABLE, Ruling.ACCEPTABLE, Ruling.NO_GAIN,
        ]  # fmt: skip
        return Proposal(attempts[1], "the second")

    seeded.step(Scripted(second_of_three))
    assert seeded.decided(2) == "not submitted: +10% in the mean over version 0"
    assert seeded.decided(3) == "accepted: +20% in the mean over version 0"
    assert seeded.decided(4) == "not accepted: -10% in the mean over version 0, +0.2% is needed"
    assert [version.attempt.source for version in seeded.store.versions(seeded.run.id)] == [SEED, "tflops = 120.0"]


class Unavailable(FakeEvaluator):
    """An evaluator that has no verdict the first ``times`` times."""

    def __init__(self, times: int) -> None:
        super().__init__(judge)
        self.times = times

    def evaluate(
        self, candidate: Candidate, incumbent: Incumbent | None = None, tell: Tell | None = None
    ) -> Evaluation:
        self.times -= 1
        if self.times >= 0:
            raise EvaluatorUnavailable("no judge")
        return super().evaluate(candidate, incumbent)


def test_an_evaluator_that_comes_back_costs_nothing(seeded: Desk) -> None:
    seeded.evaluator = Unavailable(EVALUATOR_TRIES - 1)
    assert seeded.step(Scripted(proposing("tflops = 110.0"))).version == 1


def test_an_evaluator_that_goes_away_before_acceptance_abandons_the_step(seeded: Desk) -> None:
    def gone(candidate: Candidate) -> Evaluation:
        raise EvaluatorUnavailable("no judge")

    seeded.evaluator.held_out = gone
    with pytest.raises(EvaluatorUnavailable, match="no judge"):
        seeded.step(Scripted(proposing("tflops = 110.0")))
    assert len(seeded.evaluator.verified) == 1 + EVALUATOR_TRIES
    assert seeded.store.steps(seeded.run.id)[1].state is StepState.ABANDONED


def test_an_evaluator_that_stays_away_abandons_the_step(seeded: Desk) -> None:
    seeded.evaluator = Unavailable(EVALUATOR_TRIES)
    with pytest.raises(EvaluatorUnavailable, match="no judge"):
        seeded.step(Scripted(proposing("tflops = 110.0")))
    step = seeded.store.steps(seeded.run.id)[1]
    assert (step.state, step.reason) == (StepState.ABANDONED, "no verdict: no judge")


def test_a_database_that_fails_is_no_fault_of_the_operator(seeded: Desk) -> None:
    def unplugged(brief: Brief) -> Proposal:
        raise DatabaseUnavailable("unplugged")

    with pytest.raises(DatabaseUnavailable, match="unplugged"):
        seeded.step(Scripted(unplugged))


def test_a_step_abandoned_meanwhile_writes_nothing_more(seeded: Desk) -> None:
    def abandoned(brief: Brief) -> Proposal:
        attempt = submit(brief, "tflops = 110.0")
        seeded.store.claims.abandon_running(seeded.run.id, reason="stopped", now=NOW)
        return Proposal(attempt, "late")

    outcome = seeded.step(Scripted(abandoned))
    assert (outcome.state, outcome.version) == (StepState.ABANDONED, None)
    assert seeded.store.steps(seeded.run.id)[1].reason == "stopped"


def test_the_brief_holds_lineage_and_memory(seeded: Desk) -> None:
    operator = Scripted(proposing("tflops = 110.0"), proposing("nonsense"), proposing("tflops = 1.0"))
    for _ in range(3):
        seeded.step(operator)
    brief = operator.briefs[2]
    assert [version.number for version in brief.versions] == [0, 1]
    assert [attempt.status for attempt in brief.attempts] == [Status.CORRECT, Status.CORRECT, Status.PARSE_ERROR]
    assert (brief.problem.name, brief.target.name, brief.suite) == ("mha", "h100", "quick")
    assert len({brief.seed for brief in operator.briefs}) == 3


def climb(desk: Desk, steps: int) -> None:
    for _ in range(steps):
        desk.step(Climber())


def test_the_same_seed_on_one_worker_makes_the_same_candidates(empty: Desk, seeded: Desk) -> None:
    climb(seeded, 6)
    empty.step(SeedOperator(SEED))
    climb(empty, 6)
    assert empty.sources() == seeded.sources()
    assert len(set(empty.sources())) == 7


@pytest.mark.parametrize("evaluated", [False, True])
def test_a_step_left_unfinished_is_repeated(empty: Desk, seeded: Desk, evaluated: bool) -> None:
    climb(seeded, 6)

    class Killed(Climber):
        def vary(self, brief: Brief) -> Proposal:
            if evaluated:
                super().vary(brief)
            empty.store.claims.abandon_running(empty.run.id, reason="killed", now=NOW)
            return Proposal(None, "never written")

    empty.step(SeedOperator(SEED))
    climb(empty, 3)
    empty.step(Killed())
    climb(empty, 3)
    assert empty.sources() == seeded.sources()
    assert len(empty.evaluator.calls) == len(seeded.evaluator.calls)
    ours, theirs = (
        [(version.number, version.parents, version.attempt.source) for version in desk.store.versions(desk.run.id)]
        for desk in (empty, seeded)
    )
    assert ours == theirs


def seed_after_failures(path: Path, failures: int) -> int:
    desk = Desk(path)
    desk.step(SeedOperator(SEED))
    for _ in range(failures):
        desk.store.claims.claim(desk.run.id, worker="w0", operator="scripted", now=NOW)
        desk.store.claims.abandon_running(desk.run.id, reason="killed", now=NOW)
    operator = Scripted(lambda brief: Proposal(None, ""))
    desk.step(operator)
    desk.store.close()
    return operator.briefs[0].seed


def test_a_step_left_unfinished_twice_is_not_repeated_again(tmp_path: Path) -> None:
    seeds = [seed_after_failures(tmp_path / f"{failures}.db", failures) for failures in range(4)]
    assert seeds[0] == seeds[1]
    assert len(set(seeds)) == 3


def test_two_workers_do_not_share_a_seed(seeded: Desk) -> None:
    operator = Scripted(lambda brief: Proposal(None, ""))
    for worker in ("w0", "w1", "w2"):
        seeded.step(operator, worker)
    assert len({brief.seed for brief in operator.briefs}) == 3


def evaluating_alone(source: str, told: list[str]) -> Scripted:
    """An operator that evaluates a candidate, submits nothing, and adds to ``told`` whether it would be accepted."""

    def evaluate(brief: Brief) -> Proposal:
        decision = submit(brief, source).decision
        assert decision is not None
        told.append(decision.answer)
        return Proposal(None, "not yet")

    return Scripted(evaluate)


def test_what_was_not_submitted_is_decided_anew_when_it_is_evaluated_or_submitted_again(seeded: Desk) -> None:
    told: list[str] = []
    alone = evaluating_alone("tflops = 120.0", told)
    for _ in range(2):
        seeded.step(alone)
    seeded.step(Scripted(proposing("tflops = 130.0")))
    seeded.step(alone)
    assert told[0] == told[1] == "would be accepted: yes, +20% in the mean over version 0"
    assert told[2] == "would be accepted: no, -7.7% in the mean over version 1, +0.2% is needed"
    seeded.step(Scripted(proposing("tflops = 120.0")))
    assert seeded.decided(2) == "overtaken: -7.7% in the mean over version 1, +0.2% is needed"


def test_what_was_not_submitted_is_told_to_be_wrong_once_its_launch_plans_are(seeded: Desk) -> None:
    told: list[str] = []
    alone = evaluating_alone("tflops = 120.0", told)
    seeded.step(alone)
    seeded.evaluator.held_out = lambda candidate: Evaluation(Status.RACE, "they race", "h100", "held_out", 0.1)
    seeded.step(Scripted(proposing("tflops = 120.0\nx = 1")))
    seeded.step(alone)
    assert told[1] == "would be accepted: no, correct on the suite, but race at other shapes or in a larger sample"
