"""A worker runs plans on poisoned memory and new inputs, and sees what a kernel did wrong."""

import re
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch

from avo.evaluator.catalogue import get_problem
from avo.evaluator.cuda.contender import Contender
from avo.evaluator.cuda.device import Clocks, Timed, Took
from avo.evaluator.cuda.running import Running
from avo.evaluator.cuda.runs import FIRST
from avo.evaluator.errors import EvaluatorUnavailable
from avo.evaluator.evaluation import CaseResult, Fault, Status
from avo.evaluator.judging.speed import CompiledPlan
from avo.evaluator.plan import Buffer, LaunchPlan, Role
from avo.evaluator.problem import Case, rows_of
from avo.evaluator.problems.mha_backward import MHA_BACKWARD
from tests.evaluator.cuda.fake_device import CARD, CASE, MHA, OTHER, FakeDevice, Loopback, benchmark, forever

SEEDS = (5, 6, 7)


def contender(*seconds: float) -> Contender:
    return Contender(Loopback(FakeDevice(iter(seconds) if seconds else forever(1e-3), Clocks(1980, 4))))


def opened(kernel: str, case: Case = CASE) -> Contender:
    made = contender()
    assert made.open(MHA, benchmark(case, kernel)) is None
    return made


@pytest.mark.parametrize("case", [CASE, OTHER])
def test_a_right_kernel_passes_whole_and_sampled(case: Case) -> None:
    made = opened("honest", case)
    checked = made.check(case.name, 4, 1)
    assert isinstance(checked, CaseResult)
    assert checked.passed
    assert isinstance(made.time(case.name, SEEDS, 1), Timed)


def test_times_and_clocks_come_back_in_order() -> None:
    made = contender(0.25, 0.5)
    assert made.card == CARD
    made.open(MHA, benchmark(CASE, "honest"))
    timed = made.time(CASE.name, [1, 2], 1)
    assert timed == Timed((Took(0.25, 0.25), Took(0.5, 0.5)), (Clocks(1980, 4), Clocks(1980, 4)))


@pytest.mark.parametrize(
    ("kernel", "status", "message"),
    [
        ("zeros", Status.INCORRECT, r"case small: rows .* of batch 0, head \d"),
        ("lazy", Status.UNWRITTEN, "case small: 1 of 80 elements of lse were never written"),
        ("undefined", Status.INCORRECT, "case small: 1 elements of out are not finite"),
        ("overrun", Status.OUT_OF_BOUNDS, "case small: a kernel writes outside 'out'"),
        ("vandal", Status.FORBIDDEN, "case small: a kernel writes to the input 'k'"),
        (
            "illegal",
            Status.CRASHED,
            "case small: the GPU reports: CUDA error: an illegal memory access was encountered$",
        ),
        ("large", Status.DOES_NOT_FIT, "case small: kernel large: out of resource"),
        (
            "greedy",
            Status.DOES_NOT_FIT,
            "case small: kernels ask for more memory at launch than the GPU has left: CUDA",
        ),
    ],
)
@pytest.mark.parametrize("whole", [True, False])
def test_a_wrong_kernel_is_its_own_fault(kernel: str, status: Status, message: str, whole: bool) -> None:
    made = contender()
    found = made.open(MHA, benchmark(CASE, kernel))
    outcome = found or (made.check(CASE.name, 4, 1) if whole else made.time(CASE.name, SEEDS, 1))
    assert isinstance(outcome, Fault)
    assert outcome.status is status
    assert re.match(message, outcome.message)


@pytest.mark.parametrize("kernel", ["stale", "updates"])
def test_nothing_that_was_kept_from_an_earlier_run_serves_another(kernel: str) -> None:
    outcome = opened(kernel).time(CASE.name, SEEDS, 1)
    assert isinstance(outcome, Fault)
    assert "rows are wrong" in outcome.message


def test_a_kernel_that_mends_what_it_kept_is_seen_only_as_all_inputs_are_new(monkeypatch: pytest.MonkeyPatch) -> None:
    make_inputs = type(MHA).make_inputs
    monkeypatch.setattr(type(MHA), "make_inputs", lambda problem, case, seed: make_inputs(problem, case, 1))
    assert isinstance(opened("updates").time(CASE.name, SEEDS, 1), Timed)


def test_a_kernel_that_is_honest_for_some_calls_is_seen_in_the_first_run_that_it_is_not() -> None:
    made = opened("tires")
    assert isinstance(made.time(CASE.name, range(19), 1), Timed)  # and a first launch
    outcome = made.time(CASE.name, [100], 1)
    assert isinstance(outcome, Fault)
    assert "rows are wrong" in outcome.message


def test_every_run_has_other_inputs_and_the_same_seed_makes_them_again() -> None:
    right = benchmark(CASE, "honest")
    running = Running(FakeDevice(forever(1.0)), MHA, CASE, right.plan, list(right.binaries.values()))
    held = []
    for seed in (1, 2, 1):
        running.renew(seed)
        held.append([running.view(name).clone() for name in ("q", "k", "v")])
    assert all(bool((a == b).sum() < 0.05 * a.numel()) for a, b in zip(held[0], held[1], strict=True))
    assert all(bool((a == b).all()) for a, b in zip(held[0], held[2], strict=True))


def test_the_worker_ends_when_it_does_not_see_its_own_wrong_number(monkeypatch: pytest.MonkeyPatch) -> None:
    made = opened("honest")
    monkeypatch.setattr(Running, "spoil", lambda running: None)
    with pytest.raises(EvaluatorUnavailable, match="a number that was made wrong was accepted as right"):
        made.time(CASE.name, SEEDS, 1)


def test_scratch_is_poisoned_before_every_run_that_counts() -> None:
    made = opened("counts")
    assert isinstance(made.check(CASE.name, 4, 1), CaseResult)
    assert isinstance(made.check(CASE.name, 5, 1), CaseResult)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), "out of memory on the GPU"),
        (RuntimeError("Expected a 'cuda' device type for generator"), "GPU worker failed: RuntimeError"),
    ],
)
def test_what_fails_while_no_kernel_runs_is_no_verdict(
    error: Exception, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(running: Running) -> None:
        raise error

    made = opened("honest")
    monkeypatch.setattr(Running, "verify", fail)
    with pytest.raises(EvaluatorUnavailable, match=message):
        made.check(CASE.name, 4, 1)


def test_a_mistake_of_the_house_is_no_verdict() -> None:
    with pytest.raises(EvaluatorUnavailable, match="GPU worker failed: KeyError"):
        opened("broken").check(CASE.name, 4, 1)


def test_a_plan_with_another_output_than_the_call_is_refused() -> None:
    right = benchmark(CASE, "honest")
    buffers = tuple(Buffer("mine", b.dtype, b.size, Role.OUTPUT) if b.name == "out" else b for b in right.plan.buffers)
    wrong = CompiledPlan(CASE, LaunchPlan(CASE.name, buffers, right.plan.kernels, right.plan.steps), right.binaries, ())
    found = contender().open(MHA, wrong)
    assert found == Fault(Status.FORBIDDEN, "case small: the launch plan declares 'mine', which the call does not have")


def test_memory_of_a_case_is_forgotten_on_request() -> None:
    made = opened("honest")
    made.forget(CASE.name)
    with pytest.raises(EvaluatorUnavailable, match="KeyError"):
        made.check(CASE.name, 4, 1)


def test_a_problem_from_a_file_is_found_by_the_worker_too(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from dataclasses import replace\nfrom avo.evaluator.problems.mha import MHA\n"
        "PROBLEM = replace(MHA, name='mine')\n"
    )
    problem = get_problem(str(file))
    made = contender()
    assert made.open(problem, benchmark(CASE, "honest")) is None
    assert isinstance(made.check(CASE.name, 4, 1), CaseResult)


def test_a_problem_may_extend_what_a_case_is() -> None:
    problem = get_problem(str(Path(__file__).parents[3] / "examples" / "sliding_window.py"))
    case = replace(problem.correctness_cases[0], name=CASE.name)
    assert type(case) is not Case
    assert contender().open(problem, benchmark(case, "honest")) is None


def test_a_result_that_is_wrong_once_and_right_on_the_same_inputs_is_not_put_down_to_the_kernel_alone() -> None:
    found = opened("flaky").check(CASE.name, 4, 1)
    assert isinstance(found, Fault)
    assert found.status is Status.INCORRECT
    assert "; run again on the same inputs, it was right: the kernel has a race, or this Triton" in found.message
    always = opened("zeros").check(CASE.name, 4, 1)
    assert isinstance(always, Fault)
    assert "run again" not in always.message


def test_work_that_cannot_be_captured_is_timed_without_a_graph_alone() -> None:
    why = "CUDA error: operation not permitted when stream is capturing"
    assert opened("uncapturable").time(CASE.name, SEEDS, 1) == Timed((), (), why)
    timed = opened("uncapturable").time(CASE.name, SEEDS, 1, graph=False)
    assert isinstance(timed, Timed)
    assert len(timed.runs) == len(SEEDS)
    assert opened("honest").time(CASE.name, SEEDS, 1, graph=False).ungraphed == ""  # type: ignore[union-attr]


def test_a_stretch_before_each_run_is_on_the_inputs_of_the_run_before(monkeypatch: pytest.MonkeyPatch) -> None:
    device = FakeDevice(forever(1e-3))
    made = Contender(Loopback(device))
    assert made.open(MHA, benchmark(CASE, "honest")) is None
    order: list[object] = []
    renew, sustain, timing = Running.renew, device.sustain, device.time
    monkeypatch.setattr(Running, "renew", lambda self, seed, **how: (order.append(seed), renew(self, seed, **how))[1])
    monkeypatch.setattr(device, "sustain", lambda *what: (order.append("stretch"), sustain(*what))[1])
    monkeypatch.setattr(device, "time", lambda what: (order.append("timed"), timing(what))[1])
    assert isinstance(made.time(CASE.name, (5, 6), 1, stretch_s=0.25), Timed)
    assert order == [5 ^ FIRST, "stretch", 5, "timed", "stretch", 6, "timed"]
    assert device.stretches == [0.25, 0.25]


class Exact(Running):
    """A run whose outputs are the reference's."""

    def enqueue(self) -> None:
        """Write all rows of all outputs."""
        inputs = self._inputs()
        for of, outputs in rows_of(MHA_BACKWARD.outputs).items():
            batches, heads, length = self.view(outputs[0].name).shape[:3]
            for batch, head in product(range(batches), range(heads)):
                right = MHA_BACKWARD.reference(self.case, inputs, of, batch, head, torch.arange(length))
                for name, expected in right.items():
                    self.view(name)[batch, head] = expected.value.to(torch.bfloat16)


@pytest.mark.parametrize("name", ["dq", "dk", "dv"])
def test_every_kind_of_rows_is_planted_and_compared(name: str) -> None:
    case = next(case for case in MHA_BACKWARD.correctness_cases if case.name == "edge-1-causal")
    specs = MHA_BACKWARD.call(case).tensors
    plan = LaunchPlan(case.name, tuple(Buffer(s.name, s.dtype, s.size, s.role) for s in specs), (), ())
    running = Exact(FakeDevice(forever(1.0)), MHA_BACKWARD, case, plan, [])
    running.renew(3)
    running.enqueue()
    assert running.verify().fault is None
    compared = running.compared()
    assert {of: rows.shape for of, rows in compared.items()} == {"queries": (2, 2, 128), "keys": (2, 2, 129)}
    row = running._planted["queries" if name == "dq" else "keys"]
    assert compared["queries" if name == "dq" else "keys"][row]
    running.view(name)[row] *= 1.1
    fault = running.verify().fault
    assert fault is not None
    assert f"of {name}, batch {row[0]}, head {row[1]}" in fault.message
