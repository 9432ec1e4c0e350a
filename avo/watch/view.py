"""Status: what a run is doing now and how it fares, at a cost that does not depend on how long it has gone on."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from evaluator.evaluation import Score, Status
from lineage_db.errors import UnknownVersion
from lineage_db.records import Intervention, Run, RunState, Spend, Step, Version
from lineage_db.store import Store

WINDOW = timedelta(minutes=10)
"""Time over which rates are taken ..."""
_MOST_RECENT = 1000
"""... unless it holds more attempts than these."""


@dataclass(frozen=True, slots=True)
class Work:
    """What a worker holds."""

    step: Step
    tried: int
    """Attempts made in the step so far."""


@dataclass(frozen=True, slots=True)
class RunStatus:
    """A run at one revision of the database."""

    run: Run
    state: RunState
    """As it was seen then, which may have been interrupted or paused."""
    revision: tuple[int, int]
    counts: Mapping[Status, int]
    """Attempts by verdict."""
    steps: int
    """Steps begun."""
    latest: tuple[tuple[datetime, Status], ...]
    """When the last attempts were finished and the verdicts on them, newest first."""
    working: tuple[Work, ...]
    spend: Spend
    trouble: str
    """Why the last call of a model gave no reply; empty where it did."""
    versions: int
    last_gain: datetime | None
    """When the last version was accepted."""
    seed: Version | None
    best: Version | None
    told: Intervention | None
    """The supervisor's last intervention, where no version was accepted after it."""

    @property
    def attempts(self) -> int:
        """How many were made."""
        return sum(self.counts.values())

    @property
    def over(self) -> bool:
        """Whether nobody works on the run."""
        return self.state not in (RunState.RUNNING, RunState.PAUSED)

    def rates(self, now: datetime) -> Mapping[Status, float]:
        """Return attempts per minute by verdict, over the last ten minutes or what there is of the run."""
        begin = max(now - WINDOW, self.run.created)
        if len(self.latest) == _MOST_RECENT:
            begin = max(begin, self.latest[-1][0])
        minutes = (now - begin) / timedelta(minutes=1)
        recent = Counter(status for finished, status in self.latest if finished >= begin)
        return {status: count / minutes for status, count in recent.most_common()} if minutes > 0 else {}

    def left(self) -> Mapping[str, float]:
        """Return what is left of each limit that the run has; of its hours only the process that drives it knows."""
        used = {
            "max_attempts": self.attempts,
            "max_tokens": self.spend.tokens,
            "max_usd": self.spend.usd,
        }
        limits = {key: self.run.config.get(key) for key in used}
        return {key: max(0, limit - used[key]) for key, limit in limits.items() if limit is not None}


def read_status(store: Store, run_name: str, now: datetime, previous: RunStatus | None = None) -> RunStatus:
    """Return the run as it is now: ``previous`` itself if nothing changed. Raises the store's errors."""
    run = previous.run if previous else store.run(run_name)
    revision = store.revision(run.id)
    if previous and previous.revision == revision and previous.state is run.state_at(now):
        return previous
    run = store.run(run_name)
    pages, journal = store.pages, store.journal
    running = pages.running(run.id) if run.state is RunState.RUNNING else []
    counts = pages.attempt_counts([step.id for step in running])
    last_call = journal.last_call(run.id)
    versions, last_gain = pages.growth(run.id)
    interventions = journal.interventions(run.id, last=1)
    told = interventions[-1] if interventions and last_gain and interventions[-1].made >= last_gain else None
    return RunStatus(
        run=run,
        state=run.state_at(now),
        revision=revision,
        counts=pages.verdicts(run.id),
        steps=pages.totals(run.id).steps,
        latest=tuple(pages.latest(run.id, _MOST_RECENT)),
        working=tuple(Work(step, counts.get(step.id, 0)) for step in sorted(running, key=lambda step: step.worker)),
        spend=journal.spend(run.id),
        trouble=last_call.error if last_call else "",
        versions=versions,
        last_gain=last_gain,
        seed=_version(store, run, 0),
        best=_version(store, run, None),
        told=told,
    )


def _version(store: Store, run: Run, number: int | None) -> Version | None:
    try:
        return store.version(run.id, number)
    except UnknownVersion:
        return None


def score_of(version: Version) -> dict[str, Any]:
    """Return how fast a version is, as data for JSON that says how that is known."""
    score = scored(version)
    return {
        "version": version.number,
        "kind": score.kind,
        "target": score.target,
        "card": score.card or None,
        "geomean_tflops": score.geomean_tflops,
    }


def scored(version: Version) -> Score:
    """Return the score of a version, which has one."""
    score = version.attempt.evaluation.score
    assert score is not None, "only correct attempts become versions"
    return score


def to_json(status: RunStatus, now: datetime) -> dict[str, Any]:
    """Return a status as data for JSON: times in ISO format, spans in seconds, rates per minute."""
    run, rates, spend = status.run, status.rates(now), status.spend
    return {
        "run": run.name,
        "problem": run.problem,
        "target": run.target,
        "suite": run.suite,
        "operator": run.operator,
        "time": now.isoformat(),
        "state": status.state,
        "paused": status.state is RunState.PAUSED,
        "request": run.request,
        "driver": run.driver,
        "driver_until": _iso(run.driver_until),
        "workers": [_work(work, now) for work in status.working],
        "attempts": status.attempts,
        "verdicts": dict(status.counts),
        "attempts_per_minute": sum(rates.values()),
        "verdicts_per_minute": dict(rates),
        "steps": status.steps,
        "versions": status.versions,
        "seed": score_of(status.seed) if status.seed else None,
        "best": score_of(status.best) if status.best else None,
        "gain": gain(status),
        "last_gain": _iso(status.last_gain),
        "seconds_since_gain": _since(status.last_gain, now),
        "spend": {**asdict(spend), "tokens": spend.tokens},
        "left": dict(status.left()),
        "model_trouble": status.trouble or None,
        "supervisor": None
        if status.told is None
        else {
            "level": status.told.level,
            "made": status.told.made.isoformat(),
            "reason": status.told.reason,
            "directions": list(status.told.directions),
            "restart_from": status.told.restart_from,
        },
    }


def gain(status: RunStatus) -> float | None:
    """Return by which fraction the best version is faster than the seed."""
    if status.best is None or status.seed is None:
        return None
    return scored(status.best).geomean_tflops / scored(status.seed).geomean_tflops - 1


def _work(work: Work, now: datetime) -> dict[str, Any]:
    step = work.step
    return {
        "worker": step.worker,
        "step": step.number,
        "step_id": step.id,
        "operator": step.operator,
        "started": step.started.isoformat(),
        "seconds": _since(step.started, now),
        "tried": work.tried,
        "last_candidate": step.digest,
        "lease_until": _iso(step.lease_until),
    }


def _iso(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat()


def _since(time: datetime | None, now: datetime) -> float | None:
    return None if time is None else (now - time).total_seconds()
