"""Memory: loads and stores of any shape, descriptors, atomics, and what a kernel does outside its buffers."""

import inspect

import pytest
import torch
import triton
import triton.language as tl

from avo.evaluator.executor import Allocation, IRError, Launch, space
from avo.evaluator.executor.rows import contiguous_axis
from avo.evaluator.plan import Pointer, Scalar

ORACLE = "torch"


def line_of(function, text):
    lines, first = inspect.getsourcelines(function.fn)
    return first + next(i for i, line in enumerate(lines) if text in line)


@triton.jit
def copy_tile(X, Y, rows, columns, stride, M: tl.constexpr, N: tl.constexpr, TURNED: tl.constexpr):
    i = tl.program_id(0) * M + tl.arange(0, M)
    j = tl.arange(0, N)
    inside = (i < rows)[:, None] & (j < columns)[None, :]
    if TURNED:
        x = tl.load(X + i[None, :] * stride + j[:, None], mask=tl.trans(inside), other=-1.0)
        tl.store(Y + i[None, :] * N + j[:, None], x)
    else:
        x = tl.load(X + i[:, None] * stride + j[None, :], mask=inside, other=-1.0)
        tl.store(Y + i[:, None] * N + j[None, :], x)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("shape", [(32, 16), (29, 16), (32, 11), (5, 3), (0, 5)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float8_e5m2, torch.int8, torch.float64])
def test_masked_tiles_are_read_by_rows_or_by_elements_alike(executor, turned, shape, dtype):
    torch.manual_seed(0)
    rows, columns = shape
    x = torch.randint(0, 100, (max(rows, 1), 20)).to(dtype)
    y = torch.zeros(32, 16).to(dtype)
    executor.run(copy_tile, x, y, rows, columns, 20, grid=(4,), M=8, N=16, TURNED=turned)
    expected = torch.full((32, 16), -1.0).to(dtype)
    expected[:rows, :columns] = x[:rows, :columns]
    assert torch.equal(y.float(), expected.float())


@triton.jit
def strided_pointers(X, Y, N: tl.constexpr):
    p = tl.program_id(0)
    i, j = tl.arange(0, N), tl.arange(0, N)
    pointers = X + p + i[:, None] * 40 + j[None, :]
    total = tl.zeros((N, N), tl.float32)
    for _ in range(3):
        total += tl.load(pointers)
        pointers += N
    tl.store(Y + p * N * N + i[:, None] * N + j[None, :], total)


def test_pointer_blocks_carried_through_a_loop(executor):
    x, y = torch.randn(8, 40), torch.empty(4, 8, 8)
    executor.run(strided_pointers, x, y, grid=(4,), N=8)
    for p in range(4):
        torch.testing.assert_close(y[p], sum(x[:, p + 8 * k : p + 8 * k + 8] for k in range(3)))


@triton.jit
def added_offsets(X, Y, stride, N: tl.constexpr, WIDE: tl.constexpr):
    i, j = tl.arange(0, N), tl.arange(0, N)
    if WIDE:
        i = i.to(tl.int64)
    read = i[:, None] * stride + j[None, :]
    write = i[:, None] * N + j[None, :]
    tl.store(Y + write, tl.load(X + read))


@pytest.mark.parametrize("wide", [False, True])
def test_offsets_that_are_added_before_the_pointer_stay_a_column_and_a_row(executor, monkeypatch, wide):
    seen = []

    def spy(address, shape, item_bytes):
        seen.append(max(address.base.numel(), address.offset.numel()))
        return contiguous_axis(address, shape, item_bytes)

    monkeypatch.setattr(space, "contiguous_axis", spy)
    x, y = torch.randn(16, 40), torch.empty(16, 16)
    executor.run(added_offsets, x, y, 40, grid=(1,), N=16, WIDE=wide)
    assert torch.equal(y, x[:, :16])
    assert seen == [16, 16]


@triton.jit
def unmasked(X, Y, n, N: tl.constexpr):
    i = tl.program_id(0) * N + tl.arange(0, N)
    x = tl.load(X + i)  # read
    tl.store(Y + i, x, mask=i < n)  # write


def test_a_read_outside_its_buffer_is_named_by_line_buffer_and_element(executor):
    x, y = torch.ones(24), torch.zeros(32)
    launch = executor.prepare(unmasked, x, y, 32, grid=(4,), N=8)
    (fault,) = launch.run().faults
    assert fault.kind == "read out of bounds"
    where = f"test_executor_memory.py:{line_of(unmasked, '# read')}"
    assert (
        fault.message
        == f"read out of bounds in unmasked at {where}: element 24 of 'X', which has 24, program (3, 0, 0)"
    )
    assert y.tolist() == [1.0] * 24 + [0.0] * 8


def test_a_write_outside_its_buffer_is_dropped_and_named(executor):
    x, y = torch.ones(32), torch.zeros(20)
    launch = executor.prepare(unmasked, x, y, 32, grid=(4,), N=8)
    (fault,) = launch.run().faults
    where = f"test_executor_memory.py:{line_of(unmasked, '# write')}"
    assert (
        fault.message
        == f"write out of bounds in unmasked at {where}: element 20 of 'Y', which has 20, program (2, 0, 0) and 1 more"
    )
    assert y.tolist() == [1.0] * 20


def test_masked_lanes_may_point_anywhere(executor):
    x, y = torch.ones(32), torch.zeros(20)
    execution = executor.run(unmasked, x, y, 20, grid=(4,), N=8)
    assert execution.faults == ()


def test_a_store_to_an_input_changes_nothing_and_is_a_fault(executor):
    x, y = torch.ones(32), torch.zeros(32)
    launch = executor.prepare(unmasked, x, y, 32, grid=(4,), readonly=(1,), N=8)
    (fault,) = launch.run().faults
    assert fault.kind == "write to an input"
    assert "'Y'" in fault.message
    assert not y.any()


def test_only_elements_that_were_stored_count_as_written(executor):
    launch = executor.prepare(unmasked, torch.ones(32), torch.zeros(40), 21, grid=(4,), N=8)
    launch.run()
    assert launch.memory[1].written.tolist() == [True] * 21 + [False] * 19


@triton.jit
def shared_rows(X, At, Y, rows, Z, start, stride, M: tl.constexpr, N: tl.constexpr):
    m, n = tl.program_id(0) * M + tl.arange(0, M), tl.arange(0, N)
    at = tl.load(At + m)
    x = tl.load(X + m[:, None] * N + n[None, :])
    tl.store(Y + start + at[:, None] * stride + n[None, :], x, mask=(at < rows)[:, None])
    tl.store(Z + start + at[None, :] * stride + n[:, None], tl.trans(x), mask=(at < rows)[None, :])


@pytest.mark.parametrize(("start", "stride"), [(0, 16), (5, 32), (3, 17)])
@pytest.mark.parametrize("places", ["apart", "shared", "none"])
def test_rows_are_stored_like_elements_and_the_last_program_wins(executor, places, start, stride):
    x = torch.randn(24, 16, generator=torch.Generator().manual_seed(1)).to(torch.bfloat16)
    at = {"apart": torch.randperm(24), "shared": torch.arange(24) % 5 * 5, "none": torch.full((24,), 90)}[places]
    y, z = torch.full((2, 24 * stride + 8), -1.0).to(torch.bfloat16).unbind()
    expected = y.clone()
    for row, place in zip(x, at.tolist(), strict=True):
        if place < 20:
            expected[start + place * stride : start + place * stride + 16] = row
    launch = executor.prepare(shared_rows, x, at.int(), y.clone(), 20, z.clone(), start, stride, grid=(3,), M=8, N=16)
    assert launch.run().faults == ()
    for allocation in launch.memory[2:]:
        assert torch.equal(allocation.data, expected)
        assert torch.equal(allocation.written, expected != -1)


@triton.jit
def wild(X, far):
    tl.store(X + far, tl.load(X + far) + 1)


@pytest.mark.parametrize("far", [-1, -(2**31), 2**31 - 1])
def test_no_offset_reaches_foreign_memory(executor, far):
    x = torch.zeros(4)
    launch = executor.prepare(wild, x, far)
    kinds = {fault.kind for fault in launch.run().faults}
    assert kinds == {"read out of bounds", "write out of bounds"}
    assert not x.any()


@triton.jit
def as_bytes(X, Y):
    i = tl.arange(0, 16)
    tl.store(Y.to(tl.pointer_type(tl.int8)) + i, tl.load(X.to(tl.pointer_type(tl.int8)) + i))


def test_pointers_may_be_read_as_another_type(executor):
    x, y = torch.randn(8).half(), torch.zeros(8).half()
    launch = executor.prepare(as_bytes, x, y)
    assert launch.run().faults == ()
    assert torch.equal(x, y)
    assert launch.memory[1].written.all()


def test_a_misaligned_access_is_a_fault(executor):
    launch = executor.prepare(unmasked, torch.zeros(9), torch.zeros(9), 8, N=8)
    launch.args[0] = Pointer(0, 2)
    (fault,) = launch.run().faults
    assert fault.kind == "misaligned access"


@triton.jit
def whole_bool(X, Y):
    i = tl.arange(0, 8)
    tl.store(Y + i, tl.load(X + i))


def test_booleans_are_bytes_in_memory(executor):
    x, y = torch.tensor([True, False] * 4), torch.zeros(8, dtype=torch.bool)
    executor.run(whole_bool, x, y)
    assert torch.equal(x, y)


@triton.jit
def device_descriptor(X, Y, rows, columns, PADDING: tl.constexpr):
    x = tl.make_tensor_descriptor(X, [rows, columns], [columns, 1], [8, 16], padding_option=PADDING)
    y = tl.make_tensor_descriptor(Y, [rows, columns], [columns, 1], [8, 16])
    tile = x.load([tl.program_id(0) * 8, tl.program_id(1) * 16])
    y.store([tl.program_id(0) * 8, tl.program_id(1) * 16], tl.where(tile == tile, tile * 2, 7.0))
    if PADDING == "nan":
        y.store([0, 0], tl.where(tile == tile, tile, 7.0))


def test_descriptors_made_in_the_kernel_stay_inside_their_shape(executor):
    x, y = torch.randn(20, 40), torch.zeros(20, 40)
    executor.run(device_descriptor, x, y, 20, 40, grid=(3, 3), PADDING="zero")
    assert torch.equal(y, 2 * x)


def test_descriptors_pad_with_nan_when_told_to(executor):
    x, y = torch.randn(4, 16), torch.zeros(8, 16)
    launch = executor.prepare(device_descriptor, x, y, 4, 16, PADDING="nan")
    launch.args[1] = Pointer(1, 0)
    assert "padding" in launch.ttir
    launch.run()
    assert torch.equal(y[:4], x)


@triton.jit
def host_descriptor(X, Y, A):
    tile = X.load([tl.program_id(0) * 8 - 4, 8])
    Y.store([tl.program_id(0) * 8, 0], tile)
    A.atomic_add([0, 0], tile)


@pytest.mark.parametrize("padding", ["zero", "nan"])
def test_descriptors_made_on_the_host_pad_what_lies_outside(executor, padding):
    torch.manual_seed(0)
    x, y, a = torch.randn(12, 24), torch.zeros(16, 16), torch.zeros(8, 16)
    executor.run(
        host_descriptor,
        executor.described(x, (8, 16), padding),
        executor.described(y, (8, 16)),
        executor.described(a, (8, 16)),
        grid=(2,),
    )
    fill = 0.0 if padding == "zero" else float("nan")
    padded = torch.nn.functional.pad(x[:, 8:], (0, 0, 4, 4), value=fill)[:16]
    torch.testing.assert_close(y, padded, equal_nan=True, rtol=0, atol=0)
    torch.testing.assert_close(a, padded[:8] + padded[8:], equal_nan=True)


@triton.jit
def row_descriptor(X, Y, Index):
    rows = tl.load(Index + tl.arange(0, 8))
    tile = X.gather(rows, 4)
    Y.scatter(tile, tl.arange(0, 8) * 2, 0)


@pytest.mark.parametrize("kind", [torch.int16, torch.int32])
def test_descriptors_gather_and_scatter_rows(executor, kind):
    x, y = torch.randn(16, 24), torch.zeros(15, 16)
    rows = torch.tensor([3, 1, 15, 0, 3, 7, 8, 2], dtype=kind)
    executor.run(row_descriptor, executor.described(x, (1, 16)), executor.described(y, (1, 16)), rows)
    assert torch.equal(y[::2], x[rows.int()][:, 4:20])
    assert not y[1::2].any()


@triton.jit
def rowwise(X, Y, Index, N: tl.constexpr):
    rows = tl.load(Index + tl.arange(0, 8))
    Y.scatter(X.gather(rows, N // 2), tl.arange(0, 8) * 2, N)


@triton.jit
def blockwise(X, Z, N: tl.constexpr):
    Z.store([4, 8], X.load([0, N]))


@pytest.mark.parametrize(
    "dtype",
    [torch.float8_e4m3fn, torch.float8_e5m2, torch.int8, torch.int16, torch.bfloat16, torch.float16, torch.int32,
     torch.float32, torch.int64, torch.float64],
    ids=str,
)  # fmt: skip
def test_descriptors_move_elements_of_every_type(executor, dtype):
    bits = torch.randint(0, 256, (16, 64 * dtype.itemsize), generator=torch.Generator().manual_seed(2))
    x = bits.to(torch.uint8).view(dtype)
    y, z = torch.zeros(15, 64, dtype=torch.uint8).to(dtype), torch.zeros(16, 64, dtype=torch.uint8).to(dtype)
    rows = torch.tensor([3, 1, 15, 0, 3, 7, 8, 2], dtype=torch.int32)
    described = executor.described(x, (1, 32)), executor.described(y, (1, 32))
    if dtype.itemsize < 8:
        executor.run(rowwise, *described, rows, N=32)
        assert torch.equal(y[::2, 32:].view(torch.uint8), x[rows][:, 16:48].view(torch.uint8))
        assert not y[1::2].view(torch.uint8).any()
    executor.run(blockwise, executor.described(x, (8, 32)), executor.described(z, (8, 32)), N=32)
    expected = z.new_zeros(16, 64)
    expected[4:12, 8:40] = x[:8, 32:]
    assert torch.equal(z.view(torch.uint8), expected.view(torch.uint8))


@triton.jit
def atomics(Counter, Tickets, Total, Greatest, Bits, Swapped, N: tl.constexpr):
    p = tl.program_id(0)
    i = tl.arange(0, N)
    tl.store(Tickets + p, tl.atomic_add(Counter, 2))
    tl.atomic_add(Total + i % 4, (i + p).to(tl.float32), mask=i < N - 1)
    tl.atomic_max(Greatest + i % 2, i * p)
    tl.atomic_or(Bits, 1 << p)
    tl.store(Swapped + p, tl.atomic_cas(Counter + 1, p, p + 1))


def test_atomics_act_as_if_programs_came_one_after_the_other(executor):
    counter = torch.zeros(2, dtype=torch.int32)
    tickets, swapped = torch.empty(5, dtype=torch.int32), torch.empty(5, dtype=torch.int32)
    total, greatest, bits = torch.zeros(4), torch.zeros(2, dtype=torch.int32), torch.zeros(1, dtype=torch.int32)
    executor.run(atomics, counter, tickets, total, greatest, bits, swapped, grid=(5,), N=16)
    assert counter.tolist() == [10, 5]
    assert tickets.tolist() == [0, 2, 4, 6, 8]
    assert swapped.tolist() == [0, 1, 2, 3, 4]
    assert total.tolist() == [
        float(sum(i + p for p in range(5) for i in range(15) if i % 4 == lane)) for lane in range(4)
    ]
    assert greatest.tolist() == [56, 60]
    assert bits.item() == 31


@triton.jit
def read_only(X: tl.const, Y, N: tl.constexpr):
    i = tl.arange(0, N)
    tl.store(Y + i, tl.load(X + i) + 1)


def test_pointers_declared_constant_are_read_through(executor):
    x, y = torch.rand(16), torch.zeros(16)
    launch = executor.prepare(read_only, x, y, N=16)
    assert "constant" in launch.ttir
    assert launch.run().faults == ()
    assert torch.equal(y, x + 1)


def test_arguments_must_fit_the_signature(executor):
    launch = executor.prepare(unmasked, torch.zeros(8), torch.zeros(8), 8, N=8)
    memory = [Allocation("x", torch.zeros(8)), Allocation("y", torch.zeros(8))]
    good = [Pointer(0, 0), Pointer(1, 0), Scalar(8)]
    assert launch.kernel.run(Launch(memory, good, (1, 1, 1))).faults == ()
    for bad, message in (
        (good[:2], "takes 3 arguments, not 2"),
        ([Scalar(0), *good[1:]], "is given a scalar"),
        ([Pointer(2, 0), *good[1:]], "names buffer 2 of 2"),
        ([*good[:2], Scalar(2**40)], "cannot hold"),
        ([*good[:2], Scalar(1.5)], "is given 1.5"),
        ([*good[:2], Pointer(0, 0)], "is given a pointer"),
    ):
        with pytest.raises(IRError, match=message):
            launch.kernel.run(Launch(memory, bad, (1, 1, 1)))
    with pytest.raises(IRError, match="program ids"):
        launch.kernel.run(Launch(memory, good, (1, 1, 1)), programs=torch.tensor([1]))
