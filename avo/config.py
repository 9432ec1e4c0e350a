"""The configuration of a run: defaults, then a TOML file, then flags; resolved once and stored with the run."""

import json
import os
import shlex
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import PydanticCustomError

from agents.errors import AgentError
from agents.registry import asks_models, get_operator
from agents.settings import ModelSettings, Settings
from agents.supervisor import Patience
from avo.errors import ConfigError
from evaluator.catalogue import get_problem, get_suite, problem_name
from evaluator.errors import EvaluatorError
from evaluator.evaluation import TRAITS
from evaluator.problem import HELD_OUT
from evaluator.target import ScoreKind, check_target, score_kind

LOCAL = "local"
"""The Ray address that means this machine alone."""
# What a stored configuration keeps beside its settings.
START = "start"
"""Where the seed came from, and its source."""
ISOLATION = "isolation"
"""What kept candidates apart, in words, one text for each way in which sittings of the run differed."""
TOOLS = "tools"
"""The releases of ours and of what compiles kernels, as installed where the run was driven; told in the same way."""


def usable_cpus() -> int:
    """Return how many CPUs this process may run on."""
    return len(os.sched_getaffinity(0))


class RunConfig(BaseModel):
    """Every setting of a run."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    problem: str = "mha"
    target: str = "h100"
    suite: str = "quick"
    operator: str = "mutate"
    workers: int = Field(default_factory=lambda: min(usable_cpus(), 8), ge=1, le=256)
    """Operators that work side by side."""
    evaluators: int | None = Field(default=None, ge=1, le=256)
    """Evaluators that they share. None: as many as operators."""
    evaluator_resources: dict[str, float] = Field(default_factory=dict)
    """Ray resources that each evaluator takes beside its CPU or GPU, e.g. ``{"H100": 1}`` to choose a kind of GPU."""
    ray_address: str = LOCAL
    """Where Ray runs: ``auto``, ``HOST:PORT`` or ``ray://HOST:PORT`` joins a cluster, ``local`` starts it here."""
    max_attempts: int | None = Field(default=None, ge=1)
    """Evaluated candidates in the whole run, the seed and earlier sittings included. None: no limit."""
    max_hours: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Wall-clock time of one sitting: ``resume`` starts anew. None: no limit."""
    max_steps: int | None = Field(default=None, ge=1)
    """Steps of the operator in the whole run; the seed's is none, and what is done over counts once. None: no limit."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Of all calls of models in the whole run, input and output together. None: no limit."""
    max_usd: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """The same in US dollars: every model needs a price. None: no limit."""
    step_evaluations: int | None = Field(default=12, ge=1)
    """New candidates that an operator with models may evaluate in one step. None: no limit."""
    step_tokens: int | None = Field(default=None, ge=1)
    step_usd: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    step_minutes: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    models: tuple[ModelSettings, ...] = ()
    """Of operators that ask models: each step has one of them."""
    request_timeout_s: float = Field(default=600.0, gt=0, allow_inf_nan=False)
    """Longest time that a model may take for a reply."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Of every random choice. The same seed on one worker makes the same candidates."""
    name: str | None = None
    """Of the run; chosen from problem and target when None."""
    min_gain: float = Field(default=0.01, ge=0, lt=1)
    """A new version whose speed is predicted must beat the best by this fraction.

    It is below the model's error, so it does not say that a version is faster on a GPU: it only keeps versions from
    piling up for nothing.
    """
    alpha: float = Field(default=0.05, gt=0, lt=1)
    """Probability with which a whole run may accept any version that is not faster, where speed is measured."""
    equivalence_margin: float = Field(default=0.005, gt=0, lt=0.5)
    """Measured speeds that differ by less than this fraction are the same."""
    cascade: float | Literal["off"] = 0.25
    """A candidate is not timed whose predicted speed, at its highest, is below the best version's by this fraction."""
    evaluator_command: str | None = None
    """What starts a judge elsewhere, e.g. ``ssh gpu-box python -m evaluator``. None: judge on this machine."""
    evaluation_wall_s: float = Field(default=300.0, gt=0, allow_inf_nan=False)
    """Longest time one candidate may take."""
    population: Literal["lineage", "islands", "archive"] = "lineage"
    """How versions live together: in one lineage, in several that meet now and then, or as the best of each kind."""
    islands: int = Field(default=4, ge=2, le=64)
    """Lineages of the population ``islands``."""
    migrate_every: int = Field(default=10, ge=2)
    """Steps of an island from one guest of its neighbour to the next."""
    restart_after: int = Field(default=30, ge=2)
    """Steps without a new version after which an island starts anew."""
    archive_by: tuple[str, ...] = ("tile", "masks", "grid", "limiter")
    """Traits by which the population ``archive`` tells kinds of kernels apart."""
    supervisor: Literal["on", "off"] = "on"
    """Whether a supervisor steps in when the search stalls or goes in circles. How much it bears before that:"""
    patience_steps: int = Field(default=12, ge=1)
    """Steps in a row that add no version."""
    patience_hours: float = Field(default=6.0, gt=0, allow_inf_nan=False)
    """Working time without a new version."""
    patience_repeats: int = Field(default=4, ge=2)
    """Candidates in a row that fail alike, or lower to launch plans that were tried before."""
    notify: str | None = Field(default=None, min_length=1)
    """What a shell runs when the run finds a new best, stalls, fails or comes to an end. None: nothing."""
    sandbox: Literal["auto", "require"] = "auto"
    """``require``: refuse to start where candidates cannot be kept in namespaces."""

    @field_validator("cascade", mode="before")
    @classmethod
    def _check_cascade(cls, value: object) -> object:
        """Take a number as text too, as options are."""
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
        """Take JSON text, as options are; each amount is a positive number, of names that are not Ray's own."""
        try:
            found = json.loads(value) if isinstance(value, str) else value
        except ValueError:
            found = None
        if not isinstance(found, dict) or not all(
            name not in ("CPU", "GPU") and type(amount) in (int, float) and amount > 0 for name, amount in found.items()
        ):
            raise PydanticCustomError("resources", 'names and amounts, e.g. {"H100": 1}')
        return {name: float(amount) for name, amount in found.items()}

    @field_validator("models", mode="before")
    @classmethod
    def _take_a_list(cls, value: object) -> object:
        """TOML and JSON have no tuples."""
        return tuple(value) if isinstance(value, list) else value

    @field_validator("problem")
    @classmethod
    def _find_from_anywhere(cls, value: str) -> str:
        return problem_name(value)

    @field_validator("evaluator_command")
    @classmethod
    def _check_command(cls, value: str | None) -> str | None:
        try:
            words = None if value is None else shlex.split(value)
        except ValueError:
            words = []
        if words == []:
            raise PydanticCustomError("command", "a command like: ssh gpu-box python -m evaluator")
        return value

    @property
    def settings(self) -> Settings:
        """What operators with models are made with."""
        return Settings(self.models, self.request_timeout_s)

    def check_models(self, environment: Mapping[str, str]) -> None:
        """Raise ``AgentError`` unless the operator can ask the models it needs, within the limits that are set."""
        if asks_models(self.operator):
            limited = self.max_usd is not None or self.step_usd is not None
            self.settings.check(self.operator, environment, usd_limit=limited)

    @property
    def measured(self) -> bool:
        """Whether speed is measured on a GPU."""
        return score_kind(self.target) is ScoreKind.MEASURED

    @property
    def patience(self) -> Patience | None:
        """What the supervisor bears; None where there is none."""
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
        """Whether the next sitting may have another judge: on another card, or behind another command."""
        return self.measured or self.evaluator_command is not None

    @classmethod
    def resolve(cls, path: Path | None, flags: Mapping[str, Any]) -> Self:
        """Return defaults overlaid by the file, overlaid by the flags that are not None.

        Raises ``ConfigError`` for anything unknown, of the wrong type or impossible.
        """
        from_file = {} if path is None else _read(path)
        given = _given(flags, from_file)
        try:
            config = cls(**{**from_file, **given})
        except ValidationError as error:
            raise ConfigError(_explain(error, path, given)) from None
        config.check_names()
        return config

    @classmethod
    def stored(cls, data: Mapping[str, Any], flags: Mapping[str, Any]) -> Self:
        """Rebuild the configuration of a stored run, with the flags that are not None in place of what it had."""
        given = _given(flags, data)
        try:
            return cls(**{**{key: data[key] for key in cls.model_fields if key in data}, **given})
        except ValidationError as error:
            raise ConfigError(_explain(error, None, given)) from None

    def check_names(self) -> None:
        """Raise ``ConfigError`` unless problem, suite, target and operator exist and can be used together."""
        try:
            get_suite(get_problem(self.problem), self.suite)
            if self.suite == HELD_OUT:
                raise ConfigError(f"suite {HELD_OUT!r} has the shapes that no search is shown: choose another")
            check_target(self.target)
            get_operator(self.operator)
        except (EvaluatorError, AgentError) as error:
            raise ConfigError(str(error)) from None

    def on_gpus(self, count: Callable[[], int]) -> Self:
        """Return the configuration with as many evaluators as there are GPUs to measure on, where there are more.

        ``count`` counts those of this machine; a cluster places evaluators by itself. An evaluator command reaches one
        unless ``workers`` or ``evaluators`` says otherwise. Timing two candidates on one GPU at a time would time both
        wrong. Without a number of evaluators there are as many workers.
        """
        if not self.measured or self.ray_address != LOCAL:
            return self
        counted = "workers" if self.evaluators is None else "evaluators"
        wanted: int = getattr(self, counted)
        told = wanted if counted in self.model_fields_set else 1
        most = told if self.evaluator_command is not None else max(count(), 1)
        return self.model_copy(update={counted: min(wanted, most)})


_FLAGS = {"models": "model"}
"""Settings whose options have another name."""


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}: name a TOML file that can be read") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not UTF-8 text: name a TOML file") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None


def _given(flags: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
    """Return the flags that are given. A model that is named has the settings that ``others`` have of it."""
    given = {key: value for key, value in flags.items() if value is not None}
    if names := given.pop("model", None):
        listed = others.get("models")
        known = {each.get("name"): each for each in listed if isinstance(each, dict)} if listed else {}
        given["models"] = [known.get(name, {"name": name}) for name in names]
    return given


def _explain(error: ValidationError, path: Path | None, flags: Mapping[str, Any]) -> str:
    """One line for the first thing that is wrong."""
    detail = error.errors(include_url=False, include_context=False)[0]
    key, *within = map(str, detail["loc"])
    where = f"--{_FLAGS.get(key, key.replace('_', '-'))}" if key in flags or path is None else f"{path}: {key}"
    where = ".".join((where, *within))
    if detail["type"] == "extra_forbidden":
        known = ModelSettings.model_fields if within else RunConfig.model_fields
        return f"{where}: unknown setting: choose from {', '.join(known)}"
    wrong = detail["msg"].removeprefix("Input should be ")
    return f"{where}: {detail['input']!r} should be {wrong}"
