"""The order of the benchmark's runs, what tuners are allowed, and how much time is left."""

from collections.abc import Iterable

import pytest

from bench.search.runs import Place, Point, Record
from bench.search.schedule import allowed, missing, next_run, places, time_left

MUTATE, TPE = Place("mha", "h100", "mutate", 0), Place("mha", "h100", "tpe", 0)


def run(operator: str, seed: int, attempts: int, share: float, most: int = 60) -> Record:
    """Return a run that ended with a share of the best score known after so many attempts."""
    points = Point(0, 0, 0.0, 100.0), Point(attempts, 24 * attempts, 60.0 * attempts, 200.0 * share)
    return Record(Place("mha", "h100", operator, seed), 200.0, "abc", most, points)


def found(*records: Record) -> dict[Place, Record]:
    return {record.place: record for record in records}


def drained(wanted: list[Place], made: dict[Place, Record], running: Iterable[Place] = ()) -> Place | None:
    due = next_run(wanted, made, list(running))
    return None if due is None else due[0]


def test_every_operator_has_a_run_of_each_problem_before_any_has_two_and_mutate_is_first() -> None:
    made = places(["mha", "fsa"], ["h100"], ["random", "tpe", "mutate"], 3)
    assert len(set(made)) == len(made) == 18
    assert [(place.seed, place.operator) for place in made[::2]] == [
        (0, "mutate"), (0, "tpe"), (0, "random"),
        (1, "mutate"), (1, "tpe"), (2, "mutate"), (2, "tpe"), (1, "random"), (2, "random"),
    ]  # fmt: skip


def test_a_tuner_may_make_three_times_the_attempts_that_mutate_takes() -> None:
    assert allowed(MUTATE, {}) == 60
    assert allowed(TPE, {}) is None
    made = [run("mutate", seed, attempts, 0.99) for seed, attempts in enumerate((2, 4, 30))]
    assert allowed(TPE, found(*made)) == 12
    assert allowed(TPE, found(run("mutate", 0, 30, 0.99))) == 60
    assert allowed(TPE, found(run("mutate", 0, 60, 0.97))) == 60


def test_a_tuner_waits_for_the_run_of_mutate_with_its_seed() -> None:
    wanted = [MUTATE, TPE]
    assert drained(wanted, {}) == MUTATE
    assert drained(wanted, {}, [MUTATE]) is None
    assert drained(wanted, found(run("mutate", 0, 2, 0.99))) == TPE


@pytest.mark.parametrize(
    ("attempts", "share", "most", "again"),
    [(6, 0.9, 6, True), (4, 0.99, 6, False), (12, 0.9, 12, False), (4, 0.9, 6, False)],
    ids=["ended early", "arrived", "long enough", "had nothing left"],
)
def test_a_run_is_made_again_where_it_may_go_on_for_longer(attempts: int, share: float, most: int, again: bool) -> None:
    made = found(run("mutate", 0, 4, 0.99), run("tpe", 0, attempts, share, most))
    assert allowed(TPE, made) == 12
    assert missing(TPE, made) is again


def test_the_time_left_is_that_of_runs_of_the_same_operator() -> None:
    wanted = places(["mha"], ["h100"], ["mutate", "tpe"], 2)
    made = found(run("mutate", 0, 2, 0.99), run("mutate", 1, 2, 0.99), run("tpe", 0, 6, 0.8, 6))
    took = [(MUTATE, 50.0), (MUTATE, 70.0), (TPE, 300.0)]
    assert time_left(wanted, made, [], 2) is None
    assert time_left(wanted, made, took, 2) == pytest.approx(150.0)
    assert time_left(wanted, made, took[:2], 1) == pytest.approx(60.0)
