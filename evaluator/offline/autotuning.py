"""Autotuning without timing: takes the first configuration that fits, or runs all and compares their results."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from triton.compiler.errors import CompileTimeAssertionFailure
from triton.runtime.autotuner import Autotuner
from triton.runtime.errors import OutOfResources, PTXASError

from avo.evaluator.offline.patches import Patches

_NO_TIME = (0.0, 0.0, 0.0)
_NEVER = (float("inf"),) * 3


class Tries(Protocol):
    """What an autotuner needs of a session."""

    def fits(self, kernel: Any) -> bool:
        """Whether a kernel can be launched on the target."""

    def trying(self, config: str) -> contextlib.AbstractContextManager[None]:
        """Return a context in which launches are recorded as trials of ``config``."""

    def disagree(self, disagreement: "Disagreement") -> None:
        """Record that two configurations compute different things."""


@dataclass(frozen=True, slots=True)
class Disagreement:
    """Two configurations of a kernel leave different contents in an argument."""

    kernel: str
    config: str
    reference: str
    """The configuration that it is compared with: the first that ran."""
    tensor: str
    largest: float
    """Largest absolute difference."""

    def __str__(self) -> str:
        return (
            f"{self.kernel}: {self.tensor} differs by up to {self.largest:.3g} between configurations "
            f"[{self.config}] and [{self.reference}]"
        )


class OfflineTuning:
    """Replaces how autotuners choose, and removes their choices at the end."""

    def __init__(self, mode: str, tries: Tries) -> None:
        self._mode = mode
        self._tries = tries
        self._chosen: dict[int, Any] = {}
        self._first: dict[int, tuple[str, dict[str, torch.Tensor]]] = {}
        self._caches: list[tuple[Any, Any]] = []

    def install(self, patches: Patches) -> None:
        """Change Triton's autotuner until the patches are undone. Follow with ``forget``."""
        original_run = Autotuner.run
        tuning = self

        def run(tuner: Any, *args: Any, **kwargs: Any) -> Any:
            if not any(known is tuner for known, _ in tuning._caches):
                tuning._caches.append((tuner, tuner.cache))
                tuner.cache = {}
            return original_run(tuner, *args, **kwargs)

        def bench(tuner: Any, *args: Any, config: Any, **meta: Any) -> Any:
            return tuning._bench(tuner, args, config, meta)

        def no_disk(tuner: Any, key: Any, configs: Any, benchmark: Callable[[], None]) -> bool:
            benchmark()
            return False

        patches.set(Autotuner, "run", run)
        patches.set(Autotuner, "_bench", bench)
        patches.set(Autotuner, "check_disk_cache", no_disk)

    def forget(self) -> None:
        """Restore the choices that autotuners had made before."""
        for tuner, cache in self._caches:
            tuner.cache = cache
        self._caches.clear()

    def _bench(self, tuner: Any, args: tuple[Any, ...], config: Any, meta: dict[str, Any]) -> tuple[float, ...]:
        """Return made-up times, of which only the order matters: the least, the first among equals, is used."""
        conflicts = meta.keys() & config.kwargs.keys()
        if conflicts:
            raise ValueError(f"Conflicting meta-parameters: {', '.join(conflicts)}.")
        if self._mode != "all" and self._chosen.get(id(tuner)) is tuner.nargs:
            return _NEVER
        current = {**meta, **config.all_kwargs()}
        named = {**tuner.nargs, **current}
        try:
            if self._mode == "all":
                self._try(tuner, args, config, current, named)
            else:
                with hooks(tuner, config, named):
                    kernel = tuner.fn.run(*args, **{**current, "warmup": True})
                if self._mode == "fitting" and kernel is not None and not self._tries.fits(kernel):
                    return _NEVER
        except (OutOfResources, CompileTimeAssertionFailure, PTXASError):
            return _NEVER
        self._chosen[id(tuner)] = tuner.nargs
        return _NO_TIME

    def _try(
        self, tuner: Any, args: tuple[Any, ...], config: Any, current: dict[str, Any], named: dict[str, Any]
    ) -> None:
        """Run one configuration, compare its arguments afterwards with those of the first one, and restore them."""
        tensors = {name: base for name, value in named.items() if (base := _tensor(value)) is not None}
        before = {name: _whole(tensor).clone() for name, tensor in tensors.items()}
        try:
            with self._tries.trying(str(config)), hooks(tuner, config, named):
                tuner.fn.run(*args, **current)
            after = {name: tensor.detach().clone() for name, tensor in tensors.items()}
        finally:
            for name, tensor in tensors.items():
                _whole(tensor).copy_(before[name])
        if self._chosen.get(id(tuner)) is not tuner.nargs:
            self._first[id(tuner)] = str(config), after
            return
        reference, expected = self._first[id(tuner)]
        for name, result in after.items():
            if not _close(result, expected[name]):
                largest = float((result.double() - expected[name].double()).abs().nan_to_num(torch.inf).max())
                kernel = tuner.base_fn.__name__
                self._tries.disagree(Disagreement(kernel, str(config), reference, name, largest))


@contextlib.contextmanager
def hooks(tuner: Any, config: Any, named: dict[str, Any]) -> Iterator[None]:
    """Call the hooks that a benchmark of the configuration would call."""
    if config.pre_hook:
        config.pre_hook(named)
    tuner.pre_hook(named)
    try:
        yield
    except Exception as error:
        tuner.post_hook(named, exception=error)
        raise
    tuner.post_hook(named, exception=None)


def _tensor(value: Any) -> torch.Tensor | None:
    base = getattr(value, "base", value)
    return base if isinstance(base, torch.Tensor) else None


def _whole(tensor: torch.Tensor) -> torch.Tensor:
    storage = tensor.untyped_storage()
    return torch.empty(0, dtype=torch.uint8).set_(storage, 0, (storage.nbytes(),), (1,))


def _close(a: torch.Tensor, b: torch.Tensor) -> bool:
    try:
        torch.testing.assert_close(a, b, equal_nan=True)
    except AssertionError:
        return False
    return True
