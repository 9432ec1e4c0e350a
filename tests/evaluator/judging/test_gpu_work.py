"""The work of plans that only a GPU can run: partitions that run side by side count as one, what decides is known."""

from collections.abc import Callable

import pytest
import torch

from avo.evaluator.binary import Binary
from avo.evaluator.evaluation import Fault, Status
from avo.evaluator.executor import Allocation
from avo.evaluator.judging.buffers import Buffers
from avo.evaluator.judging.execution import PlanRun
from avo.evaluator.judging.gpu_work import works
from avo.evaluator.judging.refusal import outcome
from avo.evaluator.plan import Buffer, KernelIR, Launch, LaunchPlan, Level, Pointer, Role, Scalar
from avo.evaluator.work import LaunchWork

BINARY = Binary("k", "h100", b"", "", 128, 32, 0, 0, 0)
A = "!ttg.memdesc<64x16xbf16, #shared, #smem, mutable>"
B = "!ttg.memdesc<16x32xbf16, #shared, #smem, mutable>"
C = "!ttg.memdesc<64x32xf32, #tmem, #ttng.tensor_memory, mutable>"
BARRIER = "!ttg.memdesc<1xi64, #shared, #smem, mutable>"
FLOPS = 2 * 64 * 16 * 32
LOAD_BYTES = 2 * 64 * 16
COPY = (
    f"ttng.async_tma_copy_global_to_local %p[%n] %x, %bar, %n : !tt.tensordesc<64x16xbf16, #shared>, {BARRIER} -> {A}"
)
PRODUCT = f"ttng.tc_gen5_mma %x, %y, %z, %n, %n : {A}, {B}, {C}"


def loop(body: str, trips: str) -> str:
    return f"scf.for %i = %zero to {trips} step %one  : i32 {{\n{body}\n}}\n"


def plan(body: str) -> LaunchPlan:
    text = f"""\
module attributes {{"ttg.num-warps" = 4 : i32}} {{
  tt.func public @k(%n: i32, %p: !tt.ptr<i32>) attributes {{noinline = false}} {{
    %zero = arith.constant 0 : i32
    %one = arith.constant 1 : i32
    %twice = arith.addi %n, %n : i32
{body}
    tt.return
  }}
}}
"""
    kernel = KernelIR("k", text, (), Level.TTGIR)
    launch = Launch(0, (3, 1, 1), (Scalar(5), Pointer(0, 0)))
    return LaunchPlan("case", (Buffer("p", "int32", 4, Role.SCRATCH),), (kernel,), (launch,))


@pytest.fixture
def count() -> Callable[[str], LaunchWork | Fault]:
    def prepared(plan: LaunchPlan) -> PlanRun:
        assert [buffer.name for buffer in plan.buffers] == ["p", "open"]
        allocations = (Allocation(b.name, torch.zeros(64, dtype=torch.int32), None, False) for b in plan.buffers)
        return PlanRun(plan, Buffers(tuple(allocations), {}), float("inf"))

    def count(body: str) -> LaunchWork | Fault:
        counted = plan(body)
        return outcome(lambda: works(counted, prepared, {counted.kernels[0]: BINARY})[0])

    return count


def specialised(default: str, *partitions: str) -> str:
    regions = [
        f"partition{i}(%n: i32, %zero: i32, %one: i32) num_warps(1) {{\n{body}\nttg.warp_return\n}}"
        for i, body in enumerate(partitions)
    ]
    lines = ["ttg.warp_specialize(%n, %zero, %one)", "default {", f"{default}ttg.warp_yield", "}", *regions]
    return "\n".join(lines) + " : (i32, i32, i32) -> ()"


def test_partitions_that_pass_their_loops_side_by_side_are_one_loop(count: Callable[[str], LaunchWork | Fault]) -> None:
    work = count(specialised(loop(COPY, "%twice"), loop(PRODUCT, "%n")))
    assert isinstance(work, LaunchWork), work
    (both,) = work.loops
    assert both.trips.tolist() == [5, 5, 5]
    assert (both.body.dot_flops, both.body.load_bytes) == (FLOPS, 2 * LOAD_BYTES)  # twice the trips, in half the passes
    assert work.total("dot_flops") == 3 * 5 * FLOPS
    assert work.binary is BINARY


def test_partitions_that_are_started_in_a_loop_are_counted_in_it(count: Callable[[str], LaunchWork | Fault]) -> None:
    work = count(loop(specialised(loop(COPY, "%n"), loop(PRODUCT, "%n")), "%twice") + loop(PRODUCT, "%n"))
    assert isinstance(work, LaunchWork), work
    assert [each.parent for each in work.loops] == [None, 0, None]
    assert [each.trips.tolist() for each in work.loops] == [[10, 10, 10], [50, 50, 50], [5, 5, 5]]
    assert (work.loops[1].body.dot_flops, work.loops[1].body.load_bytes) == (FLOPS, LOAD_BYTES)


def test_loops_that_have_no_counterpart_in_the_main_partition_are_counted_outside(
    count: Callable[[str], LaunchWork | Fault],
) -> None:
    work = count(specialised("", loop(loop(PRODUCT, "%n"), "%n"), loop(COPY, "%n")))
    assert isinstance(work, LaunchWork), work
    assert [each.parent for each in work.loops] == [None, 0]
    assert work.loops[1].trips.tolist() == [25, 25, 25]
    assert work.outside.load_bytes == pytest.approx(5 * LOAD_BYTES, abs=16)


def test_a_loop_that_shared_memory_decides_about_is_refused(count: Callable[[str], LaunchWork | Fault]) -> None:
    found = count("%m = ttg.local_load %x : () -> i32\n" + loop(PRODUCT, "%m"))
    assert isinstance(found, Fault)
    assert found.status is Status.UNSUPPORTED
    assert "a loop that depends on what shared memory holds" in found.message


@pytest.mark.parametrize("body", ["%x:9 = nonsense.op", "scf.yield %n : i32, i32", "}"])
def test_text_that_makes_no_sense_is_a_fault(count: Callable[[str], LaunchWork | Fault], body: str) -> None:
    assert isinstance(count(body), Fault)
