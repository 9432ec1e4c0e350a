"""Replaying a recorded run: its steps once more, one at a time, each shown and told what it was shown and told then.

Operators work with the record: the attempts that they see have its ids. What they submit is judged and accepted anew.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from avo.agents.agentic import Agentic
from avo.agents.desk import Left
from avo.agents.errors import BudgetSpent, CandidateTaken
from avo.agents.model import ChatMessage, Reply
from avo.agents.mutate import Mutate
from avo.agents.operator import COMMAND_OPERATOR, SEED_OPERATOR, Brief, BuiltOn, Proposal, VariationOperator
from avo.agents.registry import asks_models, get_operator
from avo.agents.served import MCP_OPERATOR, PendingCall, Served, Unattended
from avo.agents.settings import ModelSettings, Settings
from avo.agents.single_turn import SingleTurn
from avo.config import RunConfig
from avo.evaluator.candidate import Candidate
from avo.evaluator.evaluation import Evaluation, Fault, Status
from avo.evaluator.evaluators import Evaluator
from avo.evaluator.inspection import Findings
from avo.knowledge_base.library import Library
from avo.lineage_db.records import Attempt, Run, Selection, Step, StepState, Version
from avo.lineage_db.store import Store
from avo.search.budget import Allowance
from avo.search.population import Population, population
from avo.search.recorded import RecordedJudge, RecordedRun, Unrecorded, replies
from avo.search.seeding import SeedOperator
from avo.search.step import Work, step_seed
from avo.search.transfer import timing_first

TOLERANCE = 1e-9
"""Relative difference of scores up to which they count as the same."""
_CHANGED = ": if mutate, or what is kept of its looks, has changed since, --attempts makes the recorded attempts again"
_SILENT = Settings((ModelSettings(name="record", context_tokens=10**9),))
"""The settings of a model that never has to summarise."""


class ReplayModel:
    """A model that repeats recorded replies, and then has no budget left."""

    def __init__(self, said: Sequence[Reply]) -> None:
        self._said = iter(said)

    def complete(self, messages: Sequence[ChatMessage], tools: Sequence[Mapping[str, Any]]) -> Reply:
        """Return the next reply; raises ``BudgetSpent`` after the last."""
        reply = next(self._said, None)
        if reply is None:
            raise BudgetSpent("the record has no more replies")
        return reply


@dataclass(frozen=True)
class _Recorded:
    """A population whose choice is the recorded one."""

    population: Population
    selection: Selection | None
    looks_back = 0

    def select(self, versions: Sequence[Version], earlier: Sequence[Step], seed: int) -> Selection | None:
        return self.selection

    def niche(self, selection: Selection | None, evaluation: Evaluation) -> str:
        return self.population.niche(selection, evaluation)

    def rivals(self, versions: Sequence[Version], selection: Selection, niche: str) -> Sequence[Version]:
        return self.population.rivals(versions, selection, niche)


class _Repeated:
    """Stands for an operator that is not asked: makes the attempts of a recorded step, and submits its versions."""

    def __init__(self, record: RecordedRun, step: Step) -> None:
        self.name = step.operator
        self._record, self._step = record, step

    def vary(self, brief: Brief) -> Proposal:
        number = self._step.number
        for attempt in self._record.given[number].values():
            candidate = Candidate(self._record.run.problem, attempt.source)
            brief.evaluate(candidate, change=attempt.change, parents=attempt.parents, hypothesis=attempt.hypothesis)
        made = [version.attempt for version in self._record.versions if version.step_number == number]
        return Proposal(made[-1] if made else None, self._step.reason, before=made[:-1])


class _Again:
    """An operator that is shown and told what it was when its step was recorded; decisions are made anew."""

    def __init__(self, inner: VariationOperator, record: RecordedRun, step: Step) -> None:
        self.name = step.operator
        self._inner, self._record, self._step = inner, record, step

    def vary(self, brief: Brief) -> Proposal:
        """Vary what the step was shown; submit as an attempt of the replay what was an attempt of the record."""
        record, step, seen = self._record, self._step, self._step.seen
        assert seen is not None
        given, origin = record.given[step.number], record.origin(step)
        # A call that was answered with an error is not repeated: what was refused then is not asked for again.
        calls = any(reply.calls for reply in replies(record.messages[step.number]))
        asks = not calls and not isinstance(self._inner, _Repeated)
        refused = {digest: iter(told) for digest, told in record.refused[step.number].items()} if asks else {}

        def of_replay(attempt: Attempt) -> Attempt:
            candidate = Candidate(record.run.problem, attempt.source)
            return brief.evaluate(
                candidate, change=attempt.change, parents=attempt.parents, hypothesis=attempt.hypothesis
            )

        def evaluate(
            candidate: Candidate,
            *,
            change: str,
            parents: tuple[int, ...],
            hypothesis: str = "",
            built_on: BuiltOn = None,
        ) -> Attempt:
            refusal = next(refused.get(candidate.digest, iter(())), None)
            if refusal is not None:
                raise BudgetSpent("no evaluations were left") if refusal.spent else CandidateTaken
            known = given.get(candidate.digest)
            if known is None:
                raise Unrecorded("makes a candidate that is not on record")
            again = of_replay(known)  # which may be another step's, made of other versions
            return replace(known, decision=again.decision)

        versions, attempts = record.shown(seen, step)
        proposal = self._inner.vary(
            replace(
                brief,
                seed=step_seed(record.run.seed, origin.worker, origin.turn),
                versions=versions,
                attempts=attempts,
                looks=[
                    look for look in record.looked if look.look_id <= seen.looks and look.step_number != seen.hidden
                ],
                minutes=seen.minutes,
                interventions=[made for made in record.interventions if made.id in seen.interventions],
                memories=[memory for memory in record.memories if memory.id <= seen.memories],
                transcript=record.transcript(step),
                evaluate=evaluate,
                at_once=0,
                profile=lambda candidate, case=None: Fault(Status.UNSUPPORTED, "not replayed"),
                # No operator's next move depends on what is seen here: that of a model is on record.
                desk=replace(
                    brief.desk,
                    attempt=record.attempts.__getitem__,
                    inspect=lambda _: Findings(text="not replayed", evaluation=record.versions[0].attempt.evaluation),
                    left=lambda: Left(looks=brief.desk.left().looks),
                ),
            )
        )
        submission, attempt = proposal.submission, proposal.attempt and of_replay(proposal.attempt)
        if submission is not None and attempt is not None:
            submission = replace(submission, attempt_id=attempt.id)
        before = [of_replay(each) for each in proposal.before]
        return replace(proposal, attempt=attempt, submission=submission, before=before)


def replay(
    record: RecordedRun,
    store: Store,
    run: Run,
    config: RunConfig,
    judge: Evaluator,
    clock: Callable[[], datetime],
    *,
    attempts: bool = False,
) -> str:
    """Replay ``record`` into ``run`` of ``store``; return in words the first difference, if any.

    With ``attempts`` no operator is asked: the recorded attempts are made once more.

    Raises ``EvaluatorUnavailable`` and the store's errors.
    """
    allowance = Allowance(step_looks=config.step_looks)
    work = Work(store, run, config.model_copy(update={"supervisor": "off"}), judge, Library.load(), clock, allowance)
    for step in record.concluded:
        operator = _Repeated(record, step) if attempts and step.operator != SEED_OPERATOR else _operator(record, step)
        if step.operator != SEED_OPERATOR or isinstance(judge, RecordedJudge):
            operator = _Again(operator, record, step)  # otherwise it is the judge that is tested again
        try:
            choices = _Recorded(population(config), step.selection)
            outcome = replace(work, population=choices).perform(operator, step.worker)
        except Unrecorded as left:
            changed = step.operator == Mutate.name and not attempts
            return f"step {step.number} {left}{_CHANGED if changed else ''}"
        if outcome.state is not StepState.DONE:
            return f"step {step.number} ends otherwise: {outcome.reason}"
        if different := difference(record.versions, store.versions(run.id), whole=False):
            return different
    return difference(record.versions, store.versions(run.id), whole=True)


def difference(old: Sequence[Version], new: Sequence[Version], *, whole: bool) -> str:
    """Return in words the first version in which two lineages differ. ``whole``: they must also be equally long."""
    for mine, theirs in zip(old, new, strict=False):
        if mine.attempt.digest != theirs.attempt.digest:
            return f"version {mine.number} has another source"
        if mine.parents != theirs.parents:
            return f"version {mine.number} has parents {list(theirs.parents)}, not {list(mine.parents)}"
        was, now = mine.attempt.evaluation.geomean_tflops, theirs.attempt.evaluation.geomean_tflops
        if not math.isclose(was, now, rel_tol=TOLERANCE):
            return f"version {mine.number} has {now:.4f} TFLOPS, not {was:.4f}"
    if len(new) > len(old):
        return f"version {len(old)} is not in the record"
    return f"version {len(new)} is missing" if whole and len(new) < len(old) else ""


def _operator(record: RecordedRun, step: Step) -> VariationOperator:
    if step.operator == SEED_OPERATOR:
        seeds = record.seeds
        names = [attempt.change.removeprefix("seed").strip() for attempt in seeds]
        return SeedOperator(*(attempt.source for attempt in seeds), names=names)
    said = replies(record.messages[step.number])
    calls = iter([PendingCall(call.name, call.arguments) for reply in said for call in reply.calls])
    if step.operator == MCP_OPERATOR:
        return Served(None, lambda: next(calls, None))
    operator: VariationOperator
    if step.operator == COMMAND_OPERATOR:
        operator = Unattended(lambda: next(calls, None))
    elif asks_models(step.operator):
        kind = SingleTurn if step.operator == SingleTurn.name else Agentic
        operator = kind(_SILENT, lambda *_: ReplayModel(said))
    elif step.operator == Mutate.name:
        operator = get_operator(step.operator)
    else:
        return _Repeated(record, step)
    return timing_first(operator, record.run)
