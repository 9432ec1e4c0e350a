"""The operator ``agent``: ``Vary(P_t) = Agent(P_t, K, f)``. A model calls tools until it submits an attempt."""

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from avo.agents.bandit import shares
from avo.agents.briefing import budget, continued, opening, resumed
from avo.agents.continuing import Thread, thread_of
from avo.agents.conversation import CONTINUED, RESUMED, STATE, Conversation, messages_in, result_message
from avo.agents.desk import Desk
from avo.agents.errors import BudgetSpent, ContextOverflow, ModelRefused
from avo.agents.handover import hand_over
from avo.agents.model import CHARS_PER_TOKEN, CUT, ChatMessage, Model, Reply, ToolCall
from avo.agents.operator import Brief, Proposal
from avo.agents.prompts import render
from avo.agents.relay import MakeModel, chat_models
from avo.agents.settings import ModelSettings, Settings
from avo.agents.superseded import texts
from avo.agents.task import told
from avo.agents.tools import Toolbox, Workbench
from avo.agents.tools.arguments import READ_ONLY
from avo.agents.tools.tables import cut, short
from avo.agents.tools.toolbox import ERROR, MOST_CHARS, NOT_RUN, failed
from avo.agents.written import PARSER_MISSING, is_written
from avo.lineage_db.entries import PaidStep
from avo.lineage_db.records import Submission

MOST_TURNS = 200
"""Largest number of replies in one step."""
MOST_IDLE = 5
"""The step ends after this many replies in a row that call no tool."""
MOST_FAILED = 10
"""The step ends after this many calls in a row that cannot be performed."""
LAST_TURNS = 4
"""Replies that the model still gets after its last evaluation, to submit by itself."""
_RESULT_SHARE = 0.1
"""Largest share of the context that the result of one tool may take."""


class Agentic:
    """Lets one of its models work with the tools of a step."""

    name = "agent"

    def __init__(self, settings: Settings, make_model: MakeModel | None = None) -> None:
        self._settings = settings
        self._make_model = make_model or chat_models(settings)

    def vary(self, brief: Brief) -> Proposal:
        """Work until the model submits. When a budget or the turns run out first, submit the best attempt.

        Raises ``ModelRefused`` if the model does not answer, or its calls come as text, and there is no correct
        attempt.
        """
        rng = random.Random(brief.seed)
        drawn = choose(self._settings.models, rng, brief.paid)
        thread = thread_of(brief, self._settings, drawn.name)
        chosen = drawn if thread.model == drawn.name else self._settings.model(thread.model)
        return _Step(brief, chosen, self._make_model(chosen, brief.desk, rng), thread).work()


def choose(models: Sequence[ModelSettings], rng: random.Random, paid: Sequence[PaidStep]) -> ModelSettings:
    """Draw the model of a step, by what the steps of each have gained and cost."""
    return rng.choices(models, [each.share for each in shares(models, paid)])[0]


def proposal(bench: Workbench, desk: Desk, ending: str = "", last_words: str = "") -> Proposal:
    """Return what a step on ``bench`` proposes, after it has left its handover.

    If nothing was submitted, the best attempt is proposed; ``ending`` then says why the step is over. ``last_words``
    are what the model said last.
    """
    hand_over(bench, desk, ending, last_words)
    if not bench.done and (best := bench.best):
        change = bench.whole_change(best)
        bench.submission = Submission(best.attempt_id, change, best.hypothesis, best.expected, best.outcome)
    submission = bench.submission
    if submission is None:
        return Proposal(None, ending or f"nothing submitted: {bench.reason}")
    reason = f"{submission.change}: {submission.seen}"
    if ending:
        reason = f"{ending}; submitted is the best attempt: {reason}"
    return Proposal(desk.attempt(submission.attempt_id), reason, submission)


def _together(calls: Sequence[ToolCall]) -> Iterator[list[ToolCall]]:
    """Yield the calls in order: those in a row that only read together, up to a ``check``, every other one alone."""
    group: list[ToolCall] = []
    for call in calls:
        if call.name not in READ_ONLY and group:
            yield group
            group = []
        group.append(call)
        if call.name not in READ_ONLY or call.name == "check":
            yield group
            group = []
    if group:
        yield group


class _Step:
    """One call of ``vary``."""

    def __init__(self, brief: Brief, settings: ModelSettings, model: Model, thread: Thread) -> None:
        self._thread = thread
        self._began = self._last_words = ""
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
        self._turns = self._idle = self._written = self._after_last = 0
        self._failed: list[str] = []
        """The last calls in a row that could not be performed, with why."""
        self._open()

    @property
    def _bench(self) -> Workbench:
        return self._toolbox.bench

    def work(self) -> Proposal:
        """Take turns until the step is over."""
        refusal: ModelRefused | None = None
        try:
            while not self._bench.done and not (ending := self._ending()):
                self._turn()
        except BudgetSpent as spent:
            ending = str(spent)
        except ModelRefused as error:
            ending, refusal = str(error), error
        if ended := self._toolbox.finish():
            self._keep_state()
            self._say(ended)
        if refusal is not None and self._bench.best is None:
            hand_over(self._bench, self._desk, ending, self._last_words)
            raise refusal
        return proposal(self._bench, self._desk, "" if self._bench.done else ending, self._last_words)

    def _open(self) -> None:
        """Begin the conversation, or go on with that of an interrupted step or of the worker's last one."""
        brief, thread = self._brief, {"model": self._thread.model, "steps": self._thread.steps}
        if any(entry.kind != STATE for entry in brief.transcript):
            self._began = next((e.content["began"] for e in brief.transcript if e.kind == CONTINUED), "")
            messages = [*messages_in(brief.transcript), _from_user(resumed(brief, self._bench))]
            taken_up = brief.transcript[-1].step_id
            self._conversation.replace(RESUMED, messages, step=taken_up, state=self._bench.to_json(), **thread)
        elif brief.previous is not None and self._thread.steps > 1:
            self._began = continued(brief, brief.previous, self._bench.source)
            messages = [*messages_in(brief.previous.transcript), _from_user(self._began)]
            self._conversation.replace(CONTINUED, messages, began=self._began, **thread)
            self._toolbox.shown.add(self._bench.source)
        else:
            self._conversation.add({"role": "system", "content": render("system", **told(brief))})
            self._conversation.add(_from_user(opening(brief, self._bench.source)))
            self._toolbox.shown.add(self._bench.source)

    def _turn(self) -> None:
        reply = self._ask()
        self._turns += 1
        self._last_words = reply.text.strip() or self._last_words
        self._idle = 0 if reply.calls else self._idle + 1
        written = not reply.calls and is_written(reply.text, (tool["function"]["name"] for tool in self._toolbox.specs))
        self._written = 0 if reply.calls else self._written + written
        if not reply.empty:
            self._conversation.reply(reply)
        stopped = False
        for calls in _together(reply.calls):
            for call, said in zip(calls, [NOT_RUN] * len(calls) if stopped else self._perform(calls), strict=True):
                self._keep_state()  # before the result, so that nothing the model has read is ever lost
                self._conversation.add(result_message(call.id, NOT_RUN if stopped else said))
                if not stopped and said != NOT_RUN:
                    again = [*self._failed, f"{call.name}: {short(said.removeprefix(ERROR))}"]
                    self._failed = again if said.startswith(ERROR) else []
                stopped = stopped or failed(call.name, said)
        if not reply.calls or reply.finish == CUT:
            self._say(render("nudge", problem=reply.problem, written=written))

    def _perform(self, calls: Sequence[ToolCall]) -> Sequence[str]:
        if len(calls) > 1:
            return self._toolbox.call_together(calls)
        return [self._toolbox.call(call.name, call.arguments) for call in calls]

    def _ask(self) -> Reply:
        if self._conversation.shorten():
            self._toolbox.shown.keep(texts(self._conversation.messages))
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
        self._toolbox.shown.forget()
        self._toolbox.shown.add(bench.source)
        content = render(
            "compacted",
            summary=summary,
            began=self._began,
            source=bench.source,
            parents=bench.parents,
            built_on=bench.built_on,
            attempts=bench.lines,
            results={name: cut(result, self._most_chars // 2) for name, result in bench.results.items()},
            budget=budget(self._desk),
        )
        return _from_user(content)

    def _ending(self) -> str:
        """Return why the step is over although nothing was submitted; empty while it goes on.

        Raises ``ModelRefused`` where calls come as text.
        """
        if self._turns >= MOST_TURNS:
            return f"no submission in {MOST_TURNS} replies"
        if self._idle >= MOST_IDLE:
            why = f"{MOST_IDLE} replies in a row without a call of a tool"
            if self._written > 1:
                raise ModelRefused(f"{why}: {PARSER_MISSING}")
            return why
        if len(self._failed) >= MOST_FAILED:
            return f"{MOST_FAILED} calls in a row could not be performed, the last: {self._failed[-1]}"
        if (left := self._desk.left().evaluations) is not None and left <= 0:
            if self._after_last == LAST_TURNS:
                return "no evaluations are left"
            if self._after_last == 0:
                self._say(render("last_turns", turns=LAST_TURNS))
            self._after_last += 1
        return ""

    def _say(self, content: str) -> None:
        self._conversation.add(_from_user(content))

    def _keep_state(self) -> None:
        state = self._bench.to_json()
        if state != self._kept:
            self._desk.record(STATE, state)
            self._kept = state


def _from_user(content: str) -> ChatMessage:
    return {"role": "user", "content": content}
