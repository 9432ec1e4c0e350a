"""What a run did since some moment: what was tried, gained and spent, what the supervisor said, and what to do next."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from avo.evaluator.evaluation import Status
from avo.lineage_db.entries import Intervention, Spend
from avo.lineage_db.records import Accepted
from avo.lineage_db.spans import covered
from avo.lineage_db.store import Store
from avo.watch.scores import scored
from avo.watch.view import RunView, read_view
from avo.watch.wording import counted, duration, ending, first_line, goes_on, looked, percent, spent, valued, verdicts

_ROOM_S = 7 * 86400.0
"""A disk that is full sooner than this, at the rate at which the run writes, is something to do."""


@dataclass(frozen=True, slots=True)
class Digest:
    """A run since some moment."""

    view: RunView
    now: datetime
    since: datetime
    """The moment, or the run's creation if that is later."""
    counts: Mapping[Status, int]
    """Attempts made since, by verdict."""
    steps: int
    """Steps that ended since or are under way."""
    looks: int
    """Looks of these steps."""
    worked: timedelta
    """Time since in which at least one step was under way."""
    spend: Spend
    """What the model calls that ended since cost."""
    accepted: int
    """Versions accepted since."""
    before: float | None
    """Speed in TFLOPS of what was the best before, or of the fastest seed; None without versions."""
    last_gain: Accepted | None
    """The version that was the last to be faster than all before it; None without versions."""
    barren: int
    """Attempts made after that version's."""
    said: tuple[Intervention, ...]
    """What the supervisor said since, oldest first."""
    size: int
    """Size of the whole database in bytes."""
    written: int
    """About how many bytes the run has written since."""
    free: int | None
    """Bytes that are free on the disk; None for a database on a server."""

    @property
    def period(self) -> str:
        """The time that it is about, in words."""
        return f"in the last {duration((self.now - self.since).total_seconds())}"

    @property
    def gain(self) -> float:
        """How much faster the best version is than ``before``, 0.03 being 3 percent."""
        best = self.view.best
        return scored(best).geomean_tflops / self.before - 1 if best and self.before else 0.0

    @property
    def costs(self) -> dict[str, float]:
        """What was spent since, by name."""
        attempts, hours = sum(self.counts.values()), self.worked / timedelta(hours=1)
        return {"attempts": attempts, "hours": hours, "tokens": self.spend.tokens, "usd": self.spend.usd}

    @property
    def per_percent(self) -> dict[str, float] | None:
        """What each percent gained has cost; None where nothing was gained."""
        return {name: each / (100 * self.gain) for name, each in self.costs.items()} if self.gain > 0 else None

    @property
    def full_in_s(self) -> float | None:
        """How many seconds the free disk lasts at the rate at which the run wrote; None where that is not known."""
        if self.free is None or not self.written:
            return None
        return self.free / self.written * (self.now - self.since).total_seconds()

    @property
    def next(self) -> list[str]:
        """What to do, most urgent first; empty where there is nothing to do."""
        run, found = self.view.run, []
        if command := goes_on(run, self.view.state):
            found.append(command)
        elif self.view.over and self.view.best:
            found.append(f"avo export {run.name} --out DIR")
        if self.full_in_s is not None and self.full_in_s < _ROOM_S:
            found.append(f"make room: the disk is full in {duration(self.full_in_s)} at this rate")
        if self.view.unresolved:
            found.append(f"avo shortlist {run.name}: {counted(self.view.unresolved, 'attempt')} may be faster")
        if self.said and self.said[-1].directions:
            found.append(f"the supervisor's direction: {first_line(self.said[-1].directions[0])}")
        return found

    def to_json(self) -> dict[str, Any]:
        """Return it as data for JSON: times in ISO format, sizes in bytes, spans in seconds."""
        last, best = self.last_gain, self.view.best
        return {
            "run": self.view.run.name,
            "state": self.view.state,
            "ended_by": self.view.run.ended_by.to_json() if self.view.run.ended_by else None,
            "time": self.now.isoformat(),
            "since": self.since.isoformat(),
            "verdicts": dict(self.counts),
            "steps": self.steps,
            "looks": self.looks,
            "versions": self.accepted,
            "score_kind": self.view.kind,
            "before": self.before,
            "best": scored(best).geomean_tflops if best else None,
            "gain": self.gain,
            "spent": {**self.costs, "spend": asdict(self.spend)},
            "per_percent": self.per_percent,
            "plateau": {
                "version": last.number,
                "since": last.accepted.isoformat(),
                "seconds": (self.now - last.accepted).total_seconds(),
                "attempts": self.barren,
            }
            if last
            else None,
            "disk": {
                "bytes": self.size,
                "written": self.written,
                "free": self.free,
                "full_in_seconds": self.full_in_s,
            },
            "supervisor": [
                {"made": each.made.isoformat(), "level": each.level, "reason": each.reason, "directions": directions}
                for each, directions in ((said, list(said.directions)) for said in self.said)
            ],
            "next": self.next,
        }

    def rows(self) -> Iterator[tuple[str, str]]:
        """Yield it in words: a name and what there is to say."""
        view, run = self.view, self.view.run
        yield "state", f"{view.state}{ending(run, view.state)}"
        tried = counted(sum(self.counts.values()), "attempt")
        found = f": {verdicts(self.counts)}" if self.counts else ""
        yield "tried", f"{tried} in {counted(self.steps, 'step')}{looked(self.looks)}{found}"
        if view.best and self.before:
            score = scored(view.best)
            now = valued(score, view.unit)
            gain = percent(self.gain, view.width)
            gained = f"{gain}, {view.unit.cell(self.before)} to {now}" if self.gain else f"nothing: {now}"
            yield "gained", f"{gained}, {counted(self.accepted, 'version')}"
        models = f", {spent(self.spend)}" if self.spend.calls else ""
        yield "spent", f"{duration(self.worked.total_seconds())} of work{models}"
        if each := self.per_percent:
            usd = f", {each['usd']:.2f} USD" if self.spend.usd else ""
            tokens = f", {each['tokens']:,.0f} tokens" if self.spend.calls else ""
            time = duration(3600 * each["hours"])
            yield "each +1%", f"{each['attempts']:.2g} attempts, {time} of work{tokens}{usd}"
        if last := self.last_gain:
            ago = duration((self.now - last.accepted).total_seconds())
            yield "plateau", f"since version {last.number}, {ago} ago: {counted(self.barren, 'attempt')}"
        room = "" if self.free is None else f"; {_size(self.free)} free"
        yield "disk", f"{_size(self.size)}, of which about {_size(self.written)} written since{room}"
        for number, made in enumerate(self.said):
            ago = duration((self.now - made.made).total_seconds())
            yield "" if number else "supervisor", f"{made.level}, {ago} ago: {first_line(made.reason)}"
        for number, words in enumerate(self.next or ["nothing"]):
            yield "" if number else "next", words

    def __str__(self) -> str:
        """Return the same as lines of text under a heading."""
        lines = [f"{name:<13} {words}" for name, words in self.rows()]
        return "\n".join([f"{self.view.run.name} {self.period}", *lines])


def read_digest(store: Store, run_name: str, since: datetime, now: datetime) -> Digest:
    """Return what a run did since a moment; raises the store's errors. The cost grows with the length of the run."""
    return store.snapshot(lambda: _read(store, run_name, since, now))


def _read(store: Store, run_name: str, since: datetime, now: datetime) -> Digest:
    view = read_view(store, run_name, now)
    run = view.run
    since = max(since, run.created)
    steps = [step for step in store.steps(run.id) if step.finished is None or step.finished >= since]
    calls = [call for call in store.journal.calls(run.id) if call.finished >= since]
    accepted = store.pages.accepted(run.id)
    champions = [version for version in accepted if version.champion]
    earlier = [version.geomean_tflops for version in champions if version.accepted < since]
    seeds = [version.geomean_tflops for version in champions if not version.parents]
    last_gain = champions[-1] if champions else None
    before = earlier or seeds
    return Digest(
        view=view,
        now=now,
        since=since,
        counts=store.pages.verdicts(run.id, after=store.pages.last_before(run.id, since)),
        steps=len(steps),
        looks=sum(step.looks for step in steps),
        worked=covered((max(step.started, since), step.finished or _until(view, now)) for step in steps),
        spend=sum(
            (Spend(1, call.input_tokens, call.cached_tokens, call.output_tokens, call.usd or 0.0) for call in calls),
            Spend(),
        ),
        accepted=sum(version.accepted >= since for version in accepted),
        before=before[-1] if before else None,
        last_gain=last_gain,
        barren=sum(store.pages.verdicts(run.id, after=last_gain.attempt_id).values()) if last_gain else 0,
        said=tuple(made for made in store.journal.interventions(run.id) if made.made >= since),
        size=store.upkeep.size(),
        written=store.upkeep.written(run.id, since),
        free=store.upkeep.free(),
    )


def _until(view: RunView, now: datetime) -> datetime:
    """Return until when a step that has not ended was worked on."""
    return view.run.updated if view.over else now


def _size(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
