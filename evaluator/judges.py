"""Makes judges: in this process, in one of its own, or on another machine."""

from avo.evaluator import cuda
from avo.evaluator.evaluators import Evaluator
from avo.evaluator.serving.process import ProcessEvaluator
from avo.evaluator.target import ScoreKind, Target

judge_process = ProcessEvaluator


def local_judge(target: Target, suite: str) -> Evaluator:
    """Return a judge in this process, which loads torch and triton for it. What hangs or kills it ends the process."""
    from avo.evaluator.judging.judge import Judge

    if target.kind is ScoreKind.PREDICTED:
        return Judge(target, suite)
    from avo.evaluator.cuda.holding import Place
    from avo.evaluator.cuda.ncu import Ncu
    from avo.evaluator.judging.speed import Instruments

    return Judge(target, suite, instruments=Instruments(Ncu(hold=lambda: Place(cuda.card())).count))
