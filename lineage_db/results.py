"""Results: what comes of a running step, its attempts and the version that it may add to the lineage."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, insert, update

from avo.evaluator.candidate import Candidate
from avo.evaluator.evaluation import Comparison, Evaluation
from avo.lineage_db import queries
from avo.lineage_db.decision import Decision, Ruling, ending, final
from avo.lineage_db.engine import Database, Part, transactional
from avo.lineage_db.errors import AlreadyRecorded, ForeignEvaluation
from avo.lineage_db.history import Histories
from avo.lineage_db.looked import Looked
from avo.lineage_db.records import Attempt, StepState, Submission, Version
from avo.lineage_db.tables import attempts, decisions, hypotheses, looks, origins, runs, steps, versions

# What each attempt asks for is built once: to build a statement takes longer than to execute it.
_ADD_ATTEMPT = insert(attempts)
_FINISH_STEP = (
    update(steps)
    .where(steps.c.id == bindparam("step_key"))
    .values(state=StepState.DONE, finished=bindparam("moment"), reason=bindparam("why"), grown=bindparam("count"))
)


class Results(Part):
    """Attempts and versions as they are made. Each method but ``record_examination`` raises ``StepNotRunning`` once the
    step has ended.
    """

    def __init__(self, database: Database, histories: Histories) -> None:
        super().__init__(database)
        self._histories = histories

    @transactional(write=True)
    def number_comparison(self, connection: Connection, step_id: int, *, now: datetime) -> int:
        """Return the number, from 1, of the run's next comparison of measured speeds; no two callers get the same."""
        run, _ = queries.lock_running_step(connection, step_id, now)
        number: int = run.comparisons + 1
        connection.execute(update(runs).where(runs.c.id == run.id).values(comparisons=number))
        return number

    @transactional(write=True)
    def record_attempt(
        self,
        connection: Connection,
        *,
        step_id: int,
        candidate: Candidate,
        change: str,
        parents: tuple[int, ...],
        evaluation: Evaluation,
        started: datetime,
        finished: datetime,
        hypothesis: str = "",
        decision: Decision | None = None,
        built_on: int | None = None,
        once: bool = False,
    ) -> Attempt:
        """Add an attempt to a running step; ``parents`` are numbers of versions the run has.

        ``decision`` is what acceptance says of a correct attempt now, ``built_on`` the id of an earlier attempt: see
        ``Attempt``.

        Raises ``StepNotRunning``, ``UnknownVersion``, with ``once`` ``AlreadyRecorded`` where the run has the
        candidate, or ``ForeignEvaluation`` where candidate or evaluation are for another problem, target or suite.
        """
        run, step = queries.lock_running_step(connection, step_id, finished)
        for what, got, expected in (
            ("problem", candidate.problem, run.problem),
            ("target", evaluation.target, run.target),
            ("suite", evaluation.suite, run.suite),
        ):
            if got != expected:
                raise ForeignEvaluation(what, got, expected)
        if once and (known := queries.known_attempt(connection, run.id, candidate.digest)) is not None:
            if (known.step_id, known.started) == (step.id, started):
                return known  # the connection was lost after this was recorded, and it is recorded again
            raise AlreadyRecorded(known)
        if parents:
            queries.check_parents(parents, queries.count_versions(connection, run.id))
        kept = {
            "run_id": run.id,
            "step_id": step.id,
            "digest": candidate.digest,
            "source": candidate.source,
            "change": change,
            "parents": parents,
            "started": started,
            "finished": finished,
        }
        found = {
            "plan_digest": evaluation.plan_digest,
            "status": evaluation.status,
            "message": evaluation.message,
            "geomean_tflops": evaluation.geomean_tflops,
            "seconds": evaluation.seconds,
            "evaluation": evaluation.to_json(),
        }
        made = queries.next_attempt(connection, run.id)
        connection.execute(_ADD_ATTEMPT, {"id": made, **kept, **found})
        queries.evaluated(connection, step.id, candidate.digest)
        key = {"run_id": run.id, "attempt_id": made}
        if hypothesis:
            connection.execute(insert(hypotheses).values(**key, text=hypothesis))
        if decision is not None:
            connection.execute(insert(decisions).values(**key, **asdict(decision)))
        if built_on is not None:
            connection.execute(insert(origins).values(**key, built_on=built_on))
        said = Attempt(id=made, **kept, evaluation=evaluation, hypothesis=hypothesis)
        return replace(said, decision=decision, built_on=built_on)

    @transactional(write=True)
    def record_looks(self, connection: Connection, step_id: int, seen: Sequence[Looked], *, now: datetime) -> int:
        """Add what a running step has looked at; return how many of these the run had not looked at before.

        Only those are recorded and counted. Ids, step numbers and times of ``seen`` do not matter. Raises
        ``StepNotRunning``.
        """
        run, step = queries.lock_running_step(connection, step_id, now)
        known = {look.digest for look in self._histories.looks(connection, run.id)}
        new = {look.digest: look for look in seen if look.digest not in known}
        if new:
            kept = {"run_id": run.id, "step_id": step.id, "made": now}
            rows = [{**_look(look), **kept} for look in new.values()]
            connection.execute(insert(looks), rows)
            for table, key in ((runs, run.id), (steps, step.id)):
                connection.execute(update(table).where(table.c.id == key).values(looks=table.c.looks + len(new)))
        return len(new)

    def record_comparison(self, step_id: int, attempt_id: int, comparison: Comparison, *, now: datetime) -> Attempt:
        """Replace the comparison of a correct attempt, and return the attempt.

        Raises ``StepNotRunning`` or ``UnknownAttempt``.
        """

        def compared(evaluation: Evaluation) -> Evaluation:
            if evaluation.score is None:
                raise ValueError("only a correct attempt can be compared")
            return replace(evaluation, score=replace(evaluation.score, comparison=comparison))

        return self._amend(step_id, attempt_id, compared, now, running=True)

    def record_examination(
        self,
        step_id: int,
        attempt_id: int,
        found: Evaluation,
        held_out_tflops: float | None,
        decision: Decision | None = None,
        *,
        now: datetime,
    ) -> Attempt:
        """Record what a closer look at a correct attempt ``found``, with the ``decision`` if it is refused for that,
        and return the attempt. The step may have ended: an examination may outlive it.

        ``held_out_tflops`` is its speed on the held-out shapes, where it was timed there. Raises ``UnknownAttempt``.
        """

        def examined(evaluation: Evaluation) -> Evaluation:
            score = evaluation.score
            if score is not None and found.score is not None:
                score = replace(score, neighbours=found.score.neighbours)
            looked = replace(
                evaluation, examined=found.status, held_out_tflops=held_out_tflops, compiled=found.compiled
            )
            return replace(looked, score=score)

        return self._amend(step_id, attempt_id, examined, now, decision)

    @transactional(write=True)
    def _amend(
        self,
        connection: Connection,
        step_id: int,
        attempt_id: int,
        amended: Callable[[Evaluation], Evaluation],
        now: datetime,
        decision: Decision | None = None,
        *,
        running: bool = False,
    ) -> Attempt:
        """Replace the evaluation of an attempt, and its decision by ``decision`` if there is one. ``running``: only
        while the step is.
        """
        if running:
            run, _ = queries.lock_running_step(connection, step_id, now)
        else:
            run = queries.lock_run_of_step(connection, step_id, now)
        attempt = queries.attempt(connection, run.id, attempt_id)
        attempt = replace(attempt, evaluation=amended(attempt.evaluation), decision=decision or attempt.decision)
        if decision is not None:
            queries.decide(connection, run.id, attempt_id, decision)
        values = {"evaluation": attempt.evaluation.to_json(), "geomean_tflops": attempt.evaluation.geomean_tflops}
        key = (attempts.c.run_id == run.id, attempts.c.id == attempt.id)
        connection.execute(update(attempts).where(*key).values(values))
        return attempt

    def conclude(
        self,
        step_id: int,
        *,
        attempt_id: int | None,
        parents: tuple[int, ...],
        reason: str,
        now: datetime,
        decide: Callable[[Sequence[Version], Attempt], Decision | None],
        submission: Submission | None = None,
        niche: Callable[[Attempt], str] = lambda attempt: "",
        before: Sequence[int] = (),
    ) -> Version | None:
        """Finish a running step with its ``submission``, record the decision on its attempt, and add a version if that
        is accepted. The same is done first with each of the attempts ``before``: all become versions, or none.

        ``niche`` says where in the population the attempt lives if it is accepted.

        The decision is what ``decide(versions, attempt)`` returns, None for a faulty attempt, or an earlier one that
        stands: see ``final``. The sentence of a refusal is added to the ``reason`` of the step.

        No other writer gets in between the reading of ``versions`` (oldest first) and the writing of the new one, so
        ``decide`` must be quick and must not use the store; its exceptions undo everything and are passed on. It is not
        called for an attempt that is a version already. Returns the last new version, if any.
        Raises ``StepNotRunning``, ``UnknownAttempt`` or ``UnknownVersion`` (in ``parents``).
        """
        version = self._conclude(step_id, attempt_id, parents, reason, now, decide, submission, niche, before)
        if version is not None:
            self._make_durable(version.run_id, now)
        return version

    @transactional(write=True, durable=False)
    def _conclude(
        self,
        connection: Connection,
        step_id: int,
        attempt_id: int | None,
        parents: tuple[int, ...],
        reason: str,
        now: datetime,
        decide: Callable[[Sequence[Version], Attempt], Decision | None],
        submission: Submission | None,
        niche: Callable[[Attempt], str],
        before: Sequence[int],
    ) -> Version | None:
        """Finish the step without waiting for the disk: a step that was not finished is repeated to the same end."""
        run, step = queries.lock_running_step(connection, step_id, now)
        lineage = list(self._histories.versions(connection, run.id))
        queries.check_parents(parents, len(lineage))
        grown, known = len(lineage), {version.attempt.id for version in lineage}
        submitted = [*before, *(() if attempt_id is None else (attempt_id,))]
        for each in submitted:
            if each in known:
                continue
            attempt = queries.attempt(connection, run.id, each)
            decision = final(attempt.decision, decide(lineage, attempt))
            reason = ending(reason, decision)
            if decision is None:
                continue
            if decision != attempt.decision:
                queries.decide(connection, run.id, attempt.id, decision)
            if decision.ruling is not Ruling.ACCEPTED:
                continue
            attempt = replace(attempt, decision=decision)
            place = niche(attempt)
            ahead = (version.attempt.evaluation.geomean_tflops for version in lineage if place and version.champion)
            champion = attempt.evaluation.geomean_tflops > max(ahead, default=0.0)
            made = Version(run.id, len(lineage), parents, now, attempt, place, champion, step.number)
            if submission is not None and each == attempt_id:
                made = replace(made, whole_change=submission.change, seen=submission.seen)
            lineage.append(made)
        for version in lineage[grown:]:
            connection.execute(
                insert(versions).values(
                    run_id=run.id,
                    number=version.number,
                    attempt_id=version.attempt.id,
                    parents=parents,
                    accepted=now,
                    niche=version.niche,
                    champion=version.champion,
                    step=step.number,
                    whole_change=version.whole_change,
                    seen=version.seen,
                )
            )
        finish = {"step_key": step.id, "moment": now, "why": reason, "count": grown}
        connection.execute(_FINISH_STEP, finish)
        if submission is not None:
            connection.execute(update(steps).where(steps.c.id == step.id).values(submission=asdict(submission)))
        queries.close_step(connection, run.id, step, submitted)
        return lineage[-1] if len(lineage) > grown else None

    @transactional(write=True)
    def _make_durable(self, connection: Connection, run_id: int, now: datetime) -> None:
        """Wait until all that was committed is on the disk, as with every durable write."""
        connection.execute(update(runs).where(runs.c.id == run_id).values(updated=now))


def _look(look: Looked) -> dict[str, Any]:
    fields = ("digest", "plan_digest", "fault", "geomean_tflops", "doubt", "change", "parents", "critical")
    return {name: getattr(look, name) for name in fields}
