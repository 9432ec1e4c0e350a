"""Driving: which process drives a run, and what that process was asked to do."""

from datetime import datetime, timedelta

from sqlalchemy import Connection, select, update

from avo.lineage_db import queries
from avo.lineage_db.engine import Part, transactional
from avo.lineage_db.errors import RunHeld, RunNotDriven, RunStopping
from avo.lineage_db.records import Doing, Request, Run
from avo.lineage_db.rows import record
from avo.lineage_db.tables import runs

LEASE = timedelta(seconds=60)
"""How long the driver of a run or the worker of a step may stay silent before it counts as gone."""


class Driving(Part):
    """The leases on runs and the requests to their drivers."""

    @transactional(write=True)
    def take(
        self,
        connection: Connection,
        run_id: int,
        driver: str,
        *,
        now: datetime,
        lease: timedelta = LEASE,
        gone: str | None = None,
    ) -> None:
        """Make ``driver`` the run's driver; raises ``RunHeld`` while another drives it, and ``UnknownRun``.

        ``gone``: a driver that is known to have ended, whose lease does not count.
        """
        row = queries.lock_run(connection, run_id, now)
        if row.driver not in (None, driver, gone) and row.driver_until > now:
            raise RunHeld(row.name, row.driver, row.driver_until)
        # A driver that was killed left behind what it was doing.
        taken = {"driver": driver, "driver_until": now + lease, "request": Request.NONE, "doing": None}
        connection.execute(update(runs).where(runs.c.id == run_id).values(taken))

    @transactional(write=True, durable=False)
    def keep(
        self, connection: Connection, run_id: int, driver: str, *, now: datetime, lease: timedelta = LEASE
    ) -> bool:
        """Renew the driver's lease; False when another has become the run's driver."""
        kept = {"driver_until": now + lease, "changes": runs.c.changes + 1}  # readers show who is gone
        change = update(runs).where((runs.c.id == run_id) & (runs.c.driver == driver)).values(kept)
        return connection.execute(change.returning(runs.c.id)).one_or_none() is not None

    @transactional(write=True)
    def release(self, connection: Connection, run_id: int, driver: str, *, now: datetime) -> None:
        """Leave the run without a driver and drop what was asked of this one."""
        left = {"driver": None, "driver_until": None, "request": Request.NONE}
        change = update(runs).where((runs.c.id == run_id) & (runs.c.driver == driver))
        connection.execute(change.values(**left, updated=now, changes=runs.c.changes + 1))

    @transactional(write=True)
    def ask(self, connection: Connection, run_id: int, request: Request, *, now: datetime) -> Request:
        """Ask something of the process that drives the run, and return what is asked of it now.

        ``NONE`` takes back a pause. Raises ``RunNotDriven``, ``RunStopping`` where the run was asked to stop and
        ``request`` is no stop, and ``UnknownRun``.
        """
        queries.lock_run(connection, run_id, now)
        run = record(Run, connection.execute(select(runs).where(runs.c.id == run_id)).one())
        if not run.driven_at(now):
            raise RunNotDriven(run.name, run.state_at(now))
        stops = (Request.STOP, Request.STOP_NOW)
        if run.request in stops and request not in stops:
            raise RunStopping(run.name)
        if run.request is Request.STOP_NOW:
            return run.request
        connection.execute(update(runs).where(runs.c.id == run_id).values(request=request))
        return request

    @transactional(write=True, durable=False)
    def tell(self, connection: Connection, run_id: int, doing: Doing | None, *, now: datetime) -> None:
        """Say what the run's driver is doing, for displays; None while its workers work. Raises ``UnknownRun``."""
        queries.lock_run(connection, run_id, now, doing=doing and doing.to_json())

    @transactional()
    def request(self, connection: Connection, run_id: int) -> Request:
        """Return what is asked of the process that drives the run. Cheap: for that process, which polls."""
        return connection.scalar(select(runs.c.request).where(runs.c.id == run_id)) or Request.NONE
