"""The configuration of a run: defaults, then a TOML file, then flags; resolved once and stored with the run."""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agents.errors import AgentError
from agents.registry import get_operator
from avo.errors import ConfigError
from avo.targets import find_target
from evaluator.errors import EvaluatorError
from evaluator.problem import get_problem, get_suite


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
    """Pairs of an operator and an evaluator that work side by side."""
    max_attempts: int | None = Field(default=None, ge=1)
    """Evaluated candidates in the whole run, the seed and earlier sittings included. None: no limit."""
    max_hours: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Wall-clock time of one sitting: ``resume`` starts anew. None: no limit."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Of every random choice. The same seed on one worker makes the same candidates."""
    name: str | None = None
    """Of the run; chosen from problem and target when None."""
    min_gain: float = Field(default=0.01, ge=0, lt=1)
    """A new version must beat the best by this fraction.

    It is below the model's error, so it does not say that a version is faster on a GPU: it only keeps versions from
    piling up for nothing.
    """
    evaluation_wall_s: float = Field(default=300.0, gt=0, allow_inf_nan=False)
    """Longest time one candidate may take."""
    sandbox: Literal["auto", "require"] = "auto"
    """``require``: refuse to start where candidates cannot be kept in namespaces."""

    @classmethod
    def resolve(cls, path: Path | None, flags: Mapping[str, Any]) -> Self:
        """Return defaults overlaid by the file, overlaid by the flags that are not None.

        Raises ``ConfigError`` for anything unknown, of the wrong type or impossible.
        """
        from_file = {} if path is None else _read(path)
        given = {key: value for key, value in flags.items() if value is not None}
        try:
            config = cls(**{**from_file, **given})
        except ValidationError as error:
            raise ConfigError(_explain(error, path, given)) from None
        config.check_names()
        return config

    @classmethod
    def stored(cls, data: Mapping[str, Any], flags: Mapping[str, Any]) -> Self:
        """Rebuild the configuration of a stored run, with the flags that are not None in place of what it had."""
        given = {key: value for key, value in flags.items() if value is not None}
        try:
            return cls(**{**{key: data[key] for key in cls.model_fields if key in data}, **given})
        except ValidationError as error:
            raise ConfigError(_explain(error, None, given)) from None

    def check_names(self) -> None:
        """Raise ``ConfigError`` unless problem, suite, target and operator exist and can be used together."""
        try:
            get_suite(get_problem(self.problem), self.suite)
            find_target(self.target)
            get_operator(self.operator)
        except (EvaluatorError, AgentError) as error:
            raise ConfigError(str(error)) from None


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}: name a TOML file that can be read") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not UTF-8 text: name a TOML file") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None


def _explain(error: ValidationError, path: Path | None, flags: Mapping[str, Any]) -> str:
    """One line for the first thing that is wrong."""
    detail = error.errors(include_url=False, include_context=False)[0]
    key = str(detail["loc"][0])
    where = f"--{key.replace('_', '-')}" if key in flags or path is None else f"{path}: {key}"
    if detail["type"] == "extra_forbidden":
        return f"{where}: unknown setting: choose from {', '.join(RunConfig.model_fields)}"
    wrong = detail["msg"].removeprefix("Input should be ")
    return f"{where}: {detail['input']!r} should be {wrong}"
