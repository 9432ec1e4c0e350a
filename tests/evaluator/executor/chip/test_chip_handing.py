"""Work that depends on what partitions hand to each other through shared memory is counted, or refused."""

import pytest
import torch
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.ampere import async_copy
from triton.experimental.gluon.language.nvidia.hopper import mbarrier

from avo.evaluator.executor import Allocation, Launch, UnsupportedOperation, load
from avo.evaluator.offline import offline
from avo.evaluator.plan import Pointer, Scalar

copy = getattr(async_copy, "async_load", None) or async_copy.async_copy_global_to_shared  # its name in triton 3.6
TICKETS, PROGRAMS = 21, 4
EVERY = pytest.mark.parametrize("execute", [False, True])


@gluon.jit
def draw(counter, first, n, slots, told, taken, HOW: gl.constexpr):
    one: gl.constexpr = gl.BlockedLayout([1], [32], [1], [0])
    depth: gl.constexpr = slots.shape[0]
    drawn, goes_on = 0, True
    while goes_on:
        ticket = gl.atomic_add(counter, 1)
        slot, phase = drawn % depth, (drawn // depth) & 1
        if HOW != "too early":
            mbarrier.wait(taken.index(slot), phase ^ 1)
        if HOW == "copied":
            copy(slots.index(slot), counter + gl.arange(0, 1, one))
            async_copy.wait_group(0)
        else:
            slots.index(slot).store(gl.full([1], ticket + gl.load(first), gl.int32, one))
        if HOW == "bytes":
            mbarrier.expect(told.index(slot), 0)
        else:
            mbarrier.arrive(told.index(slot), count=1)
        goes_on = ticket < n
        drawn += 1


@gluon.jit
def work(y, n, slots, told, taken, num_warps: gl.constexpr):
    one: gl.constexpr = gl.BlockedLayout([1], [32], [num_warps], [0])
    depth: gl.constexpr = slots.shape[0]
    turn, ticket = 0, -1
    while ticket < n:
        slot, phase = turn % depth, (turn // depth) & 1
        mbarrier.wait(told.index(slot), phase)
        ticket = gl.max(slots.index(slot).load(one), 0)
        mbarrier.arrive(taken.index(slot), count=1)
        for i in range(gl.where(ticket < n, ticket, 0)):
            gl.store(y + ticket * n + i, i.to(gl.float32))
        turn += 1


@gluon.jit
def queue(counter, first, y, n, HOW: gl.constexpr, DEPTH: gl.constexpr, num_warps: gl.constexpr):
    slots = gl.allocate_shared_memory(gl.int32, [DEPTH, 1], gl.SwizzledSharedLayout(1, 1, 1, [0]))
    told = gl.allocate_shared_memory(gl.int64, [DEPTH, 1], mbarrier.MBarrierLayout())
    taken = gl.allocate_shared_memory(gl.int64, [DEPTH, 1], mbarrier.MBarrierLayout())
    for slot in gl.static_range(DEPTH):
        mbarrier.init(told.index(slot), count=1)
        mbarrier.init(taken.index(slot), count=1)
    gl.warp_specialize(
        [(work, (y, n, slots, told, taken, num_warps)), (draw, (counter, first, n, slots, told, taken, HOW))], [1], [24]
    )


def launch(how: str = "", depth: int = 1) -> torch.Tensor:
    y = torch.full((TICKETS, TICKETS), -1.0, device="cuda")
    counter, first = (torch.zeros(1, dtype=torch.int32, device="cuda") for _ in range(2))
    queue[(PROGRAMS,)](counter, first, y, TICKETS, HOW=how, DEPTH=depth, num_warps=4)
    return y


@EVERY
@pytest.mark.parametrize("depth", [1, 2])
def test_tickets_that_one_partition_hands_to_another_are_counted(execute: bool, depth: int) -> None:
    with offline(execute=execute) as session:
        y = launch(depth=depth)
    assert not execute or torch.equal(y >= 0, torch.ones(TICKETS, TICKETS).tril(-1).bool())
    assert not session.report().faults
    counted = session.launches[0].counted
    assert counted is not None
    rounds, passes, draws = (int(trips.sum()) for trips in counted.trips)
    assert rounds == draws == TICKETS + PROGRAMS
    assert passes == TICKETS * (TICKETS - 1) // 2
    assert [access.loop for access in counted.accesses if access.writes] == [1]


def test_a_program_that_is_handed_something_else_than_was_counted_is_refused() -> None:
    with offline() as session:
        launch()
    kernel, grid = load(session.launches[0].ir), (PROGRAMS, 1, 1)
    args = (Pointer(0, 0), Pointer(1, 0), Pointer(2, 0), Scalar(TICKETS))

    def memory(first: int) -> list[Allocation]:
        counter, start = (torch.tensor([each], dtype=torch.int32) for each in (0, first))
        return [Allocation("counter", counter), Allocation("first", start), Allocation("y", torch.zeros(TICKETS**2))]

    script = kernel.script(Launch(memory(0), args, grid))
    assert not kernel.run(Launch(memory(0), args, grid, script=script), programs=torch.tensor([1])).faults
    with pytest.raises(UnsupportedOperation, match="a load from shared memory of what it was not seen to hold"):
        kernel.run(Launch(memory(1), args, grid, script=script), programs=torch.tensor([1]))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (
            "too early",
            "in order by the barriers waited for right before them .on-chip access too early: .*still be reading",
        ),
        ("copied", "what ttg.async_copy_global_to_local does to shared memory, where only stores of partitions"),
        ("bytes", "guarded by a barrier of ttng.barrier_expect, where only arrivals of partitions are followed"),
    ],
)
def test_what_is_not_certain_to_be_handed_over_is_not_counted(how: str, message: str) -> None:
    with offline(execute=False) as session, pytest.raises(UnsupportedOperation, match=message):
        launch(how)
    assert not session.launches


@gluon.jit
def decided_by_shared_memory(y):
    layout: gl.constexpr = gl.BlockedLayout([1], [32], [4], [0])
    held = gl.allocate_shared_memory(gl.int32, [128], gl.SwizzledSharedLayout(1, 1, 1, [0]))
    held.store(gl.arange(0, 128, layout))
    for i in range(gl.max(held.load(layout), 0)):
        gl.store(y + i, i)


@EVERY
def test_a_loop_that_shared_memory_decides_about_is_counted(execute: bool) -> None:
    with offline(execute=execute) as session:
        decided_by_shared_memory[(1,)](torch.zeros(128, dtype=torch.int32, device="cuda"), num_warps=4)
    counted = session.launches[0].counted
    assert counted is not None
    assert [trips.tolist() for trips in counted.trips] == [[127]]


@gluon.jit
def put(slot, value):
    slot.store(gl.full([1], value, gl.int32, gl.BlockedLayout([1], [32], [1], [0])))


@gluon.jit
def as_often_as_told(y, n, slot, told, PARITY: gl.constexpr, num_warps: gl.constexpr):
    mbarrier.wait(told, PARITY)
    for i in range(gl.max(slot.load(gl.BlockedLayout([1], [32], [num_warps], [0])), 0)):
        gl.store(y + gl.program_id(0) * n + i, 1.0)


@gluon.jit
def arrive_late(left, late):
    mbarrier.wait(late, 0)
    mbarrier.arrive(left)


@gluon.jit
def arrive_at_once(right):
    mbarrier.arrive(right)


@gluon.jit
def put_in_turn(slot, value, mine, other, late, told):
    mbarrier.wait(mine, 0)
    put(slot, value)
    mbarrier.arrive(late)
    mbarrier.arrive(other)
    mbarrier.arrive(told)


@gluon.jit
def put_twice(slot, n, late, told):
    put(slot, 0)
    mbarrier.arrive(told)
    mbarrier.wait(told, 0)
    mbarrier.wait(late, 0)
    put(slot, n)
    mbarrier.arrive(told)


@gluon.jit
def begin_and_put(slot, n, told):
    mbarrier.init(told, count=1)
    put(slot, n)
    mbarrier.arrive(told)


@gluon.jit
def doubtful(y, n, HOW: gl.constexpr, num_warps: gl.constexpr):
    slot = gl.allocate_shared_memory(gl.int32, [1], gl.SwizzledSharedLayout(1, 1, 1, [0]))
    left = gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout())
    right = gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout())
    late = gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout())
    told = gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout())
    mbarrier.init(left, count=1)
    mbarrier.init(right, count=1)
    mbarrier.init(late, count=2 if HOW == "two in turn" else 1)
    if HOW == "two in turn":
        mbarrier.init(told, count=2)
        gl.warp_specialize(
            [
                (as_often_as_told, (y, n, slot, told, 0, num_warps)),
                (arrive_late, (left, late)),
                (put_in_turn, (slot, 0, left, right, late, told)),
                (put_in_turn, (slot, n, right, left, late, told)),
                (arrive_at_once, (right,)),
            ],
            [1, 1, 1, 1],
            [24, 24, 24, 24],
        )
    elif HOW == "the second at once":
        mbarrier.init(told, count=1)
        gl.warp_specialize(
            [
                (arrive_at_once, (late,)),
                (put_twice, (slot, n, late, told)),
                (as_often_as_told, (y, n, slot, told, 1, 1)),
            ],
            [1, 1],
            [24, 24],
        )
    else:
        gl.warp_specialize(
            [(as_often_as_told, (y, n, slot, told, 0, num_warps)), (begin_and_put, (slot, n, told))], [1], [24]
        )


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("two in turn", "barrier misused: .* without having waited for the phase before"),
        ("the second at once", "barrier misused: .* without having waited for the phase before"),
        ("a barrier begun by a partition", "guarded by a barrier of ttng.init_barrier"),
    ],
)
def test_what_may_be_handed_over_in_another_order_is_not_counted(how: str, message: str) -> None:
    """In the whole kernel partitions also wait for what does not guard the slot."""
    with offline(execute=False) as session, pytest.raises(UnsupportedOperation, match=message):
        doubtful[(6,)](torch.zeros(6, 9, device="cuda"), 9, HOW=how, num_warps=4)
    assert not session.launches


@gluon.jit
def put_or_not(slot, n, told, taken):
    if gl.program_id(0) % 2:
        for turn in range(2):
            mbarrier.wait(taken, (turn & 1) ^ 1)
            put(slot, n + turn)
            mbarrier.arrive(told)
    else:
        mbarrier.wait(taken, 1)
        put(slot, n)
        mbarrier.arrive(told)


@gluon.jit
def take_or_not(y, n, slot, told, taken, num_warps: gl.constexpr):
    for turn in range(1 + gl.program_id(0) % 2):
        mbarrier.wait(told, turn & 1)
        held = gl.max(slot.load(gl.BlockedLayout([1], [32], [num_warps], [0])), 0)
        mbarrier.arrive(taken)
        for i in range(held):
            gl.store(y + (gl.program_id(0) * 2 + turn) * 9 + i, 1.0)


@gluon.jit
def put_and_go_apart(slot, n, told, taken):
    mbarrier.wait(taken, 1)
    put(slot, n)
    mbarrier.arrive(told)
    if gl.program_id(0) % 2:
        for turn in range(1, 3):
            mbarrier.wait(taken, (turn & 1) ^ 1)
            put(slot, 0)
            mbarrier.arrive(told)
    else:
        for turn in range(1, 3):
            mbarrier.wait(taken, (turn & 1) ^ 1)
            put(slot, n)
            mbarrier.arrive(told)


@gluon.jit
def take_three(y, n, slot, told, taken, num_warps: gl.constexpr):
    for turn in range(3):
        mbarrier.wait(told, turn & 1)
        held = gl.max(slot.load(gl.BlockedLayout([1], [32], [num_warps], [0])), 0)
        mbarrier.arrive(taken)
        for i in range(held):
            gl.store(y + gl.program_id(0) * n + i, 1.0)


@gluon.jit
def in_turns(y, n, ALL: gl.constexpr, num_warps: gl.constexpr):
    slot = gl.allocate_shared_memory(gl.int32, [1], gl.SwizzledSharedLayout(1, 1, 1, [0]))
    told = gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout())
    taken = gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout())
    mbarrier.init(told, count=1)
    mbarrier.init(taken, count=1)
    if ALL:
        gl.warp_specialize(
            [(take_three, (y, n, slot, told, taken, num_warps)), (put_and_go_apart, (slot, n, told, taken))], [1], [24]
        )
    else:
        gl.warp_specialize(
            [(take_or_not, (y, n, slot, told, taken, num_warps)), (put_or_not, (slot, n, told, taken))], [1], [24]
        )


@EVERY
def test_programs_may_hand_over_a_different_number_of_times(execute: bool) -> None:
    with offline(execute=execute) as session:
        in_turns[(4,)](torch.zeros(8, 9, device="cuda"), 5, ALL=False, num_warps=4)
    assert not session.report().faults
    counted = session.launches[0].counted
    assert counted is not None
    assert [int(trips.sum()) for trips in counted.trips] == [6, 4 * 5 + 2 * 6, 2 * 2]


def test_what_programs_read_before_they_got_stuck_does_not_count_twice() -> None:
    with offline(execute=False) as session:
        in_turns[(4,)](torch.zeros(4, 9, device="cuda"), 9, ALL=True, num_warps=4)
    counted = session.launches[0].counted
    assert counted is not None
    assert int(counted.trips[1].sum()) == 2 * 9 + 2 * (9 + 9 + 9)


@gluon.jit
def loop_as_loaded(y, given, n, bar, num_warps: gl.constexpr):
    mbarrier.wait(bar, 0)
    for i in range(gl.load(given + gl.program_id(0))):
        gl.store(y + gl.program_id(0) * n + i, 1.0)


@gluon.jit
def take_away(given, bar):
    gl.store(given + gl.program_id(0), 0)
    mbarrier.arrive(bar)


@gluon.jit
def through_global_memory(y, given, n, num_warps: gl.constexpr):
    bar = gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout())
    mbarrier.init(bar, count=1)
    gl.warp_specialize([(loop_as_loaded, (y, given, n, bar, num_warps)), (take_away, (given, bar))], [1], [24])


def test_what_partitions_hand_to_each_other_through_global_memory_is_not_counted() -> None:
    """No clock says whether a barrier orders it."""
    told = "depends on what several partitions do to memory that programs write"
    with offline(execute=False):
        y, given = torch.zeros(3, 5, device="cuda"), torch.full((3,), 5, dtype=torch.int32, device="cuda")
        with pytest.raises(UnsupportedOperation, match=told):
            through_global_memory[(3,)](y, given, 5, num_warps=4)
