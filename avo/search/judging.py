"""Derives a run's judges from its configuration: how each starts, how many there are, what they need of a machine."""

import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version

from avo.config import LOCAL, RunConfig, usable_cpus
from avo.doctor import MEMORY_BYTES
from avo.evaluator.evaluators import Evaluator
from avo.evaluator.judges import judge_process
from avo.evaluator.known import spelled
from avo.evaluator.machine import choose_gpus
from avo.evaluator.sandbox.isolation import Sandbox
from avo.evaluator.targets import get_target
from avo.search.evaluators import SideBySide

_MOST_FOR_ONE = 4
"""Most evaluators for one operator, unless it is said how many: each takes one to two GiB of memory."""
_MOST_PER_GPU = 4
"""Most evaluators that share a GPU, which they keep busy (``python -m bench.node``): each takes memory."""
GPU = "GPU"
"""Ray's name for GPUs."""


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
    gpus: float
    """How much of a GPU of this machine a judge takes to measure; none to predict, or where a command starts it."""

    @classmethod
    def of(cls, config: RunConfig) -> "Judging":
        """Return the judges of a run with this configuration."""
        predicts_here = config.evaluator_command is None and config.ray_address == LOCAL and not config.measured
        alone = config.evaluators or (min(usable_cpus(), _MOST_FOR_ONE) if predicts_here else 1)
        gpus = 0 if config.evaluator_command else config.evaluator_resources.get(GPU, int(config.measured))
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
            alone=min(alone, _MOST_PER_GPU) if gpus else alone,  # all on the first GPU
            gpus=gpus,
        )

    def start(self) -> Evaluator:
        """Return a judge in a process of its own; raise ``UnknownTarget`` or ``UnknownProblem`` for unknown names."""
        return judge_process(
            self.target, self.suite, self.wall_s, sandbox=self.sandbox, command=self.command, options=self.options
        )

    def start_alone(self) -> Evaluator:
        """Return judges of this process's own for one operator; raise like ``start``."""
        return SideBySide(self.start, self.alone)


def releases() -> str:
    """Return ``avo-kernels 0.1.0, torch 2.11.0, triton 3.6.0`` as they are installed here."""
    return ", ".join(f"{name} {version(name)}" for name in ("avo-kernels", "torch", "triton"))


def per_gpu(cores: int, memory_bytes: int, gpus: int) -> int:
    """Return how many judges share each of a machine's GPUs, unless it is said how many.

    One has the GPU, and the host needs a core to time with: late, it fails the check by a second clock. The others
    judge meanwhile, with a core each, so that the next candidate is ready when the GPU is free.
    """
    return max(1, min(cores // gpus, memory_bytes // MEMORY_BYTES // gpus, _MOST_PER_GPU))


def on_gpus(config: RunConfig, count: Callable[[], int]) -> RunConfig:
    """Return the configuration with evaluators for this machine's GPUs, as many on each, and with their share of one.

    ``count`` counts them; a cluster places evaluators by itself. There are no more than ``evaluators``, or ``workers``,
    and where neither is given as many workers as evaluators. An evaluator command reaches one GPU unless one is given.
    """
    if not config.measured or config.ray_address != LOCAL:
        return config
    given = config.evaluators or (config.workers if "workers" in config.model_fields_set else None)
    if config.evaluator_command is not None:
        return config if given else config.model_copy(update={"workers": 1})
    gpus, memory = max(count(), 1), os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    most = per_gpu(_MOST_PER_GPU * gpus if config.evaluators else usable_cpus(), memory, gpus)
    each = most if given is None else min(most, given // gpus)
    evaluators = each * gpus or given  # as many on each GPU, as Ray fills one after the other
    share = {GPU: int(10_000 / each) / 10_000} if each > 1 else {}  # Ray counts in ten thousandths
    resources = {name: amount for name, amount in config.evaluator_resources.items() if name != GPU}
    changed = {"evaluators": evaluators, "evaluator_resources": resources | share}
    return config.model_copy(update=changed | ({} if given else {"workers": evaluators}))


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


def try_command(config: RunConfig) -> None:
    """Start a judge by the evaluator command, if this machine will, and end it once it has said what it judges for;
    raise ``EvaluatorUnavailable`` where it does not: Ray's start would put that off, and its workers try it again.
    """
    if config.evaluator_command is not None and config.ray_address == LOCAL:
        with Judging.of(config).start() as judge:
            judge.target  # noqa: B018 - which is when it starts


def _measuring(config: RunConfig) -> tuple[str, ...]:
    found = ["--equivalence-margin", str(config.equivalence_margin), "--cascade", str(config.cascade)]
    given = {"--device": config.device, "--trace": config.trace, "--worker-prefix": config.worker_prefix}
    for option, value in given.items():
        found += [] if value is None else [option, value]
    return (*found, "--clock", config.clock, "--run", secrets.token_hex(8))
