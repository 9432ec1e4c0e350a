"""The canary: before a run trusts its judge, the judge must recognise a wrong and a slow variant of the seed.

A variant is the seed's source followed by a few lines that wrap its entry function, so it can be made of any candidate.
"""

from typing import Protocol

from avo.errors import CanaryFault
from avo.evaluator.candidate import Candidate, Incumbent
from avo.evaluator.catalogue import get_problem
from avo.evaluator.evaluation import Evaluation, Score, Verdict
from avo.evaluator.plan import Role
from avo.evaluator.target import ScoreKind

LEAST_GAIN = 0.1
"""Fraction by which the seed must be predicted faster than a variant that does all its work twice."""
TRITON, GLUON = "triton", "triton.experimental.gluon"
"""What the wrong variant's kernel is written in. The one in Gluon reads a clock: it is checked on the GPU only."""


class Evaluate(Protocol):
    """Gives verdicts on candidates, as ``Evaluator.evaluate`` does."""

    def __call__(self, candidate: Candidate, incumbent: Incumbent | None = None) -> Evaluation:
        """Return the verdict."""
        ...


_WRONG = """

import {dialect} as _canary_dialect
import {dialect}.language as _canary_language


@_canary_dialect.jit
def _canary_kernel(output):
    found = _canary_language.load(output)
    {clock}_canary_language.store(output, found * found + found + 1)


_canary_entry = {entry}


def {entry}(*tensors, **scalars):
    _canary_entry(*tensors, **scalars)
    _canary_kernel[(1,)](tensors[{output}])
"""
"""``x * x + x + 1`` differs from ``x`` by at least 1. (``2 * x + 1`` is -1 for -1: right by chance, once in 90.)"""
_CLOCK = """now = _canary_language.inline_asm_elementwise(
        "mov.u32 $0, %clock; // $1", "=r,r", [_canary_language.program_id(0)], _canary_language.int32, False, 1
    )
    found += (now * 0).to(output.dtype.element_ty)
    """
"""What no machine but a GPU can do."""
_SLOW = """

_canary_entry = {entry}


def {entry}(*tensors, **scalars):
    _canary_entry(*tensors, **scalars)
    _canary_entry(*tensors, **scalars)
"""


def wrong_variant(candidate: Candidate, dialect: str = TRITON) -> Candidate:
    """Return ``candidate`` with a kernel after its own that changes the first element of the first output."""
    problem = get_problem(candidate.problem)
    roles = [spec.role for spec in problem.call(problem.correctness_cases[0]).tensors]
    output, clock = roles.index(Role.OUTPUT), _CLOCK if dialect == GLUON else ""
    return _below(candidate, _WRONG.format(dialect=dialect, entry=problem.entry, output=output, clock=clock))


def slow_variant(candidate: Candidate) -> Candidate:
    """Return ``candidate`` doing all its work twice."""
    return _below(candidate, _SLOW.format(entry=get_problem(candidate.problem).entry))


def examine(evaluate: Evaluate, candidate: Candidate, score: Score, alpha: float) -> str:
    """Have the variants of a correct ``candidate`` judged, and return the verdicts in words.

    ``score`` is the candidate's. Where it is measured, a second wrong variant, in Gluon, shows whether the checks on
    the GPU work. Raises ``CanaryFault`` when a wrong variant is judged correct or the slow one not slower, and
    ``EvaluatorUnavailable``.
    """
    slow = slow_variant(candidate)
    if score.kind is ScoreKind.MEASURED:
        wrong = f"{_wrong(evaluate, candidate, TRITON)}, and {_wrong(evaluate, candidate, GLUON)} on the GPU alone"
        return f"canary: the wrong variant is {wrong}, the slow one {_measured(evaluate, candidate, slow, alpha)}"
    wrong = _wrong(evaluate, candidate, TRITON)
    return f"canary: the wrong variant is {wrong}, the slow one {_predicted(evaluate(slow), score)}"


def _wrong(evaluate: Evaluate, candidate: Candidate, dialect: str) -> str:
    found = evaluate(wrong_variant(candidate, dialect))
    if found.correct:
        raise CanaryFault(f"a variant of the seed in which a {dialect} kernel writes a wrong number is judged correct")
    return found.status.words


def _predicted(slow: Evaluation, score: Score) -> str:
    if slow.score is None:
        return slow.status.words  # refused, for its launches or its time: it cannot become a version
    if score.geomean_tflops < slow.geomean_tflops * (1 + LEAST_GAIN):
        raise CanaryFault(
            "a variant of the seed that does all its work twice is judged "
            f"{slow.geomean_tflops / score.geomean_tflops:.2f} times as fast"
        )
    return f"{slow.geomean_tflops / score.geomean_tflops:.2f} times as fast"


def _measured(evaluate: Evaluate, candidate: Candidate, slow: Candidate, alpha: float) -> str:
    """The slow variant is the incumbent: as a candidate it could be rejected as slow before anything is timed."""
    found = evaluate(candidate, Incumbent(slow, alpha)).score
    verdict = found and found.comparison and found.comparison.verdict
    if verdict is not Verdict.FASTER:
        raise CanaryFault(f"against a variant that does all its work twice, the seed is judged {verdict or 'at fault'}")
    return "slower"


def _below(candidate: Candidate, text: str) -> Candidate:
    return Candidate(candidate.problem, f"{candidate.source}\n{text}")
