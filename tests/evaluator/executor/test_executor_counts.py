"""What is counted: exactly what programs did, through branches, masks and loops."""

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from hypothesis import given, settings
from hypothesis import strategies as st
from triton.language.extra import libdevice

from avo.evaluator.executor import UnsupportedOperation
from avo.evaluator.executor.control import KNOWN
from avo.evaluator.executor.work import OpKind
from avo.evaluator.work import Body

ORACLE = "counts made by hand"


@triton.jit
def branching(X, Y, Bound, n, N: tl.constexpr, DATA: tl.constexpr):
    p = tl.program_id(0)
    i = tl.arange(0, N)
    total = tl.zeros((N, N), tl.float32)
    limit = tl.load(Bound + p) if DATA else p
    for step in range(n):
        if step < limit:
            x = tl.load(X + i[:, None] * N + i[None, :])
            total = tl.dot(x, x, total)
        else:
            total = tl.exp(total)
    tl.store(Y + p * N * N + i[:, None] * N + i[None, :], total)


def prepared(executor, data, programs=4, n=3):
    x, y = torch.zeros(16, 16, dtype=torch.float16), torch.zeros(programs, 16, 16)
    bounds = torch.arange(programs, dtype=torch.int32)
    return executor.prepare(branching, x, y, bounds, n, grid=(programs,), N=16, DATA=data)


def test_each_side_of_a_branch_counts_for_the_programs_that_took_it(executor):
    launch = prepared(executor, data=True)
    counts = launch.run(count=True).counts
    assert counts.operations[OpKind("dot", "f16")].tolist() == [0, 2 * 16**3, 4 * 16**3, 6 * 16**3]
    assert counts.operations[OpKind("exponential", "f32")].tolist() == [3 * 256, 2 * 256, 256, 0]
    assert sum(int(done.sum()) for kind, done in counts.operations.items() if kind.name == "dot") == 12 * 16**3


def test_the_work_of_a_grid_follows_branches_on_what_is_cheap_to_know(executor):
    launch = prepared(executor, data=False)
    counted = launch.kernel.count(launch)
    assert counted.trips[0].tolist() == [3] * 4
    (body,) = counted.bodies
    assert body == Body(
        6 * 2 * 16**3 / 12, exponentials=6 * 256 / 12, load_bytes=6 * 512 / 12, store_bytes=0, entered=0.5
    )
    assert counted.outside.store_bytes == 1024


def test_the_work_of_a_grid_holds_both_sides_of_branches_on_data(executor):
    launch = prepared(executor, data=True)
    counted = launch.kernel.count(launch)
    (body,) = counted.bodies
    assert (body.dot_flops, body.exponentials) == (2 * 16**3, 256)


@triton.jit
def several_kinds(X, Y, N: tl.constexpr):
    i = tl.arange(0, N)
    x = tl.load(X + i)
    y = tl.fma(x, x, x) / (x + 1.0)
    y = tl.where(x > 0.5, tl.sqrt(y), y.to(tl.float16).to(tl.float32))
    tl.store(Y + i, y + tl.sum(x, 0) + tl.max(tl.cumsum(x, 0), 0))


@triton.jit
def if_positive(x):
    result = 0.0
    if x > 0.0:
        result = tl.exp2(x)
    return result


@triton.jit
def single_elements(X, Out, n):
    i = tl.arange(0, 64)
    acc = tl.load(X + i)
    for _ in range(n):
        if n < 0:
            acc = acc * 2.0
        acc += tl.map_elementwise(if_positive, acc)
    tl.store(Out + i, acc)


def test_what_elements_branch_around_on_their_own_counts_for_all_of_them(executor):
    launch = executor.prepare(single_elements, torch.ones(64), torch.empty(64), 3)
    counted = launch.kernel.count(launch)
    assert counted.trips[0].tolist() == [3]
    assert (counted.bodies[0].exponentials, counted.bodies[0].entered) == (64, 1)


@triton.jit
def halvings(x):
    steps = 0
    while x >= 1.0:
        x = x / 2
        steps += 1
    return steps


@triton.jit
def loops_of_elements(X, Out):
    i = tl.arange(0, 64)
    tl.store(Out + i, tl.map_elementwise(halvings, tl.load(X + i)))


def test_a_loop_of_single_elements_is_executed_and_not_counted(executor):
    out = torch.empty(64, dtype=torch.int32)
    launch = executor.prepare(loops_of_elements, torch.full((64,), 5.0), out)
    assert "tt.map_elementwise with a loop, whose passes are not counted" in launch.run(work=True).uncounted
    assert out.tolist() == [3] * 64
    with pytest.raises(UnsupportedOperation, match="whose passes are not counted"):
        launch.kernel.count(launch)


@triton.jit
def remainders(X, Out, LOOPS: tl.constexpr):
    i = tl.arange(0, 64)
    x = tl.load(X + i)
    tl.store(Out + i, libdevice.fmod(x, 3.0) if LOOPS else libdevice.round(x))


def test_a_function_of_libdevice_with_a_loop_is_executed_and_not_counted(executor):
    out = torch.empty(64)
    looping, straight = (
        executor.prepare(remainders, torch.full((64,), 5.0), out, LOOPS=loops) for loops in (True, False)
    )
    assert "__nv_fmodf with a loop, whose passes are not counted" in looping.run(work=True).uncounted
    assert out.tolist() == [2.0] * 64
    assert not straight.run(work=True).uncounted


@triton.jit
def sides(X, Out, n):
    p = tl.program_id(0)
    x = tl.load(X)
    if p == 0:
        x = x * 2.0
    for i in range(n):
        if i % 4 == 0:  # noqa: SIM108 - a branch
            x = x * 3.0
        else:
            x = x * 5.0
        if n < 0:
            x = x * 7.0
    tl.store(Out + p, x)


def test_lines_that_are_passed_by_are_known_with_their_share(executor):
    launch = executor.prepare(sides, torch.ones(1), torch.empty(4), 8, grid=(4,))
    counted = launch.kernel.count(launch)
    products = (number for number, line in enumerate(launch.ttir.splitlines(), 1) if "arith.mulf" in line)
    found = [share for number in products for lines, share in counted.shares if number in lines]
    assert found == [1 / 4, 1 / 4, 3 / 4, 0]


@triton.jit
def add_and_round(X, Y):
    i = tl.arange(0, 64)
    tl.store(Y + i, (tl.load(X + i) + 1.0).to(tl.float16))


def test_a_conversion_counts_as_four_additions(executor):
    launch = executor.prepare(add_and_round, torch.rand(64), torch.empty(64, dtype=torch.float16))
    assert launch.kernel.count(launch).outside.arithmetic == 64 + 4 * 64


def test_operations_are_told_apart_by_kind_and_type(executor):
    launch = executor.prepare(several_kinds, torch.rand(64), torch.zeros(64), N=64)
    operations = {kind: int(amount.sum()) for kind, amount in launch.run(count=True).counts.operations.items()}
    assert operations == {
        OpKind("address", "ptr"): 128,
        # a multiply-add (2), x + 1, the two sums at the end, and three times 63 or 64 - 1 in sum, scan and maximum
        OpKind("float", "f32"): 64 * (2 + 1 + 2) + 63 + 63 + 63,
        OpKind("division", "f32"): 64,
        OpKind("function", "f32"): 64,
        OpKind("compare", "f32"): 64,
        OpKind("select", "f32"): 64,
        OpKind("convert", "f32"): 64,
        OpKind("convert", "f16"): 64,
    }


@triton.jit
def strided_copy(X, Y, n, stride, N: tl.constexpr):
    i = tl.program_id(0) * N + tl.arange(0, N)
    tl.store(Y + i, tl.load(X + i * stride, mask=i < n), mask=i < n)


@settings(max_examples=20, deadline=None)
@given(n=st.integers(0, 128), stride=st.integers(1, 9), double=st.booleans(), shift=st.integers(0, 9))
def test_traffic_is_what_a_list_of_the_addresses_says(executor, n, stride, double, shift):
    dtype = torch.float64 if double else torch.int16
    x, y = torch.zeros(128 * 9 + 16, dtype=dtype), torch.zeros(128, dtype=dtype)
    launch = executor.prepare(strided_copy, x[shift:], y, n, stride, grid=(4,), N=32)
    counts = launch.run(count=True).counts
    size = x.element_size()
    for program in range(4):
        active = [i for i in range(program * 32, program * 32 + 32) if i < n]
        read = {(shift + i * stride) * size // 32 for i in active}
        written = {i * size // 32 for i in active}
        x_traffic, y_traffic = counts.traffic["X"], counts.traffic["Y"]
        assert (x_traffic.read_bytes[program], x_traffic.read_sectors[program]) == (len(active) * size, len(read))
        assert (y_traffic.written_bytes[program], y_traffic.written_sectors[program]) == (
            len(active) * size,
            len(written),
        )
    assert not counts.traffic["X"].written_bytes.any()
    assert not counts.traffic["Y"].read_sectors.any()


@triton.jit
def adds(X, Out, N: tl.constexpr):
    i = tl.arange(0, N)
    tl.atomic_add(Out + i % 4, tl.load(X + tl.program_id(0) * N + i))


def test_atomic_operations_read_and_write(executor):
    launch = executor.prepare(adds, torch.ones(64), torch.zeros(4), grid=(2,), N=32)
    traffic = launch.run(count=True).counts.traffic["Out"]
    for amount in (traffic.read_bytes, traffic.written_bytes):
        assert amount.tolist() == [128, 128]
    assert traffic.read_sectors.tolist() == traffic.written_sectors.tolist() == [1, 1]


def test_the_counts_of_chosen_programs_are_theirs_in_the_order_given(executor):
    launch = prepared(executor, data=True)
    counts = launch.run(count=True, programs=torch.tensor([3, 0]), temporaries_bytes=1).counts
    assert counts.operations[OpKind("dot", "f16")].tolist() == [6 * 16**3, 0]
    assert np.array_equal(counts.traffic["Y"].written_bytes, [1024, 1024])


def test_every_operation_that_computes_has_a_kind():
    uncounted = {name for name in KNOWN if name.startswith(("arith.", "math."))}
    uncounted -= {"arith.constant", "arith.bitcast", "arith.index_cast"}
    from avo.evaluator.executor.ir import Op
    from avo.evaluator.executor.work import _kind

    assert not [name for name in uncounted if _kind(Op(name, (), (), "")) is None]


@triton.jit
def moving_pointers(X, Y, Out, n, N: tl.constexpr):
    i = tl.arange(0, N)
    total = tl.zeros((N,), tl.float32)
    pointers = X + i
    for _ in range(n):
        total += tl.load(pointers)
        pointers = pointers + N if n > 3 else Y + i
    tl.store(Out + i, total)


def test_pointers_are_followed_through_loops_and_branches(executor):
    x, y, out = torch.zeros(64), torch.zeros(16), torch.zeros(16)
    launch = executor.prepare(moving_pointers, x, y, out, 3, N=16)
    assert launch.kernel.may_read(launch.args) == {0, 1, 2}
    read, written = launch.kernel.traced_accesses(launch.args)
    assert (read, written) == ({0, 1}, {2})
    assert launch.kernel.trip_dependencies(launch.args) == set()
