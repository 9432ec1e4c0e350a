"""Turning rows of the database into records."""

from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from sqlalchemy import Row

from avo.evaluator.evaluation import Evaluation
from avo.lineage_db.decision import Decision
from avo.lineage_db.errors import IncompatibleDatabase
from avo.lineage_db.records import Attempt, AttemptSummary, Version

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

R = TypeVar("R", bound="DataclassInstance")
AnyRow: TypeAlias = Row[*tuple[Any, ...]]


def record(kind: type[R], row: AnyRow, **given: Any) -> R:
    """Return the record of a dataclass: ``given`` holds fields of it, ``row`` has a column for each of the others."""
    found = {name: getattr(row, name) for name in kind.__dataclass_fields__ if name not in given}
    return kind(**found, **given)


def to_decision(row: AnyRow) -> Decision | None:
    """Return the decision in ``row``, None where the outer join found none."""
    return None if row.ruling is None else record(Decision, row)


def to_summary(row: AnyRow) -> AttemptSummary:
    """Return the summary in ``row``."""
    return record(AttemptSummary, row, decision=to_decision(row))


def to_attempt(row: AnyRow) -> Attempt:
    """Return the attempt in ``row``; raise ``IncompatibleDatabase`` where its evaluation cannot be read."""
    try:
        evaluation = Evaluation.from_json(row.evaluation)
    except (KeyError, TypeError, ValueError) as error:
        raise IncompatibleDatabase(
            f"the evaluation of attempt {row.id} cannot be read ({error!r}): use the version of AVO that wrote it"
        ) from error
    return record(Attempt, row, evaluation=evaluation, decision=to_decision(row))


def to_version(row: AnyRow) -> Version:
    """Return the version in ``row``: its columns and its attempt's, with its own parents as ``version_parents``."""
    return record(Version, row, parents=row.version_parents, attempt=to_attempt(row))
