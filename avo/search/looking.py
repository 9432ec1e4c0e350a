"""The looks of one step: its budget, and a record of each look before the operator sees it."""

from collections.abc import Callable, Sequence
from datetime import datetime
from itertools import cycle, islice

from avo.agents.errors import LooksSpent
from avo.agents.operator import Variation
from avo.agents.scouting import critical_resources
from avo.evaluator.evaluation import CaseScore, Fault, Score, geometric_mean
from avo.evaluator.evaluators import Evaluator
from avo.evaluator.inspection import Findings, Inspection, Look
from avo.evaluator.target import ScoreKind
from avo.lineage_db.looked import Looked
from avo.lineage_db.records import Step
from avo.lineage_db.store import Store
from avo.search.activity import Activity
from avo.search.scoring import persistently


class RecordingLooks:
    """Looks at candidates for one step, see ``Looker``.

    A candidate counts against the step once. Where the run has looked at it before, that is not recorded again: what
    is seen depends on the candidate alone.
    """

    def __init__(
        self,
        store: Store,
        step: Step,
        evaluator: Evaluator,
        activity: Activity,
        clock: Callable[[], datetime],
        most: int | None,
        continued: Sequence[Step] = (),
    ) -> None:
        """``most`` candidates may be looked at, None: no limit. What the ``continued`` steps looked at counts too."""
        self._store, self._step, self._evaluator, self._clock, self._most = store, step, evaluator, clock, most
        self._activity = activity
        numbers = {part.number for part in continued}
        looks = store.history(step.run_id).looks if numbers else ()
        self._seen = {look.digest for look in looks if look.step_number in numbers}

    @property
    def left(self) -> int | None:
        """How many more candidates may be looked at; None: no limit."""
        return None if self._most is None else max(0, self._most - len(self._seen))

    def __call__(self, variations: Sequence[Variation]) -> Sequence[Findings]:
        """Return what is seen of each candidate."""
        new = {each.candidate.digest for each in variations} - self._seen
        if self.left is not None and len(new) > self.left:
            raise LooksSpent(len(new), self.left)
        asked = [Inspection(Look.SPEED, each.candidate.problem, each.candidate.source) for each in variations]
        with self._activity.during(f"looking at {len(asked)} candidate{'' if len(asked) == 1 else 's'}"):
            found = persistently(lambda: self._evaluator.inspect_all(asked))
        now = self._clock()
        seen = [_looked(each, what, self._step, now) for each, what in zip(variations, found, strict=True)]
        self._store.results.record_looks(self._step.id, seen, now=now)
        self._seen |= new
        return found


def found_again(look: Looked) -> Findings:
    """Return what the record of a look keeps: the fault's status, or the mean over the cases, as cases that have it and
    the critical resources.
    """
    if look.fault is not None:
        return Findings(Fault(look.fault, "as recorded"), plan_digest=look.plan_digest)
    resources = look.critical or ("",)
    count = 1 << (len(resources) - 1).bit_length()  # of a power of two of equal numbers the mean is exact
    cases = tuple(
        CaseScore("mean", look.geomean_tflops, 1.0, "", critical=critical, doubt=look.doubt)
        for critical in islice(cycle(resources), count)
    )
    return Findings(score=Score(ScoreKind.PREDICTED, "", cases), plan_digest=look.plan_digest)


def _looked(variation: Variation, found: Findings, step: Step, now: datetime) -> Looked:
    score = found.score
    return Looked(
        look_id=0,
        step_number=step.number,
        digest=variation.candidate.digest,
        plan_digest=found.plan_digest,
        fault=found.fault.status if found.fault else None,
        geomean_tflops=score.geomean_tflops if score else 0.0,
        doubt=geometric_mean(case.doubt for case in score.cases) if score else 1.0,
        change=variation.change,
        parents=variation.parents,
        made=now,
        critical=tuple(sorted(critical_resources(score))) if score else (),
    )
