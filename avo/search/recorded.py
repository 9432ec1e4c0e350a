"""The record of a run, as a replay reads it: what each step was shown, told and answered, and the judge's verdicts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from avo.agents.conversation import MESSAGE
from avo.agents.model import ChatMessage, Reply, ToolCall
from avo.agents.operator import SEED_OPERATOR
from avo.agents.tools.toolbox import ERROR, NOT_RUN
from avo.errors import RunFailed
from avo.evaluator.candidate import Candidate, Incumbent
from avo.evaluator.errors import EvaluatorUnavailable
from avo.evaluator.evaluation import Evaluation, Status, Verdict
from avo.evaluator.evaluators import AnyRequest, EvaluateRequest, Evaluator, VerifyRequest
from avo.evaluator.inspection import Inspection, Look
from avo.evaluator.problem import HELD_OUT
from avo.evaluator.target import Target
from avo.lineage_db.decision import Decision, Ruling
from avo.lineage_db.entries import Intervention, Memory, Message
from avo.lineage_db.looked import Looked
from avo.lineage_db.records import Attempt, AttemptSummary, Run, Step, StepState, Version
from avo.lineage_db.seen import Answer, Seen
from avo.lineage_db.store import Store
from avo.search.looking import found_again

_UNDONE = (ERROR, NOT_RUN)
"""How the answer to a call begins that changed nothing."""
_NO_CHANGE = ("view_source", "{}")


@dataclass(frozen=True)
class RecordedRun:
    """What a replay needs to know about a recorded run."""

    run: Run
    steps: Mapping[int, Step]
    versions: Sequence[Version]
    history: Sequence[AttemptSummary]
    attempts: Mapping[int, Attempt]
    """The attempts of ``history`` with their sources, by id."""
    interventions: Sequence[Intervention]
    memories: Sequence[Memory]
    answers: Sequence[Answer]
    messages: Mapping[int, Sequence[Message]]
    """Transcripts by step number."""
    looked: Sequence[Looked]

    @classmethod
    def read(cls, store: Store, run: Run) -> "RecordedRun":
        """Read the record of ``run``. Raises ``RunFailed`` where it cannot be replayed, and the store's errors."""
        steps = {step.number: step for step in store.steps(run.id)}
        record = cls(
            run,
            steps,
            store.versions(run.id),
            store.attempt_summaries(run.id),
            {attempt.id: attempt for attempt in store.attempts(run.id)},
            store.journal.interventions(run.id),
            store.journal.memories(run.id),
            store.claims.answers(run.id),
            {number: store.journal.messages(step.id) for number, step in steps.items()},
            store.history(run.id).looks,
        )
        if not record.versions:
            raise RunFailed(f"run {run.name!r} has no version: there is nothing to replay")
        for step in record.concluded:
            if step.seen is None:
                why = f"step {step.number} was recorded by an earlier release, without what it was shown"
                raise RunFailed(f"run {run.name!r} cannot be replayed: {why}")
        return record

    @property
    def concluded(self) -> list[Step]:
        """The steps that were done, in the order in which they added to the lineage. Failed ones added nothing."""
        adding = {version.step_number for version in self.versions}
        done = [step for step in self.steps.values() if step.state is StepState.DONE]
        return sorted(done, key=lambda step: (step.grown or 0, step.number in adding, step.number))

    @property
    def seeds(self) -> list[Attempt]:
        """The attempts of the steps that submitted seeds."""
        ids = {step.id for step in self.steps.values() if step.operator == SEED_OPERATOR}
        return [attempt for attempt in self.attempts.values() if attempt.step_id in ids]

    @cached_property
    def given(self) -> Mapping[int, Mapping[str, Attempt]]:
        """The attempts that each step made or was given instead, by the step's number and the candidate's digest."""
        found: dict[int, dict[str, Attempt]] = {number: {} for number in self.steps}
        numbers = {step.id: step.number for step in self.steps.values()}
        for attempt in self.attempts.values():
            found[numbers[attempt.step_id]][attempt.digest] = attempt
        for answer in self.answers:
            if answer.attempt_id is not None:
                found[answer.step_number][answer.digest] = self.attempts[answer.attempt_id]
        return found

    @cached_property
    def refused(self) -> Mapping[int, Mapping[str, Sequence[Answer]]]:
        """What each step was told in place of attempts, in order, by the step's number and the candidate's digest."""
        found: dict[int, dict[str, list[Answer]]] = {number: {} for number in self.steps}
        for answer in self.answers:
            if answer.attempt_id is None:
                found[answer.step_number].setdefault(answer.digest, []).append(answer)
        return found

    def origin(self, step: Step) -> Step:
        """Return the step that ``step`` repeats or continues, or itself."""
        return step if step.redoes is None else self.steps[step.redoes]

    def transcript(self, step: Step) -> Sequence[Message]:
        """Return the transcript from which a step went on, empty if it had none."""
        while step.redoes is not None:
            step = self.steps[step.redoes]
            if self.messages[step.number]:
                return self.messages[step.number]
        return ()

    def shown(self, seen: Seen, step: Step) -> tuple[list[Version], list[AttemptSummary]]:
        """Return the versions and attempts that a step was shown, as they were then."""
        versions = list(self.versions[: seen.versions])
        if step.selection is not None:
            versions = [version for version in versions if version.number in step.selection.shown]
        attempts = [
            _as_it_was(attempt, seen)
            for attempt in self.history
            if attempt.attempt_id <= seen.attempts and attempt.step_number != seen.hidden
        ]
        return versions, attempts


def _as_it_was(attempt: AttemptSummary, seen: Seen) -> AttemptSummary:
    """Take back what was decided on an attempt after a step had seen it, as far as operators go by it."""
    accepted_since = attempt.version is not None and attempt.version >= seen.versions
    unresolved = attempt.ruling is Ruling.UNRESOLVED
    examined = seen.examined is None or attempt.attempt_id in seen.examined
    late = attempt.ruling is Ruling.EXAMINED and not examined
    if not accepted_since and not late and unresolved is (attempt.attempt_id in seen.unresolved):
        return attempt
    decision = Decision(Ruling.UNRESOLVED, "as it was then") if attempt.attempt_id in seen.unresolved else None
    return replace(attempt, version=None if accepted_since else attempt.version, decision=decision)


def replies(messages: Sequence[Message]) -> list[Reply]:
    """Return what a model said in a transcript.

    Calls that were never answered are left out. One that was answered with an error changed nothing, for reasons that
    need not hold again, such as a budget, and those after it were not run: a call that changes nothing stands for each.
    """
    said: list[tuple[ChatMessage, dict[str, str]]] = []
    for entry in messages:
        message = entry.content["message"] if entry.kind == MESSAGE else {}
        if message.get("role") == "assistant":
            said.append((message, {}))
        elif message.get("role") == "tool" and said:
            said[-1][1][message["tool_call_id"]] = message["content"]
    return [
        Reply(
            message.get("content") or "",
            tuple(
                ToolCall(call["id"], *(_NO_CHANGE if answers[call["id"]].startswith(_UNDONE) else _called(call)))
                for call in message.get("tool_calls", ())
                if call["id"] in answers
            ),
        )
        for message, answers in said
    ]


def _called(call: Mapping[str, Any]) -> tuple[str, str]:
    return call["function"]["name"], call["function"]["arguments"]


class Unrecorded(EvaluatorUnavailable):
    """The record has no answer, so the replay has diverged. The message says in which way."""


class RecordedJudge(Evaluator):
    """Judges by digest, as the record says. A candidate without a recorded verdict cannot be judged."""

    def __init__(self, record: RecordedRun, target: Target) -> None:
        self._target = target
        self._known = {attempt.digest: attempt.evaluation for attempt in record.attempts.values()}
        self._versions = {version.attempt.digest for version in record.versions}
        self._looks = {look.digest: look for look in record.looked}

    @property
    def target(self) -> Target:
        """What the run was for."""
        return self._target

    def ask(self, request: AnyRequest) -> Any:
        """Return the recorded verdict; raises ``Unrecorded``."""
        match request:
            case EvaluateRequest(candidate, incumbent):
                return self._evaluate(candidate, incumbent)
            case VerifyRequest(candidate):
                return self._verify(candidate)
            case Inspection(Look.SPEED, problem, source):
                look = self._looks.get(Candidate(problem, source).digest)
                if look is None:
                    raise Unrecorded("looks at a candidate that is not on record")
                return found_again(look)
        raise Unrecorded("asks for what is not on record")

    def _evaluate(self, candidate: Candidate, incumbent: Incumbent | None) -> Evaluation:
        """Return the recorded verdict; raises ``Unrecorded`` where there is none.

        The record has the last comparison of an attempt only. It was faster in those before it if it is a version, and
        if it is none, it was not faster than all its rivals.
        """
        found = self._known.get(candidate.digest)
        if found is None:
            raise Unrecorded("makes a candidate that is not on record")
        score = found.score and replace(found.score, neighbours=())
        if incumbent is not None and score is not None and score.comparison is not None:
            rival, comparison = self._known[incumbent.candidate.digest].plan_digest, score.comparison
            if rival is not None and comparison.plan_digest != rival:
                verdict = Verdict.FASTER if candidate.digest in self._versions else Verdict.UNDECIDED
                comparison = replace(comparison, plan_digest=rival, verdict=verdict)
            score = replace(score, comparison=replace(comparison, alpha=incumbent.alpha))
        return replace(found, score=score, held_out_tflops=None, examined=None, compiled="")

    def _verify(self, candidate: Candidate) -> Evaluation:
        """Return what came of the closer look on record; a version was correct."""
        found = self._known[candidate.digest]
        passed = candidate.digest in self._versions or found.examined is Status.CORRECT
        if not passed or found.score is None:
            status = found.refused or Status.INCORRECT
            why = "no version in the record"
            return Evaluation(status, why, found.target, HELD_OUT, 0.0, compiled=found.compiled)
        tflops = found.held_out_tflops or found.geomean_tflops
        case = replace(found.score.cases[0], tflops=tflops)
        score = replace(found.score, cases=(case,))
        return replace(found, suite=HELD_OUT, score=score, held_out_tflops=None, examined=None)
