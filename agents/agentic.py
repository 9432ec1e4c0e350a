"""The operator ``agent``: ``Vary(P_t) = Agent(P_t, K, f)``. A model calls tools until it submits an attempt."""

import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from agents.conversation import MESSAGE, RESUMED, STATE, Conversation, result_message, unanswered
from agents.desk import Desk
from agents.errors import BudgetSpent, ContextOverflow, ModelRefused
from agents.memory import lessons, matter_at_hand, ranked
from agents.model import CHARS_PER_TOKEN, CUT, ChatMessage, Model, Reply, ToolCall
from agents.operator import Brief, Proposal
from agents.prompts import render
from agents.relay import MakeModel, chat_models
from agents.settings import ModelSettings, Settings
from agents.tools import Toolbox, Workbench
from agents.tools.arguments import READ_ONLY
from agents.tools.tables import lineage, short, unresolved
from agents.tools.toolbox import ERROR, MOST_CHARS, cut
from evaluator.catalogue import get_problem, get_suite
from evaluator.problem import Problem
from evaluator.target import Target
from lineage_db.records import Submission

MOST_TURNS = 200
"""Largest number of replies in one step."""
MOST_IDLE = 5
"""The step ends after this many replies in a row that call no tool."""
LAST_TURNS = 4
"""Replies that the model still gets after its last evaluation, to submit by itself."""
LESSONS = 12
"""Largest number of lines of memory in a brief."""
_LINEAGE_CHARS = 8_000
_RESULT_SHARE = 0.1
"""Largest share of the context that the result of one tool may take."""
_INTERRUPTED = "error: interrupted before there was a result"
_NOT_RUN = "not run: the call before failed"


class Agentic:
    """Lets one of its models work with the tools of a step."""

    name = "agent"

    def __init__(self, settings: Settings, make_model: MakeModel | None = None) -> None:
        self._settings = settings
        self._make_model = make_model or chat_models(settings)

    def vary(self, brief: Brief) -> Proposal:
        """Work until the model submits. When a budget or the turns run out first, submit the best attempt.

        Raises ``ModelRefused`` if the model does not answer and there is no correct attempt.
        """
        rng = random.Random(brief.seed)
        chosen = choose(self._settings.models, rng)
        return _Step(brief, chosen, self._make_model(chosen, brief.desk, rng)).work()


def choose(models: Sequence[ModelSettings], rng: random.Random) -> ModelSettings:
    """Draw the model of a step, by weight."""
    return rng.choices(models, [model.weight for model in models])[0]


def told(brief: Brief) -> dict[str, Any]:
    """Return the template variables that describe the problem and target of ``brief``."""
    return task(brief.problem, brief.target, brief.suite, brief.requirement)


def task(problem: Problem, target: Target, suite: str, requirement: str) -> dict[str, Any]:
    """Return the template variables that describe a problem, target and suite, and what a version must be."""
    cases = get_suite(problem, suite)
    return {
        "problem": problem,
        "target": target,
        "suite": suite,
        "requirement": requirement,
        "cases": [case.name for case in cases],
        "call": problem.call(cases[0]),
    }


def opening(brief: Brief, source: str) -> str:
    """Return the first message of a step to its agent; ``source`` is the working source."""
    attempts = [attempt for attempt in brief.attempts if attempt.version is None]
    taken = brief.transferred
    of_taken = "" if taken is None else lineage(taken.versions, (), brief.target.kind)
    return render(
        "brief",
        problem=brief.problem,
        lineage=cut(lineage(brief.versions, attempts[-10:], brief.target.kind), _LINEAGE_CHARS),
        unresolved=unresolved(brief.unresolved),
        transferred=taken,
        transferred_lineage=cut(of_taken, _LINEAGE_CHARS // 2),
        transferred_source=source_to_adapt(brief),
        memory=learnt(brief),
        interventions=brief.interventions,
        budget=budget(brief.desk),
        parent_number=brief.parent.number,
        best_number=brief.versions[-1].number,
        source=source,
    )


def budget(desk: Desk) -> str:
    """Return what is left of the budgets, in words."""
    return render("budget", left=desk.left())


def proposal(bench: Workbench, desk: Desk, ending: str = "") -> Proposal:
    """Return what a step on ``bench`` proposes.

    If nothing was submitted, the best attempt is proposed; ``ending`` then says why the step is over.
    """
    if not bench.done and (best := bench.best):
        bench.submission = Submission(best.attempt_id, best.change, best.hypothesis, best.expected, best.outcome)
    submission = bench.submission
    if submission is None:
        return Proposal(None, ending or f"nothing submitted: {bench.reason}")
    reason = f"{submission.change}: {submission.seen}"
    if ending:
        reason = f"{ending}; submitted is the best attempt: {reason}"
    return Proposal(desk.attempt(submission.attempt_id), reason, submission)


def learnt(brief: Brief, limit: int = LESSONS) -> list[str]:
    """Return the lines of the run's memory that matter most for a step on the best version."""
    found = lessons(brief.memories, brief.attempts, brief.versions)
    about = matter_at_hand(brief.parent, brief.attempts)
    return [short(lesson.text, 500) for lesson in ranked(found, about, limit)]


def source_to_adapt(brief: Brief) -> str:
    """Return the kernel of another problem with a different entry function; empty if there is none."""
    taken = brief.transferred
    other = taken is not None and get_problem(taken.run.problem).entry != brief.problem.entry
    return taken.source if taken is not None and other else ""


def _together(calls: Sequence[ToolCall]) -> Iterator[list[ToolCall]]:
    """Yield the calls in order: those in a row that only read together, every other one alone."""
    for reads, some in groupby(calls, lambda call: call.name in READ_ONLY):
        in_a_row = list(some)
        yield from [in_a_row] if reads else ([call] for call in in_a_row)


class _Step:
    """One call of ``vary``."""

    def __init__(self, brief: Brief, settings: ModelSettings, model: Model) -> None:
        self._brief, self._desk, self._model = brief, brief.desk, model
        states = [
            entry.content if entry.kind == STATE else entry.content["state"]
            for entry in brief.transcript
            if entry.kind in (STATE, RESUMED)
        ]
        self._most_chars = min(MOST_CHARS, int(_RESULT_SHARE * settings.context_tokens * CHARS_PER_TOKEN))
        self._toolbox = Toolbox(brief, Workbench.from_json(states[-1]) if states else None, self._most_chars)
        self._kept: Mapping[str, Any] = states[-1] if states else {}
        self._conversation = Conversation(
            self._desk.record, settings.context_tokens, settings.max_output_tokens, self._toolbox.specs
        )
        self._turns = self._idle = self._after_last = 0
        self._open()

    @property
    def _bench(self) -> Workbench:
        return self._toolbox.bench

    def work(self) -> Proposal:
        """Take turns until the step is over."""
        try:
            while not self._bench.done and not (ending := self._ending()):
                self._turn()
        except BudgetSpent as spent:
            ending = str(spent)
        except ModelRefused as refusal:
            if self._bench.best is None:
                raise
            ending = str(refusal)
        return proposal(self._bench, self._desk, "" if self._bench.done else ending)

    def _open(self) -> None:
        """Begin the conversation, or resume that of an interrupted step."""
        if not any(entry.kind != STATE for entry in self._brief.transcript):
            self._conversation.add({"role": "system", "content": render("system", **told(self._brief))})
            self._conversation.add({"role": "user", "content": opening(self._brief, self._bench.source)})
            return
        messages: list[ChatMessage] = []
        for entry in self._brief.transcript:
            if entry.kind == MESSAGE:
                messages.append(entry.content["message"])
            elif entry.kind != STATE:
                messages = list(entry.content["messages"])
        messages += [result_message(call_id, _INTERRUPTED) for call_id in unanswered(messages)]
        messages.append({"role": "user", "content": render("resumed", budget=budget(self._desk))})
        taken_up = self._brief.transcript[-1].step_id
        self._conversation.replace(RESUMED, messages, step=taken_up, state=self._bench.to_json())

    def _turn(self) -> None:
        reply = self._ask()
        self._turns += 1
        self._idle = 0 if reply.calls else self._idle + 1
        if not reply.empty:
            self._conversation.reply(reply)
        stopped = False
        for calls in _together(reply.calls):
            for call, said in zip(calls, [_NOT_RUN] * len(calls) if stopped else self._perform(calls), strict=True):
                self._keep_state()  # before the result, so that nothing the model has read is ever lost
                self._conversation.add(result_message(call.id, said))
                stopped = stopped or said.startswith(ERROR)
        if not reply.calls or reply.finish == CUT:
            self._say(render("nudge", problem=reply.problem))

    def _perform(self, calls: Sequence[ToolCall]) -> Sequence[str]:
        if len(calls) > 1:
            return self._toolbox.call_together(calls)
        return [self._toolbox.call(call.name, call.arguments) for call in calls]

    def _ask(self) -> Reply:
        if self._conversation.full:
            self._conversation.compact(self._model, self._exact)
        try:
            return self._model.complete(self._conversation.messages, self._toolbox.specs)
        except ContextOverflow as overflow:  # the configured context is larger than the model's, or another took over
            self._conversation.too_long(overflow.context_tokens)
            if not self._conversation.compact(self._model, self._exact):
                raise
            return self._model.complete(self._conversation.messages, self._toolbox.specs)

    def _exact(self, summary: str) -> ChatMessage:
        bench = self._bench
        content = render(
            "compacted",
            summary=summary,
            source=bench.source,
            parents=bench.parents,
            attempts=[each.line for each in bench.attempts],
            results={name: cut(result, self._most_chars // 2) for name, result in bench.results.items()},
            budget=budget(self._desk),
        )
        return {"role": "user", "content": content}

    def _ending(self) -> str:
        """Return why the step is over although nothing was submitted; empty while it goes on."""
        if self._turns >= MOST_TURNS:
            return f"no submission in {MOST_TURNS} replies"
        if self._idle >= MOST_IDLE:
            return f"{MOST_IDLE} replies in a row without a call of a tool"
        if (left := self._desk.left().evaluations) is not None and left <= 0:
            if self._after_last == LAST_TURNS:
                return "no evaluations are left"
            if self._after_last == 0:
                self._say(render("last_turns", turns=LAST_TURNS))
            self._after_last += 1
        return ""

    def _say(self, content: str) -> None:
        self._conversation.add({"role": "user", "content": content})

    def _keep_state(self) -> None:
        state = self._bench.to_json()
        if state != self._kept:
            self._desk.record(STATE, state)
            self._kept = state
