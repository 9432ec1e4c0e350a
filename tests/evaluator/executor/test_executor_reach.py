"""Where a sample of programs reads and writes: shared and repeated bytes, contiguous pieces, lines, loops."""

from dataclasses import replace

import pytest
import torch
import triton
import triton.language as tl

from avo.evaluator.executor.reach import MORE_PASSES, _Offsets
from avo.evaluator.work import SAMPLED_PROGRAMS


def accesses(launch, **options):
    """What was seen of each buffer, by its name; of each buffer one access."""
    counted = launch.kernel.count(replace(launch, **options))
    names = [launch.memory[access.buffer].name for access in counted.accesses]
    assert len(set(names)) == len(names)
    return dict(zip(names, counted.accesses, strict=True))


@triton.jit
def product(A, B, C, m, n, k, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr):
    rows = tl.program_id(0) * M + tl.arange(0, M)
    columns = tl.program_id(1) * N + tl.arange(0, N)
    inner = tl.arange(0, K)
    total = tl.zeros((M, N), tl.float32)
    for step in range(0, k, K):
        a = tl.load(A + rows[:, None] * k + step + inner[None, :])
        b = tl.load(B + (step + inner)[:, None] * n + columns[None, :])
        total = tl.dot(a, b, total)
    tl.store(C + rows[:, None] * n + columns[None, :], total)


def multiplied(executor, m, n, k, tile):
    a, b = torch.zeros(m, k, dtype=torch.float16), torch.zeros(k, n, dtype=torch.float16)
    grid = (m // tile[0], n // tile[1])
    sizes = dict(zip("MNK", tile, strict=True))
    return executor.prepare(product, a, b, torch.zeros(m, n), m, n, k, grid=grid, **sizes)


def test_programs_that_share_a_tile_ask_for_the_same_bytes(executor):
    seen = accesses(multiplied(executor, 128, 64, 128, (16, 16, 32)))  # 8 by 4 programs
    a, b, c = seen["A"], seen["B"], seen["C"]
    assert (a.program_bytes, b.program_bytes, c.program_bytes) == (16 * 32 * 2, 16 * 32 * 2, 16 * 16 * 4)
    assert (a.distinct, b.distinct, c.distinct) == (1 / 4, 1 / 8, 1)
    assert (a.fresh, b.fresh) == (1, 1)  # every pass asks for other tiles
    assert (a.loop, b.loop, c.loop) == (0, 0, None)
    assert (a.writes, b.writes, c.writes) == (False, False, True)


def test_contiguous_pieces_are_those_that_programs_together_ask_for(executor):
    seen = accesses(multiplied(executor, 128, 64, 128, (16, 16, 32)))
    assert seen["A"].run_bytes == 32 * 2  # rows of 64 bytes, 256 apart
    assert seen["B"].run_bytes == 32 * 64 * 2  # programs side by side read whole rows, which follow each other
    assert seen["C"].run_bytes == 128 * 64 * 4
    assert accesses(multiplied(executor, 128, 64, 32, (16, 16, 32)))["A"].run_bytes == 128 * 32 * 2


def test_the_lines_of_a_program_are_its_own(executor):
    seen = accesses(multiplied(executor, 128, 64, 128, (16, 16, 32)))
    assert seen["A"].program_lines == 16  # a row of 64 bytes in each of 16 lines
    assert seen["B"].program_lines == 32
    assert accesses(multiplied(executor, 128, 64, 128, (16, 64, 32)))["B"].program_lines == 32


@triton.jit
def reread(X, Y, Out, n, N: tl.constexpr):
    i = tl.program_id(0) * N + tl.arange(0, N)
    total = tl.zeros((N,), tl.float32)
    for step in range(n):
        total += tl.load(X + i) * tl.load(Y + (step % 2) * 4096 + i)
    tl.store(Out + i, total)


def test_a_loop_that_reads_the_same_again_asks_for_nothing_fresh(executor):
    values = torch.zeros(4 * 64), torch.zeros(8192), torch.zeros(4 * 64)
    seen = accesses(executor.prepare(reread, *values, 10, grid=(4,), N=64))
    assert (seen["X"].fresh, seen["X"].distinct) == (0, 1)
    assert seen["Y"].fresh == 0.5  # of the second and third pass
    assert seen["Out"].fresh == 1


@triton.jit
def in_two_loops(X, Out, n, N: tl.constexpr):
    i = tl.arange(0, N)
    biggest = tl.zeros((N,), tl.float32)
    for step in range(n):
        biggest = tl.maximum(biggest, tl.load(X + step * N + i))
    for step in range(n):
        tl.store(Out + step * N + i, tl.load(X + step * N + i) - biggest)


def test_a_second_loop_over_the_same_rows_asks_for_nothing_fresh(executor):
    launch = executor.prepare(in_two_loops, torch.zeros(3 * 64), torch.zeros(3 * 64), 3, N=64)
    counted = launch.kernel.count(launch)
    first, second, store = sorted(counted.accesses, key=lambda access: (access.writes, access.loop))
    assert (first.loop, second.loop, store.loop) == (0, 1, 1)
    assert (first.fresh, second.fresh, store.fresh) == (1, 0, 1)
    lines = launch.ttir.splitlines()
    assert ["tt.store" in lines[access.line - 1] for access in counted.accesses] == [False, False, True]
    assert ["tt.load" in lines[access.line - 1] for access in counted.accesses] == [True, True, False]
    assert first.line < second.line < store.line


@triton.jit
def nested(X, Out, n, N: tl.constexpr):
    i = tl.arange(0, N)
    for tile in range(n):
        total = tl.zeros((N,), tl.float32)
        for step in range(n):
            total += tl.load(X + (tile * n + step) * N + i)
        tl.store(Out + tile * N + i, total)


def test_an_access_belongs_to_the_innermost_loop_around_it(executor):
    launch = executor.prepare(nested, torch.zeros(9 * 64), torch.zeros(3 * 64), 3, N=64)
    counted = launch.kernel.count(launch)
    assert counted.parents == (None, 0)
    assert {launch.memory[access.buffer].name: access.loop for access in counted.accesses} == {"X": 1, "Out": 0}


@triton.jit
def paged(X, Pages, Out, n, PAGE: tl.constexpr, N: tl.constexpr):
    rows, columns = tl.arange(0, N), tl.arange(0, 16)
    total = tl.zeros((N, 16), tl.float32)
    for step in range(n):
        page = tl.load(Pages + tl.program_id(0) * 64 + (step * N + rows) // PAGE)
        total += tl.load(X + (page * PAGE + (step * N + rows) % PAGE)[:, None] * 16 + columns[None, :])
    tl.store(Out + rows[:, None] * 16 + columns[None, :], total)


def test_a_page_table_is_read_in_few_lines_and_its_entries_are_followed(executor):
    pages = torch.arange(128, dtype=torch.int32).flip(0)
    values = torch.zeros(128 * 16 * 16), pages, torch.zeros(64 * 16), 3
    seen = accesses(executor.prepare(paged, *values, grid=(2,), PAGE=16, N=64))
    table, data = seen["Pages"], seen["X"]
    assert (table.program_bytes, table.program_lines) == (64 * 4, 1)  # each of four entries sixteen times
    assert table.distinct == 4 / 64
    assert table.run_bytes == 4 * 4
    assert (data.program_bytes, data.distinct, data.fresh) == (64 * 16 * 4, 1, 1)
    same = accesses(executor.prepare(paged, values[0], torch.zeros_like(pages), *values[2:], grid=(2,), PAGE=16, N=64))
    assert (same["X"].distinct, same["X"].fresh) == (1 / 8, 0)  # one page, by both programs, four times a pass


@triton.jit
def strided(X, Out, n, stride, N: tl.constexpr):
    i = tl.program_id(0) * N + tl.arange(0, N)
    tl.store(Out + i, tl.load(X + i * stride, mask=i < n), mask=i < n)


@pytest.mark.parametrize(("stride", "run", "lines"), [(1, 4 * 256, 2), (32, 4, 64)])
def test_elements_far_apart_are_pieces_of_their_own(executor, stride, run, lines):
    seen = accesses(executor.prepare(strided, torch.zeros(256 * 32), torch.zeros(256), 256, stride, grid=(4,), N=64))
    assert (seen["X"].run_bytes, seen["X"].program_lines) == (run, lines)
    assert (seen["X"].spread, seen["Out"].run_bytes) == (1, 4 * 256)


def test_gaps_within_sectors_belong_to_the_piece(executor):
    values = torch.zeros(256 * 4), torch.zeros(256), 256, 4
    x = accesses(executor.prepare(strided, *values, grid=(4,), N=64))["X"]
    assert x.run_bytes == pytest.approx(255 * 16 + 4)
    assert x.spread == pytest.approx(4, rel=0.01)


@triton.jit
def halves(X, Out, GAP: tl.constexpr, N: tl.constexpr):
    i = tl.program_id(0) * N + tl.arange(0, N)
    tl.store(Out + i, tl.load(X + GAP * i) + tl.load(X + GAP * i + 1))


@pytest.mark.parametrize(("gap", "run", "spread"), [(2, 8 * 256, 1), (32, 8, 1)])
def test_what_two_loads_ask_for_together_is_one_piece(executor, gap, run, spread):
    launch = executor.prepare(halves, torch.zeros(256 * gap), torch.zeros(256), grid=(4,), GAP=gap, N=64)
    loads = [access for access in launch.kernel.count(launch).accesses if not access.writes]
    assert [(load.run_bytes, load.spread) for load in loads] == 2 * [pytest.approx((run, spread))]


def test_masked_elements_are_left_out(executor):
    seen = accesses(executor.prepare(strided, torch.zeros(256), torch.zeros(256), 96, 1, grid=(4,), N=64))
    for access in seen.values():  # 64 of the first program, 32 of the second, none of the others
        assert (access.program_bytes, access.distinct, access.run_bytes) == pytest.approx((4 * 96 / 4, 1, 4 * 96))


@triton.jit
def scatters(X, Sums, Counts, N: tl.constexpr):
    i = tl.arange(0, N)
    x = tl.load(X + tl.program_id(0) * N + i)
    tl.atomic_add(Sums + i % 4, x)
    tl.atomic_add(Counts + tl.program_id(0) % 2, 1)


def test_atomic_operations_are_accesses_that_write(executor):
    values = torch.zeros(8 * 32), torch.zeros(4), torch.zeros(2, dtype=torch.int32)
    seen = accesses(executor.prepare(scatters, *values, grid=(8,), N=32))
    assert (seen["Sums"].writes, seen["Sums"].program_bytes, seen["Sums"].distinct) == (True, 32 * 4, 4 / (8 * 32))
    assert (seen["Counts"].writes, seen["Counts"].program_bytes, seen["Counts"].distinct) == (True, 4, 1 / 4)
    assert seen["X"].distinct == 1


@triton.jit
def through_descriptors(X, Out, n, N: tl.constexpr):
    row = tl.program_id(0)
    x = tl.make_tensor_descriptor(X, [64, 64], [64, 1], [16, N])
    out = tl.make_tensor_descriptor(Out, [64, N], [N, 1], [16, N])
    total = tl.zeros((16, N), tl.float32)
    for step in range(n):
        total += x.load([0, step * N])
    out.store([row * 16, 0], total)


def test_accesses_through_descriptors_are_seen(executor):
    seen = accesses(executor.prepare(through_descriptors, torch.zeros(64, 64), torch.zeros(64, 32), 2, grid=(4,), N=32))
    x, out = seen["X"], seen["Out"]
    assert (x.loop, x.program_bytes, x.distinct, x.fresh) == (0, 16 * 32 * 4, 1 / 4, 1)
    assert (x.run_bytes, x.program_lines) == (32 * 4, 16)
    assert (out.writes, out.loop, out.distinct, out.run_bytes) == (True, None, 1, 64 * 32 * 4)


@triton.jit
def causal(Q, K, Out, n, M: tl.constexpr, N: tl.constexpr, D: tl.constexpr):
    block = tl.program_id(0)
    rows, inner = block * M + tl.arange(0, M), tl.arange(0, D)
    q = tl.load(Q + rows[:, None] * D + inner[None, :])
    best = tl.zeros((M,), tl.float32)
    for start in range(0, tl.minimum((block + 1) * M, n), N):
        columns = start + tl.arange(0, N)
        k = tl.load(K + columns[None, :] * D + inner[:, None], mask=columns[None, :] < n, other=0.0)
        s = tl.where(columns[None, :] <= rows[:, None], tl.dot(q, k), float("-inf"))
        best = tl.maximum(best, tl.max(s, 1))
    tl.store(Out + rows, best, mask=rows < n)


def test_the_sample_of_a_causal_kernel_is_in_the_middle_of_its_grid(executor):
    length, tile = 16384, 16
    programs = length // tile
    q, k = (torch.zeros(length, 16, dtype=torch.float16) for _ in range(2))
    launch = executor.prepare(causal, q, k, torch.zeros(length), length, grid=(programs,), M=tile, N=tile, D=16)
    counted = launch.kernel.count(launch)
    assert counted.trips[0].tolist() == [block + 1 for block in range(programs)]
    seen = accesses(launch)
    # all of the sample's programs make the first passes, and read the same rows of K in each
    assert (seen["K"].program_bytes, seen["K"].distinct, seen["K"].fresh) == (16 * 16 * 2, 1 / SAMPLED_PROGRAMS, 1)
    assert (seen["Q"].distinct, seen["Q"].run_bytes) == (1, SAMPLED_PROGRAMS * 16 * 16 * 2)
    assert counted.buffer_bytes == (length * 32, length * 32, length * 4)


def test_masked_rows_of_a_causal_kernel_are_left_out(executor):
    q, k = (torch.zeros(64, 16, dtype=torch.float16) for _ in range(2))
    seen = accesses(executor.prepare(causal, q, k, torch.zeros(64), 40, grid=(4,), M=16, N=16, D=16))
    # passes: 1, 2, 3 and 3, of which the third ones ask for 8 rows of 16
    assert seen["K"].program_bytes == pytest.approx((7 * 16 + 2 * 8) * 32 / 9)
    assert seen["Out"].program_bytes == 40 * 4 / 4


@triton.jit
def persistent(X, Out, tiles, steps, N: tl.constexpr):
    i = tl.arange(0, N)
    total = tl.zeros((N, N), tl.float32)
    for step in range(tiles * steps):
        x = tl.load(X + step * N * N + i[:, None] * N + i[None, :])
        total = tl.dot(x, x, total)
        if step % steps == steps - 1:
            tl.store(Out + step // steps * N * N + i[:, None] * N + i[None, :], tl.exp(total) * 2.0)
            total = tl.zeros((N, N), tl.float32)


def test_the_epilogue_of_a_persistent_loop_is_entered_in_one_of_its_steps(executor):
    x, out = torch.zeros(32, 16, 16, dtype=torch.float16), torch.zeros(4, 16, 16)
    launch = executor.prepare(persistent, x, out, 4, 8, N=16)
    counted = launch.kernel.count(launch)
    (body,) = counted.bodies
    assert counted.trips[0].tolist() == [32]
    assert body.entered == 1 / 8
    assert body.store_bytes == 16 * 16 * 4 / 8
    assert body.dot_flops == 2 * 16**3


@triton.jit
def branches(X, Out, n, N: tl.constexpr):
    i = tl.arange(0, N)
    total = tl.zeros((N,), tl.float32)
    for step in range(n):
        x = tl.load(X + step * N + i)
        if step % 2 == 0:
            total += x
        if step % 4 == 0:
            total += tl.exp(x) * tl.exp2(x) + tl.sqrt(tl.abs(x) + 1.0) - x * 3.0
    tl.store(Out + i, total)


def test_of_several_branches_the_one_entered_most_counts_so_that_none_lowers_the_price_of_another(executor):
    launch = executor.prepare(branches, torch.zeros(8 * 64), torch.zeros(64), 8, N=64)
    (body,) = launch.kernel.count(launch).bodies
    assert body.entered == 1 / 2
    assert body.exponentials == 2 * 64 / 4


@triton.jit
def idle_in_the_middle(X, Out, first, last, N: tl.constexpr):
    p = tl.program_id(0)
    if (p < first) | (p >= last):
        for step in range(4):
            tl.store(Out + p * N + tl.arange(0, N), tl.load(X + step * N + tl.arange(0, N)))


def test_programs_that_do_nothing_do_not_hide_what_others_ask_for(executor):
    launch = executor.prepare(
        idle_in_the_middle, torch.zeros(4 * 64), torch.zeros(2048 * 64), 600, 1448, grid=(2048,), N=64
    )
    accesses = launch.kernel.count(launch).accesses
    assert [(access.writes, access.program_bytes) for access in accesses] == [(False, 256), (True, 256)]


@triton.jit
def idle_at_first(X, Y, Out, n, idle, N: tl.constexpr):
    i = tl.arange(0, N)
    total = tl.zeros((N,), tl.float32)
    for step in range(n):
        total += tl.load(X + step * N + i, mask=(i >= 0) & (step >= idle), other=0.0)
        if step >= idle:
            total += tl.load(Y + step * N + i)
    tl.store(Out + i, total)


def test_loads_that_the_first_passes_leave_out_are_seen(executor):
    values = torch.zeros(20 * 64), torch.zeros(20 * 64), torch.zeros(64)
    seen = accesses(executor.prepare(idle_at_first, *values, 20, 3, N=64))
    assert seen["X"].program_bytes == pytest.approx(256 * (MORE_PASSES - 3) / MORE_PASSES)
    assert (seen["Y"].program_bytes, seen["Y"].often) == (256, 17 / 20)  # three passes go around it
    assert accesses(executor.prepare(idle_at_first, *values, 20, 0, N=64))["X"].program_bytes == 256


def test_loads_that_begin_after_those_are_seen_in_all_passes(executor):
    values = torch.zeros(40 * 64), torch.zeros(40 * 64), torch.zeros(64 * 300)
    seen = accesses(executor.prepare(idle_at_first, *values, 40, MORE_PASSES + 20, grid=(300,), N=64))
    assert seen["X"].program_bytes == pytest.approx(256 * (40 - MORE_PASSES - 20) / 40)
    assert seen["X"].fresh == 1
    never = accesses(executor.prepare(idle_at_first, *values, 40, 40, grid=(300,), N=64))
    assert "X" not in never


@triton.jit
def masked_in_the_middle(X, Y, Out, n, first, last, N: tl.constexpr):
    p, i = tl.program_id(0), tl.arange(0, N)
    mask = (i >= 0) & ((p < first) | (p >= last))
    total = tl.load(Y + p * N + i, mask=mask, other=0.0)
    for step in range(n):
        total += tl.load(X + (p * n + step) * N + i, mask=mask, other=0.0)
    tl.store(Out + p * N + i, total)


def test_loads_that_the_programs_in_the_middle_leave_out_are_seen_elsewhere(executor):
    values = torch.zeros(4 * 1024 * 64), torch.zeros(1024 * 64), torch.zeros(1024 * 64)
    seen = accesses(executor.prepare(masked_in_the_middle, *values, 4, 256, 768, grid=(1024,), N=64))
    assert (seen["X"].program_bytes, seen["Y"].program_bytes) == (128, 128)
    never = accesses(executor.prepare(masked_in_the_middle, *values, 4, 0, 1024, grid=(1024,), N=64))
    assert list(never) == ["Out"]


@triton.jit
def few_and_many(X, Y, Out, first, N: tl.constexpr):
    p, i = tl.program_id(0), tl.arange(0, N)
    total = tl.zeros((N,), tl.float32)
    if p < first:
        for step in range(8):
            total += tl.load(X + step * N + i)
    else:
        for step in range(2):
            total += tl.load(Y + (p * 2 + step) * N + i)
    tl.store(Out + p * N + i, total)


def test_what_programs_load_that_have_less_to_do_is_seen(executor):
    values = torch.zeros(8 * 64), torch.zeros(2 * 1024 * 64), torch.zeros(1024 * 64)
    seen = accesses(executor.prepare(few_and_many, *values, 300, grid=(1024,), N=64))
    assert (seen["X"].program_bytes, seen["X"].distinct) == (256, 1 / SAMPLED_PROGRAMS)
    assert (seen["Y"].program_bytes, seen["Y"].distinct, seen["Y"].fresh) == (256, 1, 1)


@triton.jit
def masked_scalars(Flags, Out, n):
    p = tl.program_id(0)
    tl.store(Out + p, tl.load(Flags + p, mask=p >= n, other=0.0), mask=p >= n)


def test_masked_scalars_are_seen_of_the_programs_that_ask_for_them(executor):
    launch = executor.prepare(masked_scalars, torch.zeros(8), torch.zeros(8), 6, grid=(8,))
    accesses = launch.kernel.count(launch).accesses
    assert [(access.writes, access.program_bytes, access.program_lines) for access in accesses] == [
        (False, 1.0, 1),
        (True, 1.0, 1),
    ]


def test_a_body_without_branches_is_entered_always(executor):
    launch = executor.prepare(nested, torch.zeros(9 * 64), torch.zeros(3 * 64), 3, N=64)
    counted = launch.kernel.count(launch)
    assert [body.entered for body in counted.bodies] == [1, 1]


@triton.jit
def flattened(Input, Output, tiles, steps, BLOCK: tl.constexpr):
    """Adds up ``steps`` blocks for each tile in one loop, and stores at the end of each tile."""
    offsets = tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    for pass_ in range(tiles * steps):
        total += tl.load(Input + pass_ * BLOCK + offsets)
        if pass_ % steps == steps - 1:
            tl.store(Output + pass_ // steps * BLOCK + offsets, total)
            total = tl.zeros((BLOCK,), tl.float32)


@pytest.mark.parametrize("steps", [4, 32])
def test_a_store_that_most_passes_go_around_is_performed_in_the_others_only(executor, steps):
    tensors = torch.zeros(4 * steps * 64), torch.zeros(4 * 64)
    seen = accesses(executor.prepare(flattened, *tensors, 4, steps, BLOCK=64, grid=(1,)))
    assert (seen["Input"].program_bytes, seen["Output"].program_bytes) == (256, 256)
    assert (seen["Input"].often, seen["Output"].often) == (1, 1 / steps)


def test_only_offsets_that_were_never_added_are_new():
    generator = torch.Generator().manual_seed(0)
    offsets, known = _Offsets(), set()
    for count in [5, 0, 300, 1, 2, 80, 80, 3, 1000] * 3:
        added = torch.randint(2000, (count,), generator=generator).unique()
        assert offsets.add(added).tolist() == sorted(set(added.tolist()) - known)
        known |= set(added.tolist())
    assert len(known) > 1500


@triton.jit
def walked(X, Out, n, step, apart, N: tl.constexpr):
    total = tl.zeros((N,), tl.float32)
    for place in range(n):
        total += tl.load(X + tl.program_id(0) * apart + place * step)
    tl.store(Out + tl.program_id(0) * N + tl.arange(0, N), total)


@pytest.mark.parametrize(
    ("step", "apart", "fresh", "sectors"),
    [
        (1, 1024, 1, 1 / 8),  # from one number to the next, as of scales: a sector has eight
        (8, 1024, 1, 1),
        (32, 1024, 1, 1),
        (32, 32, 1 / 4, 1),  # where the program beside was before: new to its own L1
        (0, 1024, 0, 0),
    ],
)
def test_sectors_are_new_to_a_program_that_did_not_ask_for_them_before(executor, step, apart, fresh, sectors):
    seen = accesses(executor.prepare(walked, torch.zeros(8192), torch.zeros(64), 3, step, apart, grid=(4,), N=16))
    assert (seen["X"].fresh, seen["X"].fresh_sectors, seen["X"].program_lines) == (fresh, sectors, 1)


@triton.jit
def idle(X, Out, n, who, N: tl.constexpr):
    moves = tl.program_id(0) != who
    total = tl.zeros((N,), tl.float32)
    for place in range(n):
        total += tl.load(X + (tl.program_id(0) * n + place) * N * moves + tl.arange(0, N) * moves)
    tl.store(Out + tl.program_id(0) * N + tl.arange(0, N), total)


@pytest.mark.parametrize("who", [0, 2])
def test_a_program_that_stays_where_it_is_does_not_speak_for_the_others(executor, who):
    seen = accesses(executor.prepare(idle, torch.zeros(4 * 3 * 64), torch.zeros(4 * 64), 3, who, grid=(4,), N=64))
    assert seen["X"].program_lines == (3 * 2 + 1) / 4
    assert seen["X"].fresh_sectors == pytest.approx(3 * 8 / (3 * 8 + 1))
