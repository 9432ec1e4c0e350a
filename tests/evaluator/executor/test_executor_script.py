"""Some programs, run by what a script of all says, do what they do among all; and it is found which ones matter."""

import time
from dataclasses import replace

import pytest
import torch
import triton
import triton.language as tl

from avo.evaluator.executor import aliases, load
from avo.evaluator.executor.control import KNOWN
from avo.evaluator.executor.parser import parse
from avo.evaluator.executor.slicing import deciding_reads, script_slice

ORACLE = "the same kernel, executed as a whole"
TILES, SPLITS, N = 7, 3, 16


def ints(*shape):
    return torch.zeros(*shape, dtype=torch.int32)


@triton.jit
def queue(A, Counter, Out, tiles, N: tl.constexpr):
    i = tl.arange(0, N)
    square = tl.load(A + i[:, None] * N + i[None, :])
    tile = tl.atomic_add(Counter, 1)
    while tile < tiles:
        product = tl.dot(square, square)
        tl.store(Out + tile * N + i, tl.sum(product, 1) + tile)
        tile = tl.atomic_add(Counter, 1)


@triton.jit
def numbered(A, Counter, Out, tiles, N: tl.constexpr):
    i = tl.arange(0, N)
    if tl.program_id(0) < tiles:
        ticket = tl.atomic_add(Counter, 1)
        tl.store(Out + tl.program_id(0) * N + i, (ticket * 10 + i).to(tl.float32))


@triton.jit
def locked_merge(Lock, Count, Sum, Out, N: tl.constexpr, SPLITS: tl.constexpr):
    i, tile = tl.arange(0, N), tl.program_id(0) % 7
    value = (tl.program_id(0) * N + i).to(tl.float32)
    while tl.atomic_cas(Lock + tile, 0, 1, sem="acquire") == 1:
        pass
    done = tl.load(Count + tile) + 1
    if done > 1:
        value += tl.load(Sum + tile * N + i)
    tl.store(Sum + tile * N + i, value)
    tl.store(Count + tile, done)
    if done == SPLITS:
        tl.store(Out + tile * N + i, value)
    tl.debug_barrier()
    tl.atomic_xchg(Lock + tile, 0, sem="release")


def prepared(executor, kernel):
    if kernel is locked_merge:
        memory = ints(TILES), ints(TILES), torch.zeros(TILES * N), torch.zeros(TILES * N)
        return executor.prepare(kernel, *memory, grid=(TILES * SPLITS,), N=N, SPLITS=SPLITS)
    a = torch.randn(N * N, generator=torch.Generator().manual_seed(1)).to(torch.float16)
    return executor.prepare(kernel, a, ints(1), torch.zeros(TILES * N), TILES, grid=(4,), readonly=(0,), N=N)


def scripted(launch):
    script = launch.kernel.script(launch)
    assert script is not None
    return script


def wanting(launch, places):
    """The launch's memory, marked at some places of its last buffer."""
    for allocation in launch.memory:
        allocation.written = torch.zeros_like(allocation.written)
    launch.memory[-1].written[places] = True
    return launch.memory


@pytest.mark.parametrize("kernel", [queue, numbered])
def test_a_program_that_goes_by_a_script_does_what_it_does_among_all(executor, kernel):
    whole = prepared(executor, kernel)
    whole.run()
    found = []
    for program in range(4):
        alone = prepared(executor, kernel)
        alone.run(programs=torch.tensor([program]), script=scripted(alone))
        written = alone.memory[-1].written
        assert torch.equal(alone.memory[-1].data[written], whole.memory[-1].data[written])
        found.append(written)
    assert torch.equal(torch.stack(found).sum(0) > 0, whole.memory[-1].written)
    assert int(torch.stack(found).sum(0).max()) == 1


@pytest.mark.parametrize("kernel", [queue, numbered])
def test_writing_a_script_leaves_memory_alone_and_makes_no_products(executor, kernel):
    launch = prepared(executor, kernel)
    scripted(launch)
    assert not launch.memory[1].data.any()
    function = parse(launch.ttir, KNOWN)
    names = {op.name for op in script_slice(function, deciding_reads(function)).body.ops}
    assert "tt.atomic_rmw" in names
    assert not names & {"tt.dot", "tt.store"}


def test_a_kernel_whose_programs_do_not_meet_has_no_script(executor):
    launch = executor.prepare(rows, torch.zeros(64), torch.zeros(64), 64, grid=(4,), readonly=(0,), N=16)
    assert launch.kernel.script(launch) is None


def test_stores_that_depend_on_what_a_lock_guards_are_marked(executor):
    marked, run = prepared(executor, locked_merge), prepared(executor, locked_merge)
    run.run()
    assert marked.kernel.mark(marked).faults == ()
    assert torch.equal(marked.memory[-1].written, run.memory[-1].written)
    assert bool(marked.memory[-1].written.all())
    assert not any(allocation.data.any() for allocation in marked.memory)


def test_marking_by_a_script_waits_for_no_lock(executor):
    launch = prepared(executor, locked_merge)
    script = scripted(launch)
    launch.memory[0].data.fill_(1)  # taken, and never released
    launch.kernel.mark(replace(launch, script=script, deadline=time.process_time() + 600))
    assert bool(launch.memory[-1].written.all())


def test_programs_behind_a_lock_make_one_tile_without_the_others(executor):
    whole, some = prepared(executor, locked_merge), prepared(executor, locked_merge)
    whole.run()
    some.run(programs=torch.tensor([2, 9, 16]), script=scripted(some))
    tile = slice(2 * N, 3 * N)
    assert torch.equal(some.memory[-1].data[tile], whole.memory[-1].data[tile])
    assert int(some.memory[-1].written.sum()) == N


@triton.jit
def drawn_after_a_wait(Flag, Counter, Out, N: tl.constexpr):
    if tl.program_id(0) == 0:
        while tl.atomic_add(Flag, 0) == 0:
            pass
    ticket = tl.atomic_add(Counter, 1)
    if tl.program_id(0) == 1:
        tl.atomic_xchg(Flag, 1)
    for i in range(N):
        if ticket == 0:
            tl.store(Out + tl.program_id(0) * N + i, 1.0)


def test_tickets_are_drawn_in_the_order_in_which_programs_wait_for_each_other(executor):
    launch = executor.prepare(drawn_after_a_wait, ints(1), ints(1), torch.zeros(2 * N), grid=(2,), N=N)
    launch.kernel.mark(launch)
    assert launch.memory[-1].written.view(2, N).any(1).tolist() == [False, True]


@triton.jit
def rows(A, Out, n, N: tl.constexpr):
    at = tl.program_id(0) * N + tl.arange(0, N)
    tl.store(Out + at, tl.load(A + at) + tl.load(A + n - 1 - at, mask=at % 2 == 0), mask=at < n)


@triton.jit
def scattered(A, Out, n, N: tl.constexpr):
    at = tl.program_id(0) * N + tl.arange(0, N)
    tl.store(Out + at * 5 % n, tl.load(A + at), mask=at < n)


@pytest.mark.parametrize(("kernel", "place", "writer"), [(rows, 37, 2), (scattered, 37 * 5 % 64, 2)])
def test_who_stores_to_a_place_is_found(executor, kernel, place, writer):
    launch = executor.prepare(kernel, torch.zeros(64), torch.zeros(64), 64, grid=(4,), readonly=(0,), N=16)
    writers = launch.kernel.writers(replace(launch, memory=wanting(launch, [place])))
    assert writers.tolist() == [writer]
    assert not launch.memory[-1].data.any()


def test_who_draws_the_ticket_of_a_place_is_found(executor):
    launch = prepared(executor, queue)
    script = scripted(launch)
    (writer,) = launch.kernel.writers(replace(launch, memory=wanting(launch, [5 * N]), script=script)).tolist()
    launch.run(programs=torch.tensor([writer]), script=script)
    assert bool(launch.memory[-1].data[5 * N : 6 * N].all())


@triton.jit
def walking(A, Out, n, N: tl.constexpr):
    at = tl.arange(0, N)
    total = tl.zeros([N], tl.float32)
    for _ in range(n):
        total += tl.load(A + at)
        A += N
    tl.store(Out + at, total)


def test_pointers_that_no_parameter_is_seen_behind_may_read_inputs(executor):
    launch = executor.prepare(walking, torch.zeros(64), torch.zeros(64), 3, readonly=(0,), N=16)
    launch.memory[0].written = None
    marked = launch.kernel.mark(launch, reads=True)
    assert marked.faults == ()
    assert not launch.memory[1].written.any()


def test_marks_of_reads_are_what_a_program_loads(executor):
    launch = executor.prepare(rows, torch.zeros(64), torch.zeros(64), 64, grid=(4,), N=16)
    launch.kernel.mark(launch, programs=torch.tensor([1]), reads=True)
    expected = sorted([*range(16, 32), *range(33, 48, 2)])
    assert launch.memory[0].written.nonzero().flatten().tolist() == expected
    assert not launch.memory[1].written.any()


@triton.jit
def handed_over(P, Q, A, Out, N: tl.constexpr):
    i = tl.arange(0, N)
    tl.store(Q + tl.program_id(0), 1)
    seen = tl.load(P + tl.program_id(0))
    square = tl.load(A + i[:, None] * N + i[None, :])
    product = tl.zeros([N, N], tl.float32)
    for _ in range(4 - 4 * seen):
        product = tl.dot(square, square, product)
    tl.store(Out + tl.program_id(0) * N + i, tl.sum(product, 1))


@pytest.mark.parametrize("shared", [False, True])
def test_what_is_stored_through_one_parameter_is_read_through_another(executor, shared):
    launch = executor.prepare(
        handed_over, ints(3), ints(3), torch.ones(N * N, dtype=torch.float16), torch.zeros(3 * N), grid=(3,), N=N
    )
    args = [launch.args[0], launch.args[0], *launch.args[2:]] if shared else launch.args
    kernel = load(launch.ttir, aliases(args))
    counted = kernel.count(replace(launch, args=args)).trips[0]
    assert counted.tolist() == kernel.run(replace(launch, args=args)).trips[0].tolist() == [0 if shared else 4] * 3


def test_a_program_that_is_told_what_it_drew_still_draws(executor):
    whole, told = prepared(executor, queue), prepared(executor, queue)
    whole.run()
    told.run(script=scripted(told))
    assert torch.equal(told.memory[1].data, whole.memory[1].data)
