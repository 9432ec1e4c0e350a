"""Autotuning without a GPU: the configurations of a script's autotuned kernels, and how fast each is predicted."""

from dataclasses import dataclass
from itertools import dropwhile

from avo.evaluator.errors import EvaluatorError
from avo.evaluator.evaluation import CaseScore, Score
from avo.evaluator.plan import KernelIR
from avo.evaluator.resolution import SURE, difference
from avo.evaluator.target import ScoreKind
from avo.evaluator.work import Counted

_LEAST = 0.01
"""A smaller gain than this is none, as in a search by default."""
Named = tuple[tuple[str, str], ...]
"""Names with values, as text."""


class ScriptFailed(EvaluatorError):
    """A script did not come to its end. The message is one line."""

    def __init__(self, message: str, details: str = "") -> None:
        super().__init__(message)
        self.details = details
        """The end of the script's own traceback or output."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What is tuned: an autotuned kernel, for one target and one key."""

    kernel: str
    """Name of the jit function."""
    location: str
    """Where it is defined, ``FILE:LINE``."""
    target: str
    key: Named
    """The values that the kernel is tuned for: those of the arguments that the decorator names."""
    dtypes: Named
    """The types of tensors, which belong to the key as well."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One configuration."""

    kwargs: Named
    """Meta-parameters, with their values as Python writes them."""
    options: Named
    """Launch options such as ``num_warps``, likewise."""

    def __str__(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in (*self.kwargs, *self.options))

    @property
    def code(self) -> str:
        """The configuration as source code."""
        inner = ", ".join(f"{name!r}: {value}" for name, value in self.kwargs)
        return f"triton.Config({', '.join(['{' + inner + '}', *(f'{name}={value}' for name, value in self.options)])})"


@dataclass(frozen=True, slots=True)
class Time:
    """What is predicted for a configuration, and the resources that its kernel takes."""

    us: float
    low_us: float
    """Low end of the range."""
    high_us: float
    """High end of the range, doubts included."""
    limiter: str
    doubts: tuple[str, ...]
    programs: int
    registers: int
    """Per thread."""
    spill_bytes: int
    """Per thread."""
    shared_bytes: int
    """Per CTA."""
    ctas_per_sm: int
    occupancy: float
    """Share of the warps that an SM can hold."""
    draws_us: tuple[float, ...] = ()
    """The time in each joint draw of the model's constants."""
    doubt: float = 1.0
    """Factor on the time if all doubts are true."""

    def resolved(self, slower: "Time") -> bool:
        """Whether this one is told apart from a ``slower`` one: by 1% at least, and in nine draws of ten."""
        mine, other = (
            Score(
                ScoreKind.PREDICTED,
                "",
                (
                    CaseScore(
                        "", 1 / each.us, each.us, "", draws=tuple(1 / us for us in each.draws_us), doubt=each.doubt
                    ),
                ),
            )
            for each in (self, slower)
        )
        found = difference(mine, other)
        return found.gain >= _LEAST and (found.share is None or found.share >= SURE)


@dataclass(frozen=True, slots=True)
class Outcome:
    """A configuration with its time, or with why it has none."""

    choice: Choice
    time: Time | None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Ranking:
    """All configurations of a kernel for one target and key, the fastest first, those without a time last.

    Equal times keep the order of the decorator, so the winner is the same in every run.
    """

    subject: Subject
    outcomes: tuple[Outcome, ...]
    listed: tuple[Choice, ...]
    """All configurations in the order of the decorator."""

    @property
    def timed(self) -> tuple[Outcome, ...]:
        """The configurations that have a time."""
        return tuple(outcome for outcome in self.outcomes if outcome.time)

    @property
    def tied(self) -> tuple[Outcome, ...]:
        """The fastest configuration, and those that the model cannot tell apart from it."""
        timed = [(outcome, outcome.time) for outcome in self.outcomes if outcome.time]
        return tuple(outcome for outcome, time in timed if outcome is timed[0][0] or not timed[0][1].resolved(time))

    def contenders(self, most: int) -> tuple[Choice, ...]:
        """Return up to ``most`` of the configurations that are tied for the fastest."""
        return tuple(outcome.choice for outcome in self.tied)[:most]


@dataclass(frozen=True)
class Asked:
    """A launch that was counted."""

    kernel: KernelIR
    programs: int
    counted: Counted
    readable_bytes: int
    """Distinct bytes of the tensors that it may read."""
    writable_bytes: int
    """Distinct bytes of the tensors that it may write to."""


@dataclass(frozen=True)
class CountedChoice:
    """One configuration of an autotuned kernel, for one key, before its time is predicted."""

    subject: Subject
    choice: Choice
    asked: Asked | None
    reason: str = ""
    """Why nothing could be counted, ``""`` if it could."""


@dataclass(frozen=True)
class Ran:
    """What became of a script on one target."""

    target: str
    tried: tuple[CountedChoice, ...]
    """In the order of launches, those of one key in the order of the decorator."""
    cache: str = ""
    """Folder for compiled kernels."""
    refused: str = ""
    """Why the session stopped the script, ``""`` if it did not."""
    failed: str = ""
    """Which tests failed, in words, ``""`` if none did."""
    raised: str = ""
    """The script's own error as a traceback, ``""`` if there was none."""

    @property
    def error(self) -> str:
        """What that error says, in one line: the first and the last of several."""
        lines = self.raised.splitlines()
        frames = [number for number, line in enumerate(lines) if line.lstrip().startswith('File "')]
        said = list(dropwhile(lambda line: line.startswith(" "), lines[frames[-1] + 1 if frames else 0 :])) or lines
        return said[0] if len(said) == 1 else f"{said[0]} ... {said[-1].strip()}"
