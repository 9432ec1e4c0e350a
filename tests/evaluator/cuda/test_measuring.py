"""Who runs when, and what is made of the times, with contenders whose times are simulated."""

import json
import math
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeVar

import pytest

from avo.evaluator.cuda import measuring
from avo.evaluator.cuda.cards import Card
from avo.evaluator.cuda.device import Clocks, Setup, Timed, Took
from avo.evaluator.cuda.measuring import PASSES, RUNS, Audience, Pair, Stopwatch
from avo.evaluator.cuda.protocol import STRETCH_S, TimedCase
from avo.evaluator.cuda.sequential import BLOCK, ROUNDS
from avo.evaluator.errors import EvaluatorUnavailable
from avo.evaluator.evaluation import CaseResult, Comparison, Fault, Status, Verdict
from avo.evaluator.evaluators import Progress
from avo.evaluator.judging.speed import CompiledPlan
from avo.evaluator.problem import Problem
from tests.evaluator.cuda.fake_device import CARD, SETUP

CASES = (TimedCase("a", 10**9, 1e-6), TimedCase("b", 2 * 10**9, 1e-6))
Call = tuple[str, str, int]
T = TypeVar("T")


class Simulated:
    """A contender with a true time for each run, multiplied by what the card and chance do at that moment."""

    def __init__(self, name: str, seconds: float, calls: list[Call], chance: random.Random, noise: float = 0.0) -> None:
        self.name, self.seconds, self.calls, self.chance, self.noise = name, seconds, calls, chance, noise
        self.card: Card = CARD
        self.setup: Setup = SETUP
        self.seeds: list[int] = []
        self.fault: Fault | None = None
        self.late: Callable[[], float] = lambda: 0.0
        self.clocks: tuple[Clocks, ...] = ()
        self.ungraphed = ""
        self.graphs: list[bool] = []
        self.stretches: list[float] = []
        self.boost = 1.0
        """How much faster a run is without a stretch before it."""

    def open(self, problem: Problem, compiled: CompiledPlan) -> Fault | None:
        raise NotImplementedError

    def check(self, case: str, seed: int, limit_s: float) -> CaseResult | Fault:
        raise NotImplementedError

    def time(
        self, case: str, seeds: Sequence[int], limit_s: float, stretch_s: float = 0.0, graph: bool = True
    ) -> Timed | Fault:
        self.stretches.append(stretch_s)
        self.calls.append((self.name, case, len(seeds)))
        self.seeds += seeds
        if self.fault:
            return self.fault
        drift = 1 + 0.1 * math.sin(len(self.calls) / 50)  # of the card's clock: shared by neighbours in time
        drift /= 1.0 if stretch_s else self.boost
        took = [self.seconds * drift * math.exp(self.chance.gauss(0, self.noise)) for _ in seeds]
        ungraphed = self.ungraphed if graph else ""
        self.graphs.append(graph)
        return Timed(tuple(Took(each, each + self.late()) for each in took), self.clocks, ungraphed)

    def forget(self, case: str) -> None:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


def two(mine: float, theirs: float, noise: float = 0.01, seed: int = 1) -> tuple[Simulated, Simulated, list[Call]]:
    calls: list[Call] = []
    chance = random.Random(seed)
    return Simulated("A", mine, calls, chance, noise), Simulated("B", theirs, calls, chance, noise), calls


def groups(items: Sequence[T], size: int) -> list[Sequence[T]]:
    return [items[i : i + size] for i in range(0, len(items), size)]


def always(mine: Simulated, theirs: Simulated) -> Callable[[], AbstractContextManager[Pair | Fault]]:
    @contextmanager
    def pair() -> Iterator[Pair | Fault]:
        yield mine, theirs

    return pair


def compare(mine: Simulated, theirs: Simulated, seed: int = 2, until: float = math.inf, least: int = 0) -> Comparison:
    stopwatch = Stopwatch(CASES, random.Random(seed))
    outcome = stopwatch.compare(always(mine, theirs), "digest", 0.01, 0.005, until, least)
    assert isinstance(outcome, Comparison)
    return outcome


def test_a_score_is_the_median_of_at_least_twenty_runs_a_case_with_its_quartiles() -> None:
    case = TimedCase("a", 10**12, 1e-6)
    score = case.score([1.0, 2.0, 3.0, 4.0, 100.0])
    assert (score.time_us, score.tflops) == (3e6, pytest.approx(1 / 3))
    assert (score.low_tflops, score.high_tflops) == (pytest.approx(1 / 4), pytest.approx(1 / 2))
    assert RUNS >= 20


def test_cases_are_timed_in_passes_with_chance_warmups_and_other_inputs_in_every_run() -> None:
    mine, _, calls = two(1e-3, 1e-3)
    timing = Stopwatch(CASES, random.Random(3), sustained=False).score(mine)
    assert not isinstance(timing, Fault)
    assert [score.case for score in timing.scores] == ["a", "b"]
    assert [sorted(case for _, case, _ in part) for part in groups(calls, 2)] == [["a", "b"]] * PASSES
    counts = [count - RUNS // PASSES for *_, count in calls]
    assert set(counts) <= {1, 2, 3}
    assert len(set(counts)) > 1
    assert len(set(mine.seeds)) == len(mine.seeds) == 2 * RUNS + sum(counts)


def test_each_round_times_every_case_in_turn_in_an_order_that_chance_mirrors() -> None:
    mine, theirs, calls = two(1e-3, 1e-3)
    compare(mine, theirs)
    turns = ["".join(name for name, *_ in part) for part in groups(calls, 4)]
    assert set(turns) == {"ABBA", "BAAB"}
    cases = [{case for _, case, _ in part} for part in groups(calls, 4)]
    assert all(len(case) == 1 for case in cases)
    assert all(first != second for first, second in groups(cases, 2))
    assert len(set(mine.seeds + theirs.seeds)) == len(mine.seeds + theirs.seeds)


@pytest.mark.parametrize(
    ("mine", "verdict"), [(0.97e-3, Verdict.FASTER), (1.03e-3, Verdict.SLOWER), (1e-3, Verdict.EQUIVALENT)]
)
def test_a_comparison_ends_as_soon_as_it_is_decided(mine: float, verdict: Verdict) -> None:
    found = compare(*two(mine, 1e-3, noise=0.004, seed=3)[:2])
    assert found.verdict is verdict
    assert (found.plan_digest, found.alpha) == ("digest", 0.01)
    assert len(found.log_ratios) in ROUNDS
    assert len(found.log_ratios) < ROUNDS[-1]
    assert sum(found.log_ratios) / len(found.log_ratios) == pytest.approx(math.log(1e-3 / mine), abs=0.004)


def test_a_clock_that_drifts_by_a_tenth_is_not_in_the_ratios() -> None:
    found = compare(*two(1e-3, 1e-3, noise=0.0)[:2])
    assert max(map(abs, found.log_ratios)) < 2e-4


def test_a_run_below_the_roofline_is_a_fault_and_no_record() -> None:
    mine, theirs, _ = two(0.5e-6, 1e-3, noise=0.0)
    outcome = Stopwatch(CASES, random.Random(1)).score(mine)
    assert isinstance(outcome, Fault)
    assert outcome.status is Status.INCORRECT
    assert "less than the 1.0 us of its roofline on this card: part of the work is missing" in outcome.message
    assert isinstance(Stopwatch(CASES, random.Random(1)).compare(always(mine, theirs), "", 0.01, 0.005), Fault)


def test_the_candidates_fault_in_a_comparison_is_its_own_and_the_incumbents_is_nobodys() -> None:
    mine, theirs, _ = two(1e-3, 1e-3)
    mine.fault = Fault(Status.INCORRECT, "case a: wrong")
    assert Stopwatch(CASES, random.Random(1)).compare(always(mine, theirs), "", 0.01, 0.005) == mine.fault
    mine.fault, theirs.fault = None, Fault(Status.CRASHED, "case a: gone")
    with pytest.raises(EvaluatorUnavailable, match="the incumbent fails on this GPU: case a: gone"):
        compare(mine, theirs)


def test_a_pair_of_processes_runs_some_rounds_and_then_another_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "decide", lambda ratios, alpha, margin: Verdict.UNDECIDED)
    pairs: list[tuple[Simulated, Simulated]] = []

    @contextmanager
    def start() -> Iterator[Pair | Fault]:
        mine, theirs, calls = two(1e-3, 1e-3)
        pairs.append((mine, theirs))
        yield mine, theirs
        assert len(calls) == BLOCK * 4 * len(CASES)

    found = Stopwatch(CASES, random.Random(1)).compare(start, "", 0.01, 0.005)
    assert isinstance(found, Comparison)
    assert found.verdict is Verdict.UNDECIDED
    assert len(pairs) * BLOCK == len(found.log_ratios) == ROUNDS[-1]


def test_a_comparison_without_time_ends_undecided_with_the_rounds_that_it_has() -> None:
    found = compare(*two(1e-3, 1e-3)[:2], until=0.0)
    assert (found.verdict, len(found.log_ratios)) == (Verdict.UNDECIDED, ROUNDS[0])


def test_a_comparison_has_the_rounds_that_it_must_have_whatever_the_first_ones_show() -> None:
    assert len(compare(*two(1e-3, 1e-3)[:2]).log_ratios) < 80
    found = compare(*two(1e-3, 1e-3)[:2], least=80)
    assert (found.verdict, len(found.log_ratios)) == (Verdict.EQUIVALENT, 80)


@pytest.mark.parametrize("late", ["mine", "theirs"])
@pytest.mark.parametrize("late_s", [5e-4, -2.5e-3])
def test_events_and_the_hosts_clock_must_agree(late: str, late_s: float) -> None:
    mine, theirs, _ = two(2e-3, 2e-3)
    (mine if late == "mine" else theirs).late = lambda: late_s
    with pytest.raises(EvaluatorUnavailable, match="most runs take another time by the host's clock"):
        compare(mine, theirs)
    with pytest.raises(EvaluatorUnavailable, match="most runs take another time by the host's clock"):
        Stopwatch(CASES, random.Random(1)).score(mine if late == "mine" else theirs)


def test_who_is_on_the_card_too_is_named_where_clocks_disagree() -> None:
    mine, *_ = two(2e-3, 2e-3)
    mine.late, mine.clocks = lambda: 5e-4, (Clocks(1755, 4, others=("python (7)",)),)
    with pytest.raises(EvaluatorUnavailable, match=r"too busy to measure on \(on the card: python \(7\)\), or"):
        Stopwatch(CASES, random.Random(1)).score(mine)


def test_a_host_that_is_busy_now_and_then_is_believed() -> None:
    mine, theirs, _ = two(2e-3, 2e-3)
    hiccups = random.Random(7)
    mine.late = theirs.late = lambda: 5e-3 if hiccups.random() < 0.2 else 1e-4
    assert isinstance(compare(mine, theirs), Comparison)


def test_the_limit_on_a_run_follows_its_roofline_within_bounds() -> None:
    assert [TimedCase("a", 1, floor).limit_s for floor in (1e-6, 0.01, 10.0)] == [0.5, 2.0, 20.0]


def test_the_sustained_clock_is_that_of_a_kernel_that_has_run_for_a_while() -> None:
    scores = []
    for sustained in (True, False):
        mine, _, calls = two(1e-3, 1e-3, noise=0.0)
        mine.boost = 1.15
        timing = Stopwatch(CASES, random.Random(3), sustained=sustained).score(mine)
        assert not isinstance(timing, Fault)
        scores.append(timing.scores[0].tflops)
        expected = {True: (0.8 * STRETCH_S, 1.2 * STRETCH_S), False: (0, 0)}[sustained]
        assert all(expected[0] <= stretch <= expected[1] for stretch in mine.stretches)
        assert sum(count for *_, count in calls) == 2 * RUNS or not sustained
    assert scores[1] / scores[0] == pytest.approx(1.15, rel=0.02)


def test_both_sides_are_timed_without_a_graph_where_one_cannot_have_any() -> None:
    mine, theirs, _ = two(0.97e-3, 1e-3)
    mine.ungraphed = "no capture"
    stopwatch = Stopwatch(CASES, random.Random(2))
    found = stopwatch.compare(always(mine, theirs), "digest", 0.01, 0.005)
    assert isinstance(found, Comparison)
    assert found.verdict is Verdict.FASTER
    assert stopwatch.ungraphed == "no capture"
    assert len([graph for graph in theirs.graphs if not graph]) == 2 * len(CASES) * len(found.log_ratios)


def test_each_verdict_has_what_the_same_rounds_say_of_one_kernel_against_itself() -> None:
    found = compare(*two(0.97e-3, 1e-3, noise=0.01)[:2])
    assert len(found.against_itself) == len(found.log_ratios)
    assert abs(sum(found.against_itself) / len(found.against_itself)) < 0.01


def test_progress_and_every_run_are_told_while_they_are_measured() -> None:
    told: list[Progress] = []
    kept: list[Mapping[str, Any]] = []
    mine, theirs, _ = two(0.97e-3, 1e-3)
    stopwatch = Stopwatch(CASES, random.Random(2), audience=Audience(told.append, kept.append))
    found = stopwatch.compare(always(mine, theirs), "digest", 0.01, 0.005, time.monotonic() + 1000)
    assert isinstance(found, Comparison)
    beginning = told[0].words
    timed = [each for each in told if "starting" not in each.words]
    cases = [each.words for each in timed]
    assert re.fullmatch(r"round 1 of at most 256, starting new processes, \d+ s left", beginning)
    ratio = r"1\.0\d+ ± 0\.\d+ times as fast as the incumbent"
    in_round_4 = cases[3 * len(CASES) : 4 * len(CASES)]
    for words, case in zip(sorted(in_round_4), "ab", strict=True):
        assert re.fullmatch(rf"round 4 of at most 256, {case}, {ratio}, \d+ s left", words)
    assert [(each.done, each.of) for each in timed[:: len(CASES)]] == [
        (number, ROUNDS[-1]) for number in range(len(found.log_ratios))
    ]
    assert len(kept) == 4 * len(CASES) * len(found.log_ratios)
    assert (kept[0]["part"], kept[0]["round"], kept[0]["side"] in ("candidate", "incumbent")) == ("comparison", 1, True)
    assert json.loads(json.dumps(kept[0]))["runs"][0]["seconds"] > 0
    told.clear()
    stopwatch.score(mine)
    assert [(each.done, each.of) for each in told] == [(number, 6) for number in range(6)]
    assert re.fullmatch(r"timing [ab] for the score, pass 1 of 3", told[0].words)
    assert re.fullmatch(r"timing [ab] for the score, pass 3 of 3, about \d+ s left", told[-1].words)
