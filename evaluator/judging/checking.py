"""Checks of one candidate's numbers: its plans are executed, and what they write is compared with the reference."""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from avo.evaluator.evaluation import CaseResult
from avo.evaluator.judging import buffers
from avo.evaluator.judging.compare import Checked, compare
from avo.evaluator.judging.execution import PlanRun, Resident, unlimited
from avo.evaluator.judging.refusal import passed, told
from avo.evaluator.judging.roundings import check_roundings
from avo.evaluator.judging.sampling import BenchmarkCheck, Sample
from avo.evaluator.judging.stages import Stage, stages
from avo.evaluator.plan import LaunchPlan
from avo.evaluator.problem import Case, Problem


@dataclass
class Checker:
    """Checks plans that the executor can run. Methods raise ``Refused``."""

    problem: Problem
    inputs: buffers.InputCache
    chance: random.Random
    deadline: float = math.inf
    """When all execution must have ended, a ``time.process_time`` value."""
    results: list[CaseResult] = field(default_factory=list)
    """What came of each case that was compared."""
    resident: Resident = unlimited
    checked: Callable[[int], None] = lambda count: None
    """Hears how many cases were compared so far."""

    def whole(self, case: Case, plan: LaunchPlan) -> None:
        """Execute every program of ``plan`` under the sanitiser, and compare everything it should have written."""
        inputs = self.problem.make_inputs(case, self.chance.getrandbits(62))
        run = PlanRun(plan, self._memory(case, plan, inputs, buffers.apart).watched(), self.deadline, self.resident)
        for launch in run.launches():
            with told(before=f"case {case.name}: "):
                if (room := run.room(launch)) is not None and room < launch.programs:
                    run.progress(launch, room)
                run.run(launch, sanitize=True)
        checked = compare(self.problem, case, inputs, run.buffers.outputs, whole=True)
        self._note(checked)

    def sampled(self, case: Case, plan: LaunchPlan, sample: Sample) -> tuple[Stage, ...]:
        """Count the work at a benchmark shape, see that none is missing, and check a sample of the outputs."""
        run = self.run(case, plan, self.deadline)
        with told(before=f"case {case.name}: "):
            check_roundings(run)
            staged = stages(run)
            inputs = self.inputs.get(self.problem, case)
            checked = BenchmarkCheck(self.problem, case, inputs, run, staged, sample).check(self.chance)
        self._note(checked)
        return staged

    def _note(self, checked: Checked) -> None:
        self.results.append(checked.result)
        self.checked(len(self.results))
        passed(checked.fault)

    def run(self, case: Case, plan: LaunchPlan, deadline: float) -> PlanRun:
        """Return ``plan`` with memory of its own at a benchmark shape."""
        inputs = self.inputs.get(self.problem, case)
        return PlanRun(plan, self._memory(case, plan, inputs, buffers.as_allocated), deadline, self.resident)

    def _memory(
        self,
        case: Case,
        plan: LaunchPlan,
        inputs: Mapping[str, torch.Tensor],
        place: Callable[[Sequence[int], random.Random], Sequence[int]],
    ) -> buffers.Buffers:
        addresses = place([buffer.nbytes for buffer in plan.buffers], self.chance)
        return buffers.allocate(self.problem.call(case), plan, inputs, addresses)
