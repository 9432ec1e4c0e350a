"""A launch ends when its last program does, in an order in which programs have room and what they wait for is there."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avo.evaluator.performance.sass import ModelError
from avo.evaluator.performance.schedule import Room, list_schedule, schedule
from avo.evaluator.work import VERSION, Body, LaunchWork, LoopWork, Waits
from tests.evaluator.performance.test_hand_computed import BINARY

FLAG = 10.0
NOTHING = Body(0, 0, 0, 0)


@given(st.lists(st.integers(1, 100), min_size=1, max_size=60), st.integers(1, 10))
def test_a_schedule_is_within_grahams_bounds(clocks: list[int], slots: int) -> None:
    end = list_schedule(np.array(clocks, dtype=np.float64), slots)
    assert max(max(clocks), sum(clocks) / slots) <= end + 1e-9
    assert end <= sum(clocks) / slots + max(clocks) * (1 - 1 / slots) + 1e-9


def ends(
    clocks: list[float], nodes: list[tuple[int, float]], after: list[tuple[int, int]], sms: int, each: int = 1
) -> float:
    """When programs of so many ``clocks`` end that have ``nodes``: the program, and the share of its work done by then.

    Alone on its SM, a program takes half as long as where two share it.
    """
    launch = LaunchWork(BINARY, len(clocks), (), NOTHING)
    places = np.array([[share] for _, share in nodes])
    waits = Waits(np.array([program for program, _ in nodes]), places, np.array(after))
    return schedule(replace(launch, waits=waits), np.array([clocks]), Room(sms, each, 1 if each == 1 else 0.5, FLAG))


def chain(programs: int, begin: float, end: float) -> tuple[list[tuple[int, float]], list[tuple[int, int]]]:
    """Programs that each wait, at one place in their work, until the one before has come to another."""
    nodes = [(program, share) for program in range(programs) for share in (begin, end)]
    return nodes, [(2 * i - 1, 2 * i) for i in range(1, programs)]


@pytest.mark.parametrize(("sms", "programs"), [(8, 5), (2, 5)])
def test_programs_that_begin_when_the_one_before_ends_take_turns(sms: int, programs: int) -> None:
    assert ends([100.0] * programs, *chain(programs, 0, 1), sms) == pytest.approx(
        100 * programs + FLAG * (programs - 1)
    )


def test_what_programs_do_outside_their_turn_they_do_side_by_side() -> None:
    # The first 80 clocks side by side; then 20 each, and a flag between two.
    assert ends([100.0] * 5, *chain(5, 0.8, 1), sms=5) == pytest.approx(80 + 5 * 20 + 4 * FLAG)
    # What comes before it: the last one has all its work left when it is let in.
    assert ends([100.0] * 5, *chain(5, 0, 0.2), sms=5) == pytest.approx(4 * (20 + FLAG) + 100)


def test_a_program_that_is_alone_on_its_sm_goes_as_fast_as_it_can() -> None:
    assert ends([100.0] * 4, *chain(4, 0, 1), sms=2, each=2) == pytest.approx(4 * 50 + 3 * FLAG)
    # Two go half as fast as one: 50 clocks of one's work in 50 clocks while the other waits, then both 50 in 50.
    assert ends([100.0, 100.0], [(0, 0.5), (1, 0.0)], [(0, 1)], sms=1, each=2) == pytest.approx(
        25 + FLAG + (50 - 2 * FLAG) + (100 - (50 - 2 * FLAG)) / 2
    )


def test_a_barrier_holds_all_programs_until_the_slowest_has_come() -> None:
    came = [(program, 0.5) for program in range(4)]
    versions = [(VERSION, 0.0)] * 4
    left = [(program, 0.5) for program in range(4)]
    after = [(i, 4 + i) for i in range(4)] + [(3 + i, 4 + i) for i in range(1, 4)] + [(7, 8 + i) for i in range(4)]
    assert ends([100.0, 40.0, 60.0, 20.0], [*came, *versions, *left], after, sms=4) == pytest.approx(50 + FLAG + 50)


def test_places_are_those_of_passes_too() -> None:
    loop = LoopWork(None, NOTHING, np.array([10, 10]))
    # The second waits in its eighth pass until the first has made two: it comes later anyway.
    waits = Waits(np.array([0, 1]), np.array([[1.0, 2.0], [0.0, 8.0]]), np.array([(0, 1)]))
    launch = LaunchWork(BINARY, 2, (loop,), NOTHING, waits=waits)
    clocks = np.array([[20.0, 20.0], [100.0, 100.0]])
    assert schedule(launch, clocks, Room(2, 1, 1, FLAG)) == pytest.approx(120)
    later = replace(waits, places=np.array([[1.0, 10.0], [0.0, 8.0]]))
    assert schedule(replace(launch, waits=later), clocks, Room(2, 1, 1, FLAG)) == pytest.approx(120 + FLAG + 40)


def test_programs_that_wait_for_others_without_room_have_no_time() -> None:
    nodes, after = [(1, 1.0), (0, 0.5)], [(0, 1)]
    assert ends([10.0, 10.0], nodes, after, sms=2) == pytest.approx(10 + FLAG + 5)
    with pytest.raises(ModelError, match="kernel kernel wait for ever: an SM holds 1"):
        ends([10.0, 10.0], nodes, after, sms=1)


@given(st.lists(st.integers(1, 100), min_size=1, max_size=20), st.integers(1, 5), st.data())
def test_no_schedule_is_shorter_than_its_longest_program_or_all_work_on_all_sms(
    clocks: list[int], sms: int, data: st.DataObject
) -> None:
    nodes = [(program, share) for program in range(len(clocks)) for share in (0.2, 0.9)]
    pairs = st.tuples(st.integers(0, len(nodes) - 1), st.integers(0, len(nodes) - 1)).map(
        lambda pair: tuple(sorted(pair))
    )
    after = [pair for pair in data.draw(st.lists(pairs)) if nodes[pair[0]][0] < nodes[pair[1]][0]]
    floats = [float(each) for each in clocks]
    assert ends(floats, nodes, after or [(0, 1)], sms) >= max(max(floats), sum(floats) / sms) - 1e-6
