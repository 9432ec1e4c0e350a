"""The interface to the GPU: what running and timing a plan needs, small enough that a fake can stand in."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from avo.evaluator.binary import Binary
from avo.evaluator.cuda.cards import Card
from avo.evaluator.errors import EvaluatorUnavailable
from avo.evaluator.plan import Argument, KernelIR

Enqueue = Callable[[], None]
"""Enqueues work on the device's stream and returns."""
LoadedKernel = Callable[[tuple[int, int, int], Sequence[Argument], Sequence[torch.Tensor]], None]
"""Enqueues one launch: grid, the launch's arguments, and the plan's buffers as flat tensors."""


@dataclass(frozen=True, slots=True)
class Clocks:
    """What the card ran at, sampled while it worked."""

    sm_mhz: int
    reasons: int
    """Why the clock is not higher: NVML's bits, see ``nvml.REASONS``."""
    celsius: int | None = None
    """Temperature of the GPU; None where it cannot be read."""
    watts: float | None = None
    """Power that the card draws; None where it cannot be read."""
    mean_mhz: float | None = None
    """The SM clock over the whole run, by the SMs' own counters; None where these say none."""
    others: tuple[str, ...] = ()
    """Processes of others that compute on the card, as far as they can be told."""


@dataclass(frozen=True, slots=True)
class Took:
    """How long one run took, by two clocks."""

    seconds: float
    """Time by events on the device."""
    wall_s: float
    """Time by the host's clock, without the time of an empty run; a little more than ``seconds``."""


@dataclass(frozen=True, slots=True)
class Timed:
    """Timed runs of one case, all of them verified."""

    runs: tuple[Took, ...]
    clocks: tuple[Clocks, ...]
    """The clocks of each run, where they could be read."""
    ungraphed: str = ""
    """Why the work could not be recorded as a graph; then no run was one, or there are none."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What times depend on besides the card and the kernel."""

    versions: str
    """Releases of what compiles and launches kernels, in words."""
    power_limit_w: float | None
    """None where it cannot be read."""
    overhead_s: float
    """What an empty graph takes by the events, which is in every time."""


class NotRecorded(Exception):
    """Work cannot be recorded as a graph, but runs without, in a new process; ``str()`` says why in one line."""


class DeviceFault(Exception):
    """A kernel cannot be launched on this device; ``str()`` is one line that its author can act on."""


class MachineFault(EvaluatorUnavailable):
    """This machine cannot run kernels as it is, whoever wrote them; ``str()`` is one line that its owner can act on."""


class KernelFault(Exception):
    """What CUDA, torch or Triton's launcher reports while kernels run."""


class HostFault(RuntimeError):
    """What a kernel's host code, a library or Triton's compiler raises; ``str()`` is one line."""


class PlanFault(Exception):
    """A plan asks for something that does not exist; ``str()`` is one line that its author can act on."""


class Device(Protocol):
    """A GPU with one stream. What a kernel does to it may raise ``RuntimeError`` from any later call."""

    @property
    def card(self) -> Card:
        """Which GPU it is."""
        ...

    @property
    def place(self) -> torch.device:
        """The torch device of tensors that kernels access."""
        ...

    def load(self, ir: KernelIR, binary: Binary) -> LoadedKernel:
        """Return a function that launches ``binary``. Raises ``DeviceFault`` when it does not fit, and
        ``MachineFault`` when it is not loaded for another reason.
        """
        ...

    @property
    def setup(self) -> Setup:
        """What else times depend on."""
        ...

    def record(self, enqueue: Enqueue) -> Enqueue:
        """Record the work of ``enqueue``, which has run before, as a graph, and return what enqueues the graph.

        Raises ``NotRecorded``.
        """
        ...

    def sustain(self, enqueue: Enqueue, seconds: float) -> None:
        """Run ``enqueue`` again and again for so long at least."""
        ...

    def time(self, enqueue: Enqueue) -> Took:
        """Run ``enqueue`` with a cold cache and its scratch memory poisoned, and return how long it took."""
        ...

    def clocks(self) -> Clocks | None:
        """Return what the card ran at just after the last timed run; None where that cannot be read."""
        ...

    def trouble(self) -> str:
        """Return in words which errors that no kernel brings about the card had since it was opened; mostly nothing."""
        ...

    def synchronize(self) -> None:
        """Wait for everything enqueued."""
        ...
