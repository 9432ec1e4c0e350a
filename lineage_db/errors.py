"""Errors of the lineage database. ``str()`` of each is one line that says what to do.

StoreError
+-- DatabaseUnavailable    no such database, it cannot be reached or written, or it is held by another process
|   +-- DatabaseInterrupted    its server went away; it may come back
+-- IncompatibleDatabase   not a lineage database, or one of a newer version
|   +-- OlderDatabase      of an older version, and only to be read
+-- InvalidRun             a run name or seed that cannot be stored
+-- RunExists              the run name is taken
+-- RunHeld                another process drives the run
+-- RunNotDriven           no process drives the run, so there is none to ask
+-- RunStopping            the run was asked to stop, which cannot be taken back
+-- UnknownRun             no run has this name or id
+-- UnknownVersion         the run has no such version
+-- UnknownAttempt         the run has no such attempt
+-- StepNotRunning         the step is finished, abandoned or unknown: nothing more can be written to it
+-- AttemptsSpent          as many attempts are made or under way as the run may make
+-- AlreadyRecorded        the run has an attempt of the candidate
+-- ForeignEvaluation      an evaluation of another problem, target or suite than the run's
+-- ForeignMeasurement     a measurement of kernels that are not the run's
+-- BadMemory              a file that holds no directions of a run
+-- NothingMeasured        no kernel of the run ran right on a card like its target
"""

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from avo.lineage_db.records import Attempt


class StoreError(Exception):
    """Base of every error this package raises on purpose."""


class DatabaseUnavailable(StoreError):
    """The database is missing, unreachable, unwritable or locked."""


class DatabaseInterrupted(DatabaseUnavailable):
    """The server went away in the middle of a transaction; nothing of that was kept."""


class IncompatibleDatabase(StoreError):
    """The file or server holds something this version of AVO cannot read."""


class OlderDatabase(IncompatibleDatabase):
    """An older version of AVO wrote it, and it was opened to be read only, so that it was not brought up to date."""


class InvalidRun(StoreError, ValueError):
    """A run name or seed that cannot be stored."""


class RunExists(StoreError):
    """A run of this name exists already."""

    def __init__(self, name: str) -> None:
        super().__init__(f"a run named {name!r} exists already: resume it, or choose another name")


class RunHeld(StoreError):
    """Another process drives the run, or did until a moment ago."""

    def __init__(self, name: str, driver: str, until: datetime) -> None:
        """``until``: when the driver's lease ends unless it is renewed."""
        super().__init__(f"run {name!r} is being worked on by another process ({driver}): stop that one first")
        self.driver = driver
        self.until = until


class RunNotDriven(StoreError):
    """No process drives the run, so nothing can be asked of it."""

    def __init__(self, name: str, state: str) -> None:
        super().__init__(f"run {name!r} is {state} and no process works on it: continue it with avo resume {name}")


class RunStopping(StoreError):
    """The run was asked to stop."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"run {name!r} was asked to stop: wait until it has stopped, then continue it with avo resume {name}"
        )


class UnknownRun(StoreError):
    """No run has this name or id."""

    def __init__(self, wanted: str | int, known: Sequence[str]) -> None:
        """``known``: some run names, newest first."""
        label = f"run {wanted!r}" if isinstance(wanted, str) else f"run with id {wanted}"
        advice = f"choose one of {', '.join(known)}" if known else "the database holds none yet, start one with avo run"
        super().__init__(f"no {label}: {advice}")


class UnknownVersion(StoreError):
    """The run has no version of this number."""

    def __init__(self, number: int | None, count: int) -> None:
        """``number``: None where any version would do. ``count``: versions the run has."""
        if count == 0:
            message = "the run has no versions yet: avo status RUN says how far it is"
        else:
            message = f"no version {number}: choose one from 0 to {count - 1}"
        super().__init__(message)


class UnknownAttempt(StoreError):
    """The run has no attempt of this id."""

    def __init__(self, attempt_id: int) -> None:
        super().__init__(f"the run has no attempt {attempt_id}: avo attempts lists those it has")


class StepNotRunning(StoreError):
    """Nothing more can be written to this step."""

    def __init__(self, step_id: int, state: str | None) -> None:
        """``state``: None where there is no such step."""
        what = "does not exist" if state is None else f"is {state}, not running"
        super().__init__(f"step with id {step_id} {what}: claim a new step")


class AttemptsSpent(StoreError):
    """The run may not make another attempt, unless one that is under way comes to nothing."""

    def __init__(self, under_way: int) -> None:
        super().__init__(f"no evaluations are left: the run has reached --max-attempts ({under_way} under way)")


class AlreadyRecorded(StoreError):
    """The run has an ``attempt`` of the candidate."""

    def __init__(self, attempt: "Attempt") -> None:
        super().__init__(f"the candidate is attempt {attempt.id} of the run already: evaluate another")
        self.attempt = attempt


class ForeignEvaluation(StoreError):
    """The evaluation must not be compared with the run's others."""

    def __init__(self, what: str, got: str, expected: str) -> None:
        super().__init__(
            f"an evaluation of {what} {got!r} does not belong in a run of {what} {expected!r}: evaluate for that one"
        )


class ForeignMeasurement(StoreError):
    """A measurement is of kernels that the run does not have."""

    def __init__(self, run: str, why: str) -> None:
        super().__init__(f"{why}: it was measured for another run called {run!r}")


class BadMemory(StoreError):
    """A file holds no directions that a run could take over."""


class NothingMeasured(StoreError):
    """No kernel of the run was measured that a card like its target runs right."""

    def __init__(self, run: str, target: str, cards: Sequence[str]) -> None:
        """``cards``: on which something was measured, or tried."""
        known = f"only something on {', '.join(cards)}" if cards else "nothing"
        super().__init__(
            f"{known} was measured of {run!r}, no right kernel on a card like {target}: run what avo shortlist {run} "
            "writes on one, and take in what it finds with avo ingest"
        )
