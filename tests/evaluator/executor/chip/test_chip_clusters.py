"""Clusters of CTAs compute what they say, and what comes too early in one CTA for another is found.

Each kernel has a clean twin: the same one with ``RIGHT``.
"""

import re
from typing import Any

import pytest
import torch
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.blackwell import (
    TensorMemoryLayout,
    allocate_tensor_memory,
    clc,
    tcgen05_commit,
    tcgen05_mma,
    tcgen05_mma_barrier_count,
)
from triton.experimental.gluon.language.nvidia.hopper import async_store, cluster, fence_async_shared, mbarrier, tma
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from avo.evaluator.executor import MemoryFault, StuckProgram
from avo.evaluator.offline import offline
from tests.evaluator.executor.chip.sanitised import rank

ORACLE = "the expected messages and locations; torch"

EARLY = "on-chip access too early"
ROWS, COPIES, COLUMNS = ((1, 0),), ((0, 0),), ((0, 1),)
"""CGA layouts: which CTA of two holds what of a block."""


def tiles(divided: tuple[tuple[int, int], ...]) -> Any:
    return gl.NVMMASharedLayout(128, 16, rank=2, cga_layout=divided)


COPIED = gl.constexpr(gl.BlockedLayout([1, 4], [8, 4], [4, 1], [1, 0], cga_layout=[[0, 0]]))
BY_ROWS = gl.constexpr(gl.BlockedLayout([1, 4], [8, 4], [4, 1], [1, 0], cga_layout=[[1, 0]]))
FLAT = gl.constexpr(gl.SwizzledSharedLayout(1, 1, 1, [0], cga_layout=[[0]]))
LINE = gl.constexpr(gl.BlockedLayout([1], [32], [4], [0], cga_layout=[[0]]))


@gluon.jit
def store_part(part, out):
    registers: gl.constexpr = part.get_reg_layout()
    rows, columns = gl.arange(0, 256, gl.SliceLayout(1, registers)), gl.arange(0, 32, gl.SliceLayout(0, registers))
    gl.store(out + rows[:, None] * 64 + columns[None, :], part.load(registers))


@gluon.jit
def paired_product(a_desc, b_desc, out, WRONG: gl.constexpr):
    a = gl.allocate_shared_memory(gl.float16, [256, 64], a_desc.layout)
    b = gl.allocate_shared_memory(gl.float16, [64, 64], b_desc.layout)
    layout: gl.constexpr = TensorMemoryLayout([128, 64], col_stride=1, cga_layout=((1, 0),), two_ctas=True)
    acc = allocate_tensor_memory(gl.float32, [256, 64], layout)
    brought = mbarrier.allocate_mbarrier(two_ctas=True)
    done = mbarrier.allocate_mbarrier()
    mbarrier.init(brought, count=1)
    mbarrier.init(done, count=1)
    mbarrier.expect(brought, a_desc.nbytes_per_cta + b_desc.nbytes_per_cta)
    tma.async_load(a_desc, [0, 0], brought, a)
    tma.async_load(b_desc, [0, 0], brought, b)
    mbarrier.wait(brought, 0)
    if WRONG != "read by the CTA that has not waited":
        gl.barrier(cluster=True)
    a.store(a.load(BY_ROWS))
    if WRONG != "multiplied before a peer has stored":
        gl.barrier(cluster=True)
    tcgen05_mma(a, b, acc, use_acc=False)
    tcgen05_commit(done)
    mbarrier.wait(done, 0, pred=WRONG != "read before the commit")
    store_part(acc.slice(0, 32), out)
    store_part(acc.slice(32, 32), out + 32)


def multiplied(wrong: str = "") -> tuple[tuple[MemoryFault, ...], bool]:
    torch.manual_seed(0)
    a, b, out = torch.randn(256, 64).half(), torch.randn(64, 64).half(), torch.empty(256, 64)
    descriptors = [
        TensorDescriptor.from_tensor(
            x, list(x.shape), gl.NVMMASharedLayout.get_default_for(x.shape, gl.float16, cga_layout=cga)
        )
        for x, cga in ((a, ROWS), (b, COLUMNS))
    ]
    with offline(target="b200") as session:
        paired_product[(2,)](*descriptors, out, wrong, num_warps=4, num_ctas=2)
    return session.report().faults, torch.allclose(out.double(), a.double() @ b.double(), atol=1e-3)


def test_two_ctas_multiply_what_both_hold() -> None:
    assert multiplied() == ((), True)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("read by the CTA that has not waited", "the program in CTA 1 reads a of .* asynchronous copy that signals"),
        ("multiplied before a peer has stored", "the program in CTA 0 reads a of .*, which the program in CTA 1 may"),
        (
            "read before the commit",
            r"the program in CTA 0 reads acc of .* product or copy \(tcgen05\) of the program in",
        ),
    ],
)
def test_two_ctas_that_multiply_wait_for_each_other(wrong: str, message: str) -> None:
    faults, _ = multiplied(wrong)
    assert {fault.kind for fault in faults} == {EARLY}
    assert any(re.search(message, fault.message) for fault in faults), [fault.message for fault in faults]


@gluon.jit
def sent_to_both(desc, out, RIGHT: gl.constexpr):
    tile = gl.allocate_shared_memory(gl.float16, [64, 64], desc.layout)
    ready = mbarrier.allocate_mbarrier()
    mbarrier.init(ready, count=1)
    mbarrier.expect(ready, desc.nbytes_per_cta)
    tma.async_load(desc, [0, 0], ready, tile, multicast=True)
    mbarrier.wait(ready, 0, pred=RIGHT)
    rows, columns = gl.arange(0, 64, gl.SliceLayout(1, COPIED)), gl.arange(0, 64, gl.SliceLayout(0, COPIED))
    gl.store(out + rows[:, None] * 64 + columns[None, :], tile.load(COPIED))


@gluon.jit
def sent_over_what_a_peer_reads(desc, out, RIGHT: gl.constexpr):
    tile = gl.allocate_shared_memory(gl.float16, [64, 64], desc.layout, gl.full([64, 64], 0.0, gl.float16, COPIED))
    ready = mbarrier.allocate_mbarrier()
    mbarrier.init(ready, count=1)
    tile.store(tile.load(COPIED) + 1)
    cluster.barrier(relaxed=not RIGHT)
    mbarrier.expect(ready, desc.nbytes_per_cta)
    tma.async_load(desc, [0, 0], ready, tile, multicast=True)
    mbarrier.wait(ready, 0)


@gluon.jit
def stored_asynchronously(desc, out, RIGHT: gl.constexpr):
    line = gl.allocate_shared_memory(gl.int32, [128], FLAT)
    ready = mbarrier.allocate_mbarrier()
    mbarrier.init(ready, count=1)
    mbarrier.expect(ready, line.nbytes_per_cta)
    numbers = gl.arange(0, 128, LINE)
    async_store(line, numbers, ready)
    mbarrier.wait(ready, 0, pred=RIGHT)
    gl.store(out + numbers, line.load(LINE).to(gl.float16))


@gluon.jit
def store_tile(tile, ready):
    mbarrier.expect(ready, tile.nbytes_per_cta)
    async_store(tile, gl.full([64, 64], 1.0, gl.float16, BY_ROWS), ready)


@gluon.jit
def send_tile(desc, tile, ready, RIGHT: gl.constexpr):
    mbarrier.wait(ready, 0)
    if RIGHT:
        fence_async_shared()
    tma.async_store(desc, [0, 0], tile)
    tma.store_wait(0)


@gluon.jit
def sent_without_a_fence(desc, out, RIGHT: gl.constexpr):
    tile = gl.allocate_shared_memory(gl.float16, [64, 64], desc.layout)
    ready = mbarrier.allocate_mbarrier()
    mbarrier.init(ready, count=1)
    gl.warp_specialize([(store_tile, (tile, ready)), (send_tile, (desc, tile, ready, RIGHT))], [4], [24])


@gluon.jit
def answer_read_early(desc, out, RIGHT: gl.constexpr):
    answer = gl.allocate_shared_memory(gl.int64, [2], FLAT)
    ready = mbarrier.allocate_mbarrier()
    mbarrier.init(ready, count=1)
    clc.try_cancel(answer, ready)
    mbarrier.expect(ready, 16, from_cta=0)
    mbarrier.wait(ready, 0, pred=RIGHT)
    gl.store(out, clc.load_result(answer).is_canceled().to(gl.float16))


FOUND: dict[str, tuple[Any, str, tuple[tuple[int, int], ...], str, str]] = {
    "a read of what TMA sends to both": (
        sent_to_both, "h100", COPIES, EARLY, "in CTA 1 reads tile of .* may still be writing|in CTA 0 reads tile",
    ),
    "a multicast over what a peer reads": (
        sent_over_what_a_peer_reads, "h100", COPIES, EARLY,
        "the program in CTA 0 writes tile of .*, which the program in CTA 1 may still be",
    ),
    "a read of what is stored asynchronously": (
        stored_asynchronously, "h100", COPIES, EARLY, "in CTA 0 reads line of .* signals barrier 0 of bar of .* may",
    ),
    "no fence after an asynchronous store": (
        sent_without_a_fence, "h100", ROWS, "missing fence", "partition 0 in CTA 0 reads tile of .* no fence_async_",
    ),
    "a read of what cluster launch control answers": (
        answer_read_early, "b200", COPIES, EARLY, "the program in CTA 0 reads answer of",
    ),
}  # fmt: skip


def launched(kernel: Any, target: str, divided: tuple[tuple[int, int], ...], right: bool) -> tuple[MemoryFault, ...]:
    desc = TensorDescriptor.from_tensor(torch.randn(64, 64).half(), [64, 64], tiles(divided))
    with offline(target=target) as session:
        kernel[(1,)](desc, torch.empty(64, 64).half(), right, num_warps=4, num_ctas=2)
    return session.report().faults


@pytest.mark.parametrize("what", FOUND)
def test_what_comes_too_early_in_a_cluster_is_found_and_its_clean_twin_is_clean(what: str) -> None:
    kernel, target, divided, kind, message = FOUND[what]
    faults = launched(kernel, target, divided, right=False)
    assert {fault.kind for fault in faults} == {kind}
    assert any(re.search(message, fault.message) for fault in faults), [fault.message for fault in faults]
    assert launched(kernel, target, divided, right=True) == ()


def test_what_tma_sends_to_both_ctas_is_there() -> None:
    x, out = torch.randn(64, 64).half(), torch.empty(64, 64).half()
    with offline() as session:
        sent_to_both[(1,)](TensorDescriptor.from_tensor(x, [64, 64], tiles(COPIES)), out, True, num_warps=4, num_ctas=2)
    assert session.report().clean
    assert torch.equal(out, x)


@gluon.jit
def brought_to_both(desc, MULTICAST: gl.constexpr):
    tile = gl.allocate_shared_memory(gl.float16, [64, 64], desc.layout)
    ready = mbarrier.allocate_mbarrier()
    mbarrier.init(ready, count=1)
    mbarrier.expect(ready, desc.nbytes_per_cta)
    tma.async_load(desc, [0, 0], ready, tile, multicast=MULTICAST)
    mbarrier.wait(ready, 0)


@pytest.mark.parametrize(
    ("divided", "multicast", "asked", "distinct"), [(COPIES, True, 1, 1), (COPIES, False, 2, 0.5), (ROWS, False, 1, 1)]
)
def test_each_cta_is_counted_that_asks_for_a_copy(
    divided: tuple[tuple[int, int], ...], multicast: bool, asked: int, distinct: float
) -> None:
    desc = TensorDescriptor.from_tensor(torch.randn(64, 64).half(), [64, 64], tiles(divided))
    with offline() as session:
        brought_to_both[(1,)](desc, multicast, num_warps=4, num_ctas=2)
    assert session.report().clean
    counted = session.launches[0].counted
    assert counted is not None
    (access,) = counted.accesses
    assert (access.program_bytes, access.program_lines) == (asked * 64 * 128, asked * 64)
    assert access.distinct == distinct


@gluon.jit
def expects_more(desc, MORE: gl.constexpr):
    line = gl.allocate_shared_memory(gl.int32, [128], FLAT)
    ready = mbarrier.allocate_mbarrier()
    mbarrier.init(ready, count=1)
    mbarrier.expect(ready, line.nbytes_per_cta + MORE)
    async_store(line, gl.arange(0, 128, LINE), ready)
    mbarrier.wait(ready, 0)


def test_bytes_that_no_store_brings_are_waited_for_in_vain() -> None:
    with offline():
        expects_more[(1,)](None, 0, num_warps=4, num_ctas=2)
        with pytest.raises(StuckProgram, match="which lacks 0 arrivals and 4 bytes"):
            expects_more[(1,)](None, 4, num_warps=4, num_ctas=2)


@gluon.jit
def counted_commits(a_desc, b_desc, MORE: gl.constexpr):
    a = gl.allocate_shared_memory(gl.float16, [256, 64], a_desc.layout)
    b = gl.allocate_shared_memory(gl.float16, [64, 128], b_desc.layout)
    layout: gl.constexpr = TensorMemoryLayout([128, 64], col_stride=1, cga_layout=((1, 0), (0, 1)), two_ctas=True)
    acc = allocate_tensor_memory(gl.float32, [256, 128], layout)
    brought = mbarrier.allocate_mbarrier(two_ctas=True)
    done = mbarrier.allocate_mbarrier()
    count: gl.constexpr = tcgen05_mma_barrier_count([a, b], True, True)
    mbarrier.init(brought, count=1)
    mbarrier.init(done, count=count + MORE)
    for i in range(2):
        mbarrier.expect(brought, a_desc.nbytes_per_cta + b_desc.nbytes_per_cta)
        tma.async_load(a_desc, [0, 0], brought, a, multicast=True)
        tma.async_load(b_desc, [0, 0], brought, b, multicast=True)
        mbarrier.wait(brought, i)
        tcgen05_mma(a, b, acc, use_acc=i != 0, multicast=True, mbarriers=[done])
        mbarrier.wait(done, i)


def test_a_commit_arrives_in_every_cta_that_holds_a_copy_of_an_operand() -> None:
    a, b = torch.randn(256, 64).half(), torch.randn(64, 128).half()
    by_rows = gl.NVMMASharedLayout.get_default_for([256, 64], gl.float16, cga_layout=((1, 0), (0, 0)))
    by_columns = gl.NVMMASharedLayout.get_default_for([64, 128], gl.float16, cga_layout=((0, 1), (0, 2)))
    descriptors = [
        TensorDescriptor.from_tensor(a, [256, 64], by_rows),
        TensorDescriptor.from_tensor(b, [64, 128], by_columns),
    ]
    with offline(target="b200") as session:
        counted_commits[(1,)](*descriptors, 0, num_warps=4, num_ctas=4)
        assert session.report().clean
        with pytest.raises(StuckProgram, match="which lacks 1 arrival and 0 bytes"):
            counted_commits[(1,)](*descriptors, 1, num_warps=4, num_ctas=4)


@gluon.jit
def numbers_of_a_peer(numbers, out, HOW: gl.constexpr):
    """Reverse a line of which each CTA holds a half, once both have stored theirs, or half of it."""
    layout: gl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, [0], cga_layout=((1,),))
    halves: gl.constexpr = gl.BlockedLayout([1], [32], [4], [0], cga_layout=((1,),))
    copies: gl.constexpr = gl.BlockedLayout([1], [32], [4], [0], cga_layout=((0,),))
    i = gl.arange(0, 256, halves)
    line = gl.allocate_shared_memory(gl.int32, [256], layout, gl.load(numbers + i))
    gl.barrier(cluster=True)
    if HOW == "gather":
        found = line.gather(255 - i, axis=0)
    elif HOW == "scatter":
        line.scatter(gl.load(numbers + i), 255 - i, axis=0)
        gl.barrier(cluster=True)
        found = line.load(halves)
    elif HOW == "add":
        line.atomic_scatter_add(gl.load(numbers + i), 255 - i, axis=0)
        gl.barrier(cluster=True)
        found = line.load(halves) - gl.load(numbers + i)
    else:
        found = line.gather(255 - i, axis=0)
        j = gl.arange(0, 128, copies)
        gl.store(out + 256 + j, line.slice(128, 128).load(copies))
    gl.barrier(cluster=True)
    gl.store(out + i, found)


@pytest.mark.parametrize("how", ["gather", "scatter", "add", "load"])
def test_a_cta_reads_and_writes_what_another_one_holds(how: str) -> None:
    numbers, out = torch.randint(-99, 99, (256,), dtype=torch.int32), torch.zeros(384, dtype=torch.int32)
    with offline(target="h100") as session:
        numbers_of_a_peer[(1,)](numbers, out, how, num_warps=4, num_ctas=2)
    assert session.report().faults == ()
    assert out[:256].tolist() == numbers.flip(0).tolist()
    assert out[256:].tolist() == (numbers[128:].tolist() if how == "load" else [0] * 128)


@gluon.jit
def numbers_of_ctas(out):
    number = rank()
    gl.store(out + number, 10 + number)
    if number == 1:
        gl.store(out + 2, number + 5)
    if number != 1:
        gl.store(out + 3, number + 7)
    gl.store(out + 4, gl.load(out + 4) + 1)


@pytest.mark.parametrize("ctas", [1, 2])
def test_a_value_is_stored_by_the_first_cta_whatever_number_it_depends_on(ctas: int) -> None:
    out = torch.zeros(5, dtype=torch.int32)
    with offline(target="h100") as session:
        numbers_of_ctas[(1,)](out, num_warps=4, num_ctas=ctas)
    assert session.report().faults == ()
    assert out.tolist() == [10, 0, 0, 7, 1], "as the PTX has it: a store whose predicate is that the number is 0"
