"""Barriers that are used out of turn, or that nobody completes, are found. Each kernel has a clean twin."""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.ampere import async_copy
from triton.experimental.gluon.language.nvidia.hopper import mbarrier

from tests.evaluator.executor.chip.sanitised import (
    DEADLOCK,
    EARLY,
    MISUSED,
    Case,
    bring,
    each,
    idle,
    judge,
    lines,
    started,
    take,
)

ORACLE = "the expected messages and locations"


@gluon.jit
def used_without_a_start(desc, x, WRONG: gl.constexpr):
    bar = mbarrier.allocate_mbarrier()
    if WRONG == "":
        mbarrier.init(bar, count=1)
    if WRONG == "expect" or WRONG == "":
        mbarrier.expect(bar, 0)
    if WRONG == "wait" or WRONG == "":
        mbarrier.wait(bar, 0)
    if WRONG == "arrive" or WRONG == "":
        mbarrier.arrive(bar)
    if WRONG == "copies" or WRONG == "":
        async_copy.mbarrier_arrive(bar)
    if WRONG == "invalidate" or WRONG == "":
        mbarrier.invalidate(bar)


@gluon.jit
def used_after_its_end(desc, x, WRONG: gl.constexpr):
    bar = started(1).index(0)
    if WRONG != "":
        mbarrier.invalidate(bar)
    if WRONG == "expect" or WRONG == "":
        mbarrier.expect(bar, 0)
    if WRONG == "wait" or WRONG == "":
        mbarrier.wait(bar, 0)
    if WRONG == "arrive" or WRONG == "":
        mbarrier.arrive(bar)


@gluon.jit
def started_twice(desc, x, RIGHT: gl.constexpr):
    bar = started(1).index(0)
    if RIGHT:
        mbarrier.invalidate(bar)
    mbarrier.init(bar, count=1)


@gluon.jit
def arrive_and_wait(told, awaited, COUNT: gl.constexpr):
    if COUNT > 0:
        mbarrier.arrive(told, count=COUNT)
    mbarrier.wait(awaited, 0)


@gluon.jit
def waiting_for_each_other(desc, x, FORM: gl.constexpr):
    bars = started(2, FORM[0])
    one = bars.index(0)
    other = bars.index(1)
    gl.warp_specialize([(arrive_and_wait, (one, other, FORM[1])), (arrive_and_wait, (other, one, FORM[1]))], [4], [24])


@gluon.jit
def tell_and_wait_if(bar, WAITS: gl.constexpr):
    if WAITS:
        mbarrier.wait(bar, 0)
    else:
        mbarrier.arrive(bar)


@gluon.jit
def three_of_one_warp(desc, x, RIGHT: gl.constexpr):
    bar = started(1).index(0)
    gl.warp_specialize(
        [
            (idle, ()),
            (tell_and_wait_if, (bar, True)),
            (tell_and_wait_if, (bar, not RIGHT)),
            (tell_and_wait_if, (bar, True)),
        ],
        [1, 1, 1],
        [24, 24, 24],
    )


@gluon.jit
def phase_of_before(desc, x, ARRIVALS: gl.constexpr):
    bar = started(1).index(0)
    for _ in gl.static_range(ARRIVALS):
        mbarrier.arrive(bar)
    mbarrier.wait(bar, 0)


@gluon.jit
def wait_and_arrive(bar, ARRIVES: gl.constexpr):
    mbarrier.wait(bar, 0)
    mbarrier.arrive(bar, pred=ARRIVES)


@gluon.jit
def wait_for_the_next(bar):
    mbarrier.wait(bar, 1)


@gluon.jit
def one_phase_after_the_other(desc, x, RIGHT: gl.constexpr):
    bar = started(1).index(0)
    mbarrier.arrive(bar)
    gl.warp_specialize([(wait_and_arrive, (bar, RIGHT)), (wait_for_the_next, (bar,))], [4], [24])


@gluon.jit
def bring_and_wait(desc, tile, ready, BRINGS: gl.constexpr):
    if BRINGS:
        bring(desc, tile, ready)
    mbarrier.wait(ready, 0)


@gluon.jit
def waiting_for_copies(desc, x, RIGHT: gl.constexpr):
    tiles = gl.allocate_shared_memory(gl.float16, [2, 64, 64], desc.layout)
    ready = started(2)
    gl.warp_specialize(
        [
            (bring_and_wait, (desc, tiles.index(0), ready.index(0), RIGHT)),
            (bring_and_wait, (desc, tiles.index(1), ready.index(1), True)),
        ],
        [4],
        [24],
    )


@gluon.jit
def told_by_each_thread(desc, x, COUNT: gl.constexpr):
    bar = started(1, COUNT).index(0)
    async_copy.mbarrier_arrive(bar, increment_count=False)
    mbarrier.wait(bar, 0)


@gluon.jit
def copy_and_tell(line, x, told, RIGHT: gl.constexpr):
    async_copy.async_load(line, x + gl.arange(0, 128, gl.BlockedLayout([2], [32], [2], [0])))
    if RIGHT:
        async_copy.mbarrier_arrive(told, increment_count=False)
    else:
        mbarrier.arrive(told, count=64)


@gluon.jit
def take_when_told(line, x, told):
    mbarrier.wait(told, 0)
    take(line, x + 128)


@gluon.jit
def copied_by_two_warps(desc, x, RIGHT: gl.constexpr):
    line = lines(1).index(0)
    told = started(1, 64).index(0)
    gl.warp_specialize([(take_when_told, (line, x, told)), (copy_and_tell, (line, x, told, RIGHT))], [2], [24])


UNUSABLE = "the program uses barrier bar of .*, which is not initialised, or no longer"
CASES = {
    **{
        f"{use} before the start": Case(used_without_a_start, "h100", MISUSED, UNUSABLE, wrong=use, right="")
        for use in ("expect", "wait", "arrive", "copies", "invalidate")
    },
    **{
        f"{use} after the end": Case(used_after_its_end, "h100", MISUSED, UNUSABLE, wrong=use, right="")
        for use in ("expect", "wait", "arrive")
    },
    "a second start": Case(started_twice, "h100", MISUSED, "initialises barrier bar of .* again, which was not inv"),
    "two partitions that wait for nobody": Case(
        waiting_for_each_other, "h100", DEADLOCK,
        "default partition .* waits for phase 0 of barrier 1 of bar .*; partition 0 .* phase 0 of barrier 0 of bar",
        wrong=(1, 0), right=(1, 1),
    ),
    "two partitions that are too few": Case(
        waiting_for_each_other, "h100", DEADLOCK, r"lacks 1 arrival and 0 bytes .*; partition 0 .* lacks 1 arrival",
        wrong=(2, 1), right=(2, 2),
    ),
    "more arrivals than a phase takes": Case(
        waiting_for_each_other, "h100", MISUSED, "default partition arrives at barrier 0 of bar of .* more often",
        wrong=(1, 2), right=(1, 1),
    ),
    "partitions of one warp each": Case(
        three_of_one_warp, "h100", DEADLOCK, "partition 0 of .*; partition 1 of .*; partition 2 of .*partition ended$"
    ),
    "a wait for a phase that is over": Case(
        phase_of_before, "h100", DEADLOCK, "waits for phase 0 of barrier bar of .*, which lacks 1 arr", wrong=2, right=1
    ),
    "a wait for a phase after another": Case(
        one_phase_after_the_other, "h100", DEADLOCK, "partition 0 .* waits for phase 1 of barrier bar of .* ended$"
    ),
    "an arrival of each thread where a phase takes one": Case(
        told_by_each_thread, "a100", MISUSED, "arrives at barrier bar of .* more often than its", wrong=1, right=128
    ),
    "an arrival that says nothing of copies": Case(
        copied_by_two_warps, "h100", EARLY, r"reads line of .*, which an asynchronous copy \(cp\.async\) of partition 0"
    ),
    "partitions that wait for copies": Case(
        waiting_for_copies, "h100", DEADLOCK, "default partition .* waits for .* 1 arrival .*; partition 0 ended$"
    ),
}  # fmt: skip


@each(CASES)
def test_barriers_out_of_turn_and_deadlocks_are_found_and_their_clean_twins_are_clean(what: str) -> None:
    judge(CASES[what])
