"""What one partition may still be doing to memory that another one uses is found. Each kernel has a clean twin."""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.ampere import async_copy
from triton.experimental.gluon.language.nvidia.hopper import fence_async_shared, mbarrier, tma

from tests.evaluator.executor.chip.sanitised import (
    DEADLOCK,
    EARLY,
    ROW,
    UNFENCED,
    Case,
    bring,
    each,
    fill,
    idle,
    judge,
    lines,
    put,
    read,
    started,
    take,
)

ORACLE = "the expected messages and locations"


@gluon.jit
def take_if(line, x, WANTED: gl.constexpr):
    if WANTED:
        take(line, x)


@gluon.jit
def read_after_all_ended(desc, x, RIGHT: gl.constexpr):
    line = lines(1).index(0)
    gl.warp_specialize([(take_if, (line, x, not RIGHT)), (put, (line,))], [4], [24])
    take(line, x)


@gluon.jit
def fill_with_a_fence(tile, FENCED: gl.constexpr):
    fill(tile)
    if FENCED:
        fence_async_shared()


@gluon.jit
def sent_after_all_ended(desc, x, FENCED: gl.constexpr):
    tile = gl.allocate_shared_memory(gl.float16, [64, 64], desc.layout)
    gl.warp_specialize([(idle, ()), (fill_with_a_fence, (tile, FENCED == "before"))], [4], [24])
    if FENCED == "after":
        fence_async_shared()
    tma.async_store(desc, [0, 0], tile)
    tma.store_wait(0)


@gluon.jit
def bring_and_wait(desc, tile, ready, WAITS: gl.constexpr):
    bring(desc, tile, ready)
    mbarrier.wait(ready, 0, pred=WAITS)


@gluon.jit
def brought_by_one_that_ended(desc, x, RIGHT: gl.constexpr):
    tile = gl.allocate_shared_memory(gl.float16, [64, 64], desc.layout)
    ready = started(1).index(0)
    gl.warp_specialize([(idle, ()), (bring_and_wait, (desc, tile, ready, RIGHT))], [4], [24])
    read(tile, x)


@gluon.jit
def fill_and_tell(tile, told, FENCED: gl.constexpr):
    fill_with_a_fence(tile, FENCED == "before telling")
    mbarrier.arrive(told)
    if FENCED == "after telling":
        fence_async_shared()


@gluon.jit
def send_when_told(desc, tile, told, FENCED: gl.constexpr):
    mbarrier.wait(told, 0)
    if FENCED == "once told":
        fence_async_shared()
    tma.async_store(desc, [0, 0], tile)
    tma.store_wait(0)


@gluon.jit
def sent_by_another(desc, x, FENCED: gl.constexpr):
    tile = gl.allocate_shared_memory(gl.float16, [64, 64], desc.layout)
    told = started(1).index(0)
    gl.warp_specialize([(fill_and_tell, (tile, told, FENCED)), (send_when_told, (desc, tile, told, FENCED))], [4], [24])


@gluon.jit
def take_and_tell(line, x, told):
    take(line, x)
    mbarrier.arrive(told)


@gluon.jit
def put_when_told(line, told, other, WRONG: gl.constexpr):
    mbarrier.wait(told, 0, pred=WRONG != "first" and WRONG != "both")
    mbarrier.wait(other, 0, pred=WRONG != "second" and WRONG != "both")
    put(line)


@gluon.jit
def overwritten_beside_a_reader(desc, x, WRONG: gl.constexpr):
    line = lines(1).index(0)
    told = started(1).index(0)
    gl.warp_specialize([(put_when_told, (line, told, told, WRONG)), (take_and_tell, (line, x, told))], [4], [24])


@gluon.jit
def overwritten_beside_two_readers(desc, x, FORM: gl.constexpr):
    line = lines(1).index(0)
    told = started(2)
    gl.warp_specialize(
        [
            (take_and_tell, (line, x, told.index(0))),
            (take_and_tell, (line, x, told.index(1))),
            (put_when_told, (line, told.index(0), told.index(1), FORM[0])),
        ],
        [FORM[1], FORM[2]],
        [24, 24],
    )


@gluon.jit
def overwritten_beside_two_who_tell_one_barrier(desc, x, WRONG: gl.constexpr):
    line = lines(1).index(0)
    told = started(1, 2).index(0)
    gl.warp_specialize(
        [
            (take_and_tell, (line, x, told)),
            (take_and_tell, (line, x, told)),
            (put_when_told, (line, told, told, WRONG)),
        ],
        [4, 4],
        [24, 24],
    )


@gluon.jit
def take_each_time(line, x, full, free, WAITS: gl.constexpr):
    for step in range(3):
        mbarrier.wait(full, step & 1, pred=WAITS)
        take(line, x)
        mbarrier.arrive(free)


@gluon.jit
def put_each_time(line, full, free, other, WRONG: gl.constexpr):
    for step in range(3):
        mbarrier.wait(free, (step & 1) ^ 1, pred=WRONG != "first is done")
        mbarrier.wait(other, (step & 1) ^ 1, pred=WRONG != "second is done")
        put(line)
        mbarrier.arrive(full)


@gluon.jit
def two_readers_in_a_loop(desc, x, WRONG: gl.constexpr):
    line = lines(1).index(0)
    full = started(1).index(0)
    free = started(2)
    gl.warp_specialize(
        [
            (take_each_time, (line, x, full, free.index(0), WRONG != "first is told")),
            (take_each_time, (line, x, full, free.index(1), WRONG != "second is told")),
            (put_each_time, (line, full, free.index(0), free.index(1), WRONG)),
        ],
        [4, 4],
        [24, 24],
    )


@gluon.jit
def two_of_each_in_a_loop(desc, x, WRONG: gl.constexpr):
    line = lines(2)
    full = started(1, 2).index(0)
    free = started(1, 2).index(0)
    gl.warp_specialize(
        [
            (put_each_time, (line.index(0), full, free, free, "")),
            (put_each_time, (line.index(1), full, free, free, "")),
            (take_each_time, (line.index(0), x, full, free, WRONG != "first is told")),
            (take_each_time, (line.index(1), x, full, free, WRONG != "second is told")),
        ],
        [4, 4, 4],
        [24, 24, 24],
    )


@gluon.jit
def put_one_after_the_other(line, full, free):
    for step in range(2):
        mbarrier.wait(free, (step & 1) ^ 1)
        for i in gl.static_range(2):
            put(line.index(i))
            mbarrier.arrive(full.index(i))


@gluon.jit
def take_before_the_second_is_told(line, x, full, free, READ: gl.constexpr):
    for step in range(2):
        mbarrier.wait(full.index(0), step & 1)
        take(line.index(READ), x)
        mbarrier.wait(full.index(1), step & 1)
        mbarrier.arrive(free)


@gluon.jit
def first_of_two_lines(desc, x, READ: gl.constexpr):
    line = lines(2)
    full = started(2)
    free = started(1).index(0)
    gl.warp_specialize(
        [
            (put_one_after_the_other, (line, full, free)),
            (take_before_the_second_is_told, (line, x, full, free, READ)),
        ],
        [4],
        [24],
    )


@gluon.jit
def copy_in_turns(line, x, READ: gl.constexpr, OWN: gl.constexpr):
    i = gl.arange(0, 128, ROW)
    async_copy.async_load(line.index(OWN), x + i)
    async_copy.commit_group()
    for step in gl.static_range(2):
        async_copy.async_load(line.index(OWN + (step + 1) % 2), x + i)
        async_copy.commit_group()
        async_copy.wait_group(1)
        gl.store(x + 1024 * (1 + OWN) + i, line.index(READ + step % 2).load(ROW))
    async_copy.wait_group(0)


@gluon.jit
def groups_of_another(desc, x, RIGHT: gl.constexpr):
    line = lines(4)
    read_by_the_second: gl.constexpr = 2 if RIGHT else 0
    gl.warp_specialize([(copy_in_turns, (line, x, 0, 0)), (copy_in_turns, (line, x, read_by_the_second, 2))], [4], [24])


@gluon.jit
def copy_two_and_tell(line, x, told):
    for i in gl.static_range(2):
        async_copy.async_load(line.index(i), x + gl.arange(0, 128, ROW))
        async_copy.commit_group()
    async_copy.wait_group(1)
    mbarrier.arrive(told)
    async_copy.wait_group(0)


@gluon.jit
def take_when_told(line, x, told):
    mbarrier.wait(told, 0)
    take(line, x + 1024)


@gluon.jit
def second_of_two_groups(desc, x, READ: gl.constexpr):
    line = lines(2)
    told = started(1).index(0)
    gl.warp_specialize([(copy_two_and_tell, (line, x, told)), (take_when_told, (line.index(READ), x, told))], [4], [24])


DEFAULT = "which the default partition may still be"
FIRST = "which partition 0 may still be"
SECOND = "which partition 1 may still be"
CASES = {
    "a read beside a partition that writes": Case(
        read_after_all_ended, "h100", EARLY, f"partition 0 writes line of .*, {DEFAULT} reading"
    ),
    "a fence of the partition that wrote and ended": Case(
        sent_after_all_ended, "h100", UNFENCED, "default partition reads tile of .*, which partition 0 has written",
        wrong="", right="before",
    ),
    "a fence after the partition that wrote has ended": Case(
        sent_after_all_ended, "h100", UNFENCED, "default partition reads tile of .*, which partition 0 has written",
        wrong="", right="after",
    ),
    "a copy of a partition that ended": Case(
        brought_by_one_that_ended, "h100", EARLY, "reads tile of .*, which an asynchronous copy that signals barrier"
    ),
    "a fence that comes after telling": Case(
        sent_by_another, "h100", UNFENCED, "partition 0 reads tile of .*, which the default partition has written",
        wrong="after telling", right="before telling",
    ),
    "no fence of either partition": Case(
        sent_by_another, "h100", UNFENCED, "partition 0 reads tile of .*, which the default partition has written",
        wrong="", right="once told",
    ),
    "a store beside a reader": Case(
        overwritten_beside_a_reader, "h100", EARLY, f"partition 0 reads line of .*, {DEFAULT} writing",
        wrong="both", right="",
    ),
    "a store that does not wait for the first reader": Case(
        overwritten_beside_two_readers, "h100", EARLY, f"partition 1 writes line of .*, {DEFAULT} reading",
        wrong=("first", 4, 4), right=("", 4, 4),
    ),
    "a store that does not wait for the second reader": Case(
        overwritten_beside_two_readers, "h100", EARLY, f"partition 1 writes line of .*, {FIRST} reading",
        wrong=("second", 4, 4), right=("", 4, 4),
    ),
    "partitions of 2 and 8 warps, the first not waited for": Case(
        overwritten_beside_two_readers, "h100", EARLY, f"partition 1 writes line of .*, {DEFAULT} reading",
        wrong=("first", 2, 8), right=("", 2, 8),
    ),
    "partitions of 2 and 8 warps, the second not waited for": Case(
        overwritten_beside_two_readers, "h100", EARLY, f"partition 1 writes line of .*, {FIRST} reading",
        wrong=("second", 2, 8), right=("", 2, 8),
    ),
    "a store beside two readers who tell one barrier": Case(
        overwritten_beside_two_who_tell_one_barrier, "h100", EARLY, f"partition 1 writes line of .*, {DEFAULT} reading",
        wrong="both", right="",
    ),
    "a loop whose first reader is not told": Case(
        two_readers_in_a_loop, "h100", DEADLOCK,
        f"default partition ended; before that, .* the default partition reads line of .*, {SECOND} writing",
        wrong="first is told", right="",
    ),
    "a loop whose second reader is not told": Case(
        two_readers_in_a_loop, "h100", DEADLOCK,
        f"partition 0 ended; before that, .* partition 0 reads line of .*, {SECOND} writing",
        wrong="second is told", right="",
    ),
    "a loop whose writer does not wait for the first reader": Case(
        two_readers_in_a_loop, "h100", EARLY, f"partition 1 writes line of .*, {DEFAULT} reading",
        wrong="first is done", right="", also=("barrier misused",),
    ),
    "a loop whose writer does not wait for the second reader": Case(
        two_readers_in_a_loop, "h100", EARLY, f"partition 1 writes line of .*, {FIRST} reading",
        wrong="second is done", right="", also=("barrier misused",),
    ),
    "a loop of two writers whose first reader is not told": Case(
        two_of_each_in_a_loop, "h100", EARLY, f"partition 1 reads line of .*, {DEFAULT} writing",
        wrong="first is told", right="",
    ),
    "a loop of two writers whose second reader is not told": Case(
        two_of_each_in_a_loop, "h100", DEADLOCK,
        f"partition 2 ended; before that, .* partition 2 reads line of .*, {FIRST} writing",
        wrong="second is told", right="",
    ),
    "a read of the second line when the first is told": Case(
        first_of_two_lines, "h100", EARLY, f"default partition writes line of .*, {FIRST} reading", wrong=1, right=0
    ),
    "a read of what another partition copies in groups": Case(
        groups_of_another, "a100", EARLY, r"partition 0 reads line of .* \(cp\.async\) of the default partition may"
    ),
    "a read of the second group when the first is told": Case(
        second_of_two_groups, "a100", EARLY, r"partition 0 reads line of .* \(cp\.async\) of the default partition may",
        wrong=1, right=0,
    ),
}  # fmt: skip


@each(CASES)
def test_what_another_partition_may_still_do_is_found_and_its_clean_twin_is_clean(what: str) -> None:
    judge(CASES[what])
