"""Atomic operations in every type, against one element after the other in numpy and torch."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver

from avo.evaluator.executor import Allocation, UnsupportedOperation, load
from avo.evaluator.executor.memory import Memory
from avo.evaluator.executor.operations import atomics
from avo.evaluator.executor.parser import parse

ORACLE = "numpy, one element at a time"

WORDS = [torch.int32, torch.uint32, torch.int64, torch.uint64]
FLOATS = [torch.float32, torch.float64]
NAMES = {torch.uint32: "*u32", torch.uint64: "*u64"}


@triton.jit
def whole_numbers(A, B, C, D, E, F, G, Old, V, Mask, BLOCK: tl.constexpr, CELLS: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    v, mask, at = tl.load(V + i), tl.load(Mask + i) != 0, i * i % CELLS
    n = tl.num_programs(0) * BLOCK
    tl.store(Old + i, tl.atomic_add(A + at, v, mask=mask), mask=mask)
    tl.store(Old + n + i, tl.atomic_max(B + at, v, mask=mask), mask=mask)
    tl.store(Old + 2 * n + i, tl.atomic_min(C + at, v, mask=mask), mask=mask)
    tl.store(Old + 3 * n + i, tl.atomic_and(D + at, v, mask=mask), mask=mask)
    tl.store(Old + 4 * n + i, tl.atomic_or(E + at, v, mask=mask), mask=mask)
    tl.store(Old + 5 * n + i, tl.atomic_xor(F + at, v, mask=mask), mask=mask)
    tl.store(Old + 6 * n + i, tl.atomic_xchg(G + at, v, mask=mask), mask=mask)


UPDATES = [np.add, np.maximum, np.minimum, np.bitwise_and, np.bitwise_or, np.bitwise_xor, lambda old, new: new]


def in_turn(n, block):
    """Return ``n`` elements in the order in which they take effect: blocks in theirs, elements within them mixed."""
    return sorted(range(n), key=lambda i: i ^ block * 5 // 8)


def one_by_one(cells, update, at, values, mask, block):
    """Return old values, 0 where masked off; cells change."""
    olds = np.zeros_like(values)
    with np.errstate(all="ignore"):
        for i in (i for i in in_turn(len(values), block) if mask[i]):
            olds[i] = cells[at[i]]
            cells[at[i]] = update(cells[at[i]], values[i])
    return olds


def prepare(executor, kernel, tensors, dtype, **constexprs):
    """Like ``executor.prepare``, for unsigned tensors too: memory holds their bits."""
    signed = {torch.uint32: torch.int32, torch.uint64: torch.int64}.get(dtype, dtype)
    launch = executor.prepare(kernel, *(t.view(signed) if t.dtype == dtype else t for t in tensors), **constexprs)
    if dtype not in NAMES:
        return launch
    constants = {name: value for name, value in constexprs.items() if name != "grid"}
    names = [name for name in kernel.arg_names if name not in constants]
    kinds = [NAMES[dtype] if tensor.dtype == dtype else "*i32" for tensor in tensors]
    ttir = executor.lower(kernel, dict(zip(names, kinds, strict=True)), constants)
    return replace(launch, ttir=ttir, kernel=load(ttir))


@pytest.mark.parametrize("dtype", WORDS, ids=str)
def test_integers_are_updated_one_after_the_other_in_program_order(executor, dtype):
    generator = np.random.default_rng(3)
    name = str(dtype).removeprefix("torch.")
    info = np.iinfo(name)
    n, cells = 64, 8
    values = generator.integers(info.min, info.max, n, dtype=name, endpoint=True)
    values[:4] = info.min, info.max, 0, 1
    start = generator.integers(info.min, info.max, (7, cells), dtype=name, endpoint=True)
    mask = generator.integers(0, 4, n).astype(np.int32)
    tables = [torch.from_numpy(row.copy()) for row in start]
    old = torch.zeros(7 * n, dtype=dtype)
    inputs = torch.from_numpy(values), torch.from_numpy(mask)
    launch = prepare(executor, whole_numbers, [*tables, old, *inputs], dtype, grid=(4,), BLOCK=16, CELLS=cells)
    assert launch.run().faults == ()
    at = np.arange(n) ** 2 % cells
    for k, update in enumerate(UPDATES):
        expected = start[k].copy()
        olds = one_by_one(expected, update, at, values, mask, block=16)
        np.testing.assert_array_equal(tables[k].numpy(), expected)
        np.testing.assert_array_equal(old.numpy()[k * n : (k + 1) * n], olds)


@triton.jit
def numbers(A, B, C, D, V, CELLS: tl.constexpr, BLOCK: tl.constexpr, ALL: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    v, at = tl.load(V + i), i * i % CELLS
    tl.atomic_add(A + i % CELLS, v)
    if ALL:
        tl.atomic_max(B + at, v)
        tl.atomic_min(C + at, v)
        tl.atomic_xchg(D + at, v)


SPECIAL = [0.0, -0.0, 1.0, -1.0, 1e-40, -3e-39, float("inf"), float("-inf"), 5e4, -6e4, 1e-6, 3.0]


@pytest.mark.parametrize("flushes", [True, False], ids=["by the processor", "by torch"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, *FLOATS], ids=str)
def test_floating_point_numbers_are_updated_with_one_rounding_each(executor, monkeypatch, dtype, flushes):
    if not flushes:
        monkeypatch.setattr(atomics, "_flushes", lambda: False)
    generator = torch.Generator().manual_seed(4)
    n, cells = 64, 16
    values = torch.randn(n, generator=generator).to(dtype)
    values[: len(SPECIAL)] = torch.tensor(SPECIAL, dtype=torch.float64).to(dtype)
    values[2::cells] = torch.tensor([1e-40, -2e-40, 3e-45, 1e-39], dtype=torch.float64).to(dtype)
    start = torch.randn(4, cells, generator=generator).to(dtype)
    start[:, :4] = torch.tensor([0.0, -0.0, 1e-40, 2e4], dtype=torch.float64).to(dtype)
    tables = [row.clone() for row in start]
    wide = dtype in FLOATS
    executor.run(numbers, *tables, values, grid=(4,), CELLS=cells, BLOCK=16, ALL=wide)
    total, high, low, last = (row.clone() for row in start)
    tiny = torch.finfo(torch.float32).tiny

    def flushed(x):
        return x * 0 if dtype is torch.float32 and abs(x) < tiny else x

    for i in in_turn(n, 16):
        at = i * i % cells
        total[i % cells] = flushed(flushed(total[i % cells]) + flushed(values[i]))
        # As integers of sign and magnitude: -0 < +0.
        if values[i] > high[at] or (values[i] == high[at] and not torch.signbit(values[i])):
            high[at] = values[i]
        if values[i] < low[at] or (values[i] == low[at] and torch.signbit(values[i])):
            low[at] = values[i]
        last[at] = values[i]
    raw = {2: torch.int16, 4: torch.int32, 8: torch.int64}[values.element_size()]
    torch.testing.assert_close(tables[0], total, rtol=0, atol=0, equal_nan=True)
    known = ~total.isnan()
    assert torch.equal(tables[0].view(raw)[known], total.view(raw)[known]), "the signs of zeros differ"
    assert bool(total[2]) == (dtype is not torch.float32 and dtype is not torch.float16)
    if wide:
        for table, expected in zip(tables[1:], (high, low, last), strict=True):
            assert torch.equal(table.view(raw), expected.view(raw))


@triton.jit
def sums(A, V, Mask, BLOCK: tl.constexpr, CELLS: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.atomic_add(A + i % CELLS, tl.load(V + i), mask=tl.load(Mask + i) != 0)


@pytest.mark.parametrize("dtype", [*FLOATS, torch.int32], ids=str)
def test_sums_that_nobody_reads_are_made_in_the_same_order(executor, dtype):
    generator = torch.Generator().manual_seed(5)
    n, cells = 256, 3
    values = (torch.randn(n, generator=generator, dtype=torch.float64) * 1e9).to(dtype)
    mask = torch.randint(0, 4, (n,), generator=generator, dtype=torch.int32)
    table = torch.ones(cells, dtype=dtype)
    executor.run(sums, table, values, mask, grid=(4,), BLOCK=64, CELLS=cells)
    expected = np.ones_like(table.numpy())
    one_by_one(expected, np.add, np.arange(n) % cells, values.numpy(), mask.numpy(), block=64)
    np.testing.assert_array_equal(table.numpy(), expected)


def test_sums_count_as_a_change_of_memory_if_they_change_it():
    cells = torch.zeros(4)
    memory = Memory([Allocation("x", cells)])
    assert memory.version == 0
    memory.add_up(cells, torch.tensor([1, 1]), torch.tensor([0.0, 0.0]))
    assert memory.version == 0
    memory.add_up(cells, torch.tensor([1, 1]), torch.tensor([2.0, 3.0]))
    assert (memory.version, cells.tolist()) == (1, [0.0, 5.0, 0.0, 0.0])


@triton.jit
def swapped(X, Old, BLOCK: tl.constexpr, CELLS: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    dtype: tl.constexpr = X.dtype.element_ty
    expected = ((i // CELLS) % 3).to(dtype)
    tl.store(Old + i, tl.atomic_cas(X + i % CELLS, expected, expected + 1))


@pytest.mark.parametrize(
    "dtype", [torch.int16, torch.int32, torch.int64, torch.float16, torch.bfloat16, *FLOATS], ids=str
)
def test_compare_and_swap_takes_every_type_of_16_bits_and_more(executor, dtype):
    n, cells = 32, 4
    x, old = torch.tensor([0, 1, 2, 5]).to(dtype), torch.zeros(n, dtype=dtype)
    executor.run(swapped, x, old, grid=(4,), BLOCK=8, CELLS=cells)
    state, olds = [0, 1, 2, 5], [0] * n
    for i in in_turn(n, 8):
        olds[i] = state[i % cells]
        if state[i % cells] == i // cells % 3:
            state[i % cells] += 1
    assert x.tolist() == state
    assert old.tolist() == olds


@triton.jit
def tickets(Counter, Out):
    i = tl.arange(0, 32)
    tl.store(Out + i, tl.atomic_add(Counter + i * 0, 1))


def test_elements_of_a_block_draw_tickets_out_of_order(executor):
    out = torch.empty(32, dtype=torch.int32)
    executor.run(tickets, torch.zeros(1, dtype=torch.int32), out)
    assert sorted(out.tolist()) == list(range(32))
    assert all(ticket != i for i, ticket in enumerate(out.tolist()))


@triton.jit
def compared_bits(X, Old):
    tl.store(Old, tl.atomic_cas(X, 0.0, 1.0))
    tl.store(Old + 1, tl.atomic_cas(X + 1, float("nan"), 1.0))


def test_compare_and_swap_compares_bits(executor):
    x, old = torch.tensor([-0.0, float("nan")]), torch.zeros(2)
    executor.run(compared_bits, x, old)
    assert torch.signbit(x[0])
    assert x[1] == 1.0


@triton.jit
def reduced(Add, Min, Max, And, Or, Xor, V, WHICH: tl.constexpr):
    v = V.load([0, 0])
    at = tl.program_id(0) * 4
    if WHICH >= 1:
        Add.atomic_add([at, 0], v)
    if WHICH >= 3:
        Min.atomic_min([at, 0], v)
        Max.atomic_max([at, 0], v)
    if WHICH >= 6:
        And.atomic_and([at, 0], v)
        Or.atomic_or([at, 0], v)
        Xor.atomic_xor([at, 0], v)


class Hopper:
    """A driver; the front end asks it for the target of 16-bit reductions."""

    def get_current_target(self):
        return GPUTarget("cuda", 90, 32)


@pytest.mark.parametrize(
    ("name", "dtype", "which"),
    [("i32", np.int32, 6), ("u32", np.uint32, 6), ("u64", np.uint64, 6), ("fp16", "f2", 3), ("fp32", "f4", 1)],
)
def test_descriptors_reduce_blocks_in_every_type(executor, name, dtype, which, monkeypatch):
    monkeypatch.setattr(driver, "_active", Hopper())
    generator = np.random.default_rng(5)
    drawn = generator.normal(size=(2, 8, 16)) * (3 if name[0] == "f" else 2**30)
    start, values = (drawn if name[0] == "f" else drawn.astype(np.int64)).astype(dtype)
    signed = start.dtype.str.replace("u", "i")
    tables = [torch.from_numpy(start.view(signed).copy()) for _ in range(6)]
    described = [executor.described(table, (8, 16)) for table in (*tables, torch.from_numpy(values.view(signed)))]
    launch = executor.prepare(reduced, *described, grid=(2,), WHICH=0)
    names = [parameter for parameter in reduced.arg_names if parameter != "WHICH"]
    kernel = load(executor.lower(reduced, dict.fromkeys(names, f"tensordesc<{name}[8, 16]>"), {"WHICH": which}))
    assert kernel.run(launch).faults == ()
    functions = [np.add, np.minimum, np.maximum, np.bitwise_and, np.bitwise_or, np.bitwise_xor]
    for table, function in zip(tables[:which], functions[:which], strict=True):
        expected = start.copy()
        for at in (0, 4):
            expected[at:] = function(expected[at:], values[: 8 - at])
        np.testing.assert_array_equal(table.numpy().view(dtype), expected)


@pytest.mark.skipif(not hasattr(tl, "atomic_load"), reason="this Triton has no atomic load and store")
def test_atomic_loads_and_stores_move_every_type_under_a_mask(executor):
    @triton.jit
    def moved(X, Y, U, V, n, N: tl.constexpr):
        i = tl.arange(0, N)
        tl.atomic_store(Y + i, tl.atomic_load(X + i, mask=i < n), mask=i < n, sem="relaxed", scope="cta")
        tl.atomic_store(V + i, tl.atomic_load(U + i, sem="relaxed", scope="sys"))

    x, y = torch.randn(16).half(), torch.zeros(16).half()
    u, v = torch.tensor([True, False] * 8), torch.zeros(16, dtype=torch.bool)
    executor.run(moved, x, y, u, v, 11, N=16)
    assert torch.equal(y, torch.where(torch.arange(16) < 11, x, 0))
    assert torch.equal(v, u)


RMW = """
module {
  tt.func public @k(%x: !tt.ptr<POINTEE>, %v: VALUE) attributes {noinline = false} {
    %m = arith.constant true
    %r = tt.atomic_rmw HOW, %x, %v, %m : (!tt.ptr<POINTEE>, VALUE, i1) -> VALUE
    tt.return
  }
}
"""


@pytest.mark.parametrize(
    ("how", "value", "pointee"),
    [
        ("fadd, acq_rel, gpu", "i32", "i32"),
        ("add, acq_rel, gpu", "f32", "f32"),
        ("max, acq_rel, gpu", "f32", "f32"),
        ("and, acq_rel, gpu", "i16", "i16"),
        ("add, acq_rel, gpu", "i32", "i64"),
        ("add, seq_cst, gpu", "i32", "i32"),
        ("add, acq_rel, cluster", "i32", "i32"),
        ("nand, acq_rel, gpu", "i32", "i32"),
    ],
)
def test_atomic_operations_that_no_front_end_emits_are_refused(how, value, pointee):
    text = RMW.replace("HOW", how).replace("VALUE", value).replace("POINTEE", pointee)
    with pytest.raises(UnsupportedOperation, match=r"unsupported operation tt\.atomic_rmw"):
        load(text)


def test_a_descriptor_knows_whether_its_integers_are_unsigned():
    text = "\n".join(
        [
            "module {",
            "  tt.func public @k(%x: !tt.tensordesc<tensor<8x16xui32>>, %y: !tt.tensordesc<8x16xsi32>) {",
            "    tt.return",
            "  }",
            "}",
        ]
    )
    function = parse(text, frozenset(("tt.return",)))
    assert [function.types[slot].unsigned for slot in function.params] == [True, False]
