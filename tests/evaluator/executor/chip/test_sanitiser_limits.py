"""Where the executor judges otherwise than Triton's own sanitiser, ConSan, what it does instead."""

import re

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import async_store, fence_async_shared, mbarrier, tma

from tests.evaluator.executor.chip.sanitised import (
    BOTH_FLAT,
    BOTH_ROW,
    COPIES,
    LAYOUT,
    REFUSED,
    Case,
    each,
    found,
    idle,
    rank,
    read,
    started,
)

ORACLE = "the expected messages and locations"


@gluon.jit
def sent_after_another_read_it(desc, x, FORM: gl.constexpr):
    tile = gl.allocate_shared_memory(gl.float16, [64, 64], desc.layout, gl.full([64, 64], 1.0, gl.float16, LAYOUT))
    fence_async_shared()
    gl.warp_specialize([(idle, ()), (read, (tile, x))], [4], [24])
    tma.async_store(desc, [0, 0], tile)
    tma.store_wait(0)


NOT_FOUND = {"no fence after another partition has read": (sent_after_another_read_it, "h100")}


@each(NOT_FOUND)
def test_fences_after_reads_are_not_looked_for(what: str) -> None:
    kernel, target = NOT_FOUND[what]
    assert found(Case(kernel, target, "", ""), "") == []


@gluon.jit
def met_by_one_alone(desc, x, FORM: gl.constexpr):
    bars = started(1)
    if rank() == 0:
        mbarrier.arrive(bars.index(0))


@gluon.jit
def asked_in_a_loop(desc, x, FORM: gl.constexpr):
    for i in range(2):
        gl.store(x + rank() + i, 1.0)


@gluon.jit
def copied_by_one_alone(desc, x, FORM: gl.constexpr):
    line = gl.allocate_shared_memory(gl.float16, [128], BOTH_FLAT)
    if rank() == 0:
        line.store(gl.full([128], 1.0, gl.float16, BOTH_ROW))


@gluon.jit
def stored_in_part_by_one_alone(desc, x, FORM: gl.constexpr):
    halves: gl.constexpr = gl.BlockedLayout([1], [32], [4], [0], cga_layout=[[1]])
    line = gl.allocate_shared_memory(gl.float16, [256], gl.SwizzledSharedLayout(1, 1, 1, [0], cga_layout=[[1]]))
    if rank() == 0:
        line.store(gl.full([256], 1.0, gl.float16, halves))


@gluon.jit
def blocks_of_one_alone(desc, x, FORM: gl.constexpr):
    if rank() == 0:
        gl.store(x + gl.arange(0, 128, BOTH_ROW), 1.0)


@gluon.jit
def added_by_one_alone(desc, x, FORM: gl.constexpr):
    if rank() == 0:
        gl.atomic_add(x, 1.0)


@gluon.jit
def ended_by_one_alone(desc, x, FORM: gl.constexpr):
    if rank() == 0:
        return
    gl.store(x, 1.0)


@gluon.jit
def sent_to_a_part(desc, x, FORM: gl.constexpr):
    both: gl.constexpr = gl.BlockedLayout([1], [32], [4], [0], cga_layout=[[0]])
    line = gl.allocate_shared_memory(gl.int32, [256], gl.SwizzledSharedLayout(1, 1, 1, [0], cga_layout=[[1]]))
    async_store(line.slice(128, 128), gl.arange(0, 128, both), started(1).index(0))


REFUSALS = {
    "an asynchronous store to a part of a buffer": (sent_to_a_part, "to a part of a buffer of several CTAs"),
    "a store of one CTA alone of its half": (stored_in_part_by_one_alone, "of a part of a block"),
    "blocks in a branch of some CTAs": (blocks_of_one_alone, "by some CTAs of a cluster only"),
    "an atomic update of one CTA alone": (added_by_one_alone, "tt.atomic_rmw by some CTAs of a cluster only"),
    "a CTA that ends before its peer": (ended_by_one_alone, "the number of a CTA|by some CTAs of a cluster only"),
    "a barrier of one CTA alone": (met_by_one_alone, "ttng.arrive_barrier by some CTAs of a cluster only"),
    "the number of a CTA in a loop": (asked_in_a_loop, "of what depends on the number of a CTA"),
    "a store of one CTA alone to its copy": (copied_by_one_alone, "ttg.local_store by some CTAs .* to their copies"),
}


@each(REFUSALS)
def test_what_is_not_followed_is_refused(what: str) -> None:
    kernel, message = REFUSALS[what]
    ((kind, text),) = found(Case(kernel, "h100", "", "", divided=COPIES), "")
    assert kind == REFUSED
    assert re.search(message, text)
