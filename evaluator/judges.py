"""Makes judges: in this process, in one of its own, or on another machine."""

from avo.evaluator.evaluators import Evaluator
from avo.evaluator.serving.process import ProcessEvaluator
from avo.evaluator.target import Target

judge_process = ProcessEvaluator


def local_judge(target: Target, suite: str) -> Evaluator:
    """Return a judge in this process, which loads torch and triton for it. What hangs or kills it ends the process."""
    from avo.evaluator.judging.judge import Judge

    return Judge(target, suite)
