"""The limits of a run: what each of them counts, and whether it is reached."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from avo.agents.operator import SEED_OPERATOR
from avo.lineage_db.entries import Spend

if TYPE_CHECKING:
    from avo.lineage_db.store import Store


class Ledger:
    """What a run has used, counted in its database each time that it is asked for."""

    def __init__(self, store: "Store", run_id: int) -> None:
        self._store, self._run_id = store, run_id
        self._attempts = self._last_attempt = 0

    @property
    def attempts(self) -> int:
        """Attempts made. Only those after the last one that was counted are counted."""
        new, self._last_attempt = self._store.count_attempts(self._run_id, after=self._last_attempt)
        self._attempts += new
        return self._attempts

    @property
    def ended(self) -> int:
        """Steps that have ended. The seeds' steps and those to be redone do not count."""
        return self._store.count_ended_steps(self._run_id, but_of=SEED_OPERATOR)

    @property
    def versions(self) -> int:
        """Versions accepted, the seeds included."""
        last = self._store.pages.accepted(self._run_id, last=1)
        return last[0].number + 1 if last else 0

    @property
    def spend(self) -> Spend:
        """The cost of all calls of models."""
        return self._store.journal.spend(self._run_id)


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit of a whole run, over all its sessions. ``max_hours`` is none: each session counts its own."""

    setting: str
    """Name of the setting in ``RunConfig``, which has its help."""
    unit: str
    """USD, or the singular of what is counted."""
    used: Callable[[Any], float]
    """How much is used, of a ``Ledger`` in a search and of a ``RunView`` in displays: both have these attributes."""
    verb: str = "made"
    """What a run has done with as many as it has used."""
    under_way: int = 0
    """How much of it a step that is under way is sure to use."""

    def most(self, settings: Mapping[str, Any]) -> Any:
        """Return what the settings of a run limit it to; None where they do not."""
        return settings.get(self.setting)


ATTEMPTS = Limit("max_attempts", "attempt", lambda used: used.attempts, under_way=1)
STEPS = Limit("max_steps", "step", lambda used: used.ended, under_way=1)
VERSIONS = Limit("max_versions", "version", lambda used: used.versions, "accepted")
TOKENS = Limit("max_tokens", "token", lambda used: used.spend.tokens, "used")
USD = Limit("max_usd", "USD", lambda used: used.spend.usd, "used")
RUN_LIMITS = (ATTEMPTS, STEPS, VERSIONS, TOKENS, USD)


@dataclass(frozen=True, slots=True)
class Account:
    """A limit that is set, and how much of it is used."""

    limit: Limit
    used: float
    most: float

    @property
    def left(self) -> float:
        """How much may still be used."""
        return max(0, self.most - self.used)

    def reached(self, under_way: int = 0) -> bool:
        """Whether there is no room for another step besides those ``under_way``."""
        return self.used + under_way * self.limit.under_way >= self.most

    def __str__(self) -> str:
        """Return ``has made 3 of 9 steps``, exactly."""
        if self.limit.unit == "USD":
            return f"has {self.limit.verb} {self.used:.4f} of {self.most:g} USD"
        return f"has {self.limit.verb} {self.used} of {self.most} {self.limit.unit}s"


def accounts(settings: Mapping[str, Any], used: Any) -> Iterator[Account]:
    """Yield the limits that the settings of a run set; nothing else is counted."""
    for limit in RUN_LIMITS:
        if (most := limit.most(settings)) is not None:
            yield Account(limit, limit.used(used), most)


def reached(settings: Mapping[str, Any], used: Any, under_way: int = 0) -> Account | None:
    """Return the first limit without room for another step besides those ``under_way``; None where there is room."""
    return next((each for each in accounts(settings, used) if each.reached(under_way)), None)
