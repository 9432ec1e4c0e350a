"""Turning rows of the tables into records."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Row

from evaluator.evaluation import Evaluation, Status
from lineage_db.errors import IncompatibleDatabase
from lineage_db.records import (
    Attempt,
    Call,
    Intervention,
    Memory,
    Message,
    Request,
    Run,
    RunState,
    Selection,
    Step,
    StepState,
    Submission,
    Trial,
    Version,
)


def to_run(row: Row[*tuple[Any, ...]]) -> Run:
    """``row`` has the columns of ``runs``."""
    return Run(
        id=row.id,
        name=row.name,
        problem=row.problem,
        target=row.target,
        suite=row.suite,
        operator=row.operator,
        seed=row.seed,
        config=row.config,
        state=RunState(row.state),
        created=row.created,
        updated=row.updated,
        driver=row.driver,
        driver_until=row.driver_until,
        request=Request(row.request),
    )


def to_step(row: Row[*tuple[Any, ...]]) -> Step:
    """``row`` has the columns of ``steps``."""
    return Step(
        id=row.id,
        run_id=row.run_id,
        number=row.number,
        worker=row.worker,
        operator=row.operator,
        state=StepState(row.state),
        digest=row.digest,
        started=row.started,
        finished=row.finished,
        reason=row.reason,
        submission=None if row.submission is None else Submission(**row.submission),
        selection=None if row.selection is None else to_selection(row.selection),
        lease_until=row.lease_until,
        turn=row.turn,
        redoes=row.redoes,
    )


def to_selection(data: Mapping[str, Any]) -> Selection:
    """``data`` is what the column ``selection`` holds."""
    return Selection(**{**data, "shown": tuple(data["shown"])})


def to_attempt(row: Row[*tuple[Any, ...]], hypothesis: str | None) -> Attempt:
    """``row`` has the columns of ``attempts``; raise ``IncompatibleDatabase`` where its evaluation cannot be read."""
    try:
        evaluation = Evaluation.from_json(row.evaluation)
    except (KeyError, TypeError, ValueError) as error:
        raise IncompatibleDatabase(
            f"the evaluation of attempt {row.id} cannot be read ({error!r}): open it with the AVO that wrote it"
        ) from error
    return Attempt(
        id=row.id,
        run_id=row.run_id,
        step_id=row.step_id,
        digest=row.digest,
        source=row.source,
        change=row.change,
        parents=tuple(row.parents),
        evaluation=evaluation,
        started=row.started,
        finished=row.finished,
        hypothesis=hypothesis or "",
    )


def to_version(row: Row[*tuple[Any, ...]]) -> Version:
    """``row`` has the columns of ``attempts``, ``hypothesis``, and of ``versions``, parents as ``version_parents``."""
    return Version(
        run_id=row.run_id,
        number=row.number,
        parents=tuple(row.version_parents),
        accepted=row.accepted,
        attempt=to_attempt(row, row.hypothesis),
        niche=row.niche,
        champion=row.champion,
        step_number=row.step,
    )


def to_trial(row: Row[*tuple[Any, ...]]) -> Trial:
    """``row`` has the short columns of ``attempts``, ``hypothesis``, ``step_number`` and ``version``."""
    return Trial(
        attempt_id=row.id,
        step_number=row.step_number,
        digest=row.digest,
        plan_digest=row.plan_digest,
        status=Status(row.status),
        geomean_tflops=row.geomean_tflops,
        message=row.message,
        change=row.change,
        parents=tuple(row.parents),
        version=row.version,
        seconds=row.seconds,
        hypothesis=row.hypothesis or "",
    )


def to_message(row: Row[*tuple[Any, ...]]) -> Message:
    """``row`` has the columns of ``messages``."""
    return Message(row.step_id, row.number, row.kind, row.content, row.written)


def to_call(row: Row[*tuple[Any, ...]]) -> Call:
    """``row`` has the columns of ``calls``."""
    return Call(**row._mapping)


def to_memory(row: Row[*tuple[Any, ...]]) -> Memory:
    """``row`` has the columns of ``memories`` and ``step_number``."""
    return Memory(row.id, row.run_id, row.step_number, row.text, row.written)


def to_intervention(row: Row[*tuple[Any, ...]]) -> Intervention:
    """``row`` has the columns of ``interventions``."""
    return Intervention(**{**row._mapping, "directions": tuple(row.directions)})
