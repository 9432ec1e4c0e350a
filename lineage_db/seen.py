"""What a step was shown and answered. With its random seed that is all that an operator goes by: see ``avo replay``.

An operator that learns of more while it works needs a record of that too, or its runs cannot be replayed.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Seen:
    """How far the record of a run went when a step was given its brief. Rows are only added, in the order of ids."""

    versions: int
    """Number of versions."""
    attempts: int
    """Id of the last attempt; 0: none."""
    memories: int
    """Id of the last note; 0: none."""
    interventions: tuple[int, ...] = ()
    """Ids of the supervisor's interventions that the step was told."""
    unresolved: tuple[int, ...] = ()
    """Ids of the unresolved attempts that the step was offered to build on. Some may have become versions since."""
    examined: tuple[int, ...] | None = None
    """Ids of the attempts that it was shown as refused after a closer look; None: not recorded."""
    hidden: int | None = None
    """Number of the step whose attempts and looks it was not shown, because it repeats that step."""
    looks: int = 0
    """Id of the last look; 0: none."""
    minutes: float | None = None
    """Minutes that were left of the step or of the session, whichever were fewer; None: no limit."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a step was told about a candidate that it asked for and did not evaluate itself."""

    step_number: int
    digest: str
    attempt_id: int | None
    """The recorded attempt that it was given; None where there is none: see ``spent``."""
    spent: bool = False
    """Whether the run could make no more attempts; otherwise another step was just evaluating the candidate."""
