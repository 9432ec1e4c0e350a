"""Budgets: what a run and its steps may use, and what is left. The database has every attempt and call."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any

from avo.agents.desk import Left
from avo.agents.model import Usage
from avo.config import RunConfig
from avo.limits import TOKENS, USD, Account
from avo.lineage_db.entries import Spend
from avo.lineage_db.records import Run, Step
from avo.lineage_db.store import Store


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a run and its steps may use, by the names of settings of ``RunConfig``; None: no limit."""

    max_attempts: int | None = None
    max_tokens: int | None = None
    max_usd: float | None = None
    step_evaluations: int | None = None
    step_looks: int | None = None
    step_tokens: int | None = None
    step_usd: float | None = None
    step_minutes: float | None = None
    deadline: datetime | None = None
    """When the session ends."""

    @classmethod
    def of(cls, config: RunConfig, deadline: datetime | None = None) -> "Allowance":
        """Return the allowance of a run with this configuration, in a session that ends at ``deadline``."""
        settings = vars(config)
        return cls(
            **{each.name: settings[each.name] for each in fields(cls) if each.name in settings}, deadline=deadline
        )

    def left(self, store: Store, run: Run, parts: Sequence[Step], now: datetime) -> Left:
        """Return what is left now for a step. ``parts`` are the steps that it continues, and the step itself last."""
        of_run = store.journal.spend(run.id)
        of_step = sum((store.journal.spend(run.id, step_id=part.id) for part in parts), Spend())
        tried = sum(store.pages.attempt_counts([part.id for part in parts]).values())
        made = len(store.history(run.id).attempts) + store.claims.under_way(parts[-1], now=now)
        minutes = self.minutes_left(parts[-1], now)
        return Left(
            tokens=_least((self.max_tokens, of_run.tokens), (self.step_tokens, of_step.tokens)),
            usd=_least((self.max_usd, of_run.usd), (self.step_usd, of_step.usd)),
            evaluations=_least((self.max_attempts, made), (self.step_evaluations, tried)),
            minutes=minutes,
            spent=_used_up("run", of_run, self.max_tokens, self.max_usd)
            or _used_up("step", of_step, self.step_tokens, self.step_usd)
            or ("its time is up" if minutes == 0 else ""),
        )

    def minutes_left(self, step: Step, now: datetime) -> float | None:
        """Return how many minutes ``step`` has left now; None where its time has no limit."""
        until = None if self.step_minutes is None else step.started + timedelta(minutes=self.step_minutes)
        ends = [(end - now) / timedelta(minutes=1) for end in (until, self.deadline) if end is not None]
        return max(0.0, min(ends)) if ends else None


UNLIMITED = Allowance()


def record_call(store: Store, run_id: int, step: Step | None, clock: Callable[[], datetime], **call: Any) -> None:
    """Record a model call, given as ``Charge`` takes it; ``step`` is None for one that belongs to none."""
    usage: Usage = call.pop("usage")
    counts = {name: getattr(usage, name) for name in ("input_tokens", "cached_tokens", "output_tokens")}
    store.journal.add_call(run_id, step.id if step else None, now=clock(), **counts, **call)


def _used_up(whose: str, spend: Spend, tokens: int | None, usd: float | None) -> str:
    """Return in words which limit ``spend`` has reached; an empty text where another call is allowed."""
    limits = (TOKENS, spend.tokens, tokens), (USD, spend.usd, usd)
    found = (Account(limit, used, most) for limit, used, most in limits if most is not None)
    return next((f"the {whose} {each}" for each in found if each.reached()), "")


def _least(*limits: tuple[float | None, float]) -> Any:
    """Return the least that is left below any limit; None where there is no limit."""
    return min((max(0, limit - used) for limit, used in limits if limit is not None), default=None)
