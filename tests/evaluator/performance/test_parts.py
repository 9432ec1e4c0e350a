"""Parts played side by side: clocks per pass apart from those of inner loops, paces, and as many plays as it takes."""

from collections.abc import Iterator, Sequence
from itertools import cycle

import pytest

from avo.evaluator.performance.parts import Player, play_parts
from avo.evaluator.performance.pipes import Costs
from avo.evaluator.performance.simulate import Played, Team, play
from avo.evaluator.performance.structure import Loop
from avo.evaluator.targets import get_target
from tests.evaluator.performance.handmade import nops

H100 = get_target("h100")


def test_nested_loops_are_charged_for_their_own_instructions_only() -> None:
    inner = Loop(0, nops(10), False)
    middle = Loop(0, (*nops(15), inner, *nops(5)), False)
    outer = Loop(0, (*nops(20), middle, *nops(10)), False)
    clocks, end, counts = play_parts([((*nops(7), outer, *nops(3)), 1)], Costs((), H100), 1)
    assert (clocks[inner], clocks[middle], clocks[outer]) == (10, 20, 30)
    assert end == 10 + sum(counts[loop] * clocks[loop] for loop in counts)


def test_parts_played_side_by_side_share_the_sm() -> None:
    loop, other = Loop(0, nops(100), False), Loop(0, nops(100), False)
    alone, _, _ = play_parts([((loop,), 4)], Costs((), H100), 1)
    both, _, _ = play_parts([((loop,), 4), ((other,), 4)], Costs((), H100), 1)
    twice, _, _ = play_parts([((loop,), 4)], Costs((), H100), 2)
    assert alone[loop] == 100
    # one may lead by two passes, of the few that are played
    assert max(both.values()) == pytest.approx(200, rel=0.2)
    assert twice[loop] == pytest.approx(200, rel=0.2)


def test_roles_keep_pace_with_the_slowest() -> None:
    fast, slow = Loop(0, nops(10), False), Loop(0, nops(1000), False)
    clocks, _, _ = play_parts([((fast,), 1), ((slow,), 1)], Costs((), H100), 1)
    assert clocks[fast] > 500


def test_roles_pass_their_loops_at_the_pace_that_was_counted() -> None:
    lead, often, seldom = (Loop(0, nops(count), False) for count in (1000, 10, 10))
    parts = [((each,), 1) for each in (lead, often, seldom)]
    _, _, counts = play_parts(parts, Costs((), H100), 1, paces={often: 4, seldom: 0.25})
    assert counts[lead] == 12
    assert (counts[often], counts[seldom]) == (48, 3)
    _, _, counts = play_parts(parts, Costs((), H100), 1, paces={often: 1e9})
    assert counts[often] == 16 * counts[lead]


def test_a_loop_that_is_never_passed_makes_no_play_longer() -> None:
    lead, never = (Loop(0, nops(count), False) for count in (1000, 10))
    parts = [((each,), 1) for each in (lead, never)]
    assert play_parts(parts, Costs((), H100), 1, paces={never: 0.0})[2] == {lead: 6, never: 1}


def test_roles_pass_their_loops_some_times_less_or_more_than_their_pace() -> None:
    lead, peeled = (Loop(0, nops(1000), False) for _ in range(2))
    parts = [((each,), 1) for each in (lead, peeled)]
    _, _, counts = play_parts(parts, Costs((), H100), 1, paces={lead: 1.0, peeled: 2.0}, peeled={peeled: -1.0})
    assert (counts[lead], counts[peeled]) == (6, 11)


def players(factors: Iterator[float], played: list[int]) -> list[Player]:
    """Players whose plays take longer by one factor after the other; each notes that it has played."""

    def player(teams: Sequence[Team]) -> Played:
        factor, found = next(factors), play(teams)
        played.append(len(teams))
        return Played(found.end * factor, {mark: time * factor for mark, time in found.marks.items()})

    return [player] * 8


@pytest.mark.parametrize(("share", "plays"), [(0.0, 2), (0.009, 2), (0.02, 5), (0.3, 8)])
def test_teams_are_played_until_the_mean_of_their_plays_is_sure(share: float, plays: int) -> None:
    loop, played = Loop(0, nops(100), False), list[int]()
    args = [((loop,), 4)], Costs((), H100), 2
    once, end, counts = play_parts(*args)
    clocks, mean_end, same = play_parts(*args, players(cycle([1 - share, 1 + share]), played))
    assert len(played) == plays
    assert clocks[loop] == pytest.approx(once[loop], rel=0.3 * share)
    assert mean_end == pytest.approx(end, rel=0.3 * share)
    assert same == counts


def test_one_team_alone_is_played_once() -> None:
    played = list[int]()
    play_parts([((Loop(0, nops(100), False),), 8)], Costs((), H100), 1, players(cycle([1.0, 2.0]), played))
    assert len(played) == 1
