"""Inspections: what an author may look at without a verdict. Nothing of it counts, and nothing is recorded."""

from dataclasses import dataclass
from enum import StrEnum

from evaluator.evaluation import CaseResult, Evaluation, Fault, Resources


class Look(StrEnum):
    """What to look at."""

    CHECK = "check"
    """Whether it parses, lowers, compiles and fits, and survives one small case under the sanitiser."""
    SASS = "sass"
    """The machine code of the section that takes most time, with what its instructions wait for."""
    PTX = "ptx"
    TTGIR = "ttgir"
    """Triton GPU IR, after the target's passes."""
    SCORE = "score"
    """The verdict on another suite than the judge's own."""
    SCRIPT = "script"
    """What a Python script prints that runs where candidates do."""


@dataclass(frozen=True, slots=True)
class Inspection:
    """One look."""

    look: Look
    problem: str
    source: str
    """Of a candidate, or of a script."""
    suite: str | None = None
    """Of a score."""
    case: str | None = None
    """Of code: the benchmark case that it is compiled for; None: the first."""


@dataclass(frozen=True, slots=True)
class Findings:
    """What was seen. Of a faulty candidate, what was seen before the fault too."""

    fault: Fault | None = None
    text: str = ""
    """Code, or what a script printed."""
    resources: tuple[Resources, ...] = ()
    """Of each kernel that was checked."""
    cases: tuple[CaseResult, ...] = ()
    evaluation: Evaluation | None = None
    """Of a score."""
