"""What the compiler makes of a candidate's kernels, executed: kernels that it makes wrong are found without a GPU.

Their last Triton GPU IR is pipelined and warp-specialised, and has the layouts of shared memory. What LLVM and ptxas
make of that is not looked at.
"""

import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache

from avo.evaluator.compiling.passes import Trace
from avo.evaluator.evaluation import Fault, Status
from avo.evaluator.judging.autotuning import in_words
from avo.evaluator.judging.cases import Tools
from avo.evaluator.judging.checking import Checker
from avo.evaluator.judging.execution import beyond, deadline, executable
from avo.evaluator.judging.refusal import Refused, outcome, told
from avo.evaluator.plan import Configuration, KernelIR, LaunchPlan, Level
from avo.evaluator.problem import Case, Problem

_WRONG = (Status.INCORRECT, Status.UNWRITTEN, Status.OUT_OF_BOUNDS, Status.DEADLOCK)
"""Faults that are the compiler's, if the kernel's Triton IR has none. So is a write race: one program's wrong rows lie
over another's. All others, such as an order that the sanitiser misses, are no verdict.
"""

_CASES = 4
"""How many small cases are executed in a configuration that is not scored."""
Small = Iterable[tuple[Case, Sequence[LaunchPlan]]]
"""Small cases, each with its plans in some configurations."""


def check_all(
    tools: Tools, problem: Problem, small: Small, fastest: Sequence[LaunchPlan], fit: Iterable[Configuration]
) -> str:
    """Execute what the compiler makes of small cases that are right in Triton IR: all in the configurations of the
    ``fastest`` plans, then some in each other that is known to ``fit``, as far as there is time.

    Returns in words what was not checked and why, which tells nothing of the cases; ``""`` if all was checked. Raises
    ``Refused``.
    """
    gpu_ir = cache(lambda kernel: tools.compiler.gpu_ir(kernel, tools.target))
    checker = Checker(problem, tools.inputs, tools.chance, deadline())
    pairs = list(chosen(small, fastest, fit, tools.chance))
    unchecked: Counter[str] = Counter()
    for done, (case, plan) in enumerate(pairs):
        if time.process_time() > checker.deadline:
            unchecked["no time was left"] = len(pairs) - done
            break
        with told(after=in_words(plan.configurations)):
            unchecked.update(dict.fromkeys(check(tools, checker, case, plan, gpu_ir), 1))
    reasons = "; ".join(f"{reason} ({count} of {len(pairs)} cases)" for reason, count in unchecked.items())
    return f"Not all that the compiler made was checked: {reasons}" if reasons else ""


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
) -> Sequence[str]:
    """Execute a small case, which was right in Triton IR, from what the compiler makes of its kernels: ``gpu_ir``.

    Returns what kept a kernel, or all of them, from being checked. Raises ``Refused`` where what the compiler makes is
    wrong, with the kernel and the pass after which it is. All is executed on the same inputs; where the Triton IR is
    wrong on these too, its fault is raised.
    """
    texts: dict[KernelIR, str] = {}
    unchecked = []
    for kernel in plan.kernels:
        if kernel.level is Level.TTIR:
            text = gpu_ir(kernel)
            if why := text.message if isinstance(text, Fault) else beyond(_made(kernel, text)):
                unchecked.append(f"kernel {kernel.name}: {why}")
            elif isinstance(text, str):
                texts[kernel] = text
    drawn = checker.chance.getstate()

    def found(made: Mapping[KernelIR, str]) -> Fault | None:
        kernels = (_made(kernel, made[kernel]) if kernel in made else kernel for kernel in plan.kernels)
        compiled = replace(plan, kernels=tuple(kernels))
        if not executable(compiled):
            return None
        checker.chance.setstate(drawn)
        return outcome(lambda: checker.whole(case, compiled))

    def wrong(made: Mapping[KernelIR, str]) -> Fault | None:
        fault = found(made)
        return fault if fault and _is_wrong(fault) else None

    together = found(texts) if texts else None
    if together is None:
        return unchecked
    what = f"{together.status.words}: {together.kind}" if together.kind else together.status.words
    if not _is_wrong(together):
        return [*unchecked, what]
    if before := wrong({}):
        raise Refused(before)
    for kernel, text in texts.items():
        if fault := wrong({kernel: text}):
            after = _pass(tools, kernel, wrong)
            kind = f"kernel {kernel.name} is compiled wrong: right in Triton IR, wrong after {after}"
            raise Refused(Fault(Status.MISCOMPILED, f"{kind}: {fault.message}", kind + in_words(plan.configurations)))
    return [*unchecked, f"{what}, but not because of one kernel alone"]


def _made(kernel: KernelIR, text: str) -> KernelIR:
    """Return a kernel as the compiler makes it: ``text`` is its Triton GPU IR."""
    return replace(kernel, ttir=text, level=Level.TTGIR)


def _is_wrong(fault: Fault) -> bool:
    return fault.status in _WRONG or fault.kind == "write race"


def _pass(tools: Tools, kernel: KernelIR, wrong: Callable[[Mapping[KernelIR, str]], Fault | None]) -> str:
    """Return the pass after which the IR of a kernel is seen to have a fault, which it has after the last one."""
    trace = tools.compiler.trace(kernel, tools.target, to_gpu_ir=True)
    if isinstance(trace, Fault) or not trace.passes:
        return "some pass"
    right, last = 0, len(trace.passes)  # the number of passes after which it is right, and wrong
    while last - right > 1:
        middle = (right + last) // 2
        seen = tools.compiler.trace(kernel, tools.target, str(middle + 1), to_gpu_ir=True)
        if isinstance(seen, Trace) and wrong({kernel: seen.ir}):
            last = middle
        else:
            right = middle
    return f"pass {last}, {trace.passes[right]}"
