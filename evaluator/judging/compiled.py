"""What the compiler makes of a candidate's kernels, executed: kernels that it makes wrong are found without a GPU.

Their last Triton GPU IR is pipelined and warp-specialised, and has the layouts of shared memory. What LLVM and ptxas
make of that is not looked at.
"""

from collections.abc import Callable
from dataclasses import replace

from evaluator.compiling.passes import Trace
from evaluator.evaluation import Fault, Status
from evaluator.judging.cases import Tools
from evaluator.judging.checking import Checker
from evaluator.judging.execution import executable
from evaluator.judging.refusal import Refused, outcome
from evaluator.plan import KernelIR, LaunchPlan, Level
from evaluator.problem import Case

_WRONG = (Status.INCORRECT, Status.UNWRITTEN, Status.OUT_OF_BOUNDS)
"""Faults that are the compiler's, if the kernel's Triton IR has none. All others, such as an operation that is not
executed or an order that the sanitiser misses, are no verdict.
"""


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
        return found if isinstance(found, Fault) and found.status in _WRONG else None

    if not texts or fault(texts) is None:
        return
    if (wrong := fault({})) is not None:
        raise Refused(wrong)
    for kernel, text in texts.items():
        if (wrong := fault({kernel: text})) is not None:
            made_wrong = _pass(tools, kernel, fault)
            message = f"kernel {kernel.name} is compiled wrong: right in Triton IR, wrong after {made_wrong}"
            raise Refused(replace(wrong, status=Status.MISCOMPILED, message=f"{message}: {wrong.message}"))


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
