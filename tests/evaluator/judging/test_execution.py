"""What becomes of a launch whose programs wait for each other on a card that does not hold all of them."""

from dataclasses import replace

import pytest
import torch

from avo.evaluator.errors import EvaluatorUnavailable
from avo.evaluator.evaluation import Fault, Status
from avo.evaluator.executor import Allocation
from avo.evaluator.judging.buffers import Buffers
from avo.evaluator.judging.execution import PlanRun
from avo.evaluator.judging.refusal import outcome, passed
from avo.evaluator.judging.stages import stages
from avo.evaluator.plan import Buffer, KernelIR, Launch, LaunchPlan, Pointer, Role

MEET = """\
module {
  tt.func public @meet(%count: !tt.ptr<i32>) {
    %zero = arith.constant 0 : i32
    %one = arith.constant 1 : i32
    %all = tt.get_num_programs x : i32
    %true = arith.constant true
    %came = tt.atomic_rmw add, acq_rel, gpu, %count, %one, %true : (!tt.ptr<i32>, i32, i1) -> i32
    scf.while : () -> () {
      %here = tt.atomic_rmw add, acq_rel, gpu, %count, %zero, %true : (!tt.ptr<i32>, i32, i1) -> i32
      %less = arith.cmpi slt, %here, %all : i32
      scf.condition(%less)
    } do {
      scf.yield
    }
    tt.return
  }
}
"""
LAUNCH = Launch(0, (4, 1, 1), (Pointer(0, 0),))
PLAN = LaunchPlan("case", (Buffer("count", "int32", 1, Role.SCRATCH),), (KernelIR("meet", MEET, ()),), (LAUNCH,))
MISFIT = Fault(Status.DOES_NOT_FIT, "too many registers")


RACE = """\
module {
  tt.func public @race(%count: !tt.ptr<i32>) {
    %id = tt.get_program_id x : i32
    tt.store %count, %id : !tt.ptr<i32>
    tt.return
  }
}
"""


def on_card(held: int | Fault | Exception) -> PlanRun:
    """The plan on a card that holds so many of its programs."""

    def resident(kernel: KernelIR, programs: int) -> int:
        if isinstance(held, Exception):
            raise held
        return passed(held)

    count = Allocation("count", torch.zeros(1, dtype=torch.int32), None, False)
    return PlanRun(PLAN, Buffers((count,), {}), float("inf"), resident)


def check_progress(run: PlanRun) -> None:
    run.progress(LAUNCH, run.room(LAUNCH))


def test_programs_that_meet_need_a_card_that_holds_them_all() -> None:
    assert outcome(lambda: check_progress(on_card(4))) is None
    found = outcome(lambda: check_progress(on_card(3)))
    assert isinstance(found, Fault)
    assert found.status is Status.DEADLOCK
    assert "kernel meet: all programs that the card holds at once (3) wait for some of the 1" in found.message


def test_programs_that_wait_for_nobody_are_refused_before_a_sample_runs_though_the_card_holds_all() -> None:
    vain = KernelIR("meet", MEET.replace("tt.get_num_programs x", "arith.constant 5"), ())
    found = outcome(lambda: stages(replace(on_card(4), plan=replace(PLAN, kernels=(vain,)))))
    assert isinstance(found, Fault)
    assert found.status is Status.DEADLOCK


def test_a_kernel_of_which_the_card_holds_none_is_refused_for_that() -> None:
    assert outcome(lambda: check_progress(on_card(MISFIT))) == MISFIT


def test_a_card_is_asked_once_how_many_programs_of_a_launch_it_holds() -> None:
    asked: list[str] = []

    def resident(kernel: KernelIR, programs: int) -> int:
        asked.append(kernel.name)
        return 2

    found = outcome(lambda: stages(replace(on_card(4), resident=resident)))
    assert isinstance(found, Fault)
    assert found.status is Status.DEADLOCK
    assert asked == ["meet"]


def test_that_the_compiler_does_not_start_is_no_verdict_on_the_kernel() -> None:
    with pytest.raises(EvaluatorUnavailable):
        check_progress(on_card(EvaluatorUnavailable("no sandbox")))


def test_a_finding_is_a_fault_that_says_of_which_kind_it_is() -> None:
    run = on_card(4)
    run = replace(run, plan=replace(PLAN, kernels=(KernelIR("race", RACE, ()),)))
    found = outcome(lambda: run.run(LAUNCH, sanitize=True))
    assert isinstance(found, Fault)
    assert (found.status, found.kind) == (Status.RACE, "write race")
