"""Programs may take different paths; each sees what it would see alone, and loops are counted."""

import numpy as np
import pytest
import torch
import triton
import triton.language as tl

from avo.evaluator.executor import ExecutionTimeout
from avo.evaluator.executor.control import KNOWN
from avo.evaluator.executor.parser import parse
from avo.evaluator.executor.slicing import trip_slice

ORACLE = "plain Python"


def assert_trips_agree(launch, execution):
    counted = launch.kernel.count(launch).trips
    assert len(counted) == len(execution.trips) == len(launch.kernel.loops)
    for a, b in zip(counted, execution.trips, strict=True):
        np.testing.assert_array_equal(a, b)


@triton.jit
def ragged(X, Out, n, SIZE: tl.constexpr):
    p = tl.program_id(0)
    i = tl.arange(0, SIZE)
    total = tl.zeros((SIZE,), tl.float32)
    steps = 0
    for j in range(p % 3, n - p, 2):
        x = tl.load(X + i + j)
        if (j + p) % 4 == 0:
            total += x
        else:
            for k in range(j, p):
                total -= k * x
                steps += 1
    tl.store(Out + p * SIZE + i, total + steps)


def reference_ragged(x, n, size, p):
    total, steps, outer, inner = torch.zeros(size), 0, 0, 0
    for j in range(p % 3, n - p, 2):
        outer += 1
        if (j + p) % 4 == 0:
            total += x[j : j + size]
        else:
            for k in range(j, p):
                total -= k * x[j : j + size]
                steps += 1
                inner += 1
    return total + steps, outer, inner


def test_nested_loops_and_conditions_diverge_per_program(executor):
    torch.manual_seed(0)
    x, out = torch.randn(64), torch.empty(16, 16)
    launch = executor.prepare(ragged, x, out, 12, grid=(16,), SIZE=16)
    execution = launch.run()
    for p in range(16):
        expected, outer, inner = reference_ragged(x, 12, 16, p)
        torch.testing.assert_close(out[p], expected)
        assert (execution.trips[0][p], execution.trips[1][p]) == (outer, inner)
    assert [loop.parent for loop in launch.kernel.loops] == [None, 0]
    assert_trips_agree(launch, execution)


@triton.jit
def collatz(Out, limit):
    p = tl.program_id(0)
    n = p + 1
    steps = 0
    while (n != 1) & (steps < limit):
        n = n // 2 if n % 2 == 0 else 3 * n + 1
        steps += 1
    tl.store(Out + p, steps)


def test_while_loops_run_until_each_program_is_done(executor):
    def steps(n, limit):
        count = 0
        while n != 1 and count < limit:
            n, count = n // 2 if n % 2 == 0 else 3 * n + 1, count + 1
        return count

    out = torch.empty(40, dtype=torch.int32)
    launch = executor.prepare(collatz, out, 30, grid=(40,))
    execution = launch.run()
    assert out.tolist() == [steps(p + 1, 30) for p in range(40)]
    assert execution.trips[0].tolist() == out.tolist()
    assert_trips_agree(launch, execution)


@triton.jit
def early(X, Out, n):
    p = tl.program_id(0)
    if p >= n:
        return
    x = tl.load(X + p)
    if x > 3:
        return
    total = 0
    for _ in range(p):
        total += x
    tl.store(Out + p, total)


def test_programs_that_return_early_do_nothing_more(executor):
    x = torch.tensor([1, 5, 2, 3, 9, 1, 1, 1], dtype=torch.int32)
    out = torch.full((8,), -1, dtype=torch.int32)
    launch = executor.prepare(early, x, out, 6, grid=(8,))
    execution = launch.run()
    assert out.tolist() == [0, -1, 4, 9, -1, 5, -1, -1]
    assert execution.trips[0].tolist() == [0, 0, 2, 3, 0, 5, 0, 0]
    assert launch.memory[1].written.tolist() == [True, False, True, True, False, True, False, False]
    assert_trips_agree(launch, execution)


@triton.jit(noinline=True)
def called(x, n):
    total = x
    if n > 3:
        return total * 2
    for i in range(n):
        total += i
    return total


@triton.jit
def caller(Out):
    p = tl.program_id(0)
    first = called(p, p)
    for j in range(2):
        first += called(first, j + p)
    tl.store(Out + p, first)


def test_private_functions_are_called_and_their_loops_counted_per_call(executor):
    def plain(x, n):
        return x * 2 if n > 3 else x + sum(range(n))

    out = torch.empty(6, dtype=torch.int32)
    launch = executor.prepare(caller, out, grid=(6,))
    execution = launch.run()
    for p in range(6):
        first = plain(p, p)
        for j in range(2):
            first += plain(first, j + p)
        assert out[p].item() == first
    assert [loop.parent for loop in launch.kernel.loops] == [None, None, 1]
    assert execution.trips[0].tolist() == [0, 1, 2, 3, 0, 0]
    assert_trips_agree(launch, execution)


@triton.jit
def bounds_in_memory(Starts, X, Out):
    p = tl.program_id(0)
    total = 0.0
    for j in range(tl.load(Starts + p), tl.load(Starts + p + 1)):
        total += tl.load(X + j)
    tl.store(Out + p, total)


def test_bounds_may_be_loaded(executor):
    starts = torch.tensor([0, 3, 3, 10, 12], dtype=torch.int32)
    x, out = torch.randn(12), torch.empty(4)
    launch = executor.prepare(bounds_in_memory, starts, x, out, grid=(4,))
    assert [trips.tolist() for trips in launch.kernel.count(launch).trips] == [[3, 0, 7, 2]]
    execution = launch.run()
    torch.testing.assert_close(out, torch.stack([x[:3].sum(), torch.tensor(0.0), x[3:10].sum(), x[10:].sum()]))
    assert_trips_agree(launch, execution)


@triton.jit
def own_bounds(Scratch, Out):
    p = tl.program_id(0)
    tl.store(Scratch + p, p * 2)
    ticket = tl.atomic_add(Out, 1)
    for j in range(tl.load(Scratch + p) + ticket):
        tl.store(Out + 1 + p, j)


def test_counting_trips_of_a_kernel_that_writes_its_own_bounds_leaves_memory_alone(executor):
    scratch, out = torch.zeros(4, dtype=torch.int32), torch.zeros(5, dtype=torch.int32)
    launch = executor.prepare(own_bounds, scratch, out, grid=(4,))
    assert launch.kernel.count(launch).trips[0].tolist() == [0, 3, 6, 9]
    assert not out.any()
    assert not scratch.any()


@triton.jit
def ticketed(Counter, Out, tiles):
    tile = tl.atomic_add(Counter, 1)
    while tile < tiles:
        tl.store(Out + tile, tl.program_id(0))
        tile = tl.atomic_add(Counter, 1)


def test_counting_the_trips_of_programs_that_draw_tickets_draws_them_and_does_no_more(executor):
    counter, out = torch.zeros(1, dtype=torch.int32), torch.zeros(7, dtype=torch.int32)
    launch = executor.prepare(ticketed, counter, out, 7, grid=(4,))
    names = [op.name for op in trip_slice(parse(launch.ttir, KNOWN)).body.ops]
    assert "tt.atomic_rmw" in names
    assert "tt.store" not in names
    assert launch.kernel.count(launch).trips[0].sum() == 7
    assert not counter.any()
    assert launch.kernel.programs_interact


@triton.jit
def summed(Counter, Out):
    tl.atomic_add(Counter, 1)
    tl.store(Out + tl.program_id(0), 1)


def test_programs_interact_only_where_an_atomics_result_is_used(executor):
    out = torch.zeros(4, dtype=torch.int32)
    assert not executor.prepare(summed, torch.zeros(1, dtype=torch.int32), out, grid=(4,)).kernel.programs_interact


@triton.jit
def stored_bounds(Scratch, Out):
    p = tl.program_id(0)
    tl.store(Scratch + p, p * 2)
    for j in range(tl.load(Scratch + p)):
        tl.store(Out + p, j)


def test_bounds_that_the_kernel_itself_stores_are_counted_and_not_kept(executor):
    scratch, out = torch.zeros(4, dtype=torch.int32), torch.zeros(4, dtype=torch.int32)
    launch = executor.prepare(stored_bounds, scratch, out, grid=(4,))
    assert launch.kernel.count(launch).trips[0].tolist() == [0, 2, 4, 6]
    assert not scratch.any()


@triton.jit
def carried_bounds(X, Out, n):
    p = tl.program_id(0)
    width = p
    total = 0.0
    for j in range(n):
        for k in range(width):
            total += tl.load(X + k)
        if j % 2 == 0:
            width = width * 2
        else:
            width += 1
    while width > 3:
        width -= 3
        total += 1
    tl.store(Out + p, total)


def test_bounds_may_be_carried_through_loops_and_conditions(executor):
    x, out = torch.ones(64), torch.empty(5)
    launch = executor.prepare(carried_bounds, x, out, 4, grid=(5,))
    execution = launch.run()
    inner, rest = [], []
    for p in range(5):
        widths = [p, 2 * p, 2 * p + 1, 4 * p + 2, 4 * p + 3]
        inner.append(sum(widths[:4]))
        rest.append(-(-max(widths[4] - 3, 0) // 3))
    assert [trips.tolist() for trips in execution.trips] == [[4] * 5, inner, rest]
    assert out.tolist() == [float(a + b) for a, b in zip(inner, rest, strict=True)]
    assert_trips_agree(launch, execution)


@triton.jit
def pick_pointer(X, Y, Out):
    p = tl.program_id(0)
    source = X if p % 2 == 0 else Y
    pointer = source + p
    for _ in range(p):
        pointer += 1
    tl.store(Out + p, tl.load(pointer))


def test_pointers_are_chosen_and_carried_like_numbers(executor):
    x, y, out = torch.arange(16.0), 100 + torch.arange(16.0), torch.empty(8)
    executor.run(pick_pointer, x, y, out, grid=(8,))
    assert out.tolist() == [0.0, 102.0, 4.0, 106.0, 8.0, 110.0, 12.0, 114.0]


@triton.jit
def downwards(Out, n):
    total = 0
    for j in range(n, 0, -3):
        total = total * 10 + j
    for k in tl.static_range(2):
        total += k
    tl.store(Out + tl.program_id(1) * 2 + tl.program_id(0), total + tl.num_programs(0) + tl.program_id(2))


def test_grids_have_three_axes_and_loops_may_run_down(executor):
    out = torch.empty(4, dtype=torch.int32)
    launch = executor.prepare(downwards, out, 7, grid=(2, 2, 2))
    execution = launch.run()
    assert out.tolist() == [741 + 1 + 2 + 1] * 4
    assert execution.trips[0].tolist() == [3] * 8


def test_chunks_of_programs_give_the_same_bits_as_all_at_once(executor):
    torch.manual_seed(0)
    x = torch.randn(64)
    results = []
    for temporaries in (1, 20_000, 2**30):
        out = torch.empty(16, 16)
        launch = executor.prepare(ragged, x, out, 12, grid=(16,), SIZE=16)
        launch.run(temporaries_bytes=temporaries)
        results.append(out)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_some_programs_do_the_same_as_among_all(executor):
    torch.manual_seed(0)
    x, whole, part = torch.randn(64), torch.zeros(16, 16), torch.zeros(16, 16)
    all_trips = executor.prepare(ragged, x, whole, 12, grid=(16,), SIZE=16).run().trips
    chosen = torch.tensor([11, 2, 5])
    trips = executor.prepare(ragged, x, part, 12, grid=(16,), SIZE=16).run(programs=chosen).trips
    assert torch.equal(part[chosen], whole[chosen])
    assert part.count_nonzero() == whole[chosen].count_nonzero()
    for some, every in zip(trips, all_trips, strict=True):
        np.testing.assert_array_equal(some, every[chosen])


@triton.jit
def forever(Out):
    while tl.load(Out) == 0:
        tl.store(Out + 1, 1)


def test_a_loop_without_end_is_stopped_at_the_deadline(executor):
    launch = executor.prepare(forever, torch.zeros(2, dtype=torch.int32))
    with pytest.raises(ExecutionTimeout):
        launch.run(deadline=0.0)
