"""The supervisor: it sees stalls and circles, goes one level further at a time, and leaves alone what gains."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avo.agents.moves import MOVES
from avo.agents.supervisor import REMEMBERED, Level, Patience, SearchTrajectory, diagnose, untried_moves
from avo.evaluator.evaluation import CaseScore, Evaluation, Score, Status
from avo.evaluator.target import ScoreKind
from avo.evaluator.targets import get_target
from avo.knowledge_base.library import Library
from avo.lineage_db.entries import Intervention
from avo.lineage_db.records import Attempt, AttemptSummary, Step, StepState, Version
from avo.seeds import seed_source

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SEED = seed_source("mha")
PATIENCE = Patience(steps=5, hours=2.0, repeats=3, flat_versions=3, flat_gain=0.01)


class Search:
    """A run in memory, made step by step."""

    def __init__(self) -> None:
        self.versions: list[Version] = []
        self.attempts: list[AttemptSummary] = []
        self.steps: list[Step] = []
        self.interventions: list[Intervention] = []
        self.step(100.0, accept=True, change="seed")

    @property
    def trajectory(self) -> SearchTrajectory:
        firsts = {attempt.plan_digest: attempt.attempt_id for attempt in reversed(self.attempts) if attempt.plan_digest}
        return SearchTrajectory(self.versions, self.attempts, self.steps, self.interventions, firsts)

    def step(
        self,
        tflops: float = 0.0,
        *,
        accept: bool = False,
        change: str = "tile: 64",
        message: str = "",
        plan: str | None = None,
        hours: float = 0.1,
        parents: tuple[int, ...] = (),
        critical: str = "",
    ) -> None:
        number = len(self.steps)
        start = self.steps[-1].finished if self.steps else NOW
        assert start is not None
        end = start + timedelta(hours=hours)
        self.steps.append(Step(number, 1, number, "w0", "mutate", StepState.DONE, None, start, end, ""))
        score, status = None, Status.INCORRECT
        if tflops:
            score = Score(ScoreKind.PREDICTED, "h100", (CaseScore("c", tflops, 1.0, "tensor", critical=critical),))
            status = Status.CORRECT
        evaluation = Evaluation(status, message, "h100", "quick", 1.0, score, plan_digest=plan)
        version = len(self.versions) if accept else None
        if accept:
            attempt = Attempt(number, 1, number, str(number), SEED, change, parents, evaluation, start, end)
            self.versions.append(Version(1, len(self.versions), parents, end, attempt, step_number=number))
        summary = AttemptSummary(
            number, number, str(number), plan, status, tflops, message, change, parents, version, 1.0, end
        )  # fmt: skip
        self.attempts.append(summary)

    @property
    def now(self) -> datetime:
        """When the last step ended."""
        return self.steps[-1].finished or NOW

    def different_failures(self, count: int) -> None:
        for _ in range(count):
            self.step(message="abcdefghij"[len(self.steps) % 10])

    def intervene(self, patience: Patience = PATIENCE) -> Level | None:
        """Make the intervention that is due."""
        found = diagnose(self.trajectory, patience)
        if found is None:
            return None
        self.interventions.append(
            Intervention(1, 1, found.after_step, found.level, found.reason, (), "", found.restart_from, self.now)
        )
        return found.level


@pytest.fixture
def search() -> Search:
    return Search()


def reason(search: Search) -> str:
    found = diagnose(search.trajectory, PATIENCE)
    return found.reason if found else ""


def test_a_search_that_gains_is_left_alone(search: Search) -> None:
    for i in range(20):
        search.step(110.0 * 1.1**i, accept=i % 4 == 0, plan=str(i))
        assert diagnose(search.trajectory, PATIENCE) is None


def test_steps_without_a_version_are_a_stall(search: Search) -> None:
    search.different_failures(4)
    assert reason(search) == ""
    search.different_failures(1)
    assert reason(search) == "5 steps in a row without a new version"


def test_hours_of_work_without_a_version_are_a_stall_but_pauses_are_none(search: Search) -> None:
    search.step(message="a", hours=1.5)
    assert reason(search) == ""
    search.step(message="b", hours=0.6)
    assert reason(search) == "2.1 hours of work without a new version"


def test_the_same_failure_again_is_a_circle_whatever_its_numbers(search: Search) -> None:
    for rows in (3, 14):
        search.step(message=f"{rows} rows are wrong")
    assert reason(search) == ""
    search.step(message="15 rows are wrong")
    assert reason(search) == "3 candidates in a row fail alike, the last: incorrect: 15 rows are wrong"


def test_launch_plans_that_were_tried_before_are_a_circle(search: Search) -> None:
    search.step(90.0, plan="p")
    for _ in range(2):
        search.step(90.0, plan="p")
    assert reason(search) == ""
    search.step(90.0, plan="p")
    assert reason(search) == "3 candidates in a row lower to launch plans that were tried before"


def test_versions_that_hardly_gain_are_a_plateau(search: Search) -> None:
    for tflops in (100.3, 100.6, 100.9):
        assert reason(search) == ""
        search.step(tflops, accept=True, parents=(0,))
    assert reason(search) == "the last 3 versions gained 0.90% together"
    search.intervene()
    assert reason(search) == ""


def test_each_level_is_given_time_before_the_next(search: Search) -> None:
    search.step(120.0, accept=True, parents=(0,))
    levels = []
    for _ in range(25):
        search.different_failures(1)
        if level := search.intervene():
            levels.append((len(search.steps), level))
    assert levels == [
        (7, Level.NUDGE),
        (12, Level.REDIRECT),
        (17, Level.RESTART),
        (22, Level.REDIRECT),
        (27, Level.RESTART),
    ]
    assert search.interventions[2].restart_from == 0


def test_a_new_version_resets_the_supervisor(search: Search) -> None:
    search.different_failures(5)
    assert search.intervene() is Level.NUDGE
    search.step(130.0, accept=True)
    assert search.trajectory.active == ()
    search.different_failures(5)
    assert search.intervene() is Level.NUDGE


def test_what_counts_begins_where_a_version_was_accepted_and_not_where_it_was_evaluated(search: Search) -> None:
    search.different_failures(5)
    assert search.intervene() is Level.NUDGE
    search.different_failures(2)  # in the second of which what step 1 had evaluated is accepted
    search.versions.append(
        replace(search.versions[0], number=1, accepted=search.now, step_number=len(search.steps) - 1)
    )
    assert search.trajectory.active == ()
    search.different_failures(4)
    assert reason(search) == ""
    search.different_failures(1)
    assert search.intervene() is Level.NUDGE


def test_where_the_population_says_what_to_work_on_nobody_is_sent_back(search: Search) -> None:
    search.step(120.0, accept=True, parents=(0,))
    for _ in range(6):
        search.different_failures(5)
        assert search.intervene(replace(PATIENCE, restarts=False)) is not Level.RESTART


def test_a_run_of_one_version_is_never_sent_back(search: Search) -> None:
    search.different_failures(30)
    for _ in range(4):
        search.different_failures(5)
        assert search.intervene() is not Level.RESTART


def test_a_restart_goes_to_the_version_that_fewest_candidates_were_made_from_and_then_to_another(
    search: Search,
) -> None:
    for number, tflops in enumerate((120.0, 150.0, 190.0)):
        search.step(tflops, accept=True, parents=(number,))
    search.step(10.0, parents=(1,))
    targets = []
    for _ in range(6):
        search.different_failures(5)
        search.intervene()
        targets.append(search.interventions[-1].restart_from)
    assert targets == [None, None, 2, None, 0, None]


@pytest.mark.long
@given(st.lists(st.tuples(st.booleans(), st.sampled_from("ab")), max_size=40))
def test_what_is_seen_depends_on_the_record_alone(history: list[tuple[bool, str]]) -> None:
    once, again = Search(), Search()
    for gained, message in history:
        once.step(101.0 + len(once.steps) * 5 if gained else 0.0, accept=gained, message=message)
        once.intervene()
    for gained, message in history:
        again.step(101.0 + len(again.steps) * 5 if gained else 0.0, accept=gained, message=message)
        again.intervene()
        told = [made.after_step for made in again.interventions]
        since = [step for step in again.steps if step.number > max([again.versions[-1].step_number, *told])]
        read = replace(again.trajectory, steps=since, interventions=again.interventions[-REMEMBERED:])
        assert diagnose(read, PATIENCE) == diagnose(again.trajectory, PATIENCE)
    assert once.interventions == again.interventions


@pytest.mark.long
def test_directions_are_moves_that_apply_and_were_not_tried_those_for_the_critical_resource_first() -> None:
    search = Search()
    search.step(110.0, accept=True, change="skip: whole blocks", critical="l2")
    directions = untried_moves(search.versions, search.attempts, get_target("h100"), "mha", Library(()))
    names = [direction.partition(":")[0] for direction in directions]
    relieving = {move.name for move in MOVES if "l2" in move.relieves}
    unbound = untried_moves(search.versions[:1], search.attempts, get_target("h100"), "mha", Library(()))
    assert names[0] in relieving
    assert unbound != directions
    assert "skip" not in names
    assert set(names) <= {move.name for move in MOVES if move.variants(SEED, get_target("h100"))}


def test_when_all_moves_were_tried_directions_come_from_the_notes() -> None:
    search = Search()
    search.step(110.0, accept=True, critical="exp", change="; ".join(f"{move.name}: x" for move in MOVES))
    library = Library.load()
    directions = untried_moves(search.versions, search.attempts, get_target("h100"), "mha", library)
    assert directions
    assert all(library.note(direction.partition(":")[0]) for direction in directions)


def test_a_move_is_directed_to_only_in_the_settings_that_it_has_a_form_for() -> None:
    search, library = Search(), Library.load()
    search.step(110.0, accept=True, change="; ".join(f"{move.name}: x" for move in MOVES if move.name != "far"))
    best = search.versions[-1]
    versions = [replace(best, attempt=replace(best.attempt, source=seed_source("fsa", "kv_outer")))]
    found = {
        name: untried_moves(versions, search.attempts, get_target("h100"), name, library)
        for name in ("fsa", "fsa-local", "fsa-d96")
    }
    assert [direction.partition(":")[0] for direction in (*found["fsa"], *found["fsa-local"])] == ["far", "far"]
    search.step(120.0, accept=True, change="far: x")
    assert found["fsa-d96"] == untried_moves(versions, search.attempts, get_target("h100"), "fsa", library) != ()
