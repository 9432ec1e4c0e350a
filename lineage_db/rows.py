"""Turning rows of the tables into records."""

from typing import Any

from sqlalchemy import Row

from evaluator.evaluation import Evaluation, Status
from lineage_db.errors import IncompatibleDatabase
from lineage_db.records import Attempt, Run, RunState, Step, StepState, Trial, Version


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
    )


def to_attempt(row: Row[*tuple[Any, ...]]) -> Attempt:
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
    )


def to_version(row: Row[*tuple[Any, ...]]) -> Version:
    """``row`` has the columns of ``attempts``, ``number``, ``accepted`` and ``version_parents``."""
    return Version(
        run_id=row.run_id,
        number=row.number,
        parents=tuple(row.version_parents),
        accepted=row.accepted,
        attempt=to_attempt(row),
    )


def to_trial(row: Row[*tuple[Any, ...]]) -> Trial:
    """``row`` has the short columns of ``attempts``, ``step_number`` and ``version``."""
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
    )
