"""Autotuners without a clock: every configuration that is left after pruning gives a plan of its own.

Several autotuned kernels in one call are varied one at a time, the others at their first configuration: launches follow
one another, so the fastest of each are the fastest together. What an autotuner does only while it measures
(``reset_to_zero``, ``restore_value``, its own hooks) is no part of a plan; a configuration's ``pre_hook`` is.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from triton.runtime.autotuner import Autotuner

from avo.evaluator.capture.recorder import RefusedError, candidate_line
from avo.evaluator.evaluation import Status
from avo.evaluator.plan import DEFAULT_LIMITS, Configuration, LaunchPlan

_KEY_CHARS = 500
_CHOICE_CHARS = 1000


@dataclass(frozen=True)
class _Kernel:
    """An autotuned kernel of one call, for one key."""

    tuner: Autotuner
    key: str
    names: tuple[str, ...]
    """Names of the configurations that are left after pruning."""
    taken: int
    config: Any


class Tuning:
    """Decides which configuration each autotuned kernel of this process takes."""

    def __init__(self) -> None:
        """Take over every later launch of an autotuned kernel in this process."""
        self._wanted: Mapping[str, str] = {}
        self._met: dict[str, _Kernel] = {}
        self._running = ""
        tuning = self

        def run(tuner: Any, *args: Any, **kwargs: Any) -> Any:
            tuner.nargs = dict(zip(tuner.arg_names, args, strict=False))
            config = tuning._choose(tuner, kwargs)
            tuner.best_config = config
            if config.pre_hook is not None:
                config.pre_hook({**tuner.nargs, **kwargs, **config.all_kwargs()})
            result = tuner.fn.run(*args, **kwargs, **config.all_kwargs())
            tuner.nargs = None
            tuning._running = ""
            return result

        Autotuner.run = run

    def every(self, call: Callable[[], LaunchPlan]) -> list[LaunchPlan]:
        """Return what ``call`` gives with each configuration in turn; those that fail a static assertion are skipped,
        as autotuners do. Raises the ``RefusedError`` of ``call``.
        """
        found: list[LaunchPlan] = []
        first: dict[str, str] = {}
        while not found:
            try:
                found.append(self.once(call, first))
            except RefusedError as refusal:
                following = self._following(refusal)
                if not following:
                    raise self._named(refusal) from None
                first[self._running] = following[0]
        others = [
            (name, kernel.names[i])
            for name, kernel in self._met.items()
            for i in range(kernel.taken + 1, len(kernel.names))
        ]
        if len(others) >= DEFAULT_LIMITS.configurations:
            raise RefusedError(
                Status.FORBIDDEN,
                f"has {len(others) + 1} configurations of autotuned kernels for one call, at most "
                f"{DEFAULT_LIMITS.configurations} are judged: list fewer, or prune them by shape (prune_configs_by)",
            )
        for name, choice in others:
            try:
                found.append(self.once(call, {**first, name: choice}))
            except RefusedError as refusal:
                if not (refusal.unfit and self._running == name):
                    raise self._named(refusal) from None
        return found

    def once(self, call: Callable[[], LaunchPlan], wanted: Mapping[str, str]) -> LaunchPlan:
        """Return what ``call`` gives with the ``wanted`` choices by kernel, and for other kernels the first ones."""
        self._wanted = wanted
        self._met = {}
        plan = call()
        met = self._met.items()
        choices = tuple(Configuration(name, kernel.key, kernel.names[kernel.taken]) for name, kernel in met)
        return replace(plan, configurations=choices)

    def _following(self, refusal: RefusedError) -> tuple[str, ...]:
        kernel = self._met.get(self._running)
        return kernel.names[kernel.taken + 1 :] if refusal.unfit and kernel else ()

    def _named(self, refusal: RefusedError) -> RefusedError:
        kernel = self._met.get(self._running)
        if kernel is None or len(kernel.names) == 1:
            return refusal
        return RefusedError(refusal.status, f"{refusal.message} (configuration {kernel.names[kernel.taken]})")

    def _choose(self, tuner: Any, kwargs: Mapping[str, Any]) -> Any:
        key = _key(tuner, kwargs)
        same = [name for name, kernel in self._met.items() if kernel.tuner is tuner and kernel.key == key]
        if same:
            self._running = same[0]
            return self._met[same[0]].config
        kernel = tuner.base_fn.__name__
        others = sum(name.partition("#")[0].rstrip() == kernel for name in self._met)
        name = f"{kernel} #{others + 1}" if others else kernel
        configs = list(tuner.prune_configs(kwargs)) if len(tuner.configs) > 1 else tuner.configs
        names = _names(configs)
        taken = 0
        if name in self._wanted:
            # At other shapes pruning may drop what was chosen; what is asked for by name is launched all the same.
            configs = [*configs, *(config for config in tuner.configs if config not in configs)]
            names = _names(configs)
            if self._wanted[name] not in names:
                raise RefusedError(
                    Status.FORBIDDEN,
                    f"kernel {name} has no configuration {self._wanted[name]}{candidate_line()}, which it had before",
                )
            taken = names.index(self._wanted[name])
        self._met[name] = _Kernel(tuner, key, names, taken, configs[taken])
        self._running = name
        return configs[taken]


def _key(tuner: Any, kwargs: Mapping[str, Any]) -> str:
    """Return what ``Autotuner.run`` tunes for: values of the key's arguments, and dtypes."""
    values = {**tuner.nargs, **kwargs}
    named = {name: value for name, value in values.items() if name in tuner.arg_names}
    key = [named[name] for name in tuner.keys if name in named]
    key += [str(value.dtype) for value in named.values() if hasattr(value, "dtype")]
    return str(key)[:_KEY_CHARS]


def _names(configs: list[Any]) -> tuple[str, ...]:
    """Return distinct names for configurations."""
    names: list[str] = []
    for config in configs:
        text = ", ".join(f"{name}={value}" for name, value in config.all_kwargs().items())[:_CHOICE_CHARS]
        again = sum(name.partition(" #")[0] == text for name in names)
        names.append(f"{text} #{again + 1}" if again else text)
    return tuple(names)
