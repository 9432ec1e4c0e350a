"""Programs that wait for each other: locks, barriers, producers and consumers, in any order."""

import inspect
import time

import pytest
import torch
import triton
import triton.language as tl

from avo.evaluator.executor import ExecutionTimeout, load
from avo.evaluator.executor.waiting import polls

ORACLE = "the definition of the operation"


def line_of(function, text):
    lines, first = inspect.getsourcelines(function.fn)
    return f"test_executor_waiting.py:{first + next(i for i, line in enumerate(lines) if text in line)}"


def ints(*shape):
    return torch.zeros(*shape, dtype=torch.int32)


@triton.jit
def locked(Lock, X, HOW: tl.constexpr, RELEASE: tl.constexpr, N: tl.constexpr):
    i = tl.arange(0, N)
    if HOW == "cas":
        while tl.atomic_cas(Lock, 0, 1, sem="acquire") == 1:
            pass
    elif HOW == "exchange":
        while tl.atomic_xchg(Lock, 1) == 1:
            pass
    elif HOW == "tickets":
        mine = tl.atomic_add(Lock, 1)
        while tl.atomic_add(Lock + 1, 0) != mine:
            pass
    tl.store(X + i, tl.load(X + i) * 2 + tl.program_id(0))  # critical
    if RELEASE:
        if HOW == "tickets":
            tl.atomic_add(Lock + 1, 1)
        else:
            tl.atomic_xchg(Lock, 0, sem="release")


@pytest.mark.parametrize("how", ["cas", "exchange", "tickets"])
def test_locks_let_one_program_in_at_a_time_and_order_what_it_does(executor, how):
    x = ints(8)
    launch = executor.prepare(locked, ints(2), x, grid=(5,), HOW=how, RELEASE=True, N=8)
    execution = launch.run(sanitize=True, programs=torch.tensor([3, 1, 4, 0, 2]))
    assert execution.faults == execution.notes == ()
    expected = 0
    for p in (3, 1, 4, 0, 2):
        expected = expected * 2 + p
    assert x.tolist() == [expected] * 8


def test_without_a_lock_the_same_is_a_race(executor):
    launch = executor.prepare(locked, ints(2), ints(8), grid=(5,), HOW="", RELEASE=False, N=8)
    fault = launch.run(sanitize=True).faults[0]
    assert (fault.kind, fault.location) == ("read-write race", line_of(locked, "# critical"))


def test_programs_that_wait_for_ever_are_named(executor):
    launch = executor.prepare(locked, ints(2), ints(8), grid=(4,), HOW="cas", RELEASE=False, N=8)
    where = line_of(locked, "while tl.atomic_cas")
    with pytest.raises(ExecutionTimeout, match="all 3 remaining programs wait for each other") as error:
        launch.run()
    assert str(error.value).endswith(f"program (1, 0, 0) at {where}")


@triton.jit
def counted_spins(Lock, X):
    spins = 0
    while (tl.load(Lock, volatile=True) == 0) & (spins >= 0):
        spins += 1
    tl.store(X, spins)


def test_a_wait_that_counts_ends_at_the_deadline(executor):
    launch = executor.prepare(counted_spins, ints(1), ints(1), grid=(2,))
    with pytest.raises(ExecutionTimeout, match="time allowed"):
        launch.run(deadline=time.process_time() + 0.2)


@triton.jit
def barrier(Count, X, Y, N: tl.constexpr):
    p = tl.program_id(0)
    i = tl.arange(0, N)
    size = tl.num_programs(0)
    tl.store(X + p * N + i, i + p)
    tl.atomic_add(Count, 1)
    while tl.atomic_add(Count, 0) < size:
        pass
    tl.store(Y + p * N + i, tl.load(X + (p + 1) % size * N + i))


def test_a_barrier_holds_all_programs_until_the_last(executor):
    x, y = ints(6, 8), ints(6, 8)
    execution = executor.prepare(barrier, ints(1), x, y, grid=(6,), N=8).run(sanitize=True)
    assert execution.faults == execution.notes == ()
    assert torch.equal(y, x.roll(-1, 0))


@triton.jit
def chain(Flag, X, FORWARD: tl.constexpr, WAIT: tl.constexpr, SEM: tl.constexpr, N: tl.constexpr):
    p, size = tl.program_id(0), tl.num_programs(0)
    before = p - 1 if FORWARD else p + 1
    i = tl.arange(0, N)
    if (before >= 0) & (before < size):
        if WAIT == "volatile":
            while tl.load(Flag + before, volatile=True) == 0:
                pass
        else:
            while tl.atomic_or(Flag + before, 0, sem=SEM) == 0:
                pass
        tl.store(X + p * N + i, tl.load(X + before * N + i) + i)  # read
    tl.atomic_xchg(Flag + p, 1)


@triton.jit
def newer_chain(Flag, X, FORWARD: tl.constexpr, WAIT: tl.constexpr, SEM: tl.constexpr, N: tl.constexpr):
    p, size = tl.program_id(0), tl.num_programs(0)
    before = p - 1 if FORWARD else p + 1
    i = tl.arange(0, N)
    if (before >= 0) & (before < size):
        if WAIT == "poll":
            tl.atomic_poll(Flag + before, 1, sem=SEM)
        else:
            while tl.atomic_load(Flag + before, sem=SEM) == 0:
                pass
        tl.store(X + p * N + i, tl.load(X + before * N + i) + i)  # read
    tl.atomic_store(Flag + p, 1)


CHAINS = {"volatile": chain, "or": chain}
if hasattr(tl, "atomic_poll"):
    CHAINS |= {"poll": newer_chain, "load": newer_chain}


@pytest.mark.parametrize("forward", [False, True])
@pytest.mark.parametrize("wait", [*CHAINS])
def test_consumers_may_wait_for_producers_that_come_earlier_or_later(executor, wait, forward):
    x = ints(5, 8)
    options = {"FORWARD": forward, "WAIT": wait, "SEM": "acquire", "N": 8}
    execution = executor.prepare(CHAINS[wait], ints(5), x, grid=(5,), **options).run(sanitize=True)
    assert execution.faults == execution.notes == ()
    steps = torch.arange(5) if forward else torch.arange(5).flip(0)
    assert torch.equal(x, (steps[:, None] * torch.arange(8)).int())


@pytest.mark.parametrize("wait", [*CHAINS][1:])
def test_a_relaxed_wait_orders_nothing(executor, wait):
    options = {"FORWARD": True, "WAIT": wait, "SEM": "relaxed", "N": 8}
    (fault,) = executor.prepare(CHAINS[wait], ints(5), ints(5, 8), grid=(5,), **options).run(sanitize=True).faults
    assert (fault.kind, fault.location) == ("read-write race", line_of(CHAINS[wait], "# read"))


@triton.jit
def late(Flag, X, SEM: tl.constexpr):
    if tl.program_id(0) == 0:
        tl.store(X, 7)
        tl.atomic_xchg(Flag, 1, sem=SEM)
        tl.store(X + 1, 8)
    else:
        while tl.atomic_cas(Flag, 1, 1) == 0:
            pass
        tl.store(X + 2, tl.load(X))  # before
        tl.store(X + 3, tl.load(X + 1))  # after


@pytest.mark.parametrize("sem", ["acq_rel", "release", "relaxed"])
def test_a_release_orders_what_comes_before_it_and_nothing_after(executor, sem):
    faults = executor.prepare(late, ints(1), ints(4), grid=(2,), SEM=sem).run(sanitize=True).faults
    assert {fault.kind for fault in faults} == {"read-write race"}
    expected = ["# after"] if sem != "relaxed" else ["# before", "# after"]
    assert [fault.location for fault in faults] == [line_of(late, text) for text in expected]


@triton.jit
def store_flag(Flag, X):
    if tl.program_id(0) == 0:
        tl.store(X, 7)
        tl.store(Flag, 1)
    else:
        while tl.load(Flag, volatile=True) == 0:
            pass
        tl.store(X + 1, tl.load(X))  # read


def test_a_flag_that_is_set_by_a_plain_store_orders_nothing(executor):
    x = ints(2)
    (fault,) = executor.prepare(store_flag, ints(1), x, grid=(2,)).run(sanitize=True).faults
    assert (fault.kind, fault.tensor, fault.location) == ("read-write race", "X", line_of(store_flag, "# read"))
    assert x.tolist() == [7, 7]


@triton.jit
def look_first(Flag, X, KEPT: tl.constexpr):
    if tl.program_id(0) == 0:
        tl.store(Flag, 1)
    else:
        seen = tl.load(Flag, volatile=True)  # first
        if KEPT:
            tl.store(X, seen)
        while seen == 0:
            seen = tl.load(Flag, volatile=True)


@pytest.mark.parametrize("kept", [False, True])
def test_a_look_before_the_loop_that_waits_is_part_of_the_wait_unless_it_serves_something_else(executor, kept):
    faults = executor.prepare(look_first, ints(1), ints(1), grid=(2,), KEPT=kept).run(sanitize=True).faults
    expected = [("read-write race", "Flag", line_of(look_first, "# first"))] if kept else []
    assert [(fault.kind, fault.tensor, fault.location) for fault in faults] == expected


@pytest.mark.skipif(not hasattr(tl, "atomic_poll"), reason="this Triton cannot poll")
def test_a_poll_with_a_timeout_gives_up_when_no_program_can_go_on(executor):
    @triton.jit
    def impatient(Flag, X):
        p = tl.program_id(0)
        if p == 2:
            tl.atomic_xchg(Flag, 1)
        tl.store(X + p, tl.atomic_poll(Flag + p % 2, 1, timeout_ns=1000).to(tl.int32))

    x = ints(4)
    executor.run(impatient, ints(2), x, grid=(4,))
    assert x.tolist() == [1, 0, 1, 0]


@triton.jit
def queue(Ticket, X, n):
    tile = tl.atomic_add(Ticket, 1)
    while tile < n:
        tl.store(X + tile, tl.program_id(0))
        tile = tl.atomic_add(Ticket, 1)


def test_drawing_tickets_is_no_waiting(executor):
    x = ints(9)
    launch = executor.prepare(queue, ints(1), x, 9, grid=(3,))
    assert polls(launch.kernel.function) == frozenset()
    launch.run()
    assert x.tolist() == [0, 1, 2] * 3


def test_trips_of_loops_that_wait_are_counted_on_a_copy(executor):
    lock, x = ints(2), ints(8)
    launch = executor.prepare(locked, lock, x, grid=(3,), HOW="cas", RELEASE=True, N=8)
    (trips,) = load(launch.ttir).count(launch).trips
    assert trips.tolist() == [0, 0, 0]
    assert not x.any()


@pytest.mark.parametrize("how", ["cas", "tickets"])
def test_loops_that_only_wait_are_left_out_of_the_work_of_a_grid(executor, how):
    launch = executor.prepare(locked, ints(2), ints(8), grid=(5000,), HOW=how, RELEASE=False, N=8)
    # Nobody gives the lock back: to run the loops would never end.
    counted = launch.kernel.count(launch)
    assert [trips.sum() for trips in counted.trips] == [0]
    assert counted.outside.store_bytes >= 32


@triton.jit
def busy(Flag, X, HOW: tl.constexpr, N: tl.constexpr):
    i = tl.arange(0, N)
    x = tl.load(X + i)
    again = 1
    while again > tl.atomic_add(Flag, 0):
        stay = 0
        if HOW == "exponentials":
            x = tl.exp(x)
        elif HOW == "loads":
            x += tl.load(X + N - 1 - i)
        elif HOW == "additions to memory":
            tl.atomic_add(X + i, x)
        elif HOW == "volatile loads":
            x = tl.load(X + i, volatile=True)
            stay = (tl.max(x.to(tl.int32), 0) > 0).to(tl.int32)
        else:
            x = (x.to(tl.int32, bitcast=True) * 3).to(tl.float32, bitcast=True)
        again = stay
    tl.store(X + i, x)


@pytest.mark.parametrize("how", ["exponentials", "loads", "additions to memory", "integers", "volatile loads"])
def test_what_a_loop_does_besides_waiting_is_counted(executor, how):
    elements = 64 if how == "volatile loads" else 2048
    launch = executor.prepare(busy, ints(1), torch.zeros(elements), grid=(3,), HOW=how, N=elements)
    assert launch.kernel.waiting == frozenset()
    counted = launch.kernel.count(launch)
    assert [trips.tolist() for trips in counted.trips] == [[1, 1, 1]]


@triton.jit
def search(Lengths, Flag, X, HOW: tl.constexpr):
    i, at = 0, 0
    if HOW == "counts":
        while tl.load(Flag, volatile=True) == 0 and i < 50:
            i += 1
    else:
        while at <= 100:
            at += tl.load(Lengths + i, volatile=True)
            i += 1
    tl.store(X, i)
    tl.atomic_xchg(Flag, 1)


@pytest.mark.parametrize(("how", "trips"), [("counts", 50), ("looks at what nobody stores", 11)])
def test_a_loop_that_goes_on_while_it_looks_does_not_wait(executor, how, trips):
    launch = executor.prepare(search, ints(64) + 10, ints(1), ints(1), grid=(1,), HOW=how)
    assert launch.kernel.waiting == frozenset()
    assert launch.kernel.takes_turns == (how == "counts")
    assert [each.tolist() for each in launch.kernel.count(launch).trips] == [[trips]]


@triton.jit
def carried(A, B, X, HOW: tl.constexpr):
    p = tl.program_id(0)
    if HOW == "chosen":
        flag = tl.where(p % 2 == 0, A, B)
    else:
        flag = A
        for _ in range(3):
            flag += 1
    if p > 0:
        while tl.atomic_add(flag, 0) < p:
            pass
    tl.atomic_add(A + 3 if HOW == "carried" else A, 1)
    if HOW == "chosen":
        tl.atomic_add(B, 1)
    tl.store(X + p, p)


@pytest.mark.parametrize("how", ["chosen", "carried"])
def test_a_flag_may_be_behind_any_pointer(executor, how):
    x = ints(4)
    launch = executor.prepare(carried, ints(8), ints(8), x, grid=(4,), HOW=how)
    assert launch.kernel.takes_turns
    launch.run()
    assert x.tolist() == [0, 1, 2, 3]


def test_a_wait_that_gives_up_is_told_from_one_that_does_not(executor):
    launch = executor.prepare(search, ints(64), ints(1), ints(1), grid=(1,), HOW="counts")
    assert launch.kernel.gives_up == line_of(search, "while tl.load(Flag")
    assert executor.prepare(barrier, ints(1), ints(6, 8), ints(6, 8), grid=(6,), N=8).kernel.gives_up is None
    assert executor.prepare(queue, ints(1), ints(9), 9, grid=(3,)).kernel.gives_up is None


def test_waiting_is_left_out_of_the_work_of_an_execution_too(executor):
    launch = executor.prepare(barrier, ints(1), ints(6, 8), ints(6, 8), grid=(6,), N=8)
    counted = launch.kernel.count(launch)
    execution = launch.run(work=True)
    assert execution.trips[0].sum() > 0
    assert execution.work is not None
    assert (execution.work.outside, execution.work.bodies) == (counted.outside, counted.bodies)
    assert [trips.sum() for trips in execution.work.trips] == [0]
