"""Autotuning where nothing is executed: for each key, every configuration is launched once and counted."""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from triton.compiler.errors import CompilationError
from triton.runtime.autotuner import Autotuner
from triton.runtime.errors import OutOfResources, PTXASError

from avo.evaluator.errors import EvaluatorError
from avo.evaluator.offline.autotuning import hooks
from avo.evaluator.offline.launches import Launch
from avo.evaluator.offline.patches import Patches

_FAILURES = (CompilationError, OutOfResources, PTXASError, EvaluatorError, AssertionError)
"""What makes one configuration impossible and says nothing about others. Triton asserts what options may be, such as a
power of two for ``num_warps``; on a GPU that ends the script.
"""
Named = tuple[tuple[str, str], ...]
"""Names with values, as text."""


@dataclass(frozen=True)
class Trial:
    """One configuration of an autotuned kernel, at the first launch with a key."""

    kernel: str
    """Name of the jit function."""
    location: str
    """Where it is defined, ``FILE:LINE``."""
    key: Named
    """The values that the kernel is tuned for: those of the arguments that the decorator names."""
    dtypes: Named
    """The types of tensors, which belong to the key as well."""
    config: Any
    """The ``triton.Config``."""
    launch: Launch | None
    reason: str = ""
    """Why there is no launch."""


class Launching(Protocol):
    """What trials need of a session."""

    launches: list[Launch]
    trials: list[Trial]

    def trying(self, config: str) -> contextlib.AbstractContextManager[None]:
        """Return a context in which launches are recorded as trials of ``config``."""


class CountedTuning:
    """Replaces how autotuners choose: they launch every configuration once for each key, and keep the first that can be
    launched.
    """

    def __init__(self, session: Launching) -> None:
        self._session = session
        self._chosen: dict[tuple[int, Named, Named], tuple[Any, Any]] = {}

    def install(self, patches: Patches) -> None:
        """Change Triton's autotuner until the patches are undone. Follow with ``forget``."""

        def run(tuner: Any, *args: Any, **kwargs: Any) -> Any:
            tuner.nargs = dict(zip(tuner.arg_names, args, strict=False))
            key = (id(tuner), *_key(tuner, kwargs))
            if key not in self._chosen:
                self._chosen[key] = tuner, self._try_all(tuner, args, kwargs)
            config = tuner.best_config = self._chosen[key][1]
            if config.pre_hook is not None:
                config.pre_hook({**tuner.nargs, **kwargs, **config.all_kwargs()})
            result = tuner.fn.run(*args, **kwargs, **config.all_kwargs())
            tuner.nargs = None
            return result

        patches.set(Autotuner, "run", run)

    def forget(self) -> None:
        """Forget the choices, and the autotuners with them."""
        self._chosen.clear()

    def _try_all(self, tuner: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Record a trial of each configuration that pruning leaves; return the first that can be launched."""
        several = len(tuner.configs) > 1
        configs = tuner.prune_configs(kwargs) if several else tuner.configs
        trials = [self._try(tuner, config, args, kwargs, benched=len(configs) > 1) for config in configs]
        self._session.trials += trials
        chosen = next((trial.config for trial in trials if trial.launch and not trial.reason), configs[0])
        if len(configs) > 1:
            tuner.pre_hook({**tuner.nargs, **kwargs, **chosen.all_kwargs()}, reset_only=True)
        return chosen

    def _try(self, tuner: Any, config: Any, args: tuple[Any, ...], kwargs: dict[str, Any], *, benched: bool) -> Trial:
        """Launch one configuration, between the hooks that belong to its benchmark if it would have one."""
        conflicts = kwargs.keys() & config.kwargs.keys()
        if conflicts:
            raise ValueError(f"Conflicting meta-parameters: {', '.join(conflicts)}.")
        current = {**kwargs, **config.all_kwargs()}
        before, reason = len(self._session.launches), ""
        around = hooks(tuner, config, {**tuner.nargs, **current}) if benched else contextlib.nullcontext()
        try:
            with self._session.trying(str(config)), around:
                tuner.fn.run(*args, **current)
        except _FAILURES as error:
            reason = _short(error)
        made = [launch for launch in self._session.launches[before:] if launch.kernel == tuner.base_fn.__name__]
        launch = made[-1] if made else None
        reason = reason or (launch.unsupported if launch else "its grid is empty")
        code = tuner.base_fn.__code__
        location = f"{code.co_filename}:{code.co_firstlineno}"
        key, dtypes = _key(tuner, kwargs)
        return Trial(tuner.base_fn.__name__, location, key, dtypes, config, None if reason else launch, reason)


def _key(tuner: Any, kwargs: Mapping[str, Any]) -> tuple[Named, Named]:
    """Return what ``Autotuner.run`` tunes for: values of the arguments that it names, and types of tensors."""
    values = {**tuner.nargs, **kwargs}
    named = {name: value for name, value in values.items() if name in tuner.arg_names}
    key = tuple((name, _text(named[name])) for name in tuner.keys if name in named)
    return key, tuple((name, str(value.dtype)) for name, value in named.items() if hasattr(value, "dtype"))


def _text(value: Any) -> str:
    return f"{value.dtype} {tuple(value.shape)}" if hasattr(value, "shape") else str(value)


def _short(error: Exception) -> str:
    """Return the last telling line of an error: those of the front end show the source first."""
    cause = error.error_message if isinstance(error, CompilationError) and error.error_message else str(error)
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
