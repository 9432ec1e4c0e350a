"""What launches ask of L2 and HBM, on accesses made by hand: where data is found decides what it costs."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import permutations

import numpy as np
import pytest
import torch
import triton
import triton.language as tl

from avo.evaluator.binary import Binary
from avo.evaluator.performance.constants import constants
from avo.evaluator.performance.kernel import Conditions, costs_of, read
from avo.evaluator.performance.memory import Timing, Traffic, l1_missed, traffic
from avo.evaluator.performance.model import LaunchTime, predict_time, time_case
from avo.evaluator.performance.pipes import Pipe
from avo.evaluator.targets import get_target
from avo.evaluator.work import Access, Body, LaunchWork, LoopWork
from tests.evaluator.performance.handmade import launched

H100 = get_target("h100")
TABLE = constants(90)
COLD, WARM = Timing(cold=True), Timing()
BINARY = Binary("kernel", "sm_90", b"", "", 128, 64, 0, 0, 0)
NOTHING = Body(0, 0, 0, 0)
L2 = H100.l2_bytes
TILE = 16384.0
PROGRAMS = 1024

LOAD = Access(0, 0, False, TILE, 1.0, 1.0, 1.0, 256.0, 128.0, "k.py:1")
"""One tile for each pass, that no other program asks for, in rows of 256 bytes."""


def work(*accesses: Access, buffer_bytes: Sequence[float] = (1e12,), passes: int = 8) -> LaunchWork:
    trips = np.full(PROGRAMS, passes, dtype=np.int64)
    sizes = tuple(map(int, buffer_bytes))
    return LaunchWork(BINARY, PROGRAMS, (LoopWork(None, NOTHING, trips),), NOTHING, accesses, sizes)


def asked(*accesses: Access, timing: Timing = WARM, **shape: object) -> Traffic:
    return traffic(work(*accesses, **shape), H100, timing, TABLE)  # type: ignore[arg-type]


def with_write_backs(nbytes: float) -> float:
    """What passes through HBM to read these bytes into an L2 that was overwritten."""
    return nbytes + TABLE.flushed_dirty * min(nbytes, L2)


def test_data_that_fits_l2_and_was_left_there_is_not_read_from_hbm() -> None:
    made = asked(LOAD, buffer_bytes=[L2 / 2])
    assert (made.hbm, made.latency) == (0, TABLE.l2_hit_latency)
    assert made.asked == made.l2 == PROGRAMS * 8 * TILE > L2


def test_data_that_fits_l2_is_read_from_hbm_once_when_l2_was_overwritten() -> None:
    size = L2 / 2  # each byte is asked for about five times
    made = asked(replace(LOAD, fresh=0.2), timing=COLD, buffer_bytes=[size])
    assert made.hbm == pytest.approx(with_write_backs(size))
    share = size / (PROGRAMS * 8 * TILE)  # of the loads: the others find what these brought
    far = TABLE.hbm_latency + TABLE.flushed_latency  # what L2 held before must be written back first
    assert made.latency == pytest.approx(TABLE.l2_hit_latency + share * (far - TABLE.l2_hit_latency))


def test_a_load_that_most_passes_go_around_asks_for_less_and_brings_as_much() -> None:
    always, seldom = (asked(replace(LOAD, fresh=0.0, often=often), timing=COLD) for often in (1.0, 0.25))
    assert (seldom.asked, seldom.hbm) == (always.asked / 4, always.hbm)


def test_data_that_l2_cannot_hold_is_read_from_hbm_in_full_and_late() -> None:
    made = asked(LOAD, timing=COLD)
    size = PROGRAMS * 8 * TILE
    assert made.hbm == pytest.approx(with_write_backs(size))
    assert size > 2 * L2
    written_back = L2 / size
    assert made.latency == pytest.approx(TABLE.hbm_latency + written_back * TABLE.flushed_latency)
    warm = asked(LOAD)
    assert (warm.hbm, warm.latency) == (size, TABLE.hbm_latency)


def test_lines_that_must_go_first_delay_short_pieces_as_long_ones_though_these_cost_hbm_less() -> None:
    whole, short = (asked(replace(LOAD, run_bytes=run), timing=COLD) for run in (4096, 64))
    assert short.latency == whole.latency
    size = PROGRAMS * 8 * TILE
    assert short.hbm == pytest.approx(with_write_backs(size) + (TABLE.half_line_cost - 1) * size)


def test_what_a_launch_writes_last_stays_in_l2() -> None:
    copy, size = (LOAD, replace(LOAD, buffer=1, writes=True)), PROGRAMS * TILE
    made = asked(*copy, timing=COLD, buffer_bytes=[1e12, 1e12], passes=1)
    assert 2 * size < L2
    assert made.hbm == pytest.approx(with_write_backs(2 * size) - size)
    large = asked(*copy, timing=COLD, buffer_bytes=[1e12, 1e12])
    assert large.hbm == pytest.approx(with_write_backs(2 * PROGRAMS * 8 * TILE) - L2 / 2)  # half of what L2 holds


def test_a_line_that_many_threads_ask_for_is_asked_of_l2_once() -> None:
    whole = asked(LOAD)
    scalar = replace(LOAD, program_lines=1.0, distinct=32 / (256 * TILE))  # the same word for all threads and programs
    made = asked(LOAD, replace(scalar, buffer=1), buffer_bytes=[1e12, 1e12])
    assert made.asked == whole.asked + PROGRAMS * 8 * 128
    assert made.hbm == pytest.approx(whole.hbm, rel=1e-3)


def test_what_programs_that_run_together_share_is_read_once() -> None:
    shared = replace(LOAD, distinct=1 / 256)  # each of the 256 programs of a sample asks for the same tile
    made = asked(shared, timing=COLD, passes=1)
    assert made.hbm == pytest.approx(with_write_backs(PROGRAMS / 256 * TILE))  # one tile for each group
    alone = asked(LOAD, timing=COLD, passes=1)
    assert alone.hbm == pytest.approx(with_write_backs(PROGRAMS * TILE))


def test_what_later_groups_ask_for_again_is_still_in_l2_unless_those_who_run_together_fill_it() -> None:
    size = L2 / 4
    again = replace(LOAD, distinct=size / (256 * 8 * TILE))  # all of the buffer, by each of four groups
    kept = asked(again, timing=COLD, buffer_bytes=[size])
    assert kept.hbm == pytest.approx(with_write_backs(size))
    more = replace(LOAD, buffer=1, program_bytes=2 * L2 / (256 * 8))  # besides, two times L2 of other data
    lost = asked(again, more, timing=COLD, buffer_bytes=[size, 1e12])
    others = PROGRAMS * 8 * more.program_bytes
    assert lost.hbm == pytest.approx(with_write_backs(4 * size + others))


def test_a_loop_that_reads_the_same_again_reads_no_more_from_hbm() -> None:
    once, again = asked(LOAD, timing=COLD, passes=1), asked(replace(LOAD, fresh=0.0), timing=COLD, passes=8)
    assert again.hbm == once.hbm
    assert again.l2 == 8 * once.l2


def test_requests_for_the_same_lines_at_once_are_merged_in_part() -> None:
    made = asked(replace(LOAD, distinct=0.25))
    assert made.l2 == pytest.approx(made.asked * (1 - 0.75 * TABLE.l2_merging))
    assert asked(LOAD).l2 == made.asked


@pytest.mark.parametrize(
    ("run_bytes", "cost"),
    [
        (4096, 1.0),
        (128, 1.0),
        (64, TABLE.half_line_cost),
        (32, TABLE.half_line_cost),  # a sector: two of them cost what a piece of 64 bytes does
        (8, 8 * TABLE.half_line_cost),  # a quarter of a sector is used, and half of what is read
    ],
)
def test_short_pieces_cost_hbm_more_than_their_bytes(run_bytes: float, cost: float) -> None:
    whole, made = (asked(replace(LOAD, run_bytes=run)).hbm for run in (4096, run_bytes))
    assert made == pytest.approx(cost * whole)


def test_what_hbm_is_charged_for_pieces_shorter_than_a_sector_is_known() -> None:
    tables = asked(replace(LOAD, run_bytes=8), replace(LOAD, buffer=1), buffer_bytes=[1e12, 1e12])
    assert tables.short == pytest.approx(tables.hbm * 8 * TABLE.half_line_cost / (8 * TABLE.half_line_cost + 1))
    assert asked(replace(LOAD, run_bytes=32)).short == 0


def test_gaps_within_sectors_pass_through_hbm_too() -> None:
    dense, sparse = (asked(replace(LOAD, spread=spread)).hbm for spread in (1.0, 2.0))
    assert sparse == pytest.approx(2 * dense)


def test_the_latency_is_that_of_the_loads_that_make_up_the_loop() -> None:
    near = replace(LOAD, fresh=0.0, distinct=1 / 256)  # one tile for all, in every pass
    far = replace(LOAD, buffer=1, program_bytes=TILE / 2)

    def latency(*accesses: Access) -> float:
        return asked(*accesses, timing=COLD, buffer_bytes=[1e12, 1e12], passes=4).latency

    few, before, stores = replace(far, program_bytes=TILE / 100), replace(far, loop=None), replace(far, writes=True)
    assert latency(near, few) == latency(near, before) == latency(near, stores) < latency(near, far)


def test_a_launch_whose_accesses_were_not_looked_at_shares_nothing() -> None:
    body = Body(0, 0, TILE, 0)
    loop = LoopWork(None, body, np.full(PROGRAMS, 8, dtype=np.int64))
    made = traffic(LaunchWork(BINARY, PROGRAMS, (loop,), Body(0, 0, 0, TILE)), H100, COLD, TABLE)
    total = PROGRAMS * 9 * TILE
    assert made == Traffic(total, total, 0.0, TABLE.global_latency)


@triton.jit
def copies(X, Y, n, N: tl.constexpr):
    i = tl.arange(0, N)
    total = tl.zeros((N,), tl.float32)
    for step in range(n):
        total += tl.load(X + (tl.program_id(0) * n + step) * N + i)
    tl.store(Y + tl.program_id(0) * N + i, total)


@cache
def copying(programs: int) -> LaunchWork:
    values = {"X": torch.empty(programs * 16 * 4096), "Y": torch.empty(programs * 4096), "n": 16}
    return launched(copies, values, (programs, 1, 1), N=4096)


def copied(programs: int, timing: Timing = WARM) -> LaunchTime:
    (launch,) = time_case([copying(programs)], 0, H100, timing).launches
    return launch


@pytest.mark.long
def test_few_active_sms_get_more_of_l2_each_up_to_what_their_port_takes() -> None:
    few, all_ = copied(8), copied(132)
    grade = 1.06  # rates are rounded, so that cases of a kernel share plays
    assert few.conditions.table.l2_bytes == pytest.approx(TABLE.l2_most_bytes, rel=grade - 1)
    assert all_.conditions.table.l2_bytes == pytest.approx(TABLE.l2_bytes, rel=grade - 1)


@pytest.mark.long
def test_a_launch_takes_longer_when_l2_was_overwritten() -> None:
    cold, warm = copied(64, COLD), copied(64)
    assert (warm.hbm, warm.conditions.table.global_latency) == (0, pytest.approx(TABLE.l2_hit_latency, rel=0.06))
    read, written = 64 * 16 * 16384, 64 * 16384
    through = with_write_backs(read + written) - written
    assert cold.hbm == pytest.approx(through / (TABLE.hbm_share * H100.hbm_bytes_per_s))
    assert cold.compute > 1.5 * warm.compute  # each pass waits for its load
    assert cold.seconds > warm.seconds
    first, second = time_case([copying(64)] * 2, 0, H100, COLD).launches
    assert (first.seconds, second.seconds) == (cold.seconds, warm.seconds)  # the second finds what the first left


@pytest.mark.long
def test_a_launch_that_brings_little_leaves_the_next_one_the_l2_that_was_overwritten() -> None:
    first, second = time_case([copying(1), copying(64)], 0, H100, COLD).launches
    alone = copied(64, COLD)
    assert first.brought < 0.02 * alone.brought
    assert second.seconds == pytest.approx(alone.seconds, rel=0.02)


@pytest.mark.long
def test_a_launch_replayed_from_a_graph_starts_sooner() -> None:
    graph, events = (predict_time([copying(1)], H100, timing=Timing(graph=graph)) for graph in (True, False))
    sooner = TABLE.launch_us + TABLE.event_us - TABLE.graph_us
    assert events.us - graph.us == pytest.approx(sooner, rel=0.05)
    assert graph.us > TABLE.graph_us


@triton.jit
def paged(X, Pages, Out, n, PAGE: tl.constexpr, N: tl.constexpr):
    rows, columns = tl.arange(0, N), tl.arange(0, 16)
    total = tl.zeros((N, 16), tl.float32)
    for step in range(n):
        page = tl.load(Pages + (step * N + rows) // PAGE)
        total += tl.load(X + (page * PAGE + (step * N + rows) % PAGE)[:, None] * 16 + columns[None, :])
    tl.store(Out + rows[:, None] * 16 + columns[None, :], total)


@cache
def paged_work() -> LaunchWork:
    values = {
        "X": torch.empty(8 * 512 * 16),
        "Pages": torch.arange(8 * 512 // 16, dtype=torch.int32),
        "Out": torch.empty(512 * 16),
        "n": 8,
    }
    return launched(paged, values, (1, 1, 1), PAGE=16, N=512)


@pytest.mark.long
def test_loads_of_a_page_table_hit_l1_after_their_line_is_there() -> None:
    work = paged_work()
    table = next(access for access in work.accesses if access.buffer == 1)
    assert (table.program_bytes, table.program_lines) == (2048, 1)
    missed = dict(l1_missed(work))
    code = read(work.binary).code.instructions
    loads = [i.index for i in code if i.base == "LDG" and i.lane_bytes == 4]
    assert len(loads) == 4  # one for each of 512 rows, by 128 threads
    assert missed == {loads[0]: 1.0, **dict.fromkeys(loads[1:], 0.0)}  # the first of them brings the line
    costs = costs_of(work.binary, H100, 1, Conditions(TABLE, tuple(missed.items())))
    hit = costs.op(code[loads[1]])
    assert (hit.pipe, hit.latency, hit.l2) == (Pipe.LSU, TABLE.l1_latency, 0)
    assert costs.op(code[loads[0]]).latency == TABLE.global_latency


@pytest.mark.long
def test_loads_hit_l1_after_as_many_as_there_are_lines_to_fetch() -> None:
    work = paged_work()

    def missed(**changed: float | None) -> list[float]:
        accesses = [replace(access, **changed) if access.buffer == 1 else access for access in work.accesses]
        return [share for _, share in l1_missed(replace(work, accesses=tuple(accesses)))]

    assert [missed(program_lines=lines) for lines in (1, 2, 4, 16)] == [[1, 0, 0, 0], [1, 1, 0, 0], [1] * 4, [1] * 4]
    assert missed(fresh_sectors=0.0) == [0] * 4  # the same sectors in every pass are there after the first
    assert missed(fresh_sectors=0.25, program_lines=2) == [0.25, 0.25, 0, 0]
    assert missed(fresh_sectors=0.0, program_lines=17) == []  # too many to be kept
    assert missed(loop=None) == []


@pytest.mark.long
def test_a_tile_on_the_line_of_a_table_is_no_table() -> None:
    work = paged_work()
    table = next(access for access in work.accesses if access.buffer == 1)
    tile = replace(table, buffer=0, program_lines=256.0)
    for accesses in ((*work.accesses, tile), (tile, *work.accesses)):
        assert l1_missed(replace(work, accesses=accesses)) == ()


@pytest.mark.long
def test_of_two_accesses_on_a_line_the_one_that_misses_more_counts() -> None:
    work = paged_work()
    moving = next(access for access in work.accesses if access.buffer == 1)
    resting = replace(moving, fresh_sectors=0.0)
    shares = [
        [share for _, share in l1_missed(replace(work, accesses=both))] for both in permutations((moving, resting))
    ]
    assert shares == [[1, 0, 0, 0]] * 2
    outside = [replace(work, accesses=both) for both in permutations((resting, replace(resting, loop=None)))]
    assert [l1_missed(each) for each in outside] == [(), ()]
