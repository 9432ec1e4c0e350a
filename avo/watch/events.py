"""Events: what happened in a run, in order, read from its database, so that none is lost with a process."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from avo.evaluator.target import score_kind
from avo.lineage_db.entries import Intervention
from avo.lineage_db.records import Accepted, AttemptSummary, FailedCall, Run, RunState, Step, StepState
from avo.lineage_db.store import Store
from avo.watch.digest import Digest
from avo.watch.scores import unit_for
from avo.watch.wording import ending, first_line, goes_on, headline, looked


class EventKind(StrEnum):
    """What happened. Events of the same moment and step are ordered as here."""

    RUN = "run"
    """The run was created, or its state changed."""
    STEP_STARTED = "step_started"
    CALL_FAILED = "call_failed"
    """A model gave no reply."""
    ATTEMPT = "attempt"
    REFUSED = "refused"
    """An attempt that would have been accepted when it was told is no version, now that its step has ended. That a
    later step submits it in vain is told with the end of that step.
    """
    VERSION = "version"
    STEP_ENDED = "step_ended"
    SUPERVISOR = "supervisor"
    DIGEST = "digest"
    """What the run did in a day, told while it goes on; its text has several lines. No later reading tells it again."""
    FAILURE = "failure"
    """The process that drives the run failed; only that process knows."""


_ENDED = (RunState.STOPPED, RunState.FINISHED, RunState.INTERRUPTED)
_ORDER = {kind: place for place, kind in enumerate(EventKind)}


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened."""

    kind: EventKind
    time: datetime
    run: str
    text: str
    """The event in words, on one line."""
    step: int | None = None
    """Number of the step in which it happened; None for an event of the whole run."""
    attempt: int | None = None
    """Id of the attempt that it is about, if there is one."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """Everything else that is known, as plain data."""

    def to_json(self) -> dict[str, Any]:
        """Return the event as data for JSON, its time in ISO format."""
        return {
            "time": self.time.astimezone(UTC).isoformat(),
            "event": self.kind,
            "run": self.run,
            "step": self.step,
            "attempt": self.attempt,
            **self.data,
        }


@dataclass(frozen=True, slots=True)
class _Read:
    """What of a run has been read: up to which ids and numbers."""

    created: datetime | None = None
    """When the run was created; None before the first reading."""
    revision: tuple[int, int] = (0, 0)
    state: RunState | None = None
    attempt: int = 0
    step: int = -1
    version: int = -1
    call: int = 0
    intervention: int = 0
    running: frozenset[int] = frozenset()
    """Numbers of the steps whose end has not been read."""
    waiting: tuple[int, ...] = ()
    """Ids of attempts that were acceptable when they were read."""


class EventReader:
    """Reads the events of one run, each once. The cost of a call depends on how many are new.

    Earlier states of the run are not recorded: the first call returns its creation and its present state. If the
    database was replaced by one with another run of this name, that is read from its creation on.
    """

    def __init__(self, run_name: str) -> None:
        self._name = run_name
        self._read = _Read()

    @property
    def over(self) -> bool:
        """Whether nobody works on the run, as of the last reading."""
        return self._read.state not in (None, RunState.RUNNING, RunState.PAUSED)

    def skip(self, store: Store, now: datetime) -> None:
        """Skip everything that has happened so far."""
        self._read = store.snapshot(lambda: _so_far(store, self._name, now))

    def read(self, store: Store, now: datetime) -> list[Event]:
        """Return what has happened since the last call, in order.

        Raises the store's errors; the next call then returns what this one would have.
        """
        events, self._read = store.snapshot(lambda: _news(store, self._name, now, self._read))
        return events


def _so_far(store: Store, run_name: str, now: datetime) -> _Read:
    """Return that all that has happened so far is read."""
    run = store.run(run_name)
    revision = store.revision(run.id)
    _, last_call = store.pages.failed_calls(run.id, after=2**31 - 1)
    return _Read(
        run.created,
        revision,
        run.state_at(now),
        attempt=revision[0],
        step=store.pages.begun(run.id) - 1,
        version=max((version.number for version in store.pages.accepted(run.id, last=1)), default=-1),
        call=last_call,
        intervention=max((made.id for made in store.journal.interventions(run.id, last=1)), default=0),
        running=frozenset(step.number for step in store.pages.running(run.id)),
        waiting=store.pages.acceptable(run.id),
    )


def _news(store: Store, run_name: str, now: datetime, read: _Read) -> tuple[list[Event], _Read]:
    """Return what has happened since ``read``, and what is read with it."""
    run = store.run(run_name)
    known = read.created == run.created
    if not known:
        read = _Read()
    revision, state = store.revision(run.id), run.state_at(now)
    if known and revision == read.revision and state is read.state:
        return [], read
    begun = store.steps(run.id, after=read.step)
    ended = store.pages.ended(run.id, read.running) if read.running else []
    failed, last_call = store.pages.failed_calls(run.id, after=read.call)
    judged = store.attempt_summaries(run.id, after=read.attempt)
    accepted = store.pages.accepted(run.id, after=read.version)
    told = store.journal.interventions(run.id, after=read.intervention)
    ended += [step for step in begun if step.state is not StepState.RUNNING]
    refused = store.pages.refused(run.id, read.waiting) if read.waiting else []
    # The end of a step decides about the attempts of one that it repeats, too.
    ends = {number: step.finished for step in ended for number in (step.number, step.redoes)}
    events = [
        *([] if known else [_run_event(run, run.created, "created")]),
        *(_started(run, step) for step in begun),
        *(_call_failed(run, call) for call in failed),
        *(_attempt(run, attempt) for attempt in judged),
        *(_refused(run, each, ends.get(each.step_number) or now) for each in refused),
        *(_accepted(run, version) for version in accepted),
        *(_ended(run, step) for step in ended),
        *(_told(run, intervention) for intervention in told),
    ]
    events.sort(key=_place)
    if state is not read.state:
        events.append(_run_event(run, run.updated if state is run.state else now, state))
    return events, _Read(
        run.created,
        revision,
        state,
        attempt=judged[-1].attempt_id if judged else read.attempt,
        step=begun[-1].number if begun else read.step,
        version=accepted[-1].number if accepted else read.version,
        call=last_call,
        intervention=max((made.id for made in told), default=read.intervention),
        running=(read.running | {step.number for step in begun}) - {step.number for step in ended},
        waiting=store.pages.acceptable(run.id),
    )


def _place(event: Event) -> tuple[datetime, float, int]:
    """Return the key that orders events: by time, at the same time by step, and within a step by kind."""
    step = event.step if event.step is not None else -1 if event.kind is EventKind.RUN else math.inf
    return event.time, step, _ORDER[event.kind]


def failure(run: str, reason: str, now: datetime) -> Event:
    """Return the event that the run failed for ``reason``."""
    return Event(EventKind.FAILURE, now, run, f"run {run} failed: {first_line(reason)}", data={"reason": reason})


def digest(found: Digest) -> Event:
    """Return the event that tells what a run did in a day."""
    return Event(EventKind.DIGEST, found.now, found.view.run.name, str(found), data=found.to_json())


def _run_event(run: Run, time: datetime, state: str) -> Event:
    data: dict[str, Any] = {"state": state}
    if state in _ENDED:
        data["ended_by"] = run.ended_by.to_json() if run.ended_by else None
        data["goes_on"] = goes_on(run, RunState(state)) or None
    why = ending(run, RunState(state)) if state in _ENDED else ""
    return Event(EventKind.RUN, time, run.name, f"run {run.name}: {state}{why}", data=data)


def _started(run: Run, step: Step) -> Event:
    again = "" if step.redoes is None else f", repeats step {step.redoes}"
    return Event(
        EventKind.STEP_STARTED,
        step.started,
        run.name,
        f"step {step.number} started by {step.worker}, {step.operator}{again}",
        step=step.number,
        data={"worker": step.worker, "operator": step.operator, "redoes": step.redoes},
    )


def _ended(run: Run, step: Step) -> Event:
    reason = first_line(step.reason)
    return Event(
        EventKind.STEP_ENDED,
        step.finished or step.started,
        run.name,
        f"step {step.number} {step.state}{looked(step.looks)}{f': {reason}' if reason else ''}",
        step=step.number,
        data={"worker": step.worker, "state": step.state, "reason": step.reason, "looks": step.looks},
    )


def _attempt(run: Run, attempt: AttemptSummary) -> Event:
    kind = score_kind(run.target)
    decision = attempt.decision
    why = f"; {decision.told}" if decision and decision.refused else ""
    speed = attempt.geomean_tflops
    found = unit_for(run).said(speed, kind) if speed else first_line(attempt.message)
    return Event(
        EventKind.ATTEMPT,
        attempt.finished,
        run.name,
        f"attempt {attempt.attempt_id} {attempt.status.words}: {found} [{first_line(attempt.change)}]{why}",
        step=attempt.step_number,
        attempt=attempt.attempt_id,
        data={
            "status": attempt.status,
            "geomean_tflops": attempt.geomean_tflops or None,
            "score_kind": kind,
            "target": run.target,
            "message": attempt.message,
            "change": attempt.change,
            "ruling": attempt.ruling,
            "decision": decision.sentence if decision else None,
        },
    )


def _refused(run: Run, attempt: AttemptSummary, time: datetime) -> Event:
    """Return the event that an attempt was refused after it was told."""
    decision = attempt.decision
    return Event(
        EventKind.REFUSED,
        time,
        run.name,
        f"attempt {attempt.attempt_id} {decision.told if decision else 'not accepted'}",
        step=attempt.step_number,
        attempt=attempt.attempt_id,
        data={"ruling": attempt.ruling, "decision": decision.sentence if decision else None},
    )


def _accepted(run: Run, version: Accepted) -> Event:
    kind = score_kind(run.target)
    best = ", the best so far" if version.champion else ""
    return Event(
        EventKind.VERSION,
        version.accepted,
        run.name,
        f"version {version.number} accepted: {unit_for(run).said(version.geomean_tflops, kind)}{best} "
        f"[{headline(version.change)}]",
        step=version.step_number,
        attempt=version.attempt_id,
        data={
            "version": version.number,
            "parents": list(version.parents),
            "geomean_tflops": version.geomean_tflops,
            "score_kind": kind,
            "target": run.target,
            "best": version.champion,
            "change": version.change,
        },
    )


def _call_failed(run: Run, call: FailedCall) -> Event:
    return Event(
        EventKind.CALL_FAILED,
        call.finished,
        run.name,
        f"model {call.model} gave no reply: {first_line(call.error)}",
        step=call.step_number,
        data={"model": call.model, "error": call.error},
    )


def _told(run: Run, made: Intervention) -> Event:
    return Event(
        EventKind.SUPERVISOR,
        made.made,
        run.name,
        f"supervisor, {made.level}: {first_line(made.reason)}",
        data={
            "level": made.level,
            "after_step": made.after_step,
            "reason": made.reason,
            "directions": list(made.directions),
            "restart_from": made.restart_from,
        },
    )
