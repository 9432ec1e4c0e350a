"""Published measurements: each is a time, and the launches that took it."""

import csv
import hashlib
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path

from avo.evaluator.offline import Launch

DATA = Path(__file__).parent / "data"

Problem = tuple[Hashable, ...]
"""The source, and what was to be computed. A search chooses between the rows of one problem."""


@dataclass(frozen=True)
class Source:
    """Where measurements were published, and how they were taken."""

    card: str
    """The target that stands for the card."""
    stated: str
    """The card as the source names it, or how it was inferred."""
    timing: str
    """``do_bench`` (cold L2, events around a call), ``graph`` (warm L2, a CUDA graph), ``proton`` (a kernel's own time,
    of inputs and outputs beyond L2) or ``events`` (warm L2, events around a call).
    """
    where: str

    @property
    def cold(self) -> bool:
        """Whether L2 does not have the inputs."""
        return self.timing in {"do_bench", "proton"}

    @property
    def graph(self) -> bool:
        """Whether the time leaves out what the host takes to launch."""
        return self.timing in {"graph", "proton"}


@dataclass(frozen=True)
class Row:
    """One measurement. What it launched is compiled when its work is asked for."""

    family: str
    source: Source
    problem: Problem
    label: str
    """The configuration, or the size where a problem has one configuration only."""
    measured_us: float
    launches: tuple[Launch, ...]
    least_bytes: int
    """Bytes of all inputs and outputs, each once."""


def held_out(family: str, problem: Problem, label: str) -> bool:
    """Return whether a row is in the half that no constant may be fitted to, chosen by hash.

    The source does not count, so that two measurements of the same thing are in one half.
    """
    return hashlib.sha256(f"{family} {problem[1:]} {label}".encode()).digest()[0] % 2 == 1


def table(name: str) -> list[dict[str, str]]:
    """Return the rows of a table in ``data/``."""
    with (DATA / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def sources() -> dict[str, Source]:
    """Return all sources by name."""
    return {row["source"]: Source(row["card"], row["stated"], row["timing"], row["where"]) for row in table("sources")}
