"""Evaluates the working source of a step: while the caller waits, or while it goes on."""

from collections.abc import Callable

from avo.agents.descent import Descent
from avo.agents.errors import BudgetSpent, CandidateTaken
from avo.agents.operator import Brief
from avo.agents.pending import Pending
from avo.agents.tools import arguments, tables
from avo.agents.tools.arguments import BadCall
from avo.agents.tools.resemblance import resembled
from avo.agents.tools.workbench import Started, Workbench
from avo.lineage_db.records import Attempt

EXPECTED = " (expected: "
"""What stands between a hypothesis and its expectation where an attempt keeps both as one text."""


class Evaluations:
    """The evaluations of a step, ``brief.at_once`` at most under way. What is under way is on the workbench: a step
    that goes on from its record begins it again, and the scoring function returns what had been recorded by then.
    """

    def __init__(self, brief: Brief, bench: Workbench, descent: Descent) -> None:
        """Begin again what is under way on ``bench``."""
        self._brief, self._bench, self._descent = brief, bench, descent
        self._pending: Pending[Attempt] = Pending(max(1, brief.at_once))
        self._edited: dict[int, Callable[[], int | None]] = {}
        for started in bench.started:
            self._begin(started)

    def evaluate(self, asked: arguments.Evaluate, also_from: tuple[int, ...]) -> str:
        """Evaluate the working source, or begin to; ``also_from`` are numbers of versions besides its parents.

        Raises ``BadCall`` and ``BudgetSpent`` where the budget is used up, ``CandidateTaken`` and
        ``EvaluatorUnavailable``.
        """
        bench = self._bench
        if same := next((each.number for each in bench.started if each.source == bench.source), None):
            raise BadCall(f"evaluation {same} is of this source: collect waits for it")
        self._afford()
        parents = (*bench.parents, *also_from)
        what = Started(
            bench.begun + 1, bench.source, bench.named(asked.change), asked.hypothesis, asked.expected, parents,
            bench.built_on, bench.follows,
        )  # fmt: skip
        if not asked.wait and self._brief.at_once:
            while len(self._pending) >= self._brief.at_once:
                self._pending.wait()
            bench.start(what)
            self._begin(what)
            return f"evaluation {what.number} is under way: its result comes below that of a later call, or by collect"
        attempt = self._scoring(what)()
        said = self._add(what, attempt)
        bench.edited_from(attempt.id, None)
        left = self._brief.desk.left().evaluations
        return said if left is None else f"{said}\n{left} evaluations are left"

    def collect(self) -> str:
        """Wait until one that was begun has ended, and return what came of all that have."""
        if not self._bench.started:
            return "no evaluation is under way"
        said = self.news()
        if not said:
            self._pending.wait()
            said = self.news()
        under_way = ", ".join(str(each.number) for each in self._bench.started)
        return "\n\n".join([*said, *([f"still under way: {under_way}"] if under_way else [])])

    def finish(self) -> list[str]:
        """Wait for all that were begun, and return what came of them."""
        while len(self._pending):
            self._pending.wait()
        return self.news()

    def news(self) -> list[str]:
        """Put those that have ended since the last call on the workbench, and return what came of each."""
        started = {each.number: each for each in self._bench.started}
        said = []
        for number, ended in self._pending.ended().items():
            what = started[number]
            try:
                found = self._add(what, ended.result())
            except (BudgetSpent, CandidateTaken) as error:
                self._bench.end(number, None)
                found = f"not made, {error}"
            said.append(f"evaluation {number}: {found}")
        return said

    def _afford(self) -> None:
        """Wait while what is under way may use up the budget; raise ``BadCall`` where nothing of it is left."""
        while (left := self._brief.desk.left().evaluations) is not None and left <= len(self._pending):
            if not len(self._pending):
                raise BadCall("no evaluations are left: submit the best attempt, or nothing")
            self._pending.wait()

    def _begin(self, what: Started) -> None:
        self._pending.begin(what.number, self._scoring(what))

    def _scoring(self, what: Started) -> Callable[[], Attempt]:
        """Return what evaluates. The attempt that was edited may be under way itself: its id is known in the end."""
        edited = None if what.follows is None else self._pending.begun(what.follows)
        before = self._edited.get(what.follows or 0)

        def built_on() -> int | None:
            if edited is None or before is None:
                return what.built_on
            return before() if edited.exception() else edited.result().id

        self._edited[what.number] = built_on

        def scored() -> Attempt:
            attempt = self._brief.evaluate(
                self._brief.candidate(what.source),
                change=what.change,
                parents=what.parents,
                hypothesis=f"{what.hypothesis}{EXPECTED}{what.expected})",
                built_on=built_on,
            )
            self._descent.add(attempt)
            return attempt

        return scored

    def _add(self, what: Started, attempt: Attempt) -> str:
        """Put an attempt on the workbench and return what came of it."""
        bench = self._bench
        known = {each.attempt_id for each in self._brief.attempts} | {each.attempt_id for each in bench.attempts}
        resembles = resembled(self._brief, bench, what.source, what.parents, attempt.built_on)
        outcome = tables.verdict(attempt.evaluation, self._beside(attempt, what.parents))
        if attempt.decision:
            outcome += f"; {attempt.decision.answer}"
        bench.end(what.number, attempt.id)
        bench.add(attempt, what.hypothesis, what.expected, outcome)
        again = " (evaluated before: this is what was recorded)" if attempt.id in known else ""
        parts = [f"attempt {attempt.id}{again}: {outcome}", resembles, tables.evaluation(attempt.evaluation)]
        return "\n".join(part for part in parts if part)

    def _beside(self, attempt: Attempt, parents: tuple[int, ...]) -> dict[str, float]:
        """Return the speeds of what an attempt was edited from, of its parents and of the best version, by name."""
        base = self._descent.base(attempt)
        wanted = {*parents, self._brief.versions[-1].number}
        speeds = {v.number: v.attempt.evaluation.own_tflops for v in self._brief.versions if v.number in wanted}
        versions = {f"version {number}": tflops for number, tflops in speeds.items() if tflops}
        return ({base.name: base.tflops} if base else {}) | versions
