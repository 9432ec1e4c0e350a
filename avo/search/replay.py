"""Replaying a recorded run: its steps once more, one at a time, with the replies of models taken from the record."""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import Any

from agents.agentic import Agentic
from agents.conversation import MESSAGE
from agents.errors import BudgetSpent
from agents.model import ChatMessage, Reply, ToolCall
from agents.operator import COMMAND_OPERATOR, Brief, Proposal, VariationOperator
from agents.registry import asks_models, get_operator
from agents.served import MCP_OPERATOR, PendingCall, Served, Unattended
from agents.settings import ModelSettings, Settings
from agents.single_turn import SingleTurn
from agents.supervisor import since_growth
from avo.config import RunConfig
from avo.errors import RunFailed
from avo.search.budget import SEED_OPERATOR, Allowance
from avo.search.looking import found_again
from avo.search.population import Population, population
from avo.search.step import SeedOperator, Work, step_seed
from avo.search.transfer import timing_first
from evaluator.candidate import Candidate, Incumbent
from evaluator.errors import EvaluatorUnavailable
from evaluator.evaluation import Evaluation, Fault, Status
from evaluator.evaluators import AnyRequest, EvaluateRequest, Evaluator, ProfileRequest, VerifyRequest
from evaluator.inspection import Findings, Inspection, Look
from evaluator.problem import HELD_OUT
from evaluator.target import Target
from knowledge_base.library import Library
from lineage_db.looked import Looked
from lineage_db.records import Attempt, Intervention, Run, Selection, Step, StepState, Version
from lineage_db.store import Store

TOLERANCE = 1e-9
"""Relative difference of scores up to which they count as the same."""
_SILENT = Settings((ModelSettings(name="record"),))


@dataclass(frozen=True)
class RecordedRun:
    """What a replay needs to know about a recorded run."""

    run: Run
    steps: Mapping[int, Step]
    versions: Sequence[Version]
    attempts: Mapping[int, Attempt]
    replies: Mapping[int, Sequence[Reply]]
    """Replies by step number, those of the steps that it continues included."""
    looked: Sequence[Looked] = ()

    @classmethod
    def read(cls, store: Store, run: Run) -> "RecordedRun":
        """Read the record of ``run``; raises the store's errors."""
        steps = {step.number: step for step in store.steps(run.id)}
        spoken = {number: replies(store.journal.messages(step.id)) for number, step in steps.items()}
        for number, step in sorted(steps.items()):
            if step.redoes is not None and step.operator != SingleTurn.name:  # which asks its model again
                spoken[number] = [*spoken[step.redoes], *spoken[number]]
        attempts = {attempt.id: attempt for attempt in store.attempts(run.id)}
        return cls(run, steps, store.versions(run.id), attempts, spoken, store.history(run.id).looks)

    @cached_property
    def finished(self) -> Mapping[str, datetime]:
        """When candidates were evaluated, by digest."""
        return {attempt.digest: attempt.finished for attempt in self.attempts.values()}

    @cached_property
    def looks(self) -> Mapping[str, Looked]:
        """What was looked at, by digest."""
        return {look.digest: look for look in self.looked}

    @property
    def concluded(self) -> list[Step]:
        """The steps that were done or failed, in the order in which they ended."""
        ended = [step for step in self.steps.values() if step.state in (StepState.DONE, StepState.FAILED)]
        return sorted(ended, key=lambda step: (step.finished or step.started, step.number))


def replies(messages: Sequence[Any]) -> list[Reply]:
    """Return what a model said in a transcript; calls that were never answered are left out."""
    said: list[tuple[ChatMessage, set[str]]] = []
    for entry in messages:
        message = entry.content["message"] if entry.kind == MESSAGE else {}
        if message.get("role") == "assistant":
            said.append((message, set()))
        elif message.get("role") == "tool" and said:
            said[-1][1].add(message["tool_call_id"])
    return [
        Reply(
            message.get("content") or "",
            tuple(
                ToolCall(call["id"], call["function"]["name"], call["function"]["arguments"])
                for call in message.get("tool_calls", ())
                if call["id"] in answered
            ),
        )
        for message, answered in said
    ]


class ReplayModel:
    """A model that repeats recorded replies, and then has no budget left."""

    def __init__(self, said: Sequence[Reply], renumbered: Callable[[int], int]) -> None:
        """``renumbered`` returns the id that an attempt of the record has in the replay."""
        self._said: Iterator[Reply] = (_renumbered(reply, renumbered) for reply in said)

    def complete(self, messages: Sequence[ChatMessage], tools: Sequence[Mapping[str, Any]]) -> Reply:
        """Return the next reply; raises ``BudgetSpent`` after the last."""
        reply = next(self._said, None)
        if reply is None:
            raise BudgetSpent("the record has no more replies")
        return reply


class Unrecorded(EvaluatorUnavailable):
    """The record has no answer, so the replay has diverged. The message says in which way."""


class RecordedJudge(Evaluator):
    """Judges by digest, as the record says. A candidate without a recorded verdict cannot be judged."""

    def __init__(self, record: RecordedRun, target: Target) -> None:
        self._target = target
        self._looks = record.looks
        self._known = {attempt.digest: attempt.evaluation for attempt in record.attempts.values()}
        self._versions = {version.attempt.digest for version in record.versions}

    @property
    def target(self) -> Target:
        """What the run was for."""
        return self._target

    def ask(self, request: AnyRequest) -> Any:
        """Return the recorded verdict. No operator's next move depends on profiles and findings in a replay."""
        match request:
            case EvaluateRequest(candidate, incumbent):
                return self._evaluate(candidate, incumbent)
            case VerifyRequest(candidate):
                return self._verify(candidate)
            case ProfileRequest():
                return Fault(Status.UNSUPPORTED, "not replayed")
            case Inspection(Look.SPEED, problem, source):
                look = self._looks.get(Candidate(problem, source).digest)
                if look is None:
                    raise Unrecorded("looks at a candidate that is not on record")
                return found_again(look)
            case Inspection():
                return Findings(text="not replayed")

    def _evaluate(self, candidate: Candidate, incumbent: Incumbent | None) -> Evaluation:
        """Return the recorded verdict; raises ``Unrecorded`` where there is none, or none against ``incumbent``."""
        found = self._known.get(candidate.digest)
        if found is None:
            raise Unrecorded("makes a candidate that is not on record")
        score = found.score
        if incumbent is not None and score is not None and score.comparison is not None:
            if score.comparison.plan_digest != self._known[incumbent.candidate.digest].plan_digest:
                raise Unrecorded("compares a candidate with another version than in the record")
            score = replace(score, comparison=replace(score.comparison, alpha=incumbent.alpha))
        return replace(found, score=score, held_out_tflops=None, examined=None)

    def _verify(self, candidate: Candidate) -> Evaluation:
        """Return what came of the closer look on record; a version was correct."""
        found = self._known[candidate.digest]
        if candidate.digest not in self._versions or found.score is None:
            status = found.refused or Status.INCORRECT
            return Evaluation(status, "no version in the record", found.target, HELD_OUT, 0.0)
        tflops = found.held_out_tflops or found.geomean_tflops
        case = replace(found.score.cases[0], tflops=tflops)
        score = replace(found.score, cases=(case,))
        return replace(found, suite=HELD_OUT, score=score, held_out_tflops=None, examined=None)


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


class _Again:
    """An operator that sees what it saw when its step was recorded."""

    def __init__(self, inner: VariationOperator, record: RecordedRun, step: Step, interventions: Sequence[Any]) -> None:
        self.name = step.operator
        self._inner, self._record, self._step, self._interventions = inner, record, step, interventions

    def vary(self, brief: Brief) -> Proposal:
        """Vary with the seed of the recorded step, and without what came after that step began."""
        record, step = self._record, self._step
        origin = step if step.redoes is None else record.steps[step.redoes]
        hidden: set[str] = set()
        if origin is not step and not record.replies[step.number]:
            hidden = {attempt.digest for attempt in record.attempts.values() if attempt.step_id == origin.id}
        seen = brief
        if step.operator != SEED_OPERATOR:
            seen = replace(
                brief,
                seed=step_seed(record.run.seed, origin.worker, origin.turn),
                versions=[v for v in brief.versions if record.versions[v.number].accepted <= step.started],
                attempts=[
                    attempt
                    for attempt in brief.attempts
                    if record.finished.get(attempt.digest, step.started) <= step.started
                    and attempt.digest not in hidden
                ],
                looks=[
                    look
                    for look in brief.looks
                    if (made := record.looks.get(look.digest)) is None
                    or (made.made <= step.started and (origin is step or made.step_number != origin.number))
                ],
                interventions=self._interventions,
            )
        return self._inner.vary(seen)


def told(step: Step, interventions: Sequence[Intervention], versions: Sequence[Version]) -> tuple[Intervention, ...]:
    """Return those of a run's interventions that a step was told."""
    seen = [version for version in versions if version.accepted <= step.started]
    earlier = [made for made in interventions if made.after_step < step.number]
    return since_growth(earlier, seen) if seen else ()


def replay(
    source: Store,
    record: RecordedRun,
    store: Store,
    run: Run,
    config: RunConfig,
    judge: Evaluator,
    clock: Callable[[], datetime],
) -> str:
    """Replay ``record`` of ``source`` into ``run`` of ``store``; return the first difference, if any.

    Exact for a run with one worker. What several workers saw of each other follows from the recorded times.
    Raises ``EvaluatorUnavailable``, the store's errors, and ``RunFailed`` for an operator that cannot be replayed.
    """
    made, trusted = source.journal.interventions(record.run.id), isinstance(judge, RecordedJudge)
    work = Work(
        store,
        run,
        config.model_copy(update={"supervisor": "off"}),
        judge,
        Library.load(),
        clock,
        replace(Allowance.of(config), step_minutes=None),
    )
    for step in record.concluded:

        def renumbered(attempt_id: int) -> int:
            known = record.attempts.get(attempt_id)
            found = known and store.known_attempt(run.id, known.digest)
            return found.id if found else attempt_id

        operator = _operator(record, step, renumbered)
        if step.operator not in (SEED_OPERATOR, MCP_OPERATOR):
            operator = timing_first(operator, record.run)
        if step.operator != SEED_OPERATOR or trusted:  # a judge that is asked again is tested again
            operator = _Again(operator, record, step, told(step, made, record.versions))
        try:
            choices = _Recorded(population(config), step.selection)
            replace(work, population=choices).perform(operator, step.worker)
        except Unrecorded as left:
            return f"step {step.number} {left}"
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


def _operator(record: RecordedRun, step: Step, renumbered: Callable[[int], int]) -> VariationOperator:
    if step.operator == SEED_OPERATOR:
        return SeedOperator(record.versions[0].attempt.source)
    if step.operator in (MCP_OPERATOR, COMMAND_OPERATOR):
        said = (_renumbered(reply, renumbered) for reply in record.replies[step.number])
        calls = (PendingCall(call.name, call.arguments) for reply in said for call in reply.calls)
        if step.operator == COMMAND_OPERATOR:
            return Unattended(lambda: next(calls, None))
        return Served(None, lambda: next(calls, None))
    if asks_models(step.operator):
        model = ReplayModel(record.replies[step.number], renumbered)
        kind = SingleTurn if step.operator == SingleTurn.name else Agentic
        return kind(_SILENT, lambda *_: model)
    if step.operator == "mutate":
        return get_operator(step.operator)
    raise RunFailed(f"step {step.number} has the operator {step.operator!r}, which cannot be replayed")


def _renumbered(reply: Reply, renumbered: Callable[[int], int]) -> Reply:
    """Return ``reply`` with attempts named by their ids in the replay."""

    def arguments(call: ToolCall) -> str:
        given = json.loads(call.arguments)
        if isinstance(given.get("attempt"), int):
            given["attempt"] = renumbered(given["attempt"])
        return json.dumps(given)

    return replace(reply, calls=tuple(replace(call, arguments=arguments(call)) for call in reply.calls))
