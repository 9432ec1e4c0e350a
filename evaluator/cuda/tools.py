"""NVIDIA's tools that look at kernels while they run: they come with the CUDA toolkit and are optional."""

from collections.abc import Callable, Sequence
from contextlib import closing

from avo.evaluator.cuda.contender import Contender
from avo.evaluator.errors import EvaluatorUnavailable
from avo.evaluator.evaluation import Fault
from avo.evaluator.judging.speed import CompiledPlan
from avo.evaluator.problem import Problem


def below(tool: str, *arguments: str, **variables: str) -> tuple[str, ...]:
    """Return the prefix of a command that runs below ``tool``, with variables of the environment."""
    # A tool writes numbers as the locale does.
    return ("env", "LC_ALL=C", *(f"{name}={value}" for name, value in variables.items()), tool, *arguments)


def run_each(
    contender: Contender, problem: Problem, plans: Sequence[CompiledPlan], ask: Callable[[str], object]
) -> str:
    """Open each plan, ask something about its case, and close it; return what went wrong, in one line."""
    try:
        with closing(contender):
            for each in plans:
                found = contender.open(problem, each) or ask(each.case.name)
                if isinstance(found, Fault):
                    return found.message
                contender.forget(each.case.name)
    except EvaluatorUnavailable as error:
        return str(error)
    return ""
