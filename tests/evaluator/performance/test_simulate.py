"""The play of single streams whose time can be worked out by hand."""

from dataclasses import replace
from math import inf

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from avo.evaluator.performance import simulate
from avo.evaluator.performance.pipes import Kind, Op, Pipe
from avo.evaluator.performance.simulate import Issue, Mark, Played, Team, play

NOP = Op(Kind.PLAIN, Pipe.NONE, 0, 0, 0, 0, 1, 0, 7, 7, 0, False, 0)
FMA = replace(NOP, pipe=Pipe.FMA, busy=1.0)
EXP = replace(NOP, pipe=Pipe.EXP, busy=8.0, latency=18)
LOAD = replace(NOP, pipe=Pipe.LSU, busy=8.0, latency=600, write_barrier=0, queue=64.0)
COPY = replace(LOAD, kind=Kind.COPY, write_barrier=7)
COMMIT = replace(NOP, kind=Kind.COPY_COMMIT, write_barrier=0)
WGMMA = replace(NOP, kind=Kind.WGMMA, pipe=Pipe.TENSOR, busy=64.0, latency=60, count=1, queue=128.0)
BARRIER = replace(NOP, kind=Kind.CTA_BARRIER, latency=20)


def clocks(*stream: Op | Mark, warps: int = 1) -> float:
    return play([Team(0, 0, warps, stream)]).end


def wait_for(barrier: int) -> Op:
    return replace(NOP, waits=1 << barrier)


def test_a_warp_issues_when_its_stall_count_has_passed() -> None:
    assert clocks(*[replace(FMA, stall=4)] * 10) == 40


def test_warps_of_different_sub_partitions_do_not_share_a_scheduler() -> None:
    assert clocks(*[FMA] * 100, warps=4) == clocks(*[FMA] * 100) == 100


def test_warps_of_one_sub_partition_share_its_scheduler() -> None:
    assert clocks(*[NOP] * 100, warps=8) == pytest.approx(200, abs=2)


def test_a_pipe_takes_one_instruction_at_a_time() -> None:
    assert clocks(*[EXP] * 10) == pytest.approx(80, abs=8)


def test_a_scoreboard_wait_lasts_until_the_load_is_back() -> None:
    assert clocks(LOAD, wait_for(0)) == 8 + 600 + 1
    assert clocks(LOAD, wait_for(1)) == 2


def test_a_counted_wait_leaves_the_youngest_copies_in_flight() -> None:
    late = replace(NOP, stall=1000)
    everything = replace(NOP, kind=Kind.COUNT_WAIT, write_barrier=0, count=0)
    but_one = replace(everything, count=1)
    assert clocks(COPY, COMMIT, late, COPY, COMMIT, everything) == pytest.approx(1000 + 600, abs=20)
    assert clocks(COPY, COMMIT, late, COPY, COMMIT, but_one) == pytest.approx(1000, abs=20)
    assert clocks(COPY, COMMIT, late, COPY, COMMIT, but_one, everything) == pytest.approx(1000 + 600, abs=20)


def test_a_wait_for_matrix_products_lasts_until_their_accumulators_are_written() -> None:
    wait = replace(NOP, kind=Kind.WGMMA_WAIT, count=0)
    assert clocks(WGMMA, WGMMA, wait) == pytest.approx(2 * 64 + 60, abs=2)
    assert clocks(WGMMA, WGMMA, replace(wait, count=1)) == pytest.approx(64 + 60, abs=2)
    assert clocks(WGMMA, WGMMA) < 10


def test_matrix_products_wait_for_shared_memory_to_deliver_their_operands() -> None:
    wait = replace(NOP, kind=Kind.WGMMA_WAIT)
    starved = replace(WGMMA, shared=100.0)
    assert clocks(*[starved] * 4, wait) > clocks(*[WGMMA] * 4, wait) + 4 * 30


@pytest.mark.parametrize("copy", [COPY, replace(COPY, kind=Kind.BULK_COPY, pipe=Pipe.NONE, leader=True)])
def test_matrix_products_wait_for_what_copies_write_to_shared_memory(copy: Op) -> None:
    wait = replace(NOP, kind=Kind.WGMMA_WAIT)
    full = [replace(WGMMA, shared=64.0)] * 4
    assert clocks(*full, wait) == pytest.approx(4 * 64 + 60, abs=4)
    assert clocks(replace(copy, shared=48.0), *full, wait) == pytest.approx(4 * 64 + 48 + 60, abs=12)


def test_loads_from_shared_memory_wait_for_what_copies_write_there() -> None:
    load = replace(LOAD, pipe=Pipe.SHARED, busy=4.0, latency=29)
    assert clocks(load, wait_for(0)) == pytest.approx(33, abs=2)
    assert clocks(replace(COPY, busy=4.0, shared=48.0), load, wait_for(0)) == pytest.approx(33 + 48, abs=4)


def test_a_barrier_holds_warps_until_the_last_one_arrives() -> None:
    fast: list[Op | Mark] = [BARRIER, Mark(0)]
    played = play([Team(0, 0, 4, fast)])
    assert played.marks[0, 0] == 20
    assert clocks(replace(NOP, stall=50), BARRIER, warps=8) >= 70


def test_roles_meet_at_a_barrier_of_all_warps_and_at_no_other() -> None:
    slow = [replace(NOP, stall=500), BARRIER]
    for meet, at in ((replace(BARRIER, count=1), 500), (BARRIER, 0)):
        played = play([Team(0, 0, 4, [*slow, meet]), Team(0, 4, 1, [meet, Mark(0)])])
        assert played.marks[1, 0] == pytest.approx(at, abs=60)


def test_a_wait_for_a_product_on_tensor_memory_lasts_until_what_was_committed_is_done() -> None:
    product = replace(NOP, kind=Kind.TENSOR_MMA, pipe=Pipe.TENSOR_SM, busy=64.0, leader=True, queue=inf)
    commit = replace(NOP, kind=Kind.TENSOR_COMMIT, leader=True)
    wait = replace(NOP, kind=Kind.MBARRIER_WAIT_TENSOR, write_barrier=0)
    assert clocks(*[product] * 8, commit, wait, wait_for(0)) == pytest.approx(8 * 64, abs=4)


def test_what_the_leader_issues_costs_the_other_warps_nothing() -> None:
    lead = replace(NOP, leader=True, stall=10)
    assert play([Team(0, 0, 1, [lead, Mark(0)])]).marks[0, 0] == 10
    assert play([Team(0, 0, 8, [lead, Mark(0)])]).marks[0, 0] == 10 / 2  # four warps are played as one


def test_a_role_that_nobody_serves_goes_on_once_the_others_are_done() -> None:
    done = [replace(NOP, stall=500)]
    assert play([Team(0, 0, 4, done), Team(0, 4, 4, [ROLE, wait_for(0), Mark(0)])]).marks[1, 0] == 502


def test_nothing_to_play_takes_no_time() -> None:
    assert play([]) == play([Team(0, 0, 0, [FMA])]) == play([Team(0, 0, 4, [])]) == Played(0.0, {})


def test_a_role_may_be_far_ahead_of_another() -> None:
    """The room for phases of mbarriers grows."""
    served = [op for _ in range(100) for op in (ROLE, wait_for(0), replace(NOP, stall=9))]
    assert play([Team(0, 0, 4, [ARRIVE] * 100), Team(0, 4, 4, served)]).end == 1200


def test_places_in_a_trace_are_those_of_each_teams_own_stream() -> None:
    trace: list[Issue] = []
    play([Team(0, 0, 4, [Mark(0), FMA, EXP]), Team(0, 4, 4, [FMA, Mark(0), EXP, FMA])], trace)
    assert {(issue.team, issue.place) for issue in trace} == {(0, 1), (0, 2), (1, 0), (1, 2), (1, 3)}


@pytest.mark.long
def test_without_room_on_the_disk_the_loop_is_compiled_for_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = clocks(LOAD, wait_for(0))

    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(simulate, "_kept", lambda _: full)
    assert clocks(LOAD, wait_for(0)) == expected


def test_warps_at_a_barrier_no_one_else_will_reach_go_on() -> None:
    guarded = replace(BARRIER, leader=True)
    assert clocks(guarded, replace(NOP, leader=True, stall=50), warps=4) >= 50


@given(st.lists(st.sampled_from([NOP, FMA, EXP, LOAD, WGMMA, BARRIER]), min_size=1, max_size=60), st.integers(1, 12))
def test_no_play_is_faster_than_its_busiest_pipe(stream: list[Op], warps: int) -> None:
    per_partition = -(-warps // 4)
    queued = 64 + 128  # accepted ahead of time and still in the queue when the last warp is done
    end = clocks(*stream, warps=warps)
    for pipe in Pipe:
        share = warps if pipe >= Pipe.SHARED else per_partition
        assert end + queued >= share * sum(op.busy for op in stream if op.pipe is pipe) - 8
    assert end >= per_partition * len(stream)


@given(
    st.lists(st.sampled_from([NOP, FMA, EXP, LOAD, wait_for(0), BARRIER]), min_size=1, max_size=40), st.integers(1, 8)
)
def test_one_more_instruction_never_saves_a_warp_time(stream: list[Op], warps: int) -> None:
    assert clocks(*stream, FMA, warps=1) >= clocks(*stream, warps=1)
    assert clocks(*stream, warps=warps) == clocks(*stream, warps=warps)


@given(st.lists(st.sampled_from([NOP, FMA, EXP, LOAD, wait_for(0)]), min_size=1, max_size=40))
@example([LOAD] * 3 + [NOP] + [EXP] * 3 + [LOAD, EXP, LOAD])  # 65 clocks as one, 100 apart: they fall out of step
def test_playing_four_warps_as_one_errs_by_what_three_take_the_sms_pipes_for_at_most(stream: list[Op]) -> None:
    alone = clocks(*stream)
    together = clocks(*stream, warps=4)
    apart = play([Team(0, place, 1, stream) for place in range(4)]).end
    others = 3 * sum(op.busy for op in stream if op.pipe >= Pipe.SHARED)
    assert alone <= together <= alone + others
    assert alone <= apart <= alone + others


BULK = replace(NOP, kind=Kind.BULK_COPY, latency=600, l2=100.0, leader=True)
ARRIVED = replace(NOP, kind=Kind.MBARRIER_WAIT_COPY, write_barrier=0)


def test_a_bulk_copy_waited_for_in_the_same_pass_is_waited_for_by_every_warp() -> None:
    once = [replace(NOP, leader=True, stall=20), BULK, ARRIVED, wait_for(0), BARRIER]
    assert clocks(*once, warps=4) >= 700
    assert clocks(*once * 5, warps=4) >= 5 * 700
    late = play([Team(0, 0, 4, [*once, ARRIVED, wait_for(0), Mark(0)])])  # no one copies for the second wait
    assert late.marks[0, 0] >= 700


def test_bytes_from_l2_arrive_at_the_share_of_an_sm() -> None:
    load = replace(LOAD, busy=1.0, l2=50.0)
    assert clocks(*[load] * 20, wait_for(0)) == pytest.approx(20 * 50 + 600, abs=10)
    assert clocks(*[load] * 20) < 60


ARRIVE = replace(NOP, kind=Kind.MBARRIER_ARRIVE, mbarrier=0x100, leader=True)
ROLE = replace(NOP, kind=Kind.MBARRIER_WAIT_ROLE, mbarrier=0x100, write_barrier=0, count=2)


def test_a_role_waits_for_the_phase_that_another_completes() -> None:
    slow = replace(NOP, stall=100)
    roles = [
        Team(0, 0, 4, [slow, ARRIVE, slow, ARRIVE]),
        Team(0, 4, 4, [ROLE, wait_for(0), Mark(0), ROLE, wait_for(0)]),
    ]
    played = play(roles)
    assert played.marks[1, 0] == pytest.approx(101, abs=3)
    assert played.end == pytest.approx(202, abs=6)


def test_an_arrival_by_every_warp_completes_a_phase_with_the_last() -> None:
    everyone = replace(ARRIVE, leader=False)
    late = [replace(NOP, leader=True, stall=50), everyone]
    played = play([Team(0, 0, 4, late), Team(0, 4, 4, [ROLE, wait_for(0), Mark(0)])])
    assert played.marks[1, 0] >= 50


def test_an_mbarrier_that_is_initialised_again_has_no_phases_left_of_before() -> None:
    meet = replace(BARRIER, count=1)
    again = replace(NOP, kind=Kind.MBARRIER_INIT, mbarrier=0x100)
    served: list[Op | Mark] = [ROLE, wait_for(0), meet, meet, ROLE, wait_for(0), Mark(0)]
    late = replace(NOP, stall=700)
    for init, at in ((again, 700), (NOP, 0)):
        serving = [ARRIVE, ARRIVE, meet, init, meet, late, ARRIVE]
        assert play([Team(0, 0, 4, serving), Team(0, 4, 4, served)]).marks[1, 0] == pytest.approx(at, abs=120)


def test_a_producer_fills_the_free_slots_of_a_ring_before_it_waits_for_its_consumer() -> None:
    bulk = replace(BULK, l2=0.0, latency=0.0, mbarrier=0x200)
    full = replace(ARRIVED, mbarrier=0x200)
    produce: list[Op | Mark] = [op for turn in range(4) for op in (ROLE, wait_for(0), bulk, Mark(turn))]
    consume: list[Op | Mark] = [full, wait_for(0), replace(NOP, stall=1000), ARRIVE] * 4
    marks = play([Team(0, 0, 1, produce), Team(0, 1, 1, consume)]).marks
    assert marks[0, 1] < 50  # two slots
    assert marks[0, 2] == pytest.approx(1000, abs=20)
    assert marks[0, 3] == pytest.approx(2000, abs=40)


def test_a_slot_is_free_once_all_consumers_have_left_it() -> None:
    bulk = replace(BULK, l2=0.0, latency=0.0, mbarrier=0x200)
    full = replace(ARRIVED, mbarrier=0x200)
    produce: list[Op | Mark] = [op for turn in range(4) for op in (ROLE, wait_for(0), bulk, Mark(turn))]
    fast, slow = ([full, wait_for(0), replace(NOP, stall=clocks), ARRIVE] * 4 for clocks in (10, 1000))
    marks = play([Team(0, 0, 1, produce), Team(0, 1, 1, fast), Team(0, 2, 1, slow)]).marks
    assert marks[0, 2] == pytest.approx(1000, abs=20)
    assert marks[0, 3] == pytest.approx(2000, abs=40)


def test_two_who_fill_slots_of_their_own_complete_a_phase_each() -> None:
    own = [replace(NOP, stall=100), ARRIVE] * 4
    both: list[Op | Mark] = [*[replace(ROLE, count=1), wait_for(0)] * 8, Mark(0)]
    assert play([Team(0, 0, 1, own), Team(0, 1, 1, own), Team(0, 2, 1, both)]).marks[2, 0] == pytest.approx(400, abs=20)


def test_slots_are_free_once_and_a_role_that_nobody_serves_comes_before_one_that_filled_its_ring() -> None:
    bulk = replace(BULK, l2=0.0, latency=0.0, mbarrier=0x200)
    produce: list[Op | Mark] = [op for turn in range(4) for op in (ROLE, wait_for(0), bulk, Mark(turn))]
    primed = replace(ROLE, mbarrier=0x300, count=1)
    full = replace(ARRIVED, mbarrier=0x200)
    consume: list[Op | Mark] = [primed, wait_for(0)]
    consume += [full, wait_for(0), replace(NOP, stall=1000), ARRIVE] * 4
    marks = play([Team(0, 0, 1, produce), Team(0, 1, 1, consume)]).marks
    assert marks[0, 2] == pytest.approx(1000, abs=40)
    assert marks[0, 3] == pytest.approx(2000, abs=60)


def test_warpgroups_that_wait_for_the_tensor_cores_take_turns() -> None:
    products = [replace(WGMMA, queue=0.0, in_turn=True)] * 8
    in_turn = play([Team(0, 0, 4, [*products, Mark(0)]), Team(1, 4, 4, [*products, Mark(0)])]).marks
    greedy = play(
        [Team(cta, 4 * cta, 4, [*(replace(op, in_turn=False) for op in products), Mark(0)]) for cta in range(2)]
    ).marks
    assert abs(in_turn[0, 0] - in_turn[1, 0]) <= 64
    assert abs(greedy[0, 0] - greedy[1, 0]) > 300


def test_a_play_with_a_seed_is_repeatable_and_others_differ() -> None:
    stream = [LOAD, wait_for(0), *[FMA] * 10, BARRIER] * 5
    teams = [Team(cta, 4 * cta, 4, [*stream, Mark(0)]) for cta in range(2)]
    played = [play(teams, seed=seed) for seed in (0, 0, 2, 4)]
    assert played[0] == played[1]
    assert len({made.end for made in played}) == 3
    assert play(teams) == play(teams)


def test_an_odd_seed_differs_from_the_even_one_before_it_in_who_is_younger() -> None:
    rivals = [Team(0, 4 * role, 4, [*[EXP] * 500, Mark(0)]) for role in range(2)]
    for seed in range(0, 20, 2):
        assert play(rivals[:1], seed=seed) == play(rivals[:1], seed=seed + 1)
        first, second = (play(rivals, seed=each).marks for each in (seed, seed + 1))
        assert (first[0, 0] < first[1, 0]) != (second[0, 0] < second[1, 0])


def test_jittered_latencies_are_right_in_the_mean_and_those_of_arithmetic_do_not_vary() -> None:
    loads = [LOAD, wait_for(0)] * 50
    exact = clocks(*loads)
    ends = [play([Team(0, 0, 1, loads)], seed=seed).end for seed in range(20)]
    assert sum(ends) / len(ends) == pytest.approx(exact, rel=0.02)
    assert all(abs(end / exact - 1) < 0.25 for end in ends)
    single = [play([Team(0, 0, 1, [LOAD, wait_for(0)])], seed=seed).end - 9 for seed in range(20)]
    assert all(0.75 * 600 <= latency <= 1.25 * 600 for latency in single)
    assert max(single) - min(single) > 100
    arithmetic = [replace(FMA, latency=16.0, write_barrier=0), wait_for(0)] * 20
    assert {round(play([Team(0, 0, 1, arithmetic)], seed=seed).end, 6) for seed in range(5)} == {clocks(*arithmetic)}


@pytest.mark.parametrize(("stall", "mean"), [(1, 1.1125), (8, 8.0)])
def test_stall_counts_of_rivals_vary_from_pass_to_pass_but_nothing_issues_before_the_next_clock(
    stall: int, mean: float
) -> None:
    passes, each = 40, [replace(NOP, stall=stall)] * 50
    stream = [op for place in range(passes) for op in (Mark(place), *each)]
    rivals = [Team(cta, cta, 1, [*stream, Mark(passes)]) for cta in range(2)]
    found = []
    for seed in range(0, 20, 2):
        marks = play(rivals, seed=seed).marks
        found += [(marks[0, place + 1] - marks[0, place]) / len(each) for place in range(passes)]
    assert max(stall * 0.55, 1.0) <= min(found) + 0.01
    assert max(found) <= stall * 1.45 + 0.01
    assert max(found) - min(found) > 0.25 * stall
    assert sum(found) / len(found) == pytest.approx(mean, rel=0.02)


def test_a_scheduler_prefers_the_warp_that_issued_last() -> None:
    rivals = [Team(cta, 4 * cta, 1, [*[NOP] * 400, Mark(0)]) for cta in range(2)]
    marks = play(rivals).marks
    assert abs(marks[0, 0] - marks[1, 0]) == 400


def test_jittered_ctas_start_apart_and_the_end_is_that_of_the_slowest_from_its_own_start() -> None:
    teams = [Team(cta, 4 * cta, 4, [Mark(0), *[FMA] * 100]) for cta in range(2)]
    played = play(teams, seed=1)
    assert abs(played.marks[0, 0] - played.marks[1, 0]) > 10
    assert 100 <= played.end <= 200
    assert play(teams).marks == {(0, 0): 0.0, (1, 0): 0.0}
