"""Makes judges: in this process, in one of its own, or on another machine."""

from collections.abc import Sequence

from avo.evaluator.evaluators import WALL_S, Evaluator
from avo.evaluator.sandbox.isolation import Sandbox
from avo.evaluator.target import Target


def local_judge(target: Target, suite: str) -> Evaluator:
    """Return a judge in this process, which loads torch and triton for it. What hangs or kills it ends the process."""
    from avo.evaluator.judging.judge import Judge

    return Judge(target, suite)


def judge_process(
    target: str,
    suite: str,
    wall_s: float = WALL_S,
    *,
    sandbox: Sandbox = Sandbox.AUTO,
    command: str | None = None,
    options: Sequence[str] = (),
) -> Evaluator:
    """Return a judge in a process of its own, see ``avo.evaluator.serving.process``."""
    from avo.evaluator.serving.process import ProcessEvaluator

    return ProcessEvaluator(target, suite, wall_s, sandbox=sandbox, command=command, options=options)
