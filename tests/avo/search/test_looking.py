"""The looks of a step: counted, recorded, limited, and the same when a step is redone."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Barrier

import pytest

from avo.agents.errors import LooksSpent
from avo.agents.operator import Brief, Proposal, Variation
from avo.agents.scouting import critical_resources
from avo.evaluator.candidate import Candidate
from avo.evaluator.errors import EvaluatorUnavailable
from avo.evaluator.evaluation import Status, geometric_mean
from avo.evaluator.fake import FakeEvaluator
from avo.evaluator.inspection import Findings, Inspection, Look
from avo.lineage_db.looked import Looked
from avo.lineage_db.records import StepState
from avo.lineage_db.store import Store
from avo.search.budget import Allowance
from avo.search.looking import found_again
from avo.search.step import SeedOperator, StepOutcome
from avo.search.workers import RemoteEvaluator
from tests.avo.fakes import NOW, SEED, Scripted, judge, make_run, make_work


class Run:
    """A run whose seed is judged; steps may look at three candidates."""

    def __init__(self, path: Path) -> None:
        self.store = Store.open(str(path))
        self.run = make_run(self.store)
        self.evaluator = FakeEvaluator(judge)
        self.found: list[Findings] = []
        self.briefs: list[Brief] = []
        self.step(SeedOperator(SEED))

    def step(self, operator: SeedOperator | Scripted) -> StepOutcome:
        work = make_work(self.store, self.run, self.evaluator, allowance=Allowance(step_looks=3))
        return work.perform(operator, "w0")

    def look(self, *sources: str, then: Exception | None = None) -> StepOutcome:
        """Perform a step that looks at sources."""

        def vary(brief: Brief) -> Proposal:
            self.briefs.append(brief)
            assert brief.look is not None
            self.found = list(
                brief.look([Variation(brief.candidate(source), f"to {source}", (0,)) for source in sources])
            )
            if then is not None:
                raise then
            return Proposal(None, f"{brief.desk.left().looks} left")

        return self.step(Scripted(vary))

    def recorded(self) -> list[tuple[int, str, Status | None, float]]:
        looks = self.store.history(self.run.id).looks
        return [(look.step_number, look.change, look.fault, look.geomean_tflops) for look in looks]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    made = Run(tmp_path / "runs.db")
    yield made
    made.store.close()


def test_looks_are_recorded_and_counted_with_the_step_and_the_run_and_are_no_attempts(run: Run) -> None:
    outcome = run.look("tflops = 120.0", "nonsense")
    assert (outcome.tried, outcome.reason) == (0, "1 left")
    assert [found.score and found.score.geomean_tflops for found in run.found] == [pytest.approx(120.0), None]
    assert {asked.look for asked in run.evaluator.inspections} == {Look.SPEED}
    predicted, faulty = run.recorded()
    assert predicted == (1, "to tflops = 120.0", None, pytest.approx(120.0))
    assert faulty == (1, "to nonsense", Status.PARSE_ERROR, 0.0)
    assert run.store.run("fake").looks == run.store.steps(run.run.id)[1].looks == 2
    assert run.store.steps(run.run.id)[0].looks == 0
    assert len(run.store.attempt_summaries(run.run.id)) == 1
    run.look("tflops = 130.0")
    assert [look.change for look in run.briefs[-1].looks] == ["to tflops = 120.0", "to nonsense"]


def test_a_step_cannot_look_at_more_than_it_may_and_a_candidate_counts_once(run: Run) -> None:
    assert run.look("tflops = 1.0", "tflops = 2.0", "tflops = 3.0", "tflops = 1.0").reason == "0 left"
    outcome = run.look("tflops = 1.0", "tflops = 5.0", "tflops = 6.0", "tflops = 7.0")
    assert (outcome.state, outcome.reason) == (StepState.FAILED, f"LooksSpent: {LooksSpent(4, 3)}")
    assert run.look("tflops = 1.0", "tflops = 5.0").reason == "1 left"
    assert run.store.run("fake").looks == 4, "what another step saw is not recorded again"


def test_a_step_that_is_redone_looks_again_as_if_it_were_the_first_time(run: Run) -> None:
    run.look("tflops = 1.0")
    with pytest.raises(EvaluatorUnavailable):
        run.look("tflops = 2.0", "tflops = 3.0", then=EvaluatorUnavailable("gone"))
    assert run.look("tflops = 2.0", "tflops = 3.0").reason == "1 left"
    shown = [[look.change for look in brief.looks] for brief in run.briefs]
    assert shown == [[], ["to tflops = 1.0"], ["to tflops = 1.0"]]
    assert run.store.run("fake").looks == 3


def test_what_a_continued_step_looked_at_counts_against_its_budget(run: Run) -> None:
    def begin(brief: Brief) -> Proposal:
        assert brief.look is not None
        brief.desk.record("state", {})
        brief.look([Variation(Candidate("mha", "tflops = 2.0"), "", (0,))])
        raise EvaluatorUnavailable("gone")

    with pytest.raises(EvaluatorUnavailable):
        run.step(Scripted(begin))
    assert run.look("tflops = 2.0").reason == "2 left"


@pytest.mark.long
def test_an_evaluator_that_is_away_for_a_moment_is_asked_again(run: Run) -> None:
    answers = iter([EvaluatorUnavailable("busy")])

    def moody(candidate: Candidate) -> object:
        if (error := next(answers, None)) is not None:
            raise error
        return replace(judge(candidate))

    run.evaluator.verdict = moody  # type: ignore[assignment]
    assert run.look("tflops = 2.0").reason == "2 left"


def test_a_batch_is_spread_over_the_evaluators_and_answered_in_order() -> None:
    two_at_a_time = Barrier(2, timeout=600)

    class Remote(RemoteEvaluator):
        def _call(self, method: str, *arguments: Inspection) -> Findings:
            two_at_a_time.wait()  # an error, unless two are asked at a time
            return Findings(text=arguments[0].source)

    asked = [Inspection(Look.SPEED, "mha", str(number)) for number in range(6)]
    found = Remote(None, "quick", count=2).inspect_all(asked)
    assert [each.text for each in found] == [each.source for each in asked]


@pytest.mark.parametrize("resources", [(), ("hbm",), *(tuple("abcdefgh"[:count]) for count in range(2, 9))])
def test_a_look_is_found_again_with_exactly_its_speed_doubt_and_critical_resources(resources: tuple[str, ...]) -> None:
    speed, doubt = geometric_mean((612.3, 598.7, 401.1)), geometric_mean((1.1, 1.3, 1.7))
    found = found_again(Looked(1, 1, "d", None, None, speed, doubt, "", (), NOW, resources))
    assert found.score is not None
    assert found.score.geomean_tflops == speed
    assert geometric_mean(case.doubt for case in found.score.cases) == doubt
    assert critical_resources(found.score) == set(resources)
