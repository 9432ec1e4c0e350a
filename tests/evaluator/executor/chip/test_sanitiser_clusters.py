"""What one CTA of a cluster may still be doing to the memory of another is found. Each kernel has a clean twin."""

import re

import torch
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia import rubin
from triton.experimental.gluon.language.nvidia.blackwell import (
    TensorMemoryLayout,
    allocate_tensor_memory,
    clc,
    tcgen05_mma,
    tcgen05_mma_barrier_count,
)
from triton.experimental.gluon.language.nvidia.hopper import async_store, cluster, fence_async_shared, mbarrier, tma
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from avo.evaluator.offline import offline
from tests.evaluator.executor.chip.sanitised import (
    BOTH,
    BOTH_FLAT,
    BOTH_ROW,
    COPIES,
    DEADLOCK,
    EARLY,
    UNFENCED,
    Case,
    each,
    idle,
    judge,
    rank,
    started,
)

ORACLE = "the expected messages and locations"


@gluon.jit
def send_to_both(desc, tile, ready):
    mbarrier.expect(ready, desc.nbytes_per_cta)
    tma.async_load(desc, [0, 0], ready, tile, multicast=True)


@gluon.jit
def keep(tile, kept):
    """Read a tile, in each CTA its own copy."""
    kept.store(tile.load(BOTH))


@gluon.jit
def sent_again_to_both(desc, x, RIGHT: gl.constexpr):
    tile = gl.allocate_shared_memory(gl.float16, [64, 64], desc.layout)
    kept = gl.allocate_shared_memory(gl.float16, [64, 64], desc.layout)
    ready = started(1).index(0)
    for step in gl.static_range(2):
        send_to_both(desc, tile, ready)
        mbarrier.wait(ready, step)
        keep(tile, kept)
        cluster.barrier(relaxed=not RIGHT)


@gluon.jit
def stored_before_it_came(desc, x, RIGHT: gl.constexpr):
    tile = gl.allocate_shared_memory(gl.float16, [64, 64], desc.layout)
    ready = started(1).index(0)
    send_to_both(desc, tile, ready)
    mbarrier.wait(ready, 0, pred=RIGHT)
    gl.barrier(cluster=True)
    tile.store(gl.full([64, 64], 1.0, gl.float16, BOTH))


@gluon.jit
def read_after_the_meeting(desc, x, RIGHT: gl.constexpr):
    tile = gl.allocate_shared_memory(gl.float16, [64, 64], desc.layout)
    kept = gl.allocate_shared_memory(gl.float16, [64, 64], desc.layout)
    ready = started(1).index(0)
    if RIGHT:
        keep(tile, kept)
    gl.barrier(cluster=True)
    if not RIGHT:
        keep(tile, kept)
    send_to_both(desc, tile, ready)
    mbarrier.wait(ready, 0)


@gluon.jit
def multiplied_by_itself(desc, x, WRONG: gl.constexpr):
    tile = gl.allocate_shared_memory(gl.float16, [64, 64], desc.layout)
    layout: gl.constexpr = TensorMemoryLayout([64, 64], col_stride=1, cga_layout=((0, 0),))
    acc = allocate_tensor_memory(gl.float32, [64, 64], layout)
    done = started(2)
    tcgen05_mma(tile, tile, acc, use_acc=False, mbarriers=[done.index(0)])
    mbarrier.wait(done.index(0), 0, pred=WRONG != "before the wait")
    cluster.barrier(relaxed=WRONG == "before the meeting")
    send_to_both(desc, tile, done.index(1))
    mbarrier.wait(done.index(1), 0)


@gluon.jit
def ask(answer, ready):
    mbarrier.expect(ready, 16, from_cta=0)
    clc.try_cancel(answer, ready)


@gluon.jit
def asked_twice_at_once(desc, x, RIGHT: gl.constexpr):
    answer = gl.allocate_shared_memory(gl.int64, [2], BOTH_FLAT)
    ready = started(2)
    ask(answer, ready.index(0))
    ask(answer, ready.index(1))
    mbarrier.wait(ready.index(0), 0)
    mbarrier.wait(ready.index(1), 0, pred=RIGHT)
    gl.store(x, clc.load_result(answer).is_canceled().to(gl.float16))


@gluon.jit
def asked_again(desc, x, RIGHT: gl.constexpr):
    answer = gl.allocate_shared_memory(gl.int64, [2], BOTH_FLAT)
    ready = started(1).index(0)
    ask(answer, ready)
    mbarrier.wait(ready, 0)
    gl.store(x, clc.load_result(answer).is_canceled().to(gl.float16))
    cluster.barrier(relaxed=not RIGHT)
    ask(answer, ready)
    mbarrier.wait(ready, 1)


@gluon.jit
def read_and_tell_the_first(line, kept, read):
    kept.store(line.load(BOTH_ROW))
    mbarrier.arrive(read)


@gluon.jit
def write_once_told(line, answer, told, read, RIGHT: gl.constexpr):
    mbarrier.wait(read, 0)
    if RIGHT:
        mbarrier.expect(told, 16, from_cta=0)
    else:
        mbarrier.expect(told, 16)
    clc.try_cancel(answer, told)
    mbarrier.wait(told, 0)
    line.store(gl.full([128], 1.0, gl.float16, BOTH_ROW))


@gluon.jit
def told_by_the_first(desc, x, RIGHT: gl.constexpr):
    lines = gl.allocate_shared_memory(gl.float16, [2, 128], BOTH_FLAT)
    answer = gl.allocate_shared_memory(gl.int64, [2], BOTH_FLAT)
    told = started(1).index(0)
    read = mbarrier.allocate_mbarrier(two_ctas=True)
    mbarrier.init(read, count=1)
    line = lines.index(0)
    gl.warp_specialize(
        [(read_and_tell_the_first, (line, lines.index(1), read)), (write_once_told, (line, answer, told, read, RIGHT))],
        [4],
        [24],
    )


@gluon.jit
def keep_and_set_a_flag(lines, flag, read):
    lines.index(1).store(lines.index(0).load(BOTH_ROW))
    cluster.barrier(relaxed=True)
    gl.store(flag, 1.0)
    mbarrier.arrive(read)


@gluon.jit
def write_once_the_flag_is_set(line, flag, read, RIGHT: gl.constexpr):
    seen = gl.load(flag, volatile=True)
    while seen == 0:
        seen = gl.load(flag, volatile=True)
    mbarrier.wait(read, 0, pred=RIGHT)
    gl.barrier(cluster=True)
    line.store(gl.full([128], 1.0, gl.float16, BOTH_ROW))


@gluon.jit
def flag_in_place_of_a_barrier(desc, x, RIGHT: gl.constexpr):
    lines = gl.allocate_shared_memory(gl.float16, [2, 128], BOTH_FLAT)
    read = started(1).index(0)
    gl.warp_specialize(
        [(keep_and_set_a_flag, (lines, x, read)), (write_once_the_flag_is_set, (lines.index(0), x, read, RIGHT))],
        [4],
        [24],
    )


@gluon.jit
def fill_and_tell(tile, told):
    tile.store(gl.full([64, 64], 1.0, gl.float16, BOTH))
    mbarrier.arrive(told)
    fence_async_shared()


@gluon.jit
def meet_and_send(desc, tile, told, FENCED: gl.constexpr):
    mbarrier.wait(told, 0)
    gl.barrier(cluster=True)
    if FENCED:
        fence_async_shared()
    tma.async_store(desc, [0, 0], tile)
    tma.store_wait(0)


@gluon.jit
def fenced_after_telling(desc, x, RIGHT: gl.constexpr):
    tile = gl.allocate_shared_memory(gl.float16, [64, 64], desc.layout)
    told = started(1).index(0)
    gl.warp_specialize([(fill_and_tell, (tile, told)), (meet_and_send, (desc, tile, told, RIGHT))], [4], [24])


@gluon.jit
def told_by_one_of_two(desc, x, RIGHT: gl.constexpr):
    bar = started(1, 2).index(0)
    if RIGHT:
        rubin.mbarrier.arrive(bar, multicast_cta=1)
    else:
        mbarrier.arrive(bar)
    mbarrier.wait(bar, 0)


@gluon.jit
def exchange(told, awaited, FIRST: gl.constexpr):
    if FIRST:
        mbarrier.arrive(told)
    mbarrier.wait(awaited, 0)
    if not FIRST:
        mbarrier.arrive(told)


@gluon.jit
def met_after_partitions(desc, x, RIGHT: gl.constexpr):
    bars = started(2)
    one = bars.index(0)
    other = bars.index(1)
    gl.warp_specialize([(exchange, (one, other, False)), (exchange, (other, one, RIGHT))], [4], [24])
    gl.barrier(cluster=True)


@gluon.jit
def wait_if(bar, WAITS: gl.constexpr):
    if WAITS:
        mbarrier.wait(bar, 0)


@gluon.jit
def pair_that_nobody_tells(desc, x, RIGHT: gl.constexpr):
    bar = mbarrier.allocate_mbarrier(two_ctas=True)
    mbarrier.init(bar, count=1)
    gl.warp_specialize([(idle, ()), (wait_if, (bar, not RIGHT))], [4], [24])
    gl.barrier(cluster=True)


@gluon.jit
def meet_wait_meet(bar):
    gl.barrier(cluster=True)
    mbarrier.wait(bar, 0)
    gl.barrier(cluster=True)


@gluon.jit
def met_by_one_partition(desc, x, FORM: gl.constexpr):
    bar = mbarrier.allocate_mbarrier(two_ctas=True)
    own = started(1).index(0)
    mbarrier.init(bar, count=1)
    if FORM[0] == "told":
        mbarrier.arrive(bar)
        mbarrier.arrive(own)
    if FORM[1] == "default":
        gl.warp_specialize([(meet_wait_meet, (bar,)), (wait_if, (own, True))], [4], [24])
    else:
        gl.warp_specialize([(wait_if, (own, True)), (meet_wait_meet, (bar,))], [4], [24])


PEER = "which the program in CTA 1 may still be"
HALVES = gl.constexpr(gl.BlockedLayout([1], [32], [4], [0], cga_layout=[[1]]))
"""Registers of a line, of which each of two CTAs has a half."""


@gluon.jit
def halves():
    """A line of shared memory, of which each of two CTAs holds a half."""
    line = gl.allocate_shared_memory(gl.int32, [256], gl.SwizzledSharedLayout(1, 1, 1, [0], cga_layout=[[1]]))
    i = gl.arange(0, 256, HALVES)
    line.store(i)
    return line, i


@gluon.jit
def gathered_from_a_peer(desc, x, WRONG: gl.constexpr):
    line, i = halves()
    cluster.barrier(relaxed=WRONG == "before the peer has stored")
    found = line.gather(i ^ 128, axis=0)
    cluster.barrier(relaxed=WRONG == "while the peer stores again")
    line.store(found)


@gluon.jit
def scattered_to_a_peer(desc, x, WRONG: gl.constexpr):
    line, i = halves()
    gl.barrier(cluster=True)
    line.scatter(i, i ^ 128, axis=0)
    cluster.barrier(relaxed=WRONG == "scattered")
    line.atomic_scatter_add(i, i ^ 128, axis=0)
    cluster.barrier(relaxed=WRONG == "added")
    gl.store(x + i, line.load(HALVES).to(gl.float16))


@gluon.jit
def stored_over_what_both_scatter(desc, x, CTA: gl.constexpr):
    line, i = halves()
    gl.barrier(cluster=True)
    line.scatter(i, i ^ 128, axis=0)
    cluster.barrier(relaxed=CTA < 2)
    if rank() == CTA % 2:
        line.store(gl.full([256], 1, gl.int32, gl.BlockedLayout([2], [32], [4], [0], cga_layout=[[0]])))


@gluon.jit
def loaded_from_a_peer(desc, x, WRONG: gl.constexpr):
    layout: gl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, [1, 0], cga_layout=((1, 0),))
    own: gl.constexpr = gl.BlockedLayout([1, 4], [8, 4], [4, 1], [1, 0], cga_layout=((1, 0),))
    tile = gl.allocate_shared_memory(gl.float16, [64, 64], layout, gl.full([64, 64], 1.0, gl.float16, own))
    half = tile.slice(32, 32, dim=0)
    cluster.barrier(relaxed=WRONG == "before the peer has stored")
    rows, columns = gl.arange(0, 32, gl.SliceLayout(1, BOTH)), gl.arange(0, 64, gl.SliceLayout(0, BOTH))
    gl.store(x + rows[:, None] * 64 + columns[None, :], half.load(BOTH))
    cluster.barrier(relaxed=WRONG == "while the peer stores again")
    tile.store(gl.full([64, 64], 2.0, gl.float16, own))


@gluon.jit
def stored_by_one_alone(desc, x, WRITER: gl.constexpr, READER: gl.constexpr, RIGHT: gl.constexpr):
    """One CTA reads what the second holds, and one writes to it."""
    layout: gl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, [1, 0], cga_layout=((1, 0),))
    own: gl.constexpr = gl.BlockedLayout([1, 4], [8, 4], [4, 1], [1, 0], cga_layout=((1, 0),))
    half = gl.allocate_shared_memory(gl.float16, [64, 64], layout, gl.full([64, 64], 1.0, gl.float16, own)).slice(
        32, 32
    )
    gl.barrier(cluster=True)
    if rank() == READER:
        gl.store(x + rank(), gl.sum(gl.sum(half.load(BOTH), axis=1), axis=0))
    cluster.barrier(relaxed=not RIGHT)
    if rank() == WRITER:
        half.store(gl.full([32, 64], 2.0, gl.float16, BOTH))
    gl.barrier(cluster=True)


@gluon.jit
def stored_by_a_peer(desc, x, RIGHT: gl.constexpr):
    stored_by_one_alone(desc, x, 0, 1, RIGHT)


@gluon.jit
def stored_over_what_a_peer_reads(desc, x, RIGHT: gl.constexpr):
    stored_by_one_alone(desc, x, 1, 0, RIGHT)


@gluon.jit
def sent_to_each_its_half(desc, x, MORE: gl.constexpr):
    """The first CTA sends all, and each barrier gets the bytes of its half."""
    both: gl.constexpr = gl.BlockedLayout([2], [32], [4], [0], cga_layout=[[0]])
    line = gl.allocate_shared_memory(gl.int32, [256], gl.SwizzledSharedLayout(1, 1, 1, [0], cga_layout=[[1]]))
    ready = started(1).index(0)
    mbarrier.expect(ready, line.nbytes_per_cta + MORE)
    if rank() == 0:
        async_store(line, gl.arange(0, 256, both), ready)
    mbarrier.wait(ready, 0)
    gl.store(x + gl.arange(0, 256, HALVES), line.load(HALVES).to(gl.float16))


CASES = {
    "a store of one CTA over what a peer reads of its own": Case(
        stored_by_a_peer, "h100", EARLY, f"CTA 0 writes .*, {PEER} reading", divided=COPIES
    ),
    "a store of one CTA over what a peer reads from it": Case(
        stored_over_what_a_peer_reads, "h100", EARLY,
        "CTA 1 writes .*, which the program in CTA 0 may still be reading", divided=COPIES,
    ),
    "bytes that one CTA never sends to its peer": Case(
        sent_to_each_its_half, "h100", DEADLOCK, "lacks 0 arrivals and 4 bytes", wrong=4, right=0, divided=COPIES
    ),
    "a gather of what a peer has not stored": Case(
        gathered_from_a_peer, "h100", EARLY, f"CTA 0 reads line of .*, {PEER} writing",
        wrong="before the peer has stored", right="", divided=COPIES,
    ),
    "a store over what a peer gathers": Case(
        gathered_from_a_peer, "h100", EARLY, f"CTA 0 writes line of .*, {PEER} reading",
        wrong="while the peer stores again", right="", divided=COPIES,
    ),
    "an addition to what a peer has scattered": Case(
        scattered_to_a_peer, "h100", EARLY, f"CTA 0 (reads|writes) line of .*, {PEER} writing",
        wrong="scattered", right="", divided=COPIES,
    ),
    "a read of what a peer adds to": Case(
        scattered_to_a_peer, "h100", EARLY, f"CTA 0 reads line of .*, {PEER} writing",
        wrong="added", right="", divided=COPIES,
    ),
    "a store of the first CTA over what its peer scatters": Case(
        stored_over_what_both_scatter, "h100", EARLY, f"CTA 0 writes line of .*, {PEER}", wrong=0, right=2,
        divided=COPIES,
    ),
    "a store of the second CTA over what its peer scatters": Case(
        stored_over_what_both_scatter, "h100", EARLY,
        "CTA 1 writes line of .*, which the program in CTA 0 may still be", wrong=1, right=3, divided=COPIES,
    ),
    "a read of a part that a peer has not stored": Case(
        loaded_from_a_peer, "h100", EARLY, f"CTA 0 reads tile of .*, {PEER} writing",
        wrong="before the peer has stored", right="", divided=COPIES,
    ),
    "a store over a part that a peer reads": Case(
        loaded_from_a_peer, "h100", EARLY, "CTA 1 writes tile of .*, which the program in CTA 0 may still be reading",
        wrong="while the peer stores again", right="", divided=COPIES,
    ),
    "a multicast over what a peer has not read": Case(
        sent_again_to_both, "h100", EARLY, "CTA 0 writes tile of .* signals barrier 1 of bar of .* writ", divided=COPIES
    ),
    "a store over what a peer sends": Case(
        stored_before_it_came, "h100", EARLY, "CTA 0 writes tile of .* signals barrier 0 of bar of", divided=COPIES
    ),
    "a multicast over what a peer reads after the meeting": Case(
        read_after_the_meeting, "h100", EARLY, f"CTA 0 writes tile of .*, {PEER} reading", divided=COPIES
    ),
    "a multicast over what a tensor core reads": Case(
        multiplied_by_itself, "b200", EARLY, r"CTA 0 writes tile of .* \(tcgen05\) of the program in CTA 0 may",
        wrong="before the wait", right="", divided=COPIES,
    ),
    "a multicast over what the tensor core of a peer reads": Case(
        multiplied_by_itself, "b200", EARLY, r"CTA 0 writes tile of .* \(tcgen05\) of the program in CTA 1 may",
        wrong="before the meeting", right="", divided=COPIES,
    ),
    "an answer before the second of two requests": Case(
        asked_twice_at_once, "b200", EARLY, "reads answer of .* signals barrier 2 of bar of", divided=COPIES
    ),
    "a request over an answer that a peer reads": Case(
        asked_again, "b200", EARLY, f"CTA 0 writes answer of .*, {PEER} reading", divided=COPIES,
        also=("barrier misused",),
    ),
    "a store over what a peer's partition reads": Case(
        told_by_the_first, "b200", EARLY,
        "partition 0 in CTA 1 writes lines of .*, which the default partition in CTA 1 may still be reading",
        divided=COPIES,
    ),
    "a flag in place of a barrier": Case(
        flag_in_place_of_a_barrier, "h100", EARLY,
        "partition 0 in CTA 0 writes lines of .*, which the default partition in CTA 0 may still be reading",
        divided=COPIES,
    ),
    "a meeting in place of a fence": Case(
        fenced_after_telling, "h100", UNFENCED, "CTA 0 reads tile of .*, which the default partition in CTA 0 has writ",
        divided=COPIES,
    ),
    "an arrival in one CTA of two": Case(
        told_by_one_of_two, "b200", DEADLOCK, "barrier 0 of bar of .*, which lacks 1 arrival", divided=COPIES
    ),
    "partitions that both wait before CTAs meet": Case(
        met_after_partitions, "h100", DEADLOCK, "default partition of .*; partition 0 of", divided=COPIES
    ),
    "a barrier of a pair that nobody tells": Case(
        pair_that_nobody_tells, "h100", DEADLOCK, "partition 0 of .* default partition ended$", divided=COPIES
    ),
    "a default partition that meets and waits": Case(
        met_by_one_partition, "h100", DEADLOCK, "default partition of .*; partition 0 of",
        wrong=("", "default"), right=("told", "default"), divided=COPIES,
    ),
    "another partition that meets and waits": Case(
        met_by_one_partition, "h100", DEADLOCK, "default partition of .*; partition 0 of",
        wrong=("", "other"), right=("told", "other"), divided=COPIES,
    ),
}  # fmt: skip


@each(CASES)
def test_what_another_cta_may_still_do_is_found_and_its_clean_twin_is_clean(what: str) -> None:
    judge(CASES[what])


@gluon.jit
def products_of_four(a_desc, b_desc, WRONG: gl.constexpr):
    a = gl.allocate_shared_memory(gl.float16, [256, 64], a_desc.layout)
    b = gl.allocate_shared_memory(gl.float16, [64, 128], b_desc.layout)
    layout: gl.constexpr = TensorMemoryLayout([128, 64], col_stride=1, cga_layout=((1, 0), (0, 1)), two_ctas=True)
    acc = allocate_tensor_memory(gl.float32, [256, 128], layout)
    sent: gl.constexpr = WRONG != "a pair that does not tell the other pair"
    brought = mbarrier.allocate_mbarrier(two_ctas=True)
    mbarrier.init(brought, count=1)
    done = started(1, tcgen05_mma_barrier_count([a, b], sent, True)).index(0)
    for step in gl.static_range(2):
        mbarrier.expect(brought, a_desc.nbytes_per_cta + b_desc.nbytes_per_cta)
        tma.async_load(a_desc, [0, 0], brought, a, multicast=True)
        tma.async_load(b_desc, [0, 0], brought, b, multicast=True)
        mbarrier.wait(brought, step, pred=WRONG != "a product before its operands")
        tcgen05_mma(a, b, acc, use_acc=step > 0, multicast=sent, mbarriers=[done])
        mbarrier.wait(done, step, pred=WRONG != "operands over those of a product")


def multiplied(wrong: str) -> list[str]:
    layouts = [
        gl.NVMMASharedLayout.get_default_for(shape, gl.float16, cga_layout=divided)
        for shape, divided in (([256, 64], ((1, 0), (0, 0))), ([64, 128], ((0, 1), (0, 2))))
    ]
    a = TensorDescriptor.from_tensor(torch.zeros(256, 64).half(), [256, 64], layouts[0])
    b = TensorDescriptor.from_tensor(torch.zeros(64, 128).half(), [64, 128], layouts[1])
    with offline(target="b200") as session:
        products_of_four[(1,)](a, b, wrong, num_warps=4, num_ctas=4)
    assert {fault.kind for fault in session.report().faults} <= {EARLY, "barrier misused"}
    return [fault.message for fault in session.report().faults]


PAIRS = {
    "a pair that does not tell the other pair": "CTA 0 writes a of .* signals barrier 1 of bar of .* may still be",
    "a product before its operands": "CTA 0 reads a of .* signals barrier 0 of bar of .* may still be writing",
    "operands over those of a product": r"CTA 0 writes b of .* \(tcgen05\) of the program in CTA 0 may still",
}


@each(PAIRS)
def test_pairs_that_multiply_wait_for_each_other(what: str) -> None:
    assert any(re.search(PAIRS[what], message) for message in multiplied(what))
    assert multiplied("") == []
