"""The store: everything that is written to and read from a lineage database."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Self

from sqlalchemy import ColumnElement, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from evaluator.candidate import Candidate
from evaluator.evaluation import Comparison, Evaluation, Status
from lineage_db import queries
from lineage_db.engine import Database, persistent
from lineage_db.errors import ForeignEvaluation, InvalidRun, RunExists, RunHeld, RunNotDriven, RunStopping
from lineage_db.history import Histories
from lineage_db.journal import Journal
from lineage_db.pages import Pages
from lineage_db.records import (
    Attempt,
    History,
    Request,
    Run,
    RunState,
    RunSummary,
    Selection,
    Step,
    StepState,
    Submission,
    Trial,
    Version,
)
from lineage_db.rows import to_run, to_step
from lineage_db.tables import NAME_LENGTH, attempts, hypotheses, runs, steps, versions

LEASE = timedelta(seconds=60)
"""How long who drives a run or performs a step may say nothing before it counts as gone."""
_SEEDS = range(-(2**63), 2**63)


class Store:
    """A lineage database. Threads may share one; every process opens its own.

    Each method is one transaction, done again where a server was lost in the middle of it. Raises ``StoreError`` only,
    and ``ValueError`` for a time without time zone.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._histories = Histories()

    @classmethod
    def open(cls, url: str, *, create: bool = True) -> Self:
        """Open the database at ``url`` and bring its schema up to date; with ``create``, make it where it is missing.

        ``url`` is a file path, ``sqlite:///PATH`` or ``postgresql://USER:PASSWORD@HOST/NAME``. Raises
        ``DatabaseUnavailable`` or ``IncompatibleDatabase``.
        """
        return cls(Database(url, create=create))

    @property
    def url(self) -> str:
        """Where another process can open it: absolute, and with the password if it has one."""
        return self._database.url

    @property
    def journal(self) -> Journal:
        """What operators and the supervisor write down beside attempts."""
        return Journal(self._database, self._histories)

    @property
    def pages(self) -> Pages:
        """The same piece by piece, for those who look at a long run."""
        return Pages(self._database)

    def close(self) -> None:
        """Close the connections."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Runs

    @persistent
    def create_run(
        self,
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
            "state": RunState.RUNNING.value,
            "created": now,
            "updated": now,
            "changes": 0,
            "comparisons": 0,
        }
        with self._database.transaction(write=True) as connection:
            try:
                row = connection.execute(insert(runs).values(values).returning(*runs.c)).one()
            except IntegrityError:
                raise RunExists(name) from None
        return to_run(row)

    @persistent
    def free_run_name(self, stem: str) -> str:
        """Return ``stem``, or the first of ``stem-2``, ``stem-3``, ... that no run has. Raises ``InvalidRun``."""
        with self._database.transaction() as connection:
            taken = set(connection.scalars(select(runs.c.name)))
        name, count = stem, 1
        while name in taken:
            count += 1
            name = f"{stem}-{count}"
        _check_name(name)
        return name

    @persistent
    def run(self, name: str) -> Run:
        """Return the run called ``name``; raises ``UnknownRun``."""
        with self._database.transaction() as connection:
            row = connection.execute(select(runs).where(runs.c.name == name)).one_or_none()
            if row is None:
                raise queries.unknown_run(connection, name)
        return to_run(row)

    @persistent
    def runs(self) -> list[RunSummary]:
        """Return all runs, newest first."""
        with self._database.transaction() as connection:
            return queries.summaries(connection)

    @persistent
    def set_run_state(
        self, run_id: int, state: RunState, *, now: datetime, config: Mapping[str, Any] | None = None
    ) -> Run:
        """Set the state and, where given, the whole configuration; raises ``UnknownRun``."""
        values: dict[str, Any] = {"state": state.value}
        if config is not None:
            values["config"] = dict(config)
        with self._database.transaction(write=True) as connection:
            return to_run(queries.lock_run(connection, run_id, now, **values))

    @persistent
    def take_run(
        self, run_id: int, driver: str, *, now: datetime, lease: timedelta = LEASE, gone: str | None = None
    ) -> None:
        """Become the run's driver, as ``driver``; raises ``RunHeld`` while another is, and ``UnknownRun``.

        ``gone``: a driver that is known to have ended, whose lease does not count.
        """
        with self._database.transaction(write=True) as connection:
            row = queries.lock_run(connection, run_id, now)
            if row.driver not in (None, driver, gone) and row.driver_until > now:
                raise RunHeld(row.name, row.driver, row.driver_until)
            taken = {"driver": driver, "driver_until": now + lease, "request": Request.NONE.value}
            connection.execute(update(runs).where(runs.c.id == run_id).values(taken))

    @persistent
    def keep_run(self, run_id: int, driver: str, *, now: datetime, lease: timedelta = LEASE) -> bool:
        """Stay the run's driver for longer; False when another has become it."""
        kept = {"driver_until": now + lease, "changes": runs.c.changes + 1}  # readers show who is gone
        change = update(runs).where((runs.c.id == run_id) & (runs.c.driver == driver)).values(kept)
        with self._database.transaction(write=True, durable=False) as connection:
            return connection.execute(change.returning(runs.c.id)).one_or_none() is not None

    @persistent
    def release_run(self, run_id: int, driver: str, *, now: datetime) -> None:
        """Be the run's driver no more; nothing is asked of it any longer."""
        left = {"driver": None, "driver_until": None, "request": Request.NONE.value}
        change = update(runs).where((runs.c.id == run_id) & (runs.c.driver == driver))
        with self._database.transaction(write=True) as connection:
            connection.execute(change.values(**left, updated=now, changes=runs.c.changes + 1))

    @persistent
    def ask(self, run_id: int, request: Request, *, now: datetime) -> Request:
        """Ask something of the process that drives the run, and return what is asked of it now.

        ``NONE`` takes back a pause. Raises ``RunNotDriven``, ``RunStopping`` where it was asked to stop and this is no
        stop, and ``UnknownRun``.
        """
        with self._database.transaction(write=True) as connection:
            queries.lock_run(connection, run_id, now)
            run = to_run(connection.execute(select(runs).where(runs.c.id == run_id)).one())
            if not run.driven_at(now):
                raise RunNotDriven(run.name, run.state_at(now))
            stops = (Request.STOP, Request.STOP_NOW)
            if run.request in stops and request not in stops:
                raise RunStopping(run.name)
            if run.request is Request.STOP_NOW:
                return run.request
            connection.execute(update(runs).where(runs.c.id == run_id).values(request=request.value))
            return request

    @persistent
    def request(self, run_id: int) -> Request:
        """Return what is asked of the process that drives the run. Cheap: for that process, which polls."""
        with self._database.transaction() as connection:
            return Request(connection.scalar(select(runs.c.request).where(runs.c.id == run_id)) or "")

    @persistent
    def revision(self, run_id: int) -> tuple[int, int]:
        """Return (last attempt id or 0, number of writes so far): it differs after every write to the run or in it.

        Cheap: for readers that poll. Raises ``UnknownRun``.
        """
        last = select(func.coalesce(func.max(attempts.c.id), 0)).where(attempts.c.run_id == runs.c.id)
        query = select(last.scalar_subquery().label("last"), runs.c.changes).where(runs.c.id == run_id)
        with self._database.transaction() as connection:
            row = connection.execute(query).one_or_none()
            if row is None:
                raise queries.unknown_run(connection, run_id)
        return row.last, row.changes

    # Steps

    @persistent
    def claim_step(self, run_id: int, *, worker: str, operator: str, now: datetime, lease: timedelta = LEASE) -> Step:
        """Start the run's next step, numbered from 0; no two callers get the same.

        The claim ends with ``lease`` unless ``keep_step`` renews it. The step does over one that was abandoned, where
        there is one of this operator that was not taken up again yet: see ``Step.redoes``. Raises ``UnknownRun``.
        """
        with self._database.transaction(write=True, durable=not self._database.embedded) as connection:
            queries.lock_run(connection, run_id, now)
            values = {
                "run_id": run_id,
                "worker": worker,
                "operator": operator,
                "state": StepState.RUNNING.value,
                "started": now,
                "reason": "",
                "lease_until": now + lease,
                **queries.claim(connection, run_id, worker, operator),
            }
            return queries.add_step(connection, values)

    @persistent
    def select(self, step_id: int, selection: Selection, *, now: datetime) -> None:
        """Keep what a running step works on; raises ``StepNotRunning``."""
        with self._database.transaction(write=True) as connection:
            queries.lock_running_step(connection, step_id, now)
            connection.execute(update(steps).where(steps.c.id == step_id).values(selection=asdict(selection)))

    @persistent
    def keep_step(self, step_id: int, *, now: datetime, lease: timedelta = LEASE) -> bool:
        """Renew the claim of a running step; False when the step has ended."""
        running = (steps.c.id == step_id) & (steps.c.state == StepState.RUNNING.value)
        change = update(steps).where(running).values(lease_until=now + lease)
        with self._database.transaction(write=True, durable=False) as connection:
            return connection.execute(change.returning(steps.c.id)).one_or_none() is not None

    @persistent
    def announce(self, step_id: int, digest: str, *, now: datetime) -> bool:
        """Say that a running step is about to evaluate a candidate; False when another running step, whose lease
        lasts, said so before.

        Raises ``StepNotRunning``.
        """
        with self._database.transaction(write=True, durable=False) as connection:
            run, step = queries.lock_running_step(connection, step_id, now)
            return queries.announce(connection, run.id, step.id, digest, now)

    @persistent
    def number_comparison(self, step_id: int, *, now: datetime) -> int:
        """Return the number, from 1, of the run's next comparison of measured speeds; no two callers get the same.

        Raises ``StepNotRunning``.
        """
        with self._database.transaction(write=True) as connection:
            run, _ = queries.lock_running_step(connection, step_id, now)
            number: int = run.comparisons + 1
            connection.execute(update(runs).where(runs.c.id == run.id).values(comparisons=number))
            return number

    @persistent
    def record_attempt(
        self,
        *,
        step_id: int,
        candidate: Candidate,
        change: str,
        parents: tuple[int, ...],
        evaluation: Evaluation,
        started: datetime,
        finished: datetime,
        hypothesis: str = "",
    ) -> Attempt:
        """Add an attempt to a running step; ``parents`` are numbers of versions the run has.

        Raises ``StepNotRunning``, ``UnknownVersion``, or ``ForeignEvaluation`` where candidate or evaluation are for
        another problem, target or suite than the run.
        """
        with self._database.transaction(write=True) as connection:
            run, step = queries.lock_running_step(connection, step_id, finished)
            for what, got, expected in (
                ("problem", candidate.problem, run.problem),
                ("target", evaluation.target, run.target),
                ("suite", evaluation.suite, run.suite),
            ):
                if got != expected:
                    raise ForeignEvaluation(what, got, expected)
            if parents:
                queries.check_parents(parents, queries.count_versions(connection, run.id))
            values = {
                "run_id": run.id,
                "step_id": step.id,
                "digest": candidate.digest,
                "plan_digest": evaluation.plan_digest,
                "status": evaluation.status.value,
                "message": evaluation.message,
                "geomean_tflops": evaluation.geomean_tflops,
                "seconds": evaluation.seconds,
                "change": change,
                "parents": parents,
                "started": started,
                "finished": finished,
                "evaluation": evaluation.to_json(),
                "source": candidate.source,
            }
            made = queries.add_attempt(connection, values)
            if hypothesis:
                connection.execute(insert(hypotheses).values(attempt_id=made, text=hypothesis))
        return Attempt(
            id=made,
            run_id=run.id,
            step_id=step.id,
            digest=candidate.digest,
            source=candidate.source,
            change=change,
            parents=parents,
            evaluation=evaluation,
            started=started,
            finished=finished,
            hypothesis=hypothesis,
        )

    @persistent
    def record_comparison(self, step_id: int, attempt_id: int, comparison: Comparison, *, now: datetime) -> Attempt:
        """Put ``comparison`` in place of the one that a correct attempt has, and return the attempt.

        Raises ``StepNotRunning`` or ``UnknownAttempt``.
        """

        def compared(evaluation: Evaluation) -> Evaluation:
            if evaluation.score is None:
                raise ValueError("only a correct attempt can be compared")
            return replace(evaluation, score=replace(evaluation.score, comparison=comparison))

        return self._amend(step_id, attempt_id, compared, now)

    @persistent
    def record_examination(
        self, step_id: int, attempt_id: int, found: Status, held_out_tflops: float | None, *, now: datetime
    ) -> Attempt:
        """Write down what came of a closer look at a correct attempt, and how fast it is on the shapes that are held
        out, where it was timed there; return it.

        Raises ``StepNotRunning`` or ``UnknownAttempt``.
        """

        def examined(evaluation: Evaluation) -> Evaluation:
            return replace(evaluation, examined=found, held_out_tflops=held_out_tflops)

        return self._amend(step_id, attempt_id, examined, now)

    def _amend(
        self, step_id: int, attempt_id: int, amended: Callable[[Evaluation], Evaluation], now: datetime
    ) -> Attempt:
        with self._database.transaction(write=True) as connection:
            run, _ = queries.lock_running_step(connection, step_id, now)
            attempt = queries.attempt(connection, run.id, attempt_id)
            attempt = replace(attempt, evaluation=amended(attempt.evaluation))
            values = {"evaluation": attempt.evaluation.to_json()}
            connection.execute(update(attempts).where(attempts.c.id == attempt.id).values(values))
            return attempt

    def conclude_step(
        self,
        step_id: int,
        *,
        attempt_id: int | None,
        parents: tuple[int, ...],
        reason: str,
        now: datetime,
        decide: Callable[[Sequence[Version], Attempt], bool],
        submission: Submission | None = None,
        niche: Callable[[Attempt], str] = lambda attempt: "",
    ) -> Version | None:
        """Finish a running step with its ``submission``, and add a version if ``decide(versions, attempt)`` says so.

        ``niche`` says where in the population the attempt lives if it is accepted.

        Between the reading of ``versions`` (oldest first) and the writing of the new one no other writer gets in, so
        ``decide`` must be quick and leave the store alone; its exceptions come through and undo everything. It is not
        asked without ``attempt_id``, or when that attempt is a version already. Returns the new version, if any.
        Raises ``StepNotRunning``, ``UnknownAttempt`` or ``UnknownVersion`` (in ``parents``).
        """
        version = self._conclude(step_id, attempt_id, parents, reason, now, decide, submission, niche)
        if version is not None:
            self._make_durable(version.run_id, now)
        return version

    @persistent
    def _conclude(
        self,
        step_id: int,
        attempt_id: int | None,
        parents: tuple[int, ...],
        reason: str,
        now: datetime,
        decide: Callable[[Sequence[Version], Attempt], bool],
        submission: Submission | None,
        niche: Callable[[Attempt], str],
    ) -> Version | None:
        """Finish the step without waiting for the disk: a step that was not finished is done over to the same end."""
        with self._database.transaction(write=True, durable=False) as connection:
            run, step = queries.lock_running_step(connection, step_id, now)
            lineage = self._histories.versions(connection, run.id)
            queries.check_parents(parents, len(lineage))
            queries.conclude(connection, step.id, reason, now)
            if submission is not None:
                kept = update(steps).where(steps.c.id == step.id).values(submission=asdict(submission))
                connection.execute(kept)
            if attempt_id is None:
                return None
            attempt = queries.attempt(connection, run.id, attempt_id)
            if any(version.attempt.id == attempt.id for version in lineage) or not decide(lineage, attempt):
                return None
            place = niche(attempt)
            ahead = (version.attempt.evaluation.geomean_tflops for version in lineage if place and version.champion)
            champion = attempt.evaluation.geomean_tflops > max(ahead, default=0.0)
            version = Version(run.id, len(lineage), parents, now, attempt, place, champion, step.number)
            connection.execute(
                insert(versions).values(
                    run_id=run.id,
                    number=version.number,
                    attempt_id=attempt.id,
                    parents=parents,
                    accepted=now,
                    niche=place,
                    champion=champion,
                    step=step.number,
                )
            )
            return version

    @persistent
    def _make_durable(self, run_id: int, now: datetime) -> None:
        """Wait until all that was committed is on the disk, as with every durable write."""
        with self._database.transaction(write=True) as connection:
            connection.execute(update(runs).where(runs.c.id == run_id).values(updated=now))

    @persistent
    def fail_step(self, step_id: int, *, state: StepState, reason: str, now: datetime) -> Step:
        """End a running step as ``FAILED`` or ``ABANDONED``; raises ``StepNotRunning``."""
        if state not in (StepState.FAILED, StepState.ABANDONED):
            raise ValueError(f"a step cannot fail as {state}")
        with self._database.transaction(write=True) as connection:
            queries.lock_running_step(connection, step_id, now)
            return queries.finish_step(connection, steps.c.id == step_id, state, reason, now)[0]

    @persistent
    def abandon_running_steps(
        self, run_id: int, *, reason: str, now: datetime, worker: str | None = None, workers: str = ""
    ) -> int:
        """Abandon every running step of the run, and return how many.

        Only those of ``worker``, where it is given, and of workers whose names begin with ``workers``. Raises
        ``UnknownRun``.
        """
        which = _running(run_id) & steps.c.worker.startswith(workers, autoescape=True)
        if worker is not None:
            which &= steps.c.worker == worker
        with self._database.transaction(write=True) as connection:
            queries.lock_run(connection, run_id, now)
            return len(queries.finish_step(connection, which, StepState.ABANDONED, reason, now))

    @persistent
    def abandon_expired_steps(self, run_id: int, *, reason: str, now: datetime, workers: str = "") -> list[Step]:
        """Abandon the running steps whose claim ended before ``now``, and return them.

        Only those of workers whose names begin with ``workers``.
        """
        of_them = steps.c.worker.startswith(workers, autoescape=True)
        expired = _running(run_id) & (steps.c.lease_until < now) & of_them
        with self._database.transaction() as connection:
            if connection.scalar(select(steps.c.id).where(expired).limit(1)) is None:
                return []
        with self._database.transaction(write=True) as connection:
            queries.lock_run(connection, run_id, now)
            return queries.finish_step(connection, expired, StepState.ABANDONED, reason, now)

    @persistent
    def steps(self, run_id: int, *, after: int = -1) -> list[Step]:
        """Return the run's steps with numbers larger than ``after``, by number."""
        with self._database.transaction() as connection:
            return queries.steps(connection, run_id, after)

    @persistent
    def steps_before(self, step: Step, *, limit: int) -> list[Step]:
        """Return the last ``limit`` steps before ``step`` that were not abandoned, by number."""
        if not limit:
            return []
        query = select(steps).where(
            steps.c.run_id == step.run_id,
            steps.c.number < step.number,
            steps.c.state != StepState.ABANDONED.value,
        )
        with self._database.transaction() as connection:
            rows = connection.execute(query.order_by(steps.c.number.desc()).limit(limit))
            return [to_step(row) for row in rows][::-1]

    @persistent
    def count_ended_steps(self, run_id: int, *, but_of: str) -> int:
        """Return how many steps of the run are done or failed, but for those of the operator ``but_of``."""
        ended = steps.c.state.in_((StepState.DONE.value, StepState.FAILED.value))
        query = select(func.count()).where(steps.c.run_id == run_id, ended, steps.c.operator != but_of)
        with self._database.transaction() as connection:
            return connection.scalar(query) or 0

    @persistent
    def step(self, run_id: int, number: int) -> Step | None:
        """Return one step of the run; None where it has no such step."""
        query = select(steps).where((steps.c.run_id == run_id) & (steps.c.number == number))
        with self._database.transaction() as connection:
            row = connection.execute(query).one_or_none()
            return None if row is None else to_step(row)

    # Attempts and versions

    @persistent
    def trials(self, run_id: int, *, after: int = 0) -> list[Trial]:
        """Return the run's attempts with ids larger than ``after``, without sources, oldest first."""
        with self._database.transaction() as connection:
            return queries.trials(connection, run_id, after)

    @persistent
    def attempt(self, run_id: int, attempt_id: int) -> Attempt:
        """Return one attempt of the run; raises ``UnknownAttempt``."""
        with self._database.transaction() as connection:
            return queries.attempt(connection, run_id, attempt_id)

    @persistent
    def attempts(self, run_id: int) -> list[Attempt]:
        """Return the run's attempts with their sources, oldest first."""
        with self._database.transaction() as connection:
            return queries.attempts(connection, run_id)

    @persistent
    def known_attempt(self, run_id: int, digest: str) -> Attempt | None:
        """Return the run's latest attempt of the candidate with this digest; None where it has none."""
        with self._database.transaction() as connection:
            return queries.known_attempt(connection, run_id, digest)

    @persistent
    def attempts_of_plan(self, run_id: int, plan_digest: str) -> list[Attempt]:
        """Return the run's attempts that lower to the launch plans with this digest, oldest first."""
        with self._database.transaction() as connection:
            return queries.attempts_of_plan(connection, run_id, plan_digest)

    @persistent
    def count_attempts(self, run_id: int, *, after: int = 0) -> tuple[int, int]:
        """Return how many attempts with ids larger than ``after`` the run has, and the last one's id, or ``after``."""
        ids = attempts.c.id
        query = select(func.count(), func.max(ids)).where((attempts.c.run_id == run_id) & (ids > after))
        with self._database.transaction() as connection:
            count, last = connection.execute(query).one()
            return count, last or after

    @persistent
    def history(self, run_id: int) -> History:
        """Return the run's versions and trials; a store that is asked again reads only what is new."""
        with self._database.transaction() as connection:
            return self._histories.read(connection, run_id)

    @persistent
    def versions(self, run_id: int, *, after: int = -1) -> list[Version]:
        """Return the run's versions with numbers larger than ``after`` and their attempts, oldest first."""
        with self._database.transaction() as connection:
            return list(self._histories.versions(connection, run_id)[after + 1 :])

    @persistent
    def version(self, run_id: int, number: int | None = None) -> Version:
        """Return one version, by default the best, the latest champion; raises ``UnknownVersion``."""
        with self._database.transaction() as connection:
            return queries.version(connection, run_id, number)


def _running(run_id: int) -> ColumnElement[bool]:
    return (steps.c.run_id == run_id) & (steps.c.state == StepState.RUNNING.value)


def _check_name(name: str) -> None:
    if len(name) > NAME_LENGTH or not re.fullmatch(r"[A-Za-z0-9._-]+", name):
        raise InvalidRun(f"run name {name!r} is not valid: use 1 to {NAME_LENGTH} letters, digits, dots, '-' or '_'")
