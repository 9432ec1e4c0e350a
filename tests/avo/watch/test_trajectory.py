"""Trajectories: every attempt has its place, the best goes up in steps, published figures cover what they stand at."""

from dataclasses import replace

import pytest

from avo.evaluator.evaluation import Status
from avo.evaluator.problem import Baseline
from avo.lineage_db.store import Store
from avo.watch.plot import draw, legend
from avo.watch.trajectory import NOTHING, Trajectory, overall
from tests.avo.recorded import Recorded

BOTH = Baseline("Both", "h100", {"8k-full": 400.0, "8k-causal": 100.0}, "")
HALF = Baseline("Half", "h100", {"8k-full": 300.0}, "")
ELSEWHERE = Baseline("Elsewhere", "b200", {"8k-full": 300.0, "8k-causal": 300.0}, "")


@pytest.fixture
def run(store: Store) -> Recorded:
    made = Recorded(store)
    made.step(100.0)
    made.step(Status.INCORRECT, (0,), "skip: wrong")
    made.step(120.0, (0,), "skip: skip blocks; exp2: fold")
    made.step(90.0, (1,), "slower", accept=False)
    made.step(115.0, (), "another seed")
    made.step(150.0, (1,), "Read keys twice")
    made.step(Status.DOES_NOT_FIT, (3,), "too large")
    return made


def trajectory(run: Recorded, *baselines: Baseline) -> Trajectory:
    store = run.store
    tried = NOTHING.with_more(store.attempt_summaries(run.run.id))
    found = overall(run.run, tuple(store.versions(run.run.id)), tried, baselines)
    assert found is not None
    return found


def test_every_attempt_has_its_place_and_kind(run: Recorded) -> None:
    found = trajectory(run)
    assert found.attempts == 7
    assert (found.versions, found.places, found.records) == ((0, 1, 2, 3), (1, 3, 5, 6), (0, 1, 3))
    assert found.refused == ((4, pytest.approx(90.0)),)
    assert found.faulty == (2, 7)


def test_a_step_line_has_a_step_only_where_its_value_changes(run: Recorded) -> None:
    found = trajectory(run)
    assert [(place, round(value)) for place, value in found.steps(found.scores)] == [(1, 100), (3, 120), (6, 150)]


def test_a_baseline_is_shown_only_if_it_has_a_figure_for_every_case_on_this_target(run: Recorded) -> None:
    assert [(level.name, level.value) for level in trajectory(run, BOTH, HALF, ELSEWHERE).levels] == [
        ("Both", pytest.approx(200.0))
    ]


def test_new_bests_are_named_by_their_moves_or_their_change_the_largest_gain_first(run: Recorded) -> None:
    assert trajectory(run).ideas == [(3, "Read keys twice"), (1, "skip + exp2")]


def test_a_version_that_was_accepted_after_the_attempts_were_read_waits(run: Recorded) -> None:
    attempts = run.store.attempt_summaries(run.run.id)
    found = overall(run.run, tuple(run.store.versions(run.run.id)), NOTHING.with_more(attempts[:4]), ())
    assert found is not None
    assert (found.versions, found.attempts) == ((0, 1), 4)
    assert overall(run.run, (), NOTHING.with_more(attempts), ()) is None


@pytest.mark.parametrize("size", [(40, 10), (80, 24), (160, 50)])
def test_a_drawing_fits_its_size_and_names_best_baselines_and_ideas(run: Recorded, size: tuple[int, int]) -> None:
    width, height = size
    lines = draw(trajectory(run, BOTH), width, height).plain.splitlines()
    assert len(lines) == height
    assert max(map(len, lines)) <= width
    drawn = "\n".join(lines)
    assert all(words in drawn for words in ("150 best", "200 Both", "attempts", "●", "x", "┄"))
    if width >= 80:
        assert all(words in drawn for words in ("v3 Read keys twice", "○", "·"))


@pytest.mark.parametrize("attempts", [7, 10, 1_304, 100_000])
def test_the_axis_says_in_a_whole_word_what_it_counts(run: Recorded, attempts: int) -> None:
    for width in (80, 160):
        lines = draw(replace(trajectory(run), attempts=attempts), width, 24, with_cases=False).plain.splitlines()
        assert lines[-1].endswith(" attempts")
        assert max(map(len, lines)) <= width


def test_the_best_line_goes_to_the_end_of_the_run(run: Recorded) -> None:
    lines = draw(trajectory(run), 80, 24).plain.splitlines()
    assert next(line for line in lines if "150 best" in line).split(" 150 best")[0].endswith("●━━━━━━━━━")


def test_a_refused_attempt_as_fast_as_the_best_is_a_dot_on_its_line(run: Recorded) -> None:
    for _ in range(3):
        run.step(150.0, (3,), "no gain", accept=False)
    lines = draw(trajectory(run), 80, 24).plain.splitlines()
    best = next(line for line in lines if "150 best" in line).partition("●")[2]
    assert (best.count("•"), best.count("━") > 3) == (3, True)


def test_faulty_attempts_are_marked_below_the_plot(run: Recorded) -> None:
    assert draw(trajectory(run), 80, 24).plain.splitlines()[-3].count("x") == 2
    assert legend(trajectory(run, BOTH)).plain == (
        "● new best 3   ○ other version 1   · correct, no version 1   x faulty or unverified 2   ┄ published"
    )


def test_lines_of_cases_can_be_left_out(run: Recorded) -> None:
    assert "8k-full" in draw(trajectory(run), 80, 24).plain
    assert "8k-full" not in draw(trajectory(run), 80, 24, with_cases=False).plain
