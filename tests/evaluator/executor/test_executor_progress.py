"""A grid of programs that wait for each other ends on a card that holds only some of them, or is known not to."""

from functools import partial

import pytest
import torch
import triton
import triton.language as tl

from avo.evaluator.executor import Deadlock, decides_waits, progress
from avo.evaluator.executor.waiting import Turns

ORACLE = "the definition of the operation"


@triton.jit
def waits_for(X, Flag, DISTANCE: tl.constexpr, N: tl.constexpr):
    p = tl.program_id(0)
    other = p + DISTANCE
    x = tl.load(X + p * N + tl.arange(0, N))
    if (other >= 0) & (other < tl.num_programs(0)):
        while tl.atomic_add(Flag + other, 0) == 0:
            pass
        x += tl.load(X + other * N + tl.arange(0, N))
    tl.store(X + p * N + tl.arange(0, N), x)
    tl.atomic_xchg(Flag + p, 1)


@triton.jit
def meet(Count, SIZE: tl.constexpr):
    met = (tl.program_id(0) // SIZE + 1) * SIZE
    tl.atomic_add(Count, 1)
    while tl.atomic_add(Count, 0) < met:
        pass


def launched(executor, distance, grid=8):
    flags, x = torch.zeros(grid, dtype=torch.int32), torch.zeros(grid, 16)
    return executor.prepare(waits_for, x, flags, grid=(grid,), DISTANCE=distance, N=16)


def check(launch, resident):
    return progress(launch.kernel, launch, resident)


def test_programs_may_wait_for_earlier_ones_however_few_run_at_once(executor):
    check(launched(executor, -3), 1)


@pytest.mark.parametrize(("distance", "room"), [(1, 8), (4, 5), (7, 2)])
def test_programs_wait_for_later_ones_for_ever_unless_these_have_room(executor, distance, room):
    check(launched(executor, distance), room)
    few = f"holds at once .{room - 1}. wait for some of the {9 - room} that start only when one of them ends"
    with pytest.raises(Deadlock, match=f"{few}, among them program .0, 0, 0. at test_executor_progress"):
        check(launched(executor, distance), room - 1)


def test_programs_that_meet_in_small_groups_need_room_for_one_group(executor):
    launch = executor.prepare(meet, torch.zeros(1, dtype=torch.int32), grid=(12,), SIZE=3)
    check(launch, 3)
    with pytest.raises(Deadlock):
        check(launch, 2)


def test_waits_are_played_on_what_memory_holds_and_leave_it_as_it_is(executor):
    launch = launched(executor, 1)
    assert decides_waits(launch.kernel, launch.args) == {1}
    x, flags = (allocation.data for allocation in launch.memory)
    check(launch, 8)
    assert not flags.any()
    flags.fill_(1)
    check(launch, 1)
    assert flags.tolist() == [1] * 8
    assert not x.any()


@pytest.fixture
def played(monkeypatch):
    """How many groups of programs were played in each attempt."""
    groups, run = [], Turns.run
    monkeypatch.setattr(Turns, "run", lambda turns, bodies: (groups.append(len(bodies)), run(turns, bodies))[1])
    return groups


@pytest.mark.parametrize(
    ("distance", "groups"),
    [(-64, [16]), (-20, [16, 64]), pytest.param(-1, [16, 64, 256, 1024], marks=pytest.mark.long)],
)
def test_programs_are_played_in_the_largest_groups_that_do_not_wait_for_themselves(executor, played, distance, groups):
    check(launched(executor, distance, grid=1024), 64)
    assert played == groups


@pytest.mark.parametrize("step", [-1, 1])
def test_a_chain_of_programs_that_wait_ends_in_one_pass_whichever_way_it_goes(step):
    number, looks, done = 300, 0, [False] * 301
    turns = Turns(lambda: None)

    def program(i):
        nonlocal looks
        while not done[(i + step) % (number + 1)]:
            looks += 1
            turns.wait(None, idle=True)
        done[i] = True

    def last():
        done[number] = True

    turns.run([*(partial(program, i) for i in range(number)), last])
    assert looks <= 2 * number
