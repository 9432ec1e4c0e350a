"""Published measurements as points: a measured time, and the launches it is of with their work counted."""

import csv
import hashlib
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path

from bench.measured.capture import Recorded
from evaluator.target import TARGETS
from evaluator.work import LaunchWork

DATA = Path(__file__).parent / "data"


@dataclass(frozen=True)
class Source:
    """Where measurements were published, and how they were taken."""

    card: str
    """The target that stands for the card."""
    stated: str
    """The card as the source names it, or how it was inferred."""
    timing: str
    where: str

    @property
    def cold(self) -> bool:
        """Whether L2 was emptied before each run."""
        return self.timing != "graph"

    @property
    def graph(self) -> bool:
        """Whether the launches were replayed as a CUDA graph."""
        return self.timing == "graph"


@dataclass(frozen=True)
class Row:
    """One measurement as recorded, before anything is compiled."""

    family: str
    source: Source
    problem: Hashable
    """What was to be computed: a search chooses between the rows of one problem."""
    label: str
    """The configuration, or the size where a problem has one configuration only."""
    measured_us: float
    launches: tuple[Recorded, ...]
    least_bytes: int
    """Bytes of all inputs and outputs, each once."""


@dataclass(frozen=True)
class Point:
    """One measurement with the work of the launches it is of."""

    family: str
    card: str
    problem: Hashable
    label: str
    measured_us: float
    cold: bool
    graph: bool
    launches: tuple[LaunchWork, ...]
    least_bytes: int
    recorded: tuple[Recorded, ...]
    """The same launches, to be counted again."""

    @property
    def held_out(self) -> bool:
        """Whether constants may not be fitted to it: half of the points, by hash."""
        text = f"{self.family} {self.problem} {self.label}"
        return hashlib.sha256(text.encode()).digest()[0] % 2 == 1


def point(row: Row) -> Point:
    """Compile and count what ``row`` launches. Raises ``ValueError`` if a kernel does not compile."""
    target = TARGETS[row.source.card]
    return Point(
        row.family,
        row.source.card,
        row.problem,
        row.label,
        row.measured_us,
        row.source.cold,
        row.source.graph,
        tuple(launch.work(target) for launch in row.launches),
        row.least_bytes,
        row.launches,
    )


def table(name: str) -> list[dict[str, str]]:
    """Return the rows of a table in ``data/``."""
    with (DATA / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def sources() -> dict[str, Source]:
    """Return all sources by name."""
    return {row["source"]: Source(row["card"], row["stated"], row["timing"], row["where"]) for row in table("sources")}
