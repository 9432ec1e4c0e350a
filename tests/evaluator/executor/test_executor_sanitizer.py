"""The sanitiser within programs: padding, memory that nobody wrote, conflicting stores, descriptors, overflow."""

import inspect
from dataclasses import replace

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from hypothesis import given, settings
from hypothesis import strategies as st

from avo.evaluator.executor import Allocation, IRError, Launch, View, load
from avo.evaluator.executor.faults import MAX_FAULTS
from avo.evaluator.plan import Descriptor, Pointer, Scalar

ORACLE = "a model of the accesses in numpy"


def line_of(function, text):
    lines, first = inspect.getsourcelines(function.fn)
    return f"test_executor_sanitizer.py:{first + next(i for i, line in enumerate(lines) if text in line)}"


def kinds(execution):
    return [fault.kind for fault in execution.faults]


@triton.jit
def copy_rows(X, Y, rows, columns, x_stride, y_stride, M: tl.constexpr, N: tl.constexpr):
    m = tl.program_id(0) * M + tl.arange(0, M)
    n = tl.arange(0, N)
    inside = (m < rows)[:, None] & (n < columns)[None, :]
    x = tl.load(X + m[:, None] * x_stride + n[None, :], mask=inside)  # read
    tl.store(Y + m[:, None] * y_stride + n[None, :], x, mask=inside)  # write


def padded(launch, i, rows, columns, stride):
    """Let only a view [rows, columns] of buffer ``i`` belong to the tensor."""
    allocation = launch.memory[i]
    allocation.valid = torch.zeros(allocation.data.numel(), dtype=torch.bool)
    allocation.valid.as_strided((rows, columns), (stride, 1)).fill_(True)
    allocation.views = (View((rows, columns), (stride, 1)),)


@pytest.mark.parametrize("columns", [12, 13])
def test_what_lies_in_an_allocation_but_in_no_tensor_is_padding(executor, columns):
    x, y = torch.ones(8, 16), torch.zeros(8, 16)
    launch = executor.prepare(copy_rows, x, y, 8, columns, 16, 16, grid=(2,), M=4, N=16)
    padded(launch, 0, 8, 12, 16)
    padded(launch, 1, 8, 12, 16)
    faults = launch.run().faults
    if columns == 12:
        assert faults == ()
        return
    beside, read, write = faults
    assert (beside.kind, beside.program, beside.others) == ("read beside a tensor", (1, 0, 0), 0)
    assert (read.kind, read.tensor, read.program, read.others) == ("read in padding", "X", (0, 0, 0), 1)
    assert read.location == line_of(copy_rows, "# read")
    assert (write.kind, write.tensor, write.kernel) == ("write in padding", "Y", "copy_rows")
    assert write.location == line_of(copy_rows, "# write")
    assert y[:, :12].all()
    assert not y[:, 12:].any()


@triton.jit
def many_reads(A, B, C, D, E, F, G, H, J, Y, N: tl.constexpr):
    i = tl.arange(0, N)
    total = tl.load(A + i) + tl.load(B + i) + tl.load(C + i) + tl.load(D + i) + tl.load(E + i)
    total += tl.load(F + i) + tl.load(G + i) + tl.load(H + i) + tl.load(J + i)
    tl.store(Y + i, total)


def test_findings_of_one_kind_do_not_crowd_out_another(executor):
    launch = executor.prepare(many_reads, *torch.zeros(9, 16).unbind(0), torch.zeros(4), N=16)
    for allocation in launch.memory[:-1]:
        allocation.initialised = torch.zeros(allocation.data.numel(), dtype=torch.bool)
    found = kinds(launch.run(sanitize=True))
    assert found.count("read of uninitialised memory") == MAX_FAULTS
    assert found[-1] == "write out of bounds"


def test_elements_are_named_by_the_first_view_that_has_them(executor):
    x, y = torch.ones(8, 16), torch.zeros(8, 16)
    launch = executor.prepare(copy_rows, x, y, 8, 13, 16, 16, grid=(2,), M=4, N=16)
    padded(launch, 0, 8, 12, 16)
    launch.memory[0].views += (View((4, 2, 16), (32, 16, 1)),)
    (fault,) = launch.run().faults
    assert fault.index == (0, 0, 12)
    assert fault.message == (
        f"read in padding in copy_rows at {line_of(copy_rows, '# read')}: element [0, 0, 12] of 'X', "
        "which has 128, program (0, 0, 0) and 1 more"
    )


def test_views_with_strides_and_offsets_find_their_elements():
    view = View((3, 4), (1, 5), 7)
    indices = {7 + i + 5 * j: (i, j) for i in range(3) for j in range(4)}
    assert {e: view.index(e) for e in range(40)} == {e: indices.get(e) for e in range(40)}
    assert View((2, 3), (0, 1)).index(2) == (0, 2)
    assert View((0,), (1,)).index(0) is None


def test_reads_of_what_nobody_wrote_are_faults_for_the_sanitiser(executor):
    x, y = torch.ones(8, 16), torch.zeros(8, 16)
    launch = executor.prepare(copy_rows, x, y, 8, 16, 16, 16, grid=(2,), M=4, N=16)
    launch.memory[0].initialised = torch.ones(128, dtype=torch.bool)
    launch.memory[0].initialised[83] = False
    launch.memory[0].views = (View((8, 16), (16, 1)),)
    assert launch.run().faults == ()
    (fault,) = launch.run(sanitize=True).faults
    assert (fault.kind, fault.tensor, fault.index) == ("read of uninitialised memory", "X", (5, 3))
    assert (fault.program, fault.others, fault.location) == ((1, 0, 0), 0, line_of(copy_rows, "# read"))


def test_what_a_launch_wrote_may_be_read_by_the_next(executor):
    x, y = torch.ones(8, 16), torch.zeros(8, 16)
    launch = executor.prepare(copy_rows, x, y, 7, 16, 16, 16, grid=(2,), M=4, N=16)
    launch.memory[1].initialised = torch.zeros(128, dtype=torch.bool)
    launch.run()
    assert launch.memory[1].initialised.tolist() == [True] * 112 + [False] * 16
    launch.memory.reverse()
    assert launch.run(sanitize=True).faults == ()


@triton.jit
def update(X, Y, Z, EXCHANGE: tl.constexpr):
    if EXCHANGE:
        tl.atomic_xchg(X + tl.arange(0, 16), 1)
        tl.store(Z, tl.atomic_xchg(Y, 1))  # exchange
    else:
        tl.atomic_add(X + tl.arange(0, 16), 1, mask=tl.arange(0, 16) < 4)
        tl.atomic_add(Y, 1)  # add


@pytest.mark.parametrize("exchange", [False, True])
def test_an_atomic_operation_reads_what_it_changes_unless_it_only_exchanges(executor, exchange):
    x, y, z = (torch.zeros(16, dtype=torch.int32) for _ in range(3))
    launch = executor.prepare(update, x, y, z, EXCHANGE=exchange)
    launch.memory[0].initialised = torch.arange(16) < (0 if exchange else 4)
    launch.memory[1].initialised = torch.zeros(16, dtype=torch.bool)
    (fault,) = launch.run(sanitize=True).faults
    assert (fault.kind, fault.tensor, fault.location) == (
        "read of uninitialised memory",
        "Y",
        line_of(update, "# exchange" if exchange else "# add"),
    )
    assert bool(launch.memory[1].initialised[0])


@triton.jit
def overlapping(X, step, VALUE: tl.constexpr):
    i = tl.arange(0, 16)
    tl.store(X + 100 * tl.program_id(0) + i // step, i // (step if VALUE else 1))


@pytest.mark.parametrize(("step", "same", "conflict"), [(1, False, False), (2, True, False), (2, False, True)])
def test_lanes_of_a_program_that_store_different_values_to_one_address_conflict(executor, step, same, conflict):
    launch = executor.prepare(overlapping, torch.zeros(200, dtype=torch.int32), step, grid=(2,), VALUE=same)
    execution = launch.run(sanitize=True)
    assert kinds(execution) == ["conflicting store"] * conflict
    assert execution.notes == ()
    if conflict:
        (fault,) = execution.faults
        assert (fault.tensor, fault.index, fault.program, fault.others) == ("X", (0,), (0, 0, 0), 1)


@triton.jit
def turned(X, Scratch, Out, WAY: tl.constexpr, N: tl.constexpr):
    """Scratch is read as it was stored, or transposed."""
    p = tl.program_id(0)
    i, j = tl.arange(0, N)[:, None], tl.arange(0, N)[None, :]
    mine = Scratch + p * N * N
    tl.store(mine + i * N + j, tl.load(X + i * N + j))
    if WAY == "barrier":
        tl.debug_barrier()
    elif WAY == "atomic":
        tl.atomic_add(Out + 4 * N * N, 1)
    elif WAY == "relaxed":
        tl.atomic_add(Out + 4 * N * N, 1, sem="relaxed")
    elif WAY == "ticket":
        tl.store(Out + 4 * N * N + 1 + p, tl.atomic_add(Out + 4 * N * N, 1, sem="relaxed"))
    x = tl.load(mine + i * N + j) if WAY == "same" else tl.load(mine + j * N + i)
    tl.store(Out + p * N * N + i * N + j, x)


@pytest.mark.parametrize("way", ["other", "same", "barrier", "atomic", "relaxed", "ticket"])
def test_what_another_thread_of_the_program_stored_is_read_after_a_barrier(executor, way):
    x, scratch, out = (torch.zeros(n, dtype=torch.int32) for n in (256, 1024, 1029))
    execution = executor.prepare(turned, x, scratch, out, grid=(4,), WAY=way, N=16).run(sanitize=True)
    assert kinds(execution) == ["missing barrier"] * (way in ("other", "relaxed"))
    if way == "other":
        (fault,) = execution.faults
        assert (fault.tensor, fault.index, fault.others) == ("Scratch", (16,), 3)
        assert "put tl.debug_barrier() between" in str(fault)


@triton.jit
def taken(X, WAY: tl.constexpr, N: tl.constexpr):
    """What was loaded is stored over in place, transposed, or by one thread."""
    i, j = tl.arange(0, N)[:, None], tl.arange(0, N)[None, :]
    mine = X + tl.program_id(0) * N * N
    if WAY == "by all":
        x = tl.load(mine + i // N + j)
    elif WAY == "by all, one first":
        x = tl.load(mine + i * N + j) + tl.load(mine + N) + tl.load(mine + j * N + i)
    else:
        x = tl.load(mine + i * N + j)
    if WAY == "barrier":
        tl.debug_barrier()
    if WAY == "same" or WAY == "by all, one first":
        tl.store(mine + i * N + j, x)
    elif WAY == "one":
        tl.store(mine + N, tl.max(x))
    elif WAY == "by all":
        tl.store(mine + j, tl.max(x, 0)[None, :])
    else:
        tl.store(mine + j * N + i, x)


@pytest.mark.parametrize("way", ["turned", "one", "by all", "by all, one first", "same", "barrier"])
def test_what_another_thread_of_the_program_loads_is_stored_over_after_a_barrier(executor, way):
    execution = executor.prepare(taken, torch.zeros(1024, dtype=torch.int32), grid=(4,), WAY=way, N=16).run(
        sanitize=True
    )
    assert kinds(execution) == ["missing barrier"] * (way not in ("same", "barrier"))
    if way == "one":
        (fault,) = execution.faults
        assert (fault.tensor, fault.index, fault.others) == ("X", (16,), 3)
        assert "loaded by another thread of the program: put tl.debug_barrier() between" in str(fault)


@triton.jit
def counted(Y, WAY: tl.constexpr, N: tl.constexpr):
    for _ in range(N):
        count = tl.load(Y)
        if WAY == "branch":
            if count < 10:
                tl.store(Y + 1, 1)
        elif WAY == "block":
            tl.store(Y + 1 + tl.arange(0, 2), count)
        elif WAY == "through a loop":
            for _ in range(count):
                tl.store(Y + 1, 1)
        tl.store(Y, count + 1)


@pytest.mark.parametrize("way", ["branch", "block", "through a loop"])
def test_a_scalar_in_memory_belongs_to_no_thread(executor, way):
    """One thread stores it, and all load it, of which more than one act on it."""
    execution = executor.prepare(counted, torch.zeros(4, dtype=torch.int32), WAY=way, N=2).run(sanitize=True)
    (fault,) = execution.faults
    assert (fault.kind, fault.tensor) == ("missing barrier", "Y")
    assert ", stored by another thread of the program" in str(fault)


def test_a_scalar_that_only_the_thread_that_stores_it_needs_takes_no_barrier(executor):
    y = torch.zeros(1, dtype=torch.int32)
    assert executor.prepare(counted, y, WAY="none", N=3).run(sanitize=True).faults == ()
    assert y.item() == 3


@triton.jit
def capped(X):
    if (tl.load(X + tl.arange(0, 1)) > 42).item():
        tl.store(X, 42)


def test_a_block_of_one_element_is_stored_over_as_a_scalar_is(executor):
    x = torch.full((1,), 50, dtype=torch.int32)
    assert executor.prepare(capped, x).run(sanitize=True).faults == ()
    assert x.item() == 42


DESCRIBED = """
module {
  tt.func public @k(%x: !tt.ptr<f16>, %n: i64, %c: i32) attributes {noinline = false} {
    %one = arith.constant 1 : i64
    %rows = arith.constant 8 : i32
    %zero = arith.constant 0 : i32
    %d = tt.make_tensor_descriptor %x, [%rows, %rows], [%n, %one] : <f16>, <tensor<4xWIDTHxf16>>
    %v = tt.descriptor_load %d[%zero, %c] : !tt.tensordesc<tensor<4xWIDTHxf16>> -> tensor<4xWIDTHxf16>
    tt.return
  }
}
"""


@pytest.mark.parametrize(
    ("width", "offset", "stride", "message"),
    [
        (8, 16, 16, None),
        (8, 8, 16, "does not begin at a multiple of 16 bytes"),
        (8, 0, 12, "has a stride that is not a multiple of 16 bytes"),
        (4, 0, 16, "has blocks of rows shorter than 16 bytes"),
    ],
)
def test_descriptors_must_be_as_the_hardware_takes_them(width, offset, stride, message):
    kernel = load(DESCRIBED.replace("WIDTH", str(width)))
    memory = [Allocation("x", torch.zeros(200, dtype=torch.float16))]
    args = [Pointer(0, offset), Scalar(stride), Scalar(0)]
    assert kernel.run(Launch(memory, args, (1, 1, 1))).faults == ()
    found = [(f.kind, f.tensor, f.message) for f in kernel.run(Launch(memory, args, (1, 1, 1)), sanitize=True).faults]
    where = "invalid descriptor in k at line 7 of the IR"
    expected = (
        [("invalid descriptor", "x", f"{where}: the descriptor of 'x' {message}, program (0, 0, 0)")] if message else []
    )
    assert found == expected


def test_descriptors_made_on_the_host_are_held_to_the_same_rules():
    text = DESCRIBED.replace("WIDTH", "8").replace("%x: !tt.ptr<f16>", "%d: !tt.tensordesc<tensor<4x8xf16>>")
    kernel = load("\n".join(line for line in text.splitlines() if "make_tensor" not in line))
    memory = [Allocation("x", torch.zeros(200, dtype=torch.float16))]
    args = [Descriptor(0, 0, (8, 8), (12, 1), (4, 8), "zero"), Scalar(0), Scalar(0)]
    (fault,) = kernel.run(Launch(memory, args, (1, 1, 1)), sanitize=True).faults
    assert (fault.kind, fault.tensor, fault.location) == ("invalid descriptor", "x", "the launch")


def test_arguments_less_divisible_than_declared_are_faults_for_the_sanitiser():
    text = DESCRIBED.replace("WIDTH", "8").replace("%x: !tt.ptr<f16>", "%x: !tt.ptr<f16> {tt.divisibility = 16 : i32}")
    kernel = load(text)
    memory = [Allocation("x", torch.zeros(200, dtype=torch.float16))]
    args = [Pointer(0, 8), Scalar(16), Scalar(0)]
    with pytest.raises(IRError, match="divisible by 16"):
        kernel.run(Launch(memory, args, (1, 1, 1)))
    fault = kernel.run(Launch(memory, args, (1, 1, 1)), sanitize=True).faults[0]
    assert (fault.kind, fault.tensor) == ("misaligned access", "x")
    assert "argument 0 of kernel k is declared divisible by 16 but points 8 bytes into" in fault.message


@triton.jit
def far(X, Y, stride, n, WHAT: tl.constexpr, N: tl.constexpr):
    p = tl.program_id(0)
    i = tl.arange(0, N)
    if WHAT == "product":
        at = (p * stride)[None] + i
    elif WHAT == "shift":
        at = (i + p) << stride
    elif WHAT == "loop":
        at = i
        for _ in range(p):
            at += stride
    elif WHAT == "branch":
        at = i
        if p > 0:
            at = i * stride
    elif WHAT == "chosen":
        at = tl.reshape(tl.where(p > 0, i * stride, i)[None, :], [N])
    elif WHAT == "wide":
        at = p.to(tl.int64) * stride + i
    elif WHAT == "hash":
        at = ((i + p) * stride) % 16 + (((i + p) * stride) ^ 5) % 16
    elif WHAT == "unsigned":
        at = ((i + p).to(tl.uint32) * stride).to(tl.int64) // 2**40
    tl.store(Y + p * N + i, tl.load(X + at, mask=i < n, other=0))  # access


WRAPS = {"product": 2**30, "shift": 29, "loop": 2**30, "branch": 2**30, "chosen": 2**30}
FINE = {"product": 3, "shift": 2, "loop": 3, "branch": 3, "chosen": 3, "wide": 2**30, "hash": 2**30, "unsigned": 2**30}


@pytest.mark.parametrize(("what", "stride"), [*WRAPS.items()])
def test_an_offset_that_wraps_around_on_its_way_into_an_address_is_a_fault(executor, what, stride):
    launch = executor.prepare(far, torch.zeros(256), torch.zeros(5 * 16), stride, 16, grid=(5,), WHAT=what, N=16)
    fault = launch.run(sanitize=True).faults[0]
    assert (fault.kind, fault.tensor, fault.location) == ("integer overflow", "X", line_of(far, "# access"))
    assert "the offset of element" in fault.message
    exact = {"product": 2**31, "shift": 2**31, "loop": 2**31, "branch": 2**31, "chosen": 2**31}
    first = {"product": 2, "shift": 0, "loop": 2, "branch": 1, "chosen": 1}
    assert fault.index == (exact[what],)
    assert fault.program == (first[what], 0, 0)


@pytest.mark.parametrize(("what", "stride"), [*FINE.items()])
def test_arithmetic_that_does_not_wrap_or_wraps_for_a_hash_is_no_overflow(executor, what, stride):
    launch = executor.prepare(far, torch.zeros(2**10), torch.zeros(5 * 16), stride, 16, grid=(5,), WHAT=what, N=16)
    execution = launch.run(sanitize=True)
    assert "integer overflow" not in kinds(execution)


@pytest.mark.parametrize("what", ["product", "shift", "chosen"])
def test_offsets_of_lanes_that_are_masked_off_may_wrap_around(executor, what):
    launch = executor.prepare(far, torch.zeros(256), torch.zeros(16), WRAPS[what], 2, grid=(1,), WHAT=what, N=16)
    assert "integer overflow" not in kinds(launch.run(sanitize=True))


@triton.jit
def far_tile(X, Y, stride, N: tl.constexpr):
    i, j = tl.arange(0, 2), tl.arange(0, N)
    at = i[:, None] * stride + j[None, :]
    tl.store(Y + i[:, None] * N + j[None, :], tl.load(X + at, mask=j[None, :] < N - 1, other=0))  # access


@pytest.mark.parametrize(("stride", "index"), [(2**31 - 15, None), (2**31 - 14, 2**31)])
def test_a_column_and_a_row_of_offsets_may_only_wrap_around_where_nothing_is_accessed(executor, stride, index):
    launch = executor.prepare(far_tile, torch.zeros(256), torch.zeros(2 * 16), stride, grid=(1,), N=16)
    found = [fault for fault in launch.run(sanitize=True).faults if fault.kind == "integer overflow"]
    assert [(fault.index, fault.location) for fault in found] == (
        [] if index is None else [((index,), line_of(far_tile, "# access"))]
    )


@triton.jit
def far_block(X, Y, stride):
    x = tl.make_tensor_descriptor(X, [64, 64], [64, 1], [8, 16])
    i = tl.arange(0, 8)[:, None] * 16 + tl.arange(0, 16)[None, :]
    tl.store(Y + i, x.load([tl.program_id(0) * stride, 0]))


def test_coordinates_of_descriptors_must_not_wrap_around_either(executor):
    launch = executor.prepare(far_block, torch.zeros(64, 64), torch.zeros(8, 16), 2**30, grid=(4,))
    launch.memory[1].data = torch.zeros(128)
    fault = launch.run(sanitize=True, programs=torch.tensor([2, 1])).faults[0]
    assert (fault.kind, fault.tensor, fault.program) == ("integer overflow", "X", (2, 0, 0))
    assert f"coordinate {2**31} of a block of 'X' wraps around to {-(2**31)}" in fault.message


@triton.jit
def strided(X, Y, x0, y0, sp, sm, sn, n, M: tl.constexpr, N: tl.constexpr):
    i = tl.program_id(0) * sp + tl.arange(0, M)[:, None] * sm + tl.arange(0, N)[None, :] * sn
    k = tl.program_id(0) * M * N + tl.arange(0, M)[:, None] * N + tl.arange(0, N)[None, :]
    tl.store(Y + y0 + k, tl.load(X + x0 + i, mask=k < n), mask=k < n)


@pytest.fixture(scope="module")
def strided_launch(executor):
    return executor.prepare(strided, torch.zeros(96), torch.zeros(96), 0, 0, 3, 5, 7, 2, grid=(3,), M=2, N=8)


@given(
    st.integers(-4, 60),
    st.integers(-4, 60),
    *[st.integers(-3, 17) for _ in range(3)],
    st.integers(0, 48),
    st.lists(st.booleans(), min_size=96, max_size=96),
    st.lists(st.booleans(), min_size=96, max_size=96),
)
@settings(max_examples=60, deadline=None)
def test_faults_are_reported_where_a_model_of_the_accesses_has_them(
    strided_launch, x0, y0, sp, sm, sn, n, valid, initialised
):
    launch = strided_launch
    p, m, j = np.ogrid[:3, :2, :8]
    k = p * 16 + m * 8 + j
    read, write = (x0 + p * sp + m * sm + j * sn)[k < n], (y0 + k)[k < n]
    x, y = launch.memory
    x.valid, x.initialised, y.written = torch.tensor(valid), torch.tensor(initialised), torch.zeros(96).bool()
    args = [*launch.args[:2], *(Scalar(value) for value in (x0, y0, sp, sm, sn, n))]
    found = kinds(launch.kernel.run(replace(launch, args=args), sanitize=True))
    inside = read[(read >= 0) & (read < 96)]
    expected = []
    if len(inside) < len(read):
        expected.append("read out of bounds")
    if not all(valid[e] for e in inside):
        expected.append("read in padding")
    if not all(initialised[e] for e in inside):
        expected.append("read of uninitialised memory")
    if ((write < 0) | (write >= 96)).any():
        expected.append("write out of bounds")
    assert sorted(found) == sorted(expected)
    assert set(y.written.nonzero().flatten().tolist()) == {e for e in write.tolist() if 0 <= e < 96}
