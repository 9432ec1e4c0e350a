"""The judge of a run, in a process of its own, as the run's configuration says."""

from avo.config import RunConfig
from evaluator.process import ProcessEvaluator
from evaluator.sandbox import Sandbox


def judge_process(config: RunConfig) -> ProcessEvaluator:
    """Return the evaluator of a run; raises ``UnknownTarget`` or ``UnknownProblem`` for names that are none."""
    return ProcessEvaluator(
        config.target,
        config.suite,
        config.evaluation_wall_s,
        sandbox=Sandbox(config.sandbox),
        command=config.evaluator_command,
        options=_measuring(config),
    )


def _measuring(config: RunConfig) -> tuple[str, ...]:
    """Return the judge's arguments that matter where speed is measured."""
    if not config.measured:
        return ()
    return ("--equivalence-margin", str(config.equivalence_margin), "--cascade", str(config.cascade))
