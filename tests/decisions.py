"""Decisions of tests that need one and not its reason."""

from avo.lineage_db.decision import Decision, Ruling
from avo.lineage_db.records import Attempt

ACCEPTED = Decision(Ruling.ACCEPTED, "the test wants it")
REFUSED = Decision(Ruling.NO_GAIN, "the test does not want it")


def accept(versions: object, attempt: Attempt) -> Decision | None:
    """Accept every correct attempt."""
    return decided(attempt, True)


def refuse(versions: object, attempt: Attempt) -> Decision | None:
    """Refuse every attempt."""
    return decided(attempt, False)


def never(versions: object, attempt: Attempt) -> Decision | None:
    """Fail the test: nothing is to be decided."""
    raise AssertionError("decide must not be asked")


def decided(attempt: Attempt, accepted: bool) -> Decision | None:
    """Return the decision on ``attempt``, None where it is faulty."""
    return (ACCEPTED if accepted else REFUSED) if attempt.evaluation.correct else None
