"""Measured speed behind the judge's seam: what is run, what is timed, and what is said about it."""

import math
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import pytest

from avo.evaluator.binary import Binary
from avo.evaluator.cuda import measuring
from avo.evaluator.cuda.contender import Contender
from avo.evaluator.cuda.device import Clocks, Enqueue, LoadedKernel, Took
from avo.evaluator.cuda.measured import Measured, clocks_in_words
from avo.evaluator.cuda.measuring import PASSES, RUNS
from avo.evaluator.cuda.sequential import BLOCK
from avo.evaluator.errors import EvaluatorUnavailable
from avo.evaluator.evaluation import CaseResult, CaseScore, Fault, Score, Status, Verdict
from avo.evaluator.judging.speed import Challenge, CompiledPlan
from avo.evaluator.plan import KernelIR
from avo.evaluator.target import ScoreKind
from tests.evaluator.cuda.fake_device import CARD, CASE, MHA, OTHER, FakeDevice, Loopback, benchmark, forever

TARGET = CARD.target()
Predictions = dict[str, float]


class TimedDevice(FakeDevice):
    """Takes the time of the kernel that was loaded last."""

    def __init__(self, times: Mapping[str, float], clocks: Clocks) -> None:
        self._times = times
        super().__init__(forever(0.0), clocks)
        self.kernel = ""

    def load(self, ir: KernelIR, binary: Binary) -> LoadedKernel:
        """Note the name."""
        self.kernel = ir.name
        return super().load(ir, binary)

    def time(self, enqueue: Enqueue) -> Took:
        """See ``FakeDevice.time``."""
        super().time(enqueue)
        return Took(self._times[self.kernel], self._times[self.kernel])


WARM = Clocks(1755, 4, 61, 650.0)


class Garage:
    """Starts contenders whose kernels take ``times``, and remembers them."""

    def __init__(self, clocks: Clocks = WARM, **times: float) -> None:
        self._times, self._clocks = times, clocks
        self.links: list[Loopback] = []

    def start(self) -> Contender:
        """Return the next one."""
        self.links.append(Loopback(TimedDevice(self._times, self._clocks)))
        return Contender(self.links[-1])

    @property
    def used(self) -> list[Loopback]:
        """Those that did more than to start."""
        return [link for link in self.links if link.begun]

    @property
    def devices(self) -> list[TimedDevice]:
        """The devices of those."""
        return [link.device for link in self.used]  # type: ignore[misc]


def run(garage: Garage, kernel: str, incumbent: Challenge | None = None, cascade: float | None = None) -> Score | Fault:
    speed = Measured(TARGET, cascade=cascade, start=garage.start, chance=random.Random(5))
    return speed.score(MHA, [benchmark(CASE, kernel)], incumbent)


def challenge(kernel: str = "counts", digest: str = "theirs") -> Challenge:
    return Challenge((benchmark(CASE, kernel),), digest, 0.02)


@pytest.fixture
def predictions(monkeypatch: pytest.MonkeyPatch) -> Predictions:
    """High bounds by kernel; a kernel without one cannot be predicted."""
    bounds: Predictions = {}

    def predict(speed: Measured, problem: object, benchmarks: Sequence[CompiledPlan]) -> tuple[CaseScore, ...] | str:
        (high,) = (bounds.get(each.plan.kernels[0].name) for each in benchmarks)
        return (
            "it is not to be had"
            if high is None
            else (CaseScore("small", high / 2, 1.0, "exp", low_tflops=1.0, high_tflops=high, critical="issue"),)
        )

    monkeypatch.setattr(Measured, "_predict", predict)
    return bounds


def test_a_score_is_measured_and_says_on_which_card_and_how() -> None:
    garage = Garage(honest=2e-3)
    score = run(garage, "honest")
    assert isinstance(score, Score)
    assert (score.kind, score.target, score.card) == (ScoreKind.MEASURED, "cuda", "Fake H100")
    assert score.conditions == (
        "driver 550.54, CUDA 12.8, torch 2.11.0, Triton 3.6.0, ptxas 12.8; sustained clock; "
        "SM clock 1755 to 1755 MHz, held down by: software power cap, 61 to 61 C, 650 to 650 W; "
        "power limit 700 W, 2.5 us of each time is what an empty graph takes"
    )
    assert score.comparison is None
    (case,) = score.cases
    assert case.tflops == pytest.approx(MHA.flops(CASE) / 2e-3 / 1e12)
    assert (case.time_us, case.low_tflops, case.high_tflops) == (2000, case.tflops, case.tflops)
    assert (case.limiter, case.utilisation) == ("", {})
    assert all(link.closed for link in garage.used)


def test_small_cases_are_run_first_and_their_memory_is_free_again() -> None:
    garage = Garage()
    small = [benchmark(OTHER, "honest"), benchmark(OTHER, "undefined")]
    outcome = Measured(TARGET, start=garage.start).score(MHA, [benchmark(CASE, "honest")], None, small)
    assert isinstance(outcome, Fault)
    assert outcome.status is Status.INCORRECT
    assert outcome.message.startswith("case other: ")
    assert garage.devices[0].runs == 0  # timed ones
    assert garage.links[0].closed


@pytest.mark.long
def test_score_and_comparison_are_different_samples_against_an_incumbent_in_a_process_of_its_own() -> None:
    garage = Garage(honest=0.9e-3, counts=1e-3)
    score = run(garage, "honest", challenge())
    assert isinstance(score, Score)
    comparison = score.comparison
    assert comparison is not None
    assert (comparison.plan_digest, comparison.alpha, comparison.verdict) == ("theirs", 0.02, Verdict.FASTER)
    assert comparison.log_ratios == pytest.approx([math.log(1 / 0.9)] * len(comparison.log_ratios))
    checked, *pair, scored = garage.devices
    assert checked.runs == 0
    assert all(
        {one.kernel, other.kernel} == {"honest", "counts"} for one, other in zip(pair[::2], pair[1::2], strict=True)
    )
    # Neither has run anything that the other has not: a kernel must not lose to itself by its part.
    assert {device.runs for device in pair} == {2 * BLOCK}
    assert len(pair) * BLOCK == 2 * len(comparison.log_ratios)
    assert (scored.kernel, scored.runs) == ("honest", RUNS)
    assert all(link.closed for link in garage.used)


@pytest.mark.long
def test_pairs_of_a_comparison_have_new_processes_and_chance_says_which_is_opened_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(measuring, "decide", lambda ratios, alpha, margin: Verdict.UNDECIDED)
    monkeypatch.setattr(measuring, "ROUNDS", (32,))
    garage = Garage(honest=1e-3, counts=1e-3)
    assert isinstance(run(garage, "honest", challenge()), Score)
    pairs = [tuple(device.kernel for device in garage.devices[i : i + 2]) for i in range(1, 17, 2)]
    assert len(garage.devices) == 1 + 2 * len(pairs) + 1
    assert set(pairs) == {("honest", "counts"), ("counts", "honest")}


@pytest.mark.long
def test_a_comparison_that_ran_out_of_time_is_said_to_have() -> None:
    speed = Measured(TARGET, cascade=None, start=Garage(honest=1e-3, counts=1e-3).start)
    speed.compare_s = 0.0
    score = speed.score(MHA, [benchmark(CASE, "honest")], challenge())
    assert isinstance(score, Score)
    assert score.comparison is not None
    assert score.comparison.verdict is Verdict.UNDECIDED
    assert "out of time after 4 rounds of the comparison" in score.conditions


@pytest.mark.long
def test_a_candidate_that_is_not_faster_is_scored_in_one_pass() -> None:
    garage = Garage(honest=1.2e-3, counts=1e-3)
    score = run(garage, "honest", challenge())
    assert isinstance(score, Score)
    assert score.comparison is not None
    assert score.comparison.verdict is Verdict.SLOWER
    assert garage.devices[-1].runs == RUNS // PASSES


class Turns:
    """Turns at the card, for each of which the clock goes on by a day."""

    def __init__(self, garage: Garage, patch: pytest.MonkeyPatch) -> None:
        self._garage, self._clock, self._days = garage, time.monotonic, 0
        self.taken: list[int] = []
        """How many processes used the card in each."""
        patch.setattr(time, "monotonic", lambda: self._clock() + 86400 * self._days)

    @contextmanager
    def turn(self) -> Iterator[None]:
        before = len(self._garage.used)
        assert all(link.closed for link in self._garage.used)
        self._days += 1
        yield
        assert all(link.closed for link in self._garage.used)
        self.taken.append(len(self._garage.used) - before)


def test_a_candidate_that_could_win_has_one_turn_for_all_that_runs_and_waiting_for_it_takes_no_time(
    predictions: Predictions, monkeypatch: pytest.MonkeyPatch
) -> None:
    garage = Garage(honest=1.2e-3, counts=1e-3, illegal=1e-3)
    predictions.update(honest=900.0, counts=900.0, illegal=100.0)
    turns = Turns(garage, monkeypatch)
    speed = Measured(TARGET, start=garage.start, chance=random.Random(5), turn=turns.turn)
    speed.compare_s = 600.0
    hopeless = speed.score(MHA, [benchmark(CASE, "illegal")], challenge())
    assert isinstance(hopeless, Fault)
    assert (hopeless.status, turns.taken, garage.links) == (Status.NOT_TIMED, [], [])
    score = speed.score(MHA, [benchmark(CASE, "honest")], challenge())
    assert isinstance(score, Score)
    assert score.comparison is not None
    assert score.comparison.verdict is Verdict.SLOWER
    predictions["illegal"] = 900.0
    crashed = speed.score(MHA, [benchmark(CASE, "illegal")], challenge())
    assert isinstance(crashed, Fault)
    assert crashed.status is Status.CRASHED
    assert len(turns.taken) == 2
    assert sum(turns.taken) == len(garage.used)


def test_a_card_that_is_held_down_by_heat_gives_no_score() -> None:
    with pytest.raises(EvaluatorUnavailable, match=r"slowed down in 24 of 24 runs .* hardware thermal slowdown"):
        run(Garage(Clocks(900, 0x48), honest=1e-3), "honest")


def test_an_incumbent_that_does_not_run_is_no_verdict_on_the_candidate() -> None:
    garage = Garage(honest=1e-3)
    with pytest.raises(EvaluatorUnavailable, match="the incumbent fails on this GPU: case small: kernel large"):
        run(garage, "honest", challenge("large"))
    assert all(link.closed for link in garage.used)


@pytest.mark.parametrize("small", [[], [benchmark(OTHER, "illegal")]])
def test_a_crash_is_the_candidates_fault_if_the_card_still_runs_what_it_ran_before(small: list[CompiledPlan]) -> None:
    garage = Garage(illegal=1e-3, honest=1e-3)
    speed = Measured(TARGET, cascade=None, start=garage.start, chance=random.Random(5))
    found = speed.score(MHA, [benchmark(CASE, "illegal")], challenge("honest"), small)
    assert isinstance(found, Fault)
    assert found.status is Status.CRASHED
    assert garage.devices[-1].kernel == "honest"
    assert all(link.closed for link in garage.used)


def test_a_crash_after_which_the_incumbent_crashes_too_is_no_verdict() -> None:
    garage = Garage()
    speed = Measured(TARGET, cascade=None, start=garage.start)
    small = [benchmark(OTHER, "illegal")]
    with pytest.raises(EvaluatorUnavailable, match=r"a candidate crashed \(case other: .*, the incumbent does not"):
        speed.score(MHA, [benchmark(CASE, "honest")], challenge("illegal"), small)


def test_a_hopeless_candidate_is_not_timed_and_the_figures_say_why(predictions: Predictions) -> None:
    predictions.update(counts=700.0, zeros=500.0)
    garage = Garage()
    found = run(garage, "zeros", challenge(), cascade=0.25)
    expected = "not timed: predicted at most 500 TFLOPS, the incumbent 700, margin 0.25"
    assert found == Fault(Status.NOT_TIMED, expected)
    assert garage.devices == []


@pytest.mark.parametrize(
    ("bounds", "cascade", "said"),
    [
        ({"honest": 700.0, "counts": 530.0}, 0.25, "cascade passed: predicted at most 530 TFLOPS, the incumbent 700"),
        pytest.param({"honest": 700.0, "counts": 100.0}, None, "cascade off", marks=pytest.mark.long),
        pytest.param({"honest": 700.0}, 0.25, "cascade passed: it is not to be had", marks=pytest.mark.long),
    ],
)
def test_a_timed_candidate_says_why_it_was_timed(
    bounds: Predictions, cascade: float | None, said: str, predictions: Predictions
) -> None:
    predictions.update(bounds)
    score = run(Garage(counts=1e-3, honest=1e-3), "counts", challenge("honest"), cascade)
    assert isinstance(score, Score)
    assert said in score.conditions
    assert score.cases[0].critical == ("issue" if "counts" in bounds else "")
    assert score.cases[0].limiter == ""


def test_without_an_incumbent_everything_is_timed(predictions: Predictions) -> None:
    assert isinstance(run(Garage(honest=1e-3), "honest", None, cascade=0.25), Score)


def test_clocks_are_told_as_a_range_with_all_that_held_them_down() -> None:
    assert clocks_in_words([Clocks(1400, 0x04, 50), Clocks(1980, 0x01), Clocks(1700, 0x40, 60)]) == (
        "SM clock 1400 to 1980 MHz, held down by: software power cap, hardware thermal slowdown, "
        "50 to 60 C, power not readable"
    )
    assert clocks_in_words([Clocks(1980, 0x01, 50)]).startswith("SM clock 1980 to 1980 MHz, held down by: none, 50")
    assert clocks_in_words([]) == "clocks not readable"


@pytest.mark.long
def test_processes_start_before_they_are_needed_and_touch_the_gpu_when_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(measuring, "decide", lambda ratios, alpha, margin: Verdict.UNDECIDED)
    monkeypatch.setattr(measuring, "ROUNDS", (8,))
    garage = Garage(honest=1e-3, counts=1e-3)
    seen: list[tuple[int, int]] = []
    timing = TimedDevice.time

    def note(device: TimedDevice, enqueue: Enqueue) -> Took:
        seen.append((len(garage.links), len(garage.used)))
        return timing(device, enqueue)

    check, checked = Contender.check, []

    def note_check(contender: Contender, case: str, seed: int, limit_s: float) -> CaseResult | Fault:
        checked.append((len(garage.links), len(garage.used)))
        return check(contender, case, seed, limit_s)

    monkeypatch.setattr(TimedDevice, "time", note)
    monkeypatch.setattr(Contender, "check", note_check)
    speed = Measured(TARGET, cascade=None, start=garage.start, chance=random.Random(5))
    small = [benchmark(OTHER, "honest")]
    assert isinstance(speed.score(MHA, [benchmark(CASE, "honest")], challenge(), small), Score)
    assert checked == [(3, 1)]  # the first pair starts while small cases are checked
    # The check's, two pairs and the score's were used; while a pair runs, two more have started.
    assert set(seen) == {(5, 3), (7, 5), (7, 6)}
    assert isinstance(speed.score(MHA, [benchmark(CASE, "honest")], None), Score)
    assert len(garage.links) == 8  # the one left over served the next candidate


@pytest.mark.long
def test_a_plan_that_no_graph_holds_and_a_profiler_are_told_in_the_conditions() -> None:
    garage = Garage(uncapturable=1e-3)
    score = run(garage, "uncapturable")
    assert isinstance(score, Score)
    assert "without a CUDA graph: CUDA error: operation not permitted when stream is capturing" in score.conditions
    assert [device.runs for device in garage.devices][-1:] == [RUNS]  # in a process where no capture has failed
    assert len(garage.devices) == 3
    speed = Measured(TARGET, start=Garage(honest=1e-3).start, sustained=False, profiler="ncu -o out")
    score = speed.score(MHA, [benchmark(CASE, "honest")], None)
    assert isinstance(score, Score)
    assert "under ncu -o out: these times mean nothing; " in score.conditions
    assert "burst clock" in score.conditions
