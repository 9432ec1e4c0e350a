"""What the compiler makes of a candidate's kernels, executed: kernels that it makes wrong are found without a GPU.

Their last Triton GPU IR is pipelined and warp-specialised, and has the layouts of shared memory. What LLVM and ptxas
make of that is not looked at.
"""

import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache

from evaluator.compiling.passes import Trace
from evaluator.evaluation import Fault, Status
from evaluator.judging.autotuning import in_words
from evaluator.judging.cases import Tools
from evaluator.judging.checking import Checker
from evaluator.judging.execution import deadline, executable
from evaluator.judging.refusal import Refused, outcome, told
from evaluator.plan import Configuration, KernelIR, LaunchPlan, Level
from evaluator.problem import Case, Problem

_WRONG = (Status.INCORRECT, Status.UNWRITTEN, Status.OUT_OF_BOUNDS)
"""Faults that are the compiler's, if the kernel's Triton IR has none. All others, such as an operation that is not
executed or an order that the sanitiser misses, are no verdict; but see ``_is_wrong``.
"""

_CASES = 4
"""How many small cases are executed in a configuration that is not scored."""
Small = Iterable[tuple[Case, Sequence[LaunchPlan]]]
"""Small cases, each with its plans in some configurations."""


def check_all(
    tools: Tools, problem: Problem, small: Small, fastest: Sequence[LaunchPlan], fit: Iterable[Configuration]
) -> None:
    """Execute what the compiler makes of small cases that are right in Triton IR: all in the configurations of the
    ``fastest`` plans, then some in each other that is known to ``fit``, as far as there is time. Raises ``Refused``.
    """
    gpu_ir = cache(lambda kernel: tools.compiler.gpu_ir(kernel, tools.target))
    checker = Checker(problem, tools.inputs, tools.chance, deadline())
    for case, plan in chosen(small, fastest, fit, tools.chance):
        if time.process_time() > checker.deadline:
            return
        with told(after=in_words(plan.configurations)):
            check(tools, checker, case, plan, gpu_ir)


def chosen(
    small: Small, fastest: Sequence[LaunchPlan], fit: Iterable[Configuration], chance: random.Random
) -> Iterator[tuple[Case, LaunchPlan]]:
    """Yield what ``check_all`` looks at, in its order; the cases of a choice of others that ``fit`` are drawn."""
    scored, fitting = {_choice(plan) for plan in fastest}, set(map(str, fit))
    others: dict[tuple[str, ...], list[tuple[Case, LaunchPlan]]] = defaultdict(list)
    for case, plans in small:
        for plan in plans:
            if (choice := _choice(plan)) in scored:
                yield case, plan
            elif fitting.issuperset(choice):
                others[choice].append((case, plan))
    for pairs in others.values():
        yield from chance.sample(pairs, min(_CASES, len(pairs)))


def _choice(plan: LaunchPlan) -> tuple[str, ...]:
    """Return the configurations of a plan by name, whatever their keys."""
    return tuple(map(str, plan.configurations))


def check(
    tools: Tools, checker: Checker, case: Case, plan: LaunchPlan, gpu_ir: Callable[[KernelIR], str | Fault]
) -> None:
    """Execute a small case, which was right in Triton IR, from what the compiler makes of its kernels: ``gpu_ir``.

    Raises ``Refused`` where that is wrong, with the kernel and the pass after which it is. All is executed on the same
    inputs; where the Triton IR is wrong on these too, its fault is raised.
    """
    texts = {
        kernel: text
        for kernel in plan.kernels
        if kernel.level is Level.TTIR and isinstance(text := gpu_ir(kernel), str)
    }
    drawn = checker.chance.getstate()

    def fault(made: dict[KernelIR, str]) -> Fault | None:
        kernels = tuple(
            replace(kernel, ttir=made[kernel], level=Level.TTGIR) if kernel in made else kernel
            for kernel in plan.kernels
        )
        compiled = replace(plan, kernels=kernels)
        if not executable(compiled):
            return None
        checker.chance.setstate(drawn)
        found = outcome(lambda: checker.whole(case, compiled))
        return found if isinstance(found, Fault) and _is_wrong(found) else None

    if not texts or fault(texts) is None:
        return
    if (wrong := fault({})) is not None:
        raise Refused(wrong)
    for kernel, text in texts.items():
        if (wrong := fault({kernel: text})) is not None:
            made_wrong = _pass(tools, kernel, fault)
            message = f"kernel {kernel.name} is compiled wrong: right in Triton IR, wrong after {made_wrong}"
            raise Refused(replace(wrong, status=Status.MISCOMPILED, message=f"{message}: {wrong.message}"))


def _is_wrong(fault: Fault) -> bool:
    """Return whether a fault is the compiler's if the Triton IR has none: one program's rows over another's are."""
    return fault.status in _WRONG or (fault.status is Status.RACE and ": write race in " in fault.message)


def _pass(tools: Tools, kernel: KernelIR, fault: Callable[[dict[KernelIR, str]], Fault | None]) -> str:
    """Return the pass after which the IR of a kernel is seen to have a fault, which it has after the last one."""
    trace = tools.compiler.trace(kernel, tools.target, to_gpu_ir=True)
    if isinstance(trace, Fault) or not trace.passes:
        return "some pass"
    right, last = 0, len(trace.passes)  # the number of passes after which it is right, and wrong
    while last - right > 1:
        middle = (right + last) // 2
        seen = tools.compiler.trace(kernel, tools.target, str(middle + 1), to_gpu_ir=True)
        if isinstance(seen, Trace) and fault({kernel: seen.ir}) is not None:
            last = middle
        else:
            right = middle
    return f"pass {last}, {trace.passes[right]}"
