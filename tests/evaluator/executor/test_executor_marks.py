"""Marking finds what a run would write, computes no values for it and leaves contents alone."""

from dataclasses import replace

import pytest
import torch
import triton
import triton.language as tl

from avo.evaluator.executor.control import KNOWN
from avo.evaluator.executor.parser import parse
from avo.evaluator.executor.slicing import BOUNDS, STORES, access_slice

ORACLE = "the same kernel, executed as a whole"


@triton.jit
def products(A, Out, rows, columns, M: tl.constexpr, N: tl.constexpr):
    m, n = tl.program_id(0) * M + tl.arange(0, M), tl.arange(0, N)
    block = tl.load(A + tl.arange(0, M)[:, None] * N + n[None, :])
    total = tl.zeros((M, M), tl.float32)
    for _ in range(rows):
        total = tl.dot(block, tl.trans(block), total)
    value = tl.dot(total.to(tl.float16), block)
    tl.store(Out + m[:, None] * N + n[None, :], value, mask=(m < rows)[:, None] & (n < columns)[None, :])


@triton.jit
def early(A, Out, rows, columns, M: tl.constexpr, N: tl.constexpr):
    if tl.program_id(0) % 2:
        return
    m, n = tl.program_id(0) * M + tl.arange(0, M), tl.arange(0, N)
    tl.store(Out + m[:, None] * N + n[None, :], 1.0, mask=(m < rows)[:, None] & (n < columns)[None, :])


@triton.jit
def looped(A, Out, rows, columns, M: tl.constexpr, N: tl.constexpr):
    n = tl.arange(0, N)
    row = Out + tl.program_id(0) * N
    for m in range(tl.program_id(0), rows, tl.num_programs(0)):
        if m % 3 != 1:
            tl.store(row + n, tl.load(A + n).to(tl.float32), mask=n < columns)
        row += tl.num_programs(0) * N


@triton.jit
def loaded_mask(A, Out, rows, columns, M: tl.constexpr, N: tl.constexpr):
    at = tl.program_id(0) * M * N + tl.arange(0, M * N)
    tl.store(Out + at, 2.0, mask=tl.load(A + at % (M * N)) > 0)


@triton.jit
def added(A, Out, rows, columns, M: tl.constexpr, N: tl.constexpr):
    m = tl.program_id(0) * M + tl.arange(0, M)
    tl.atomic_add(Out + m, tl.load(A + m % M).to(tl.float32), mask=m < rows)


@triton.jit
def described(A, Out, rows, columns, M: tl.constexpr, N: tl.constexpr):
    out = tl.make_tensor_descriptor(Out, [rows, N], [N, 1], [M, N // 2])
    block = tl.full((M, N // 2), 1.0, tl.float32)
    out.store([tl.program_id(0) * M, N // 2], tl.exp(block))


@triton.jit
def crooked_rows(A, Out, rows, columns, M: tl.constexpr, N: tl.constexpr):
    m, n = tl.program_id(0) * M + tl.arange(0, M), tl.arange(0, N)
    tl.store(Out + m[:, None] * (N + 1) + n[None, :] + 3, 1.0, mask=(m < rows - 1)[:, None])


@triton.jit
def own_mask(A, Out, rows, columns, M: tl.constexpr, N: tl.constexpr):
    at = tl.program_id(0) * N + tl.arange(0, N)
    tl.store(Out + at, at.to(tl.float32))
    tl.debug_barrier()
    tl.store(Out + at + rows * N // 2, 1.0, mask=tl.load(Out + at) > 7)


KERNELS = (products, early, looped, loaded_mask, added, described, crooked_rows, own_mask)
ROWS = 40


def prepared(executor, kernel, columns=32):
    a = torch.randn(16 * 32, generator=torch.Generator().manual_seed(3)).to(torch.float16)
    return executor.prepare(kernel, a, torch.zeros(ROWS * 32 * 2), ROWS, columns, grid=(3,), readonly=(0,), M=16, N=32)


@pytest.mark.parametrize("columns", [32, 20])
@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.fn.__name__)
def test_what_is_marked_is_what_a_run_writes(executor, kernel, columns):
    marked, run = prepared(executor, kernel, columns), prepared(executor, kernel, columns)
    found, expected = marked.kernel.mark(marked), run.run()
    assert torch.equal(marked.memory[1].written, run.memory[1].written)
    assert bool(run.memory[1].written.any())
    assert not marked.memory[1].data.any()
    assert found.faults == expected.faults == ()
    assert all((ours == theirs).all() for ours, theirs in zip(found.trips, expected.trips, strict=True))


def test_marking_computes_no_products_and_loads_no_values(executor):
    function = parse(prepared(executor, products).ttir, KNOWN)
    names = {op.name for op in access_slice(function, STORES, {function.params[1]}).body.ops}
    assert "tt.store" in names
    assert not names & {"tt.dot", "tt.load"}


@pytest.mark.parametrize("short", [0, 1])
@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.fn.__name__)
def test_accesses_that_are_only_checked_have_the_faults_of_a_run(executor, kernel, short):
    checked, run = prepared(executor, kernel), prepared(executor, kernel)
    for launch in (checked, run):
        for allocation in launch.memory:
            allocation.data = allocation.data[: 16 if short else None].clone()
            allocation.written = None
        launch.memory[0].readonly = True
    before = [allocation.data.clone() for allocation in checked.memory]
    script = run.kernel.script(run)
    found = checked.kernel.check_accesses(replace(checked, script=script))
    expected = run.run(script=script)
    assert {fault.message for fault in found.faults} == {fault.message for fault in expected.faults}
    assert bool(found.faults) == bool(short)
    assert all((ours == theirs).all() for ours, theirs in zip(found.trips, expected.trips, strict=True))
    assert all(torch.equal(a.data, data) for a, data in zip(checked.memory, before, strict=True))


def test_checking_accesses_loads_everything_and_computes_no_products(executor):
    function = parse(prepared(executor, products).ttir, KNOWN)
    names = [op.name for op in access_slice(function, BOUNDS).body.ops]
    assert names.count("tt.load") == names.count("tt.store") == 1
    assert "tt.dot" not in names


def test_stores_to_buffers_that_nobody_watches_are_left_out(executor):
    function = parse(prepared(executor, products).ttir, KNOWN)
    names = {op.name for op in access_slice(function, STORES, set()).body.ops}
    assert "tt.store" not in names


@triton.jit
def ticketed(Counter, Out, tiles):
    tile = tl.atomic_add(Counter, 1)
    while tile < tiles:
        tl.store(Out + tile, tile)
        tile = tl.atomic_add(Counter, 1)


def test_tickets_are_drawn_from_a_copy(executor):
    counter, out = torch.zeros(1, dtype=torch.int32), torch.zeros(9, dtype=torch.int32)
    launch = executor.prepare(ticketed, counter, out, 7, grid=(4,))
    launch.memory[0].written = None
    execution = launch.kernel.mark(launch)
    assert execution.trips[0].sum() == 7
    assert launch.memory[1].written.tolist() == [True] * 7 + [False] * 2
    assert not counter.any()


@triton.jit
def outside(Out, Input):
    tl.store(Out + tl.arange(0, 16)[:, None] * 16 + tl.arange(0, 16)[None, :], 1.0)
    tl.store(Input + tl.program_id(0), 1.0)


def test_marking_reports_writes_out_of_bounds_and_to_inputs(executor):
    launch = executor.prepare(outside, torch.zeros(250), torch.zeros(4), readonly=(1,))
    launch.memory[1].written = torch.zeros(4, dtype=torch.bool)
    faults = launch.kernel.mark(launch).faults
    assert {fault.kind for fault in faults} == {"write out of bounds", "write to an input"}


@triton.jit
def bounded(Length, Data, Scratch, Out):
    tl.store(Scratch + tl.program_id(0), tl.load(Data))
    for i in range(tl.load(Length)):
        tl.store(Out + i, tl.load(Data + i))


def test_a_kernel_needs_the_buffers_that_decide_and_changes_those_it_writes(executor):
    length = torch.tensor([3], dtype=torch.int32)
    launch = executor.prepare(bounded, length, torch.zeros(8), torch.zeros(8), torch.zeros(8))
    assert launch.kernel.content_dependencies(launch.args) == {0}
    assert launch.kernel.may_write(launch.args) == {2, 3}


@triton.jit
def meeting(X, Y, Counter, LOST: tl.constexpr):
    p = tl.program_id(0)
    i = tl.arange(0, 16)
    tl.store(X + tl.where(p == LOST, 3, p) * 16 + i, i)
    tl.atomic_add(Counter, 1)
    tl.store(Y + p, tl.load(Y + tl.maximum(p - 1, 0)) + tl.load(X + p * 16))


def test_programs_that_meet_are_found_by_what_they_do(executor):
    """Program 5 stores where program 3 does, and each reads what the one before it stores."""
    x, y, counter = (torch.zeros(128, dtype=torch.int32) for _ in range(3))
    launch = executor.prepare(meeting, x, y, counter, grid=(8,), LOST=5)
    stores, updates, reads = launch.kernel.race_candidates(launch)
    assert [sorted(pair) for pair in stores.tolist()] == [[3, 5]]
    assert updates.tolist() == []
    read = {tuple(pair) for pair in reads.tolist()}
    assert read >= {(i, i + 1) for i in range(7)}
    assert len(read - {(i, i + 1) for i in range(7)}) == 1  # one of those that stored to the same place
    assert not x.any()


@triton.jit
def mixed(X):
    p = tl.program_id(0)
    tl.store(X + p, 1, mask=p < 2)
    tl.atomic_add(X + p % 4, 1, mask=p >= 2)


def test_a_store_meets_an_atomic_operation_but_two_of_these_do_not(executor):
    launch = executor.prepare(mixed, torch.zeros(8, dtype=torch.int32), grid=(8,))
    stores, updates, reads = launch.kernel.race_candidates(launch)
    assert (stores.tolist(), reads.tolist()) == ([], [])
    assert updates.tolist() == [[0, 4], [1, 5]]


@triton.jit
def striped(X, ROW: tl.constexpr):
    p = tl.program_id(0)
    tl.store(X + p * ROW + tl.arange(0, ROW), 1)
    tl.store(X + (p + 1) * ROW + tl.arange(0, 2), 2)  # the first two elements of the next program's
    tl.store(X + 4 + (p + 1) * ROW + tl.arange(0, ROW), 3, mask=p == 6)


def test_rows_and_single_elements_meet(executor):
    launch = executor.prepare(striped, torch.zeros(256, dtype=torch.int32), grid=(8,), ROW=16)
    stores, _, _ = launch.kernel.race_candidates(launch)
    assert {tuple(sorted(pair)) for pair in stores.tolist()} == {(i, i + 1) for i in range(7)}
