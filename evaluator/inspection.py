"""Inspections: what an author may look at without a verdict. They do not count, and are not recorded."""

from dataclasses import dataclass
from enum import StrEnum

from avo.evaluator.evaluation import CaseResult, Evaluation, Fault, Resources, Score


class Look(StrEnum):
    """What to look at."""

    CHECK = "check"
    """Whether a candidate parses, lowers, compiles and fits, and is correct on one small case under the sanitiser."""
    SPEED = "speed"
    """How fast a candidate is predicted to be, and what its kernels need. Nothing is executed, so it may be wrong."""
    RANK = "rank"
    """The same with ``Score.neighbours``, by which versions are ranked; it takes several times as long."""
    SASS = "sass"
    """The machine code of the section that takes most time, and what its instructions wait for."""
    PTX = "ptx"
    TTGIR = "ttgir"
    """Triton GPU IR, after the target's passes."""
    IR = "ir"
    """The IR before one of the compiler's passes; by default before the one that fails."""
    SCORE = "score"
    """The verdict on another suite than the judge's own."""
    SCRIPT = "script"
    """What a Python script prints when it runs in the sandbox."""


class Show(StrEnum):
    """What a profile shows: its tables, its timeline, or code, which is a ``Look`` of the same name."""

    PIPES = "pipes"
    TIMELINE = "timeline"
    SASS = "sass"
    PTX = "ptx"
    TTGIR = "ttgir"
    IR = "ir"


@dataclass(frozen=True, slots=True)
class Inspection:
    """One look at a candidate or a script."""

    look: Look
    problem: str
    source: str
    """The source of the candidate, or the script."""
    suite: str | None = None
    """The suite to score on; None for the judge's own."""
    case: str | None = None
    """The benchmark case that code is compiled for; None for the first."""
    before: str | None = None
    """The pass that the IR is from, by its name or its number, from 1; None: the one that fails, else the list of all.
    """


@dataclass(frozen=True, slots=True)
class Findings:
    """What was seen, up to the first fault."""

    fault: Fault | None = None
    text: str = ""
    """Code, or what a script printed."""
    resources: tuple[Resources, ...] = ()
    """What each kernel that was compiled needs."""
    cases: tuple[CaseResult, ...] = ()
    evaluation: Evaluation | None = None
    """The verdict of ``Look.SCORE``."""
    score: Score | None = None
    """The prediction of ``Look.SPEED`` and ``Look.RANK``, also where the evaluator measures speed."""
    plan_digest: str | None = None
    """What identifies the launch plans that these saw, those for the benchmark cases."""
