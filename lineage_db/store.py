"""The store: the one door to a lineage database."""

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from types import TracebackType
from typing import Any, Self, TypeVar

from sqlalchemy import Connection, bindparam, func, insert, select
from sqlalchemy.exc import IntegrityError

from avo.lineage_db import queries
from avo.lineage_db.ablations import Ablations
from avo.lineage_db.claims import Claims
from avo.lineage_db.driving import Driving
from avo.lineage_db.ending import Ending
from avo.lineage_db.engine import Database, Part, transactional
from avo.lineage_db.errors import InvalidRun, RunExists
from avo.lineage_db.history import Histories
from avo.lineage_db.journal import Journal
from avo.lineage_db.measurements import Measurements
from avo.lineage_db.pages import Pages
from avo.lineage_db.records import Attempt, AttemptSummary, History, Run, RunState, RunSummary, Step, StepState, Version
from avo.lineage_db.results import Results
from avo.lineage_db.rows import record, to_attempt
from avo.lineage_db.tables import NAME_LENGTH, attempts, runs, steps, versions
from avo.lineage_db.upkeep import Upkeep

T = TypeVar("T")

_SEEDS = range(-(2**63), 2**63)

# What each attempt asks for is built once: to build a statement takes longer than to execute it.
_OF_PLAN = queries.WHOLE_ATTEMPTS.where(attempts.c.plan_digest == bindparam("digest"))


class Store(Part):
    """A lineage database: its runs and the reads of what they hold; the parts write what happens in a run.

    Every process opens its own.
    """

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self._histories = Histories()
        self.driving = Driving(database)
        self.claims = Claims(database)
        self.results = Results(database, self._histories)
        self.journal = Journal(database, self._histories)
        self.pages = Pages(database)
        self.measurements = Measurements(database)
        self.ablations = Ablations(database)
        self.upkeep = Upkeep(database)

    @classmethod
    def open(cls, url: str, *, create: bool = True) -> Self:
        """Open the database at ``url`` and bring its schema up to date; with ``create``, make it where it is missing.

        ``url`` is a file path, ``sqlite:///PATH`` or ``postgresql://USER:PASSWORD@HOST/NAME``. Raises
        ``DatabaseUnavailable`` or ``IncompatibleDatabase``.
        """
        return cls(Database(url, create=create))

    @classmethod
    def read(cls, url: str) -> Self:
        """Open the database at ``url`` to read it only; it may be on a disk or a server that allows no more.

        Raises like ``open``, and ``OlderDatabase`` for the schema of an older AVO.
        """
        return cls(Database(url, read_only=True))

    @property
    def url(self) -> str:
        """Where another process can open it: absolute, and with the password if it has one."""
        return self._database.url

    def close(self) -> None:
        """Close the connections."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def snapshot(self, read: Callable[[], T]) -> T:
        """Return what ``read`` returns; whatever it reads in this thread is as it was at one moment.

        It only reads. Where a server is lost before it returns, it is called again.
        """
        return self._database.snapshot(read)

    # Runs

    @transactional(write=True)
    def create_run(
        self,
        connection: Connection,
        *,
        name: str,
        problem: str,
        target: str,
        suite: str,
        operator: str,
        seed: int,
        config: Mapping[str, Any],
        now: datetime,
    ) -> Run:
        """Add a running run. ``config`` is plain data for JSON. Raises ``RunExists`` or ``InvalidRun``."""
        _check_name(name)
        if seed not in _SEEDS:
            raise InvalidRun(f"seed {seed} is too large: choose one of at most 63 bits")
        values = {
            "name": name,
            "problem": problem,
            "target": target,
            "suite": suite,
            "operator": operator,
            "seed": seed,
            "config": dict(config),
            "state": RunState.RUNNING,
            "created": now,
            "updated": now,
            "changes": 0,
            "comparisons": 0,
        }
        try:
            return record(Run, connection.execute(insert(runs).values(values).returning(*runs.c)).one())
        except IntegrityError:
            raise RunExists(name) from None

    @transactional()
    def free_run_name(self, connection: Connection, stem: str) -> str:
        """Return ``stem``, or the first of ``stem-2``, ``stem-3``, ... that no run has. Raises ``InvalidRun``."""
        taken = set(connection.scalars(select(runs.c.name)))
        name, count = stem, 1
        while name in taken:
            count += 1
            name = f"{stem}-{count}"
        _check_name(name)
        return name

    @transactional()
    def run(self, connection: Connection, name: str) -> Run:
        """Return the run called ``name``; raises ``UnknownRun``."""
        row = connection.execute(select(runs).where(runs.c.name == name)).one_or_none()
        if row is None:
            raise queries.unknown_run(connection, name)
        return record(Run, row)

    @transactional()
    def runs(self, connection: Connection) -> list[RunSummary]:
        """Return all runs, newest first."""
        tried = select(attempts.c.run_id, func.count().label("attempts")).group_by(attempts.c.run_id).subquery()
        first = func.max(attempts.c.geomean_tflops).filter(versions.c.parents == ())
        accepted = (
            select(versions.c.run_id, func.count().label("versions"), first.label("seed_geomean"))
            .join_from(versions, attempts)
            .group_by(versions.c.run_id)
            .subquery()
        )
        best = (
            select(attempts.c.geomean_tflops)
            .join_from(versions, attempts)
            .where(versions.c.run_id == runs.c.id, versions.c.champion)
            .order_by(versions.c.number.desc())
            .limit(1)
            .scalar_subquery()
        )
        query = (
            select(
                *runs.c,
                func.coalesce(tried.c.attempts, 0).label("attempts"),
                func.coalesce(accepted.c.versions, 0).label("versions"),
                best.label("best_geomean"),
                accepted.c.seed_geomean,
            )
            .outerjoin_from(runs, tried, tried.c.run_id == runs.c.id)
            .outerjoin(accepted, accepted.c.run_id == runs.c.id)
            .order_by(runs.c.id.desc())
        )
        return [record(RunSummary, row, run=record(Run, row)) for row in connection.execute(query)]

    @transactional(write=True)
    def set_run_state(
        self,
        connection: Connection,
        run_id: int,
        state: RunState,
        *,
        now: datetime,
        config: Mapping[str, Any] | None = None,
        ended_by: Ending | None = None,
    ) -> Run:
        """Set the state, why the run ended and, where given, the whole configuration; raises ``UnknownRun``.

        Whatever the run's driver was doing ends with that.
        """
        values: dict[str, Any] = {"ended_by": ended_by and ended_by.to_json()}
        values |= {} if config is None else {"config": dict(config)}
        return record(Run, queries.lock_run(connection, run_id, now, state=state, doing=None, **values))

    @transactional()
    def revision(self, connection: Connection, run_id: int) -> tuple[int, int]:
        """Return (last attempt id or 0, number of writes so far): it differs after every write to the run or in it.

        Cheap: for readers that poll. Raises ``UnknownRun``.
        """
        last = select(func.coalesce(func.max(attempts.c.id), 0)).where(attempts.c.run_id == runs.c.id)
        query = select(last.scalar_subquery().label("last"), runs.c.changes).where(runs.c.id == run_id)
        row = connection.execute(query).one_or_none()
        if row is None:
            raise queries.unknown_run(connection, run_id)
        return row.last, row.changes

    # Steps

    @transactional()
    def steps(self, connection: Connection, run_id: int, *, after: int = -1) -> list[Step]:
        """Return the run's steps with numbers larger than ``after``, by number."""
        query = select(steps).where(steps.c.run_id == run_id, steps.c.number > after).order_by(steps.c.number)
        return [record(Step, row) for row in connection.execute(query)]

    @transactional()
    def steps_before(self, connection: Connection, step: Step, *, limit: int) -> list[Step]:
        """Return the last ``limit`` steps before ``step`` that were not abandoned, by number."""
        if not limit:
            return []
        query = select(steps).where(
            steps.c.run_id == step.run_id,
            steps.c.number < step.number,
            steps.c.state != StepState.ABANDONED,
        )
        rows = connection.execute(query.order_by(steps.c.number.desc()).limit(limit))
        return [record(Step, row) for row in rows][::-1]

    @transactional()
    def step_before(self, connection: Connection, step: Step) -> Step | None:
        """Return the step that the worker of ``step`` performed before it; None where that is its first."""
        before = (steps.c.run_id == step.run_id) & (steps.c.worker == step.worker) & (steps.c.number < step.number)
        row = connection.execute(select(steps).where(before).order_by(steps.c.number.desc()).limit(1)).one_or_none()
        return None if row is None else record(Step, row)

    @transactional()
    def count_ended_steps(
        self, connection: Connection, run_id: int, *, but_of: str, first: int = 0, before: int | None = None
    ) -> int:
        """Return how many steps of the run are done or failed, without those of the operator ``but_of``.

        Only steps from number ``first`` on and below ``before`` count. The cost grows with how many these are.
        """
        ended = steps.c.state.in_((StepState.DONE, StepState.FAILED))
        query = select(func.count()).where(
            steps.c.run_id == run_id, steps.c.number >= first, ended, steps.c.operator != but_of
        )
        if before is not None:
            query = query.where(steps.c.number < before)
        return connection.scalar(query) or 0

    @transactional()
    def step(self, connection: Connection, run_id: int, number: int) -> Step | None:
        """Return one step of the run; None where it has no such step."""
        query = select(steps).where((steps.c.run_id == run_id) & (steps.c.number == number))
        row = connection.execute(query).one_or_none()
        return None if row is None else record(Step, row)

    # Attempts and versions

    @transactional()
    def attempt_summaries(self, connection: Connection, run_id: int, *, after: int = 0) -> list[AttemptSummary]:
        """Return the run's attempts with ids larger than ``after``, oldest first."""
        return queries.summaries_after(connection, run_id, after)

    @transactional()
    def attempt(self, connection: Connection, run_id: int, attempt_id: int) -> Attempt:
        """Return one attempt of the run; raises ``UnknownAttempt``."""
        return queries.attempt(connection, run_id, attempt_id)

    @transactional()
    def attempts(self, connection: Connection, run_id: int) -> list[Attempt]:
        """Return the run's attempts with their sources, oldest first."""
        rows = connection.execute(queries.WHOLE_ATTEMPTS.order_by(attempts.c.id), {"run_key": run_id})
        return [to_attempt(row) for row in rows]

    @transactional()
    def attempts_of_plan(self, connection: Connection, run_id: int, plan_digest: str) -> list[Attempt]:
        """Return the run's attempts that lower to the launch plans with this digest, oldest first."""
        rows = connection.execute(_OF_PLAN, {"run_key": run_id, "digest": plan_digest})
        return sorted(map(to_attempt, rows), key=lambda attempt: attempt.id)

    @transactional()
    def count_attempts(self, connection: Connection, run_id: int, *, after: int = 0) -> tuple[int, int]:
        """Return how many attempts with ids larger than ``after`` the run has, and the last one's id, or ``after``."""
        ids = attempts.c.id
        query = select(func.count(), func.max(ids)).where((attempts.c.run_id == run_id) & (ids > after))
        count, last = connection.execute(query).one()
        return count, last or after

    @transactional()
    def history(self, connection: Connection, run_id: int) -> History:
        """Return the run's versions, attempts and looks; a store that is asked again reads only what is new."""
        return self._histories.read(connection, run_id)

    @transactional()
    def versions(self, connection: Connection, run_id: int, *, after: int = -1) -> list[Version]:
        """Return the run's versions with numbers larger than ``after`` and their attempts, oldest first."""
        return list(self._histories.versions(connection, run_id)[after + 1 :])

    @transactional()
    def version(self, connection: Connection, run_id: int, number: int | None = None) -> Version:
        """Return one version, by default the best, the latest champion; raises ``UnknownVersion``."""
        return queries.version(connection, run_id, number)

    @transactional()
    def start(self, connection: Connection, run_id: int) -> Version | None:
        """Return the version that the run starts from, the best of its seeds; None where it has no version."""
        return queries.start(connection, run_id)


def _check_name(name: str) -> None:
    if len(name) > NAME_LENGTH or not re.fullmatch(r"[A-Za-z0-9._-]+", name):
        raise InvalidRun(f"run name {name!r} is not valid: use 1 to {NAME_LENGTH} letters, digits, dots, '-' or '_'")
