"""Derives a run's judges from its configuration: how each starts, how many there are, what they need of a machine."""

from dataclasses import dataclass

from avo.config import LOCAL, RunConfig, usable_cpus
from avo.evaluator.evaluators import Evaluator
from avo.evaluator.judges import judge_process
from avo.evaluator.known import spelled
from avo.evaluator.machine import choose_gpus
from avo.evaluator.sandbox.isolation import Sandbox
from avo.evaluator.targets import get_target
from avo.search.evaluators import SideBySide

_MOST_FOR_ONE = 4
"""Most evaluators for one operator, unless it is said how many: each takes one to two GiB of memory."""


@dataclass(frozen=True, slots=True)
class Judging:
    """The judges of a run."""

    target: str
    """It may be ``spelled``: a judge may start where nobody knows a calibrated card."""
    suite: str
    wall_s: float
    """Longest time for one answer."""
    sandbox: Sandbox
    command: str | None
    """Starts a judge elsewhere."""
    options: tuple[str, ...]
    """Arguments of a judge that measures."""
    count: int
    """How many candidates are judged at a time."""
    spares: int
    """How many of these judges are started only when a candidate would have to wait."""
    alone: int
    """How many judges one operator uses that works by itself, as it looks at several candidates at once."""
    gpus: int
    """How many GPUs of this machine a judge takes: one to measure, none to predict or where a command starts it."""

    @classmethod
    def of(cls, config: RunConfig) -> "Judging":
        """Return the judges of a run with this configuration."""
        predicts_here = config.evaluator_command is None and config.ray_address == LOCAL and not config.measured
        alone = min(usable_cpus(), _MOST_FOR_ONE) if predicts_here else 1
        count = config.evaluators or max(config.workers, alone)
        return cls(
            target=spelled(config.target),
            suite=config.suite,
            wall_s=config.evaluation_wall_s,
            sandbox=Sandbox(config.sandbox),
            command=config.evaluator_command,
            options=_measuring(config) if config.measured else (),
            count=count,
            spares=0 if config.evaluators else count - config.workers,
            alone=config.evaluators or alone,
            gpus=int(config.measured and config.evaluator_command is None),
        )

    def start(self) -> Evaluator:
        """Return a judge in a process of its own; raise ``UnknownTarget`` or ``UnknownProblem`` for unknown names."""
        return judge_process(
            self.target, self.suite, self.wall_s, sandbox=self.sandbox, command=self.command, options=self.options
        )

    def start_alone(self) -> Evaluator:
        """Return judges of this process's own for one operator; raise like ``start``."""
        return SideBySide(self.start, self.alone)


def check_machine(config: RunConfig, *, cluster: bool = False) -> None:
    """Let this process see the chosen GPUs alone; raise ``EvaluatorUnavailable`` where a judge cannot work here.

    ``cluster``: judges start in the Ray cluster of the configuration, if it names one.
    """
    if config.device is not None:
        choose_gpus(config.device)
    if config.evaluator_command is None and (config.ray_address == LOCAL or not cluster):
        Sandbox(config.sandbox).check()
        if config.measured:
            get_target(config.target)


def _measuring(config: RunConfig) -> tuple[str, ...]:
    found = ["--equivalence-margin", str(config.equivalence_margin), "--cascade", str(config.cascade)]
    given = {"--device": config.device, "--trace": config.trace, "--worker-prefix": config.worker_prefix}
    for option, value in given.items():
        found += [] if value is None else [option, value]
    return (*found, "--clock", config.clock)
