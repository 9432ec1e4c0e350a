"""The current state of a run, from which every display of it starts.

Reading it costs the same however long the run is: a refresh reads what is new and a fixed number of recent rows. The
first reading also counts the run's attempts and steps and looks through the unresolved attempts, in an index.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from avo.agents.bandit import MOST_STEPS, ModelShare, shares
from avo.agents.operator import SEED_OPERATOR
from avo.agents.settings import ModelSettings
from avo.evaluator.evaluation import Status
from avo.evaluator.target import ScoreKind
from avo.evaluator.units import Unit
from avo.limits import STEPS, Account, accounts
from avo.lineage_db.ablated import Ablation
from avo.lineage_db.entries import Intervention, Spend
from avo.lineage_db.measurements import Measured
from avo.lineage_db.records import Accepted, AttemptSummary, Doing, Run, RunState, Step, Version
from avo.lineage_db.spans import covered
from avo.lineage_db.store import Store
from avo.model_time import owner_words
from avo.watch.headline import headline
from avo.watch.scores import geomean, published, score_to_json, scored, unit_for, width
from avo.watch.wording import goes_on

WINDOW = timedelta(minutes=10)
"""Time over which the rates by verdict are averaged, unless more than ``_LATEST`` attempts were made in it."""
_LATEST = 1000
"""Most attempts from which the rates are averaged."""
_TURNED_DOWN, _AMONG = 3, 50
"""Number of attempts in ``RunView.turned_down``, and of the last attempts among which they are looked for."""
_STEPS = 200
"""Number of the last steps from which the attempts per minute are calculated."""
_AT_WORK = (RunState.RUNNING, RunState.PAUSED)
"""The states of a run that somebody works on."""
_RECENT = 4
"""Number of versions in ``RunView.recent``."""


@dataclass(frozen=True, slots=True)
class StepProgress:
    """A step, how many attempts it has made, and what its calls of models cost."""

    step: Step
    tried: int
    spend: Spend


@dataclass(frozen=True, slots=True)
class RunView:
    """A run at one revision of its database."""

    run: Run
    state: RunState
    """The state at the time of the reading, which may be interrupted or paused."""
    revision: tuple[int, int]
    """What ``Store.revision`` returned: the id of the last attempt, and the number of writes."""
    counts: Mapping[Status, int]
    """Number of attempts by verdict, the most frequent first."""
    ahead: tuple[float, ...]
    """Predicted TFLOPS of the unresolved attempts that are faster than ``best`` in the mean, oldest first."""
    turned_down: tuple[AttemptSummary, ...]
    """The last attempts that were faulty or refused, newest first."""
    steps: int
    """Number of steps begun."""
    ended: int
    """Number of steps that count against the run's limit on steps; 0 where it has none."""
    settled: tuple[int, int]
    """A number of steps from the first on that have all ended, and how many of them count against that limit: they need
    not be counted again.
    """
    latest: tuple[tuple[datetime, Status], ...]
    """Finishing times and verdicts of the last attempts, newest first."""
    attempts_per_minute: float | None
    """Attempts per minute in the time that the last steps took; None before the first step has ended, and without
    ``latest``.

    Pauses between resumes and abandoned steps do not count.
    """
    working: tuple[StepProgress, ...]
    """The steps that are running, by worker; empty where nobody works on the run."""
    spend: Spend
    """What all calls of models cost."""
    trouble: str
    """The model of the last call and why it gave no reply; empty if it gave one."""
    seed: Version | None
    """The version that the run started from, the best of its seeds, once they are judged."""
    best: Version | None
    """The last champion, which was better than all versions before it when it was accepted."""
    recent: tuple[Accepted, ...]
    """The last versions, oldest first."""
    intervention: Intervention | None
    """The supervisor's last intervention."""
    models: tuple[ModelShare, ...]
    """What each of several models gained and cost, and its share of the steps to come; empty where there is one."""
    measured: Mapping[int, Measured]
    """What cards measured of the run's kernels, by attempt, the measurement that tells: empty before any."""
    ablation: Ablation | None
    """What the edits of the best version are worth, where that was found out."""

    @property
    def attempts(self) -> int:
        """Number of attempts made."""
        return sum(self.counts.values())

    @property
    def unresolved(self) -> int:
        """Number of unresolved attempts that are predicted to be faster than ``best``."""
        return len(self.ahead)

    @property
    def versions(self) -> int:
        """Number of versions accepted."""
        return self.recent[-1].number + 1 if self.recent else 0

    @property
    def last_gain(self) -> datetime | None:
        """When the last version was accepted."""
        return self.recent[-1].accepted if self.recent else None

    @property
    def kind(self) -> ScoreKind | None:
        """How the run's scores are obtained; None while it has none."""
        score = self.seed.attempt.evaluation.score if self.seed else None
        return score.kind if score else None

    @property
    def unit(self) -> Unit:
        """How the run's speeds are written."""
        return unit_for(self.run, scored(self.seed) if self.seed else None)

    @property
    def headline(self) -> str:
        """How fast the best version is, in a sentence; empty without one."""
        if not self.best:
            return ""
        told, seed = self.measured.get(self.best.attempt.id), self.seed
        beside = scored(seed) if seed and seed.number != self.best.number else None
        return headline(scored(self.best), self.unit, published(self.run.problem), told, beside)

    @property
    def for_owner(self) -> str:
        """What the best version means for the model that the run is for, in words; empty for a run without one."""
        best, seed = (each.attempt.evaluation.score if each else None for each in (self.best, self.seed))
        return owner_words(self.run, best, seed)

    @property
    def gain(self) -> float | None:
        """How much faster the best version is than the seed, 0.03 being 3 percent; None without a version."""
        return geomean(self.best) / geomean(self.seed) - 1 if self.best and self.seed else None

    @property
    def width(self) -> float | None:
        """The gain from which on the best version is told apart from the seed; None where that is not known."""
        return width(self.best, self.seed)

    @property
    def told(self) -> Intervention | None:
        """The supervisor's last intervention, unless a version was accepted after it."""
        made = self.intervention
        return made if made and self.last_gain and made.made >= self.last_gain else None

    @property
    def over(self) -> bool:
        """Whether nobody works on the run."""
        return self.state not in _AT_WORK

    @property
    def doing(self) -> Doing | None:
        """What the driver does while no worker works, such as starting them."""
        return None if self.over or self.working else self.run.doing

    def rates(self, now: datetime) -> Mapping[Status, float]:
        """Return attempts per minute by verdict over the last ten minutes, or over the whole run if it is younger.

        Empty if nobody works on the run.
        """
        if self.over:
            return {}
        begin = max(now - WINDOW, self.run.created)
        if len(self.latest) == _LATEST:
            begin = max(begin, self.latest[-1][0])
        minutes = (now - begin) / timedelta(minutes=1)
        recent = Counter(status for finished, status in self.latest if finished >= begin)
        return {status: count / minutes for status, count in recent.most_common()} if minutes > 0 else {}

    @property
    def accounts(self) -> list[Account]:
        """The limits that the run has. Only the process that drives it knows how many hours are left."""
        return list(accounts(self.run.config, self))


def read_view(store: Store, run_name: str, now: datetime, previous: RunView | None = None) -> RunView:
    """Return the run as it is at ``now``; ``previous`` itself if nothing has changed since that was read.

    Raises ``UnknownRun`` and the store's other errors.
    """
    return store.snapshot(lambda: _read_view(store, run_name, now, previous))


def _read_view(store: Store, run_name: str, now: datetime, previous: RunView | None) -> RunView:
    run = store.run(run_name)
    if previous and previous.run.created != run.created:
        previous = None
    revision = last, _ = store.revision(run.id)
    if previous and previous.revision == revision and previous.state is run.state_at(now):
        return previous
    known, counts, latest = (previous.revision[0], previous.counts, previous.latest) if previous else (0, {}, ())
    if last > known:
        counts = Counter(counts) + Counter(store.pages.verdicts(run.id, after=known))
        latest = (*store.pages.latest(run.id, _LATEST, after=known), *latest)[:_LATEST]
    state = run.state_at(now)
    unfinished, begun = store.pages.running(run.id), store.pages.begun(run.id)
    settled, ended = (0, 0), 0
    if STEPS.most(run.config):
        settled, ended = _count_ended(store, run, unfinished[0].number if unfinished else begun, previous)
    running = unfinished if state in _AT_WORK else []
    spend = store.journal.spend(run.id)
    last_call = store.journal.last_call(run.id) if spend.calls else None
    recent = tuple(store.pages.accepted(run.id, last=_RECENT))
    grown = previous is None or previous.recent != recent
    interventions = store.journal.interventions(run.id, last=1)
    seed = previous.seed if previous and previous.seed else store.start(run.id)
    best = previous.best if previous and not grown else store.version(run.id) if recent else None
    ahead: tuple[float, ...] = ()
    if best:
        tflops = geomean(best)
        ahead = (
            *(each for each in (previous.ahead if previous else ()) if each > tflops),
            *(store.pages.unresolved(run.id, above=tflops, after=known) if last > known else ()),
        )
    return RunView(
        run=run,
        state=state,
        revision=revision,
        counts=dict(sorted(counts.items(), key=lambda each: (-each[1], each[0]))),
        ahead=ahead,
        turned_down=tuple(store.pages.turned_down(run.id, last=_AMONG, most=_TURNED_DOWN)),
        steps=begun,
        ended=ended,
        settled=settled,
        latest=latest,
        attempts_per_minute=_pace(store, run) if latest else None,
        working=tuple(sorted(read_progress(store, running).values(), key=lambda work: work.step.worker)),
        spend=spend,
        trouble=f"{last_call.model}: {last_call.error}" if last_call and last_call.error else "",
        seed=seed,
        best=best,
        recent=recent,
        intervention=interventions[-1] if interventions else None,
        models=_models(store, run),
        measured=store.measurements.told(run.id),
        ablation=store.ablations.of(run.id, best.number) if best else None,
    )


def _models(store: Store, run: Run) -> tuple[ModelShare, ...]:
    models = [ModelSettings.model_validate(each) for each in run.config.get("models", ())]
    return shares(models, store.pages.paid(run.id, last=MOST_STEPS)) if len(models) > 1 else ()


def _count_ended(store: Store, run: Run, unfinished: int, previous: RunView | None) -> tuple[tuple[int, int], int]:
    """Return ``settled`` and ``ended``; ``unfinished`` is the number of the first step that has not ended."""
    known, counted = previous.settled if previous else (0, 0)
    counted += store.count_ended_steps(run.id, but_of=SEED_OPERATOR, first=known, before=unfinished)
    return (unfinished, counted), counted + store.count_ended_steps(run.id, but_of=SEED_OPERATOR, first=unfinished)


def read_progress(store: Store, steps: Sequence[Step]) -> dict[int, StepProgress]:
    """Return the progress of the steps, by step number."""
    ids = [step.id for step in steps]
    counts, spends = store.pages.attempt_counts(ids), store.pages.spends(ids)
    return {step.number: StepProgress(step, counts.get(step.id, 0), spends.get(step.id, Spend())) for step in steps}


def _pace(store: Store, run: Run) -> float | None:
    steps = store.pages.finished(run.id, _STEPS)
    made, busy = sum(tried for _, _, tried in steps), covered((start, end) for start, end, _ in steps)
    return made / (busy / timedelta(minutes=1)) if made and busy else None


def to_json(view: RunView, now: datetime) -> dict[str, Any]:
    """Return the view as data for JSON: times in ISO format, spans in seconds, rates per minute."""
    run, rates, spend = view.run, view.rates(now), view.spend
    return {
        "run": run.name,
        "problem": run.problem,
        "target": run.target,
        "suite": run.suite,
        "operator": run.operator,
        "time": now.isoformat(),
        "state": view.state,
        "paused": view.state is RunState.PAUSED,
        "ended_by": run.ended_by.to_json() if run.ended_by else None,
        "goes_on": goes_on(run, view.state) or None,
        "request": run.request,
        "driver": run.driver,
        "driver_until": _iso(run.driver_until),
        "workers": [_work(work, now) for work in view.working],
        "attempts": view.attempts,
        "looks": run.looks,
        "verdicts": dict(view.counts),
        "unresolved": view.unresolved,
        "doing": _doing(view.doing, now) if view.doing else None,
        "turned_down": [_turned_down(attempt) for attempt in view.turned_down],
        "attempts_per_minute": sum(rates.values()),
        "verdicts_per_minute": dict(rates),
        "steps": view.steps,
        "versions": view.versions,
        "seed": score_to_json(view.seed) if view.seed else None,
        "best": score_to_json(view.best) if view.best else None,
        "gain": view.gain,
        "headline": view.headline or None,
        "last_gain": _iso(view.last_gain),
        "seconds_since_gain": _since(view.last_gain, now),
        "models": [asdict(each) for each in view.models],
        "spend": {**asdict(spend), "tokens": spend.tokens},
        "left": {each.limit.setting: each.left for each in view.accounts},
        "model_trouble": view.trouble or None,
        "supervisor": None
        if view.told is None
        else {
            "level": view.told.level,
            "made": view.told.made.isoformat(),
            "reason": view.told.reason,
            "directions": list(view.told.directions),
            "restart_from": view.told.restart_from,
        },
    }


def _doing(doing: Doing, now: datetime) -> dict[str, Any]:
    return {**doing.to_json(), "seconds": _since(doing.began, now)}


def _turned_down(attempt: AttemptSummary) -> dict[str, Any]:
    return {
        "attempt": attempt.attempt_id,
        "status": attempt.status,
        "message": attempt.message,
        "decision": asdict(attempt.decision) if attempt.decision else None,
    }


def _work(work: StepProgress, now: datetime) -> dict[str, Any]:
    step = work.step
    return {
        "worker": step.worker,
        "step": step.number,
        "step_id": step.id,
        "operator": step.operator,
        "started": step.started.isoformat(),
        "seconds": _since(step.started, now),
        "tried": work.tried,
        "looks": step.looks,
        "last_candidate": step.digest,
        "lease_until": _iso(step.lease_until),
        "reply": step.reply.to_json() if step.reply else None,
        "doing": [_doing(each, now) for each in step.doing or ()],
    }


def _iso(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat()


def _since(time: datetime | None, now: datetime) -> float | None:
    return None if time is None else (now - time).total_seconds()
