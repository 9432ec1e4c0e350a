"""The configuration of a run: defaults, then a TOML file, then options; resolved once and stored with the run."""

import json
import math
import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import PydanticCustomError

from avo.agents.errors import AgentError
from avo.agents.operator import COMMAND_OPERATOR
from avo.agents.settings import ModelSettings, Settings
from avo.errors import ConfigError
from avo.evaluator.catalogue import PROBLEMS, get_problem, get_suite, problem_name
from avo.evaluator.errors import EvaluatorError
from avo.evaluator.evaluation import TRAITS
from avo.evaluator.evaluators import CASCADE, CLOCKS, EQUIVALENCE_MARGIN, WALL_S, Clock
from avo.evaluator.known import CARD, check_target
from avo.evaluator.problem import HELD_OUT
from avo.evaluator.target import CARDS, ScoreKind, score_kind
from avo.flags import (
    EVERY_JUDGE,
    JUDGE,
    LIMITS,
    MEASURING,
    MODELS,
    ONE_FILE,
    RUN,
    SEARCH,
    STEP,
    STEPS_OF_A_RUN,
    SUBJECT,
    WATCH,
    WORKERS,
    Flag,
    flag_of,
)
from avo.lineage_db.decision import requirement
from avo.sources import explain, options_given, read_toml
from avo.subject import FOR

if TYPE_CHECKING:
    from avo.agents.supervisor import Patience
    from avo.lineage_db.records import Run

# The registry of operators and the supervisor are imported where they are used: they bring libcst and numpy, and the
# help of a command needs the settings alone.

LOCAL = "local"
"""The Ray address that means this machine alone."""
# What a stored configuration holds besides settings.
START = "start"
"""The seeds, a list: where each came from, and its source."""
ISOLATION = "isolation"
"""What kept candidates apart, in words: one text for each way in which the sessions of the run differed."""
TOOLS = "tools"
"""The installed releases of AVO and of what compiles kernels: one text for each way in which the sessions differed."""
TRANSFERRED = "transferred"
"""Run and version of another problem that the run starts from, and what it makes of them."""
TIMED_FIRST = "timed_first"
"""The unresolved attempts of another run that a run on a GPU times before its operator begins: name, change, source."""
DIRECTIONS = "directions"
"""The directions of other runs that the run takes over, a list, each with its evidence."""
_NOT_SETTINGS = {START, ISOLATION, TOOLS, TRANSFERRED, FOR, TIMED_FIRST, CARD, DIRECTIONS}

_Count = Annotated[int | None, Field(ge=1)]
_Amount = Annotated[float | None, Field(gt=0, allow_inf_nan=False)]


def usable_cpus() -> int:
    """Return how many CPUs this process may run on."""
    return len(os.sched_getaffinity(0))


class RunConfig(BaseModel):
    """Every setting of a run. A setting with a ``Flag`` is an option too; the others are given in a file."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)

    problem: Annotated[str, Flag(SUBJECT, "NAME", commands=(*ONE_FILE, "moves"))] = Field(
        default="mha",
        description=f"What the kernel computes: {', '.join(PROBLEMS)} or a PATH.py; most also in other settings, "
        "such as mha-d64-fp16.",
    )
    target: Annotated[str, Flag(SUBJECT, "NAME", commands=(*ONE_FILE, "moves"))] = Field(
        default="h100",
        description=f"Card to predict speed for: {CARDS}, or calibrated; or cuda, to measure on this machine's GPU.",
    )
    suite: Annotated[str, Flag(SUBJECT, "NAME", commands=ONE_FILE)] = "quick"
    """Benchmark cases: quick, paper or another suite of the problem; held_out, but not for a search."""
    operator: Annotated[str, Flag(SEARCH, "NAME", commands=RUN)] = "mutate"
    """What varies the kernels: mutate, agent, single_turn; or command, a program of yours."""
    command: Annotated[str | None, Flag(SEARCH, "COMMAND")] = None
    """Shell command to start for each step, e.g. 'claude -p --mcp-config {mcp} --allowedTools mcp__avo < {task}'."""
    command_env: Annotated[tuple[str, ...], Flag(SEARCH, "NAME", "none")] = ()
    """Environment variable that this command gets besides harmless ones, such as its key. May be repeated."""
    population: Annotated[Literal["lineage", "islands", "archive"], Flag(SEARCH, commands=RUN)] = "lineage"
    """How versions live together: in one lineage, in several that meet now and then, or as the best of each kind."""
    seed: Annotated[int, Flag(SEARCH, "N", commands=RUN)] = Field(default=0, ge=0, lt=2**63)
    """Seed of every random choice: with one worker, the same seed makes the same candidates."""
    name: Annotated[str | None, Flag(SEARCH, "RUN", "PROBLEM-TARGET, numbered if taken", RUN)] = None
    """Name of the run."""

    max_attempts: Annotated[_Count, Flag(LIMITS, "N", "no limit")] = None
    """Stop once the run has made this many attempts, the seed and earlier sessions included."""
    max_hours: Annotated[_Amount, Flag(LIMITS, "HOURS", "no limit")] = None
    """Stop after this time, e.g. 0.05 for three minutes. Each session counts from its start."""
    grace: Annotated[float, Field(ge=0, allow_inf_nan=False), Flag(LIMITS, "MINUTES", "10")] = 10.0
    """How long steps under way may finish what they evaluate after --max-hours."""
    max_steps: Annotated[_Count, Flag(LIMITS, "N", "no limit")] = None
    """Stop after this many steps of the whole run. The seed's step is not counted, and a redone step counts once."""
    max_versions: Annotated[_Count, Flag(LIMITS, "N", "no limit")] = None
    """Stop once the run has this many versions, the seeds included. Steps under way may add more."""
    max_tokens: Annotated[_Count, Flag(LIMITS, "N", "no limit")] = None
    """Stop once models have used this many tokens in the whole run, input and output together."""
    max_usd: Annotated[_Amount, Flag(LIMITS, "USD", "no limit")] = None
    """Stop once models have cost this much in the whole run. Every model needs a price."""

    step_evaluations: Annotated[_Count, Flag(STEP, "N", commands=STEPS_OF_A_RUN)] = 12
    """New candidates that an operator with models may evaluate in one step."""
    step_looks: Annotated[int | None, Flag(STEP, "N", commands=STEPS_OF_A_RUN)] = Field(default=24, ge=0)
    """Candidates that an operator may look at in one step: compiled and predicted, but not executed."""
    step_tokens: Annotated[_Count, Flag(STEP, "N", "no limit")] = None
    """Tokens that a step may use."""
    step_usd: Annotated[_Amount, Flag(STEP, "USD", "no limit")] = None
    """What a step may cost."""
    step_minutes: Annotated[_Amount, Flag(STEP, "MINUTES", "no limit")] = None
    """How long a step may take."""

    models: Annotated[tuple[ModelSettings, ...], Flag(MODELS, "NAME", name="model")] = ()
    """Model that the operators agent and single_turn ask; each step asks one. May be repeated. Prices, sampling and
    addresses are set under [[models]] in the file.
    """
    request_timeout_s: float = Field(default=600.0, gt=0, allow_inf_nan=False)
    """Longest time that a model may take for a reply."""
    silence_timeout_s: float = Field(default=60.0, gt=0, allow_inf_nan=False)
    """Longest time in which nothing may come of a model's reply.

    It is doubled for a model each time that it is exceeded, up to ``request_timeout_s``: some think without a sign.
    """
    continue_steps: int = Field(default=1, ge=1)
    """Steps in a row over which a worker of the operator agent keeps one conversation; 1: each step has its own."""

    workers: Annotated[int, Flag(WORKERS, "N", "one per CPU, at most 8")] = Field(
        default_factory=lambda: min(usable_cpus(), 8), ge=1, le=256
    )
    """Operators that work at the same time."""
    evaluators: Annotated[int | None, Flag(WORKERS, "N", "one per worker")] = Field(default=None, ge=1, le=256)
    """Evaluators that the workers share. Where speed is predicted on this machine, few workers get one per CPU, up to
    4, so that several candidates are looked at side by side. Where it is measured, each GPU gets one per CPU that there
    is for it, up to 4: one of them times while the others judge.
    """
    evaluator_resources: Annotated[dict[str, float], Flag(WORKERS, "JSON", "none")] = Field(default_factory=dict)
    """Ray resources that each evaluator takes besides its CPU, e.g. '{"H100": 1}' to choose a kind of GPU. On a cluster
    '{"GPU": 0.5}' lets two evaluators share one.
    """
    ray_address: Annotated[str, Flag(WORKERS, "ADDRESS", "local, this machine alone")] = LOCAL
    """Join a Ray cluster: auto, HOST:PORT or ray://HOST:PORT."""

    sandbox: Annotated[Literal["auto", "require"], Flag(JUDGE, commands=EVERY_JUDGE)] = "auto"
    """Where candidates cannot be kept in namespaces: judge them anyway (auto) or refuse to start (require)."""
    evaluator_command: Annotated[str | None, Flag(JUDGE, "COMMAND", "this machine", EVERY_JUDGE)] = None
    """Command that starts a judge elsewhere, e.g. 'ssh gpu-box python -m avo.evaluator'."""
    cascade: Annotated[float | Literal["off"], Flag(MEASURING, "FRACTION|off")] = CASCADE
    """Do not time a candidate whose predicted speed, at its highest, is below the best version's by this fraction."""
    clock: Annotated[Clock, Flag(MEASURING, commands=(*EVERY_JUDGE, "baselines"))] = CLOCKS[0]
    """Run each kernel for a stretch before each timed run, or not (burst)."""
    device: Annotated[str | None, Flag(MEASURING, "N", "all GPUs", (*EVERY_JUDGE, "baselines"))] = None
    """The GPU, as nvidia-smi counts, or its uuid; or several, each with evaluators of its own."""
    trace: Annotated[str | None, Flag(MEASURING, "FILE", "none", EVERY_JUDGE)] = Field(default=None, min_length=1)
    """Append the time of every run to this file, as JSON lines."""
    worker_prefix: Annotated[str | None, Flag(MEASURING, "COMMAND", "none", ("evaluate",))] = None
    """A profiler to run GPU workers under, e.g. 'ncu -o out-%p'; no time is limited then."""
    evaluation_wall_s: float = Field(default=WALL_S, gt=0, allow_inf_nan=False)
    """Longest time that the judge may work on one candidate; four times as long before acceptance."""
    min_gain: float = Field(default=0.01, ge=0, lt=1)
    """A new version whose speed is predicted must beat the best by this fraction.

    It is below the model's error, so it does not say that a version is faster on a GPU: it only keeps versions from
    piling up for nothing.
    """
    min_share: float = Field(default=0.9, gt=0, le=1)
    """A new version whose speed is predicted must also be faster than the best in this share of the joint draws of the
    model's constants and the two kernels' doubts.
    """
    alpha: float = Field(default=0.05, gt=0, lt=1)
    """Probability with which a whole run may accept any version that is not faster, where speed is measured."""
    equivalence_margin: float = Field(default=EQUIVALENCE_MARGIN, gt=0, lt=0.5)
    """Measured speeds that differ by less than this fraction count as equal."""

    islands: int = Field(default=4, ge=2, le=64)
    """Lineages of the population ``islands``."""
    migrate_every: int = Field(default=10, ge=2)
    """Steps of an island from one guest of its neighbour to the next."""
    restart_after: int = Field(default=30, ge=2)
    """Steps without a new version after which an island starts again."""
    archive_by: tuple[str, ...] = ("tile", "masks", "grid", "limiter")
    """Traits by which the population ``archive`` tells kinds of kernels apart."""

    supervisor: Literal["on", "off"] = "on"
    """Whether a supervisor intervenes when the search stalls or goes in circles: see the next three settings."""
    patience_steps: int = Field(default=12, ge=1)
    """Steps in a row that add no version, after which the supervisor intervenes."""
    patience_hours: float = Field(default=6.0, gt=0, allow_inf_nan=False)
    """Working time without a new version, after which the supervisor intervenes."""
    patience_repeats: int = Field(default=4, ge=2)
    """Candidates in a row that fail alike, or lower to launch plans that were tried before, after which the supervisor
    intervenes.
    """

    notify: Annotated[str | None, Flag(WATCH, "COMMAND", "nothing")] = Field(default=None, min_length=1)
    """Shell command to run when the run finds a new best, stalls, fails or ends, e.g. 'notify-send "$AVO_TEXT"'."""

    @field_validator("cascade", mode="before")
    @classmethod
    def _check_cascade(cls, value: object) -> object:
        """Accept a number as text too, as an option gives it."""
        try:
            fraction = 0.0 if value == "off" else float(str(value))
        except ValueError:
            fraction = -1.0
        if not 0 <= fraction < 1:
            raise PydanticCustomError("cascade", "a fraction from 0 to 1, or 'off'")
        return value if value == "off" else fraction

    @field_validator("archive_by", mode="before")
    @classmethod
    def _check_traits(cls, value: object) -> object:
        if not isinstance(value, list | tuple) or not value or not set(value) <= set(TRAITS):
            raise PydanticCustomError("traits", "a list of one or more of {names}", {"names": ", ".join(TRAITS)})
        return tuple(value)

    @field_validator("evaluator_resources", mode="before")
    @classmethod
    def _parse_resources(cls, value: object) -> object:
        """Accept JSON text too, as an option gives it. Amounts must be positive, a share of a GPU at most 1."""
        try:
            found = json.loads(value) if isinstance(value, str) else value
        except ValueError:
            found = None
        if not isinstance(found, dict) or not all(
            name != "CPU" and type(amount) in (int, float) and 0 < amount <= (1 if name == "GPU" else math.inf)
            for name, amount in found.items()
        ):
            raise PydanticCustomError("resources", 'names and amounts, e.g. {"H100": 1}')
        return {name: float(amount) for name, amount in found.items()}

    @field_validator("models", "command_env", mode="before")
    @classmethod
    def _take_a_list(cls, value: object) -> object:
        """Accept a list: TOML and JSON have no tuples."""
        return tuple(value) if isinstance(value, list) else value

    @field_validator("problem")
    @classmethod
    def _find_from_anywhere(cls, value: str) -> str:
        return problem_name(value)

    @field_validator("trace")
    @classmethod
    def _whole_path(cls, value: str | None) -> str | None:
        return None if value is None else os.path.abspath(value)  # a judge may work in another folder

    @field_validator("evaluator_command", "worker_prefix")
    @classmethod
    def _check_command(cls, value: str | None) -> str | None:
        try:
            words = None if value is None else shlex.split(value)
        except ValueError:
            words = []
        if words == []:
            raise PydanticCustomError("command", "a command like: ssh gpu-box python -m avo.evaluator")
        return value

    @property
    def settings(self) -> Settings:
        """What operators with models are made with."""
        return Settings(
            self.models,
            self.request_timeout_s,
            self.silence_timeout_s,
            self.command or "",
            self.command_env,
            self.continue_steps,
        )

    def check_models(self, environment: Mapping[str, str]) -> None:
        """Raise ``AgentError`` unless the operator can ask the models it needs, within the limits that are set."""
        from avo.agents.registry import asks_models

        if self.operator == COMMAND_OPERATOR:
            self._check_command_operator(environment)
        if asks_models(self.operator):
            limited = self.max_usd is not None or self.step_usd is not None
            self.settings.check(self.operator, environment, usd_limit=limited)

    def _check_command_operator(self, environment: Mapping[str, str]) -> None:
        from avo.agents.command import check

        check(self.settings, environment)
        for limit in ("max_tokens", "max_usd", "step_tokens", "step_usd"):
            if getattr(self, limit) is not None:
                raise ConfigError(
                    f"--{limit.replace('_', '-')}: what a program uses is not known while it works: limit --max-steps "
                    "and --step-minutes instead"
                )

    @property
    def measured(self) -> bool:
        """Whether speed is measured on a GPU."""
        return score_kind(self.target) is ScoreKind.MEASURED

    @property
    def requirement(self) -> str:
        """What a version has to be, in words."""
        return requirement(self.min_gain, self.min_share, measured=self.measured)

    @property
    def patience(self) -> "Patience | None":
        """What the supervisor puts up with before it intervenes; None where there is no supervisor."""
        from avo.agents.supervisor import Patience

        if self.supervisor == "off":
            return None
        return Patience(
            self.patience_steps,
            self.patience_hours,
            self.patience_repeats,
            restarts=self.population == "lineage",
        )

    @property
    def judge_may_change(self) -> bool:
        """Whether the next session may have another judge: on another card, or behind another command."""
        return self.measured or self.evaluator_command is not None

    @classmethod
    def resolve(cls, path: Path | None, options: Mapping[str, Any], *, search: bool = True) -> Self:
        """Return the defaults, overlaid by the file, overlaid by the options that are not None.

        Raises ``ConfigError`` for what is unknown, of the wrong type or impossible. Names are checked for a ``search``.
        """
        from_file = {} if path is None else read_toml(path)
        config = cls._validated(from_file, options, path)
        if search:
            config.check_names()
        return config

    @classmethod
    def stored(cls, run: "Run", options: Mapping[str, Any]) -> Self:
        """Return the configuration that is stored with ``run``, overlaid by the options that are not None.

        Settings that are newer than the run have their defaults. Raises ``ConfigError`` as ``resolve`` does.
        """
        kept = {key: value for key, value in run.config.items() if key not in _NOT_SETTINGS}
        if unknown := sorted(kept.keys() - cls.model_fields.keys()):
            raise ConfigError(
                f"run {run.name!r} was stored with the setting {unknown[0]!r}, which this release does not know: "
                "use the release that stored it, or a newer one"
            )
        return cls._validated(kept, options, None)

    @classmethod
    def _validated(cls, settings: Mapping[str, Any], options: Mapping[str, Any], path: Path | None) -> Self:
        given = options_given(options, settings)
        try:
            config = cls(**{**settings, **given})
        except ValidationError as error:
            raise ConfigError(explain(error, cls.model_fields, path, given)) from None
        flags = {setting: flag_of(cls.model_fields[setting]) for setting in given}
        idle = [setting for setting, flag in flags.items() if flag is not None and flag.group == MEASURING]
        if idle and not config.measured:
            raise ConfigError(
                f"--{idle[0].replace('_', '-')} is for --target cuda, where speed is measured: leave it out, "
                f"for {config.target} speed is predicted"
            )
        return config

    def check_names(self) -> None:
        """Raise ``ConfigError`` unless problem, suite, target and operator exist and can be used together."""
        from avo.agents.registry import get_operator

        try:
            get_suite(get_problem(self.problem), self.suite)
            if self.suite == HELD_OUT:
                raise ConfigError(f"suite {HELD_OUT!r} has the shapes that no search is shown: choose another")
            check_target(self.target)
            get_operator(self.operator)
        except (EvaluatorError, AgentError) as error:
            raise ConfigError(str(error)) from None
