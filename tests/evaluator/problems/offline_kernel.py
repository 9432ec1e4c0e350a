"""Runs a candidate on the offline executor, without a sandbox and a compiler, and compares what it writes."""

from types import ModuleType

import torch

from avo.evaluator.evaluation import Fault
from avo.evaluator.executor import Allocation
from avo.evaluator.judging.compare import compare
from avo.evaluator.offline import offline
from avo.evaluator.plan import Role
from avo.evaluator.problem import Case, Problem


def fault_of(problem: Problem, case: Case, module: ModuleType) -> Fault | None:
    """Return what is wrong with all that a kernel writes for one case; raises what the sanitiser finds."""
    storages = problem.make_inputs(case, 1)
    call = problem.call(case)
    for spec in call.tensors:
        if spec.role is Role.OUTPUT:
            storages[spec.name] = torch.full((spec.held.size,), float("nan"), dtype=getattr(torch, spec.dtype))
    tensors = [storages[spec.name].as_strided(spec.shape, spec.held.strides) for spec in call.tensors]
    with offline(on_fault="raise"):
        getattr(module, problem.entry)(*tensors, **dict(call.scalars))
    names = [output.name for output in problem.outputs]
    everything = {name: torch.ones(len(storages[name]), dtype=torch.bool) for name in names}
    outputs = {name: Allocation(name, storages[name], written=everything[name]) for name in names}
    return compare(problem, case, storages, outputs, whole=False).fault


def first_fault(problem: Problem, module: ModuleType) -> Fault | None:
    """Return what is wrong in the first small case, ``far`` ones left out, that a kernel gets wrong; None if it is
    right in all.
    """
    cases = (case for case in problem.correctness_cases if not case.far)
    return next((fault for case in cases if (fault := fault_of(problem, case, module))), None)


def tried(problem: Problem) -> list[Case]:
    """Return the small cases that each seed is run on: the first of several kinds of strides, the first whose logits go
    far beyond a standard deviation of 12, causal if one is, and the first that is causal with fewer queries than keys.
    """
    cases = problem.correctness_cases
    mixed = [case for case in cases if case.layout == "mixed"]
    large = sorted((case for case in cases if case.inputs == "large"), key=lambda case: not case.causal)
    shifted = [case for case in cases if case.causal and case.q_len < case.kv_len]
    return list({kind[0].name: kind[0] for kind in (mixed, large, shifted) if kind}.values()) or [cases[0]]
