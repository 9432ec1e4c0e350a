"""The operator ``mcp``: serves the tools of a step to an external agent, whose calls come through a queue."""

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

from agents.agentic import budget, opening, proposal, told
from agents.conversation import MESSAGE, STATE, result_message
from agents.desk import Desk
from agents.errors import StepLeft
from agents.model import ChatMessage, Reply, ToolCall
from agents.operator import Brief, Proposal
from agents.prompts import render
from agents.tools import Toolbox, Workbench

MCP_OPERATOR = "mcp"


@dataclass(frozen=True, eq=False)
class PendingCall:
    """A tool call, and where its answer goes."""

    name: str
    arguments: str
    """The arguments as JSON."""
    answer: "Future[tuple[str, ...]]" = field(default_factory=Future)
    """The texts of the answer: the tool's result last, before it what the agent has to be told first."""


class Served:
    """Performs tool calls as they come, until one of them submits. All are in the transcript, as a model's would be."""

    name = MCP_OPERATOR

    def __init__(self, first: PendingCall | None, more: Callable[[], PendingCall | None]) -> None:
        """``first`` is a call already received; ``more`` waits for the next and returns None when there are no more."""
        self.pending = first
        """The call that has no answer yet. After the step, it is the call that ended the step."""
        self.said = ""
        """The result of the pending call's tool, if it ran."""
        self._more = more
        self._before: tuple[str, ...] = ()
        self._count = 0

    def vary(self, brief: Brief) -> Proposal:
        """Work until a submission; raise ``StepLeft`` if the calls end before it."""
        states = [entry.content for entry in brief.transcript if entry.kind == STATE]
        toolbox = Toolbox(brief, Workbench.from_json(states[-1]) if states else None)
        self._open(brief, toolbox.bench, resumed=bool(states))
        while not toolbox.bench.done:
            said = self._perform(brief.desk, toolbox, self._next())
            if toolbox.bench.done:
                self.said = said
            else:
                self.answer(said)
        return proposal(toolbox.bench, brief.desk)

    def answer(self, said: str) -> None:
        """Answer the pending call, if there is one."""
        call, self.pending = self.pending, None
        if call is not None:
            call.answer.set_result((*self._before, said))
            self._before = ()

    def _next(self) -> PendingCall:
        self.pending = self.pending or self._more()
        if self.pending is None:
            raise StepLeft("the agent disconnected before it submitted")
        return self.pending

    def _open(self, brief: Brief, bench: Workbench, *, resumed: bool) -> None:
        """Put the task and the lineage before the first answer, or the state in which an earlier step was left."""
        system = render("system", **told(brief))
        if resumed:
            attempts, left = [attempt.line for attempt in bench.attempts], budget(brief.desk)
            said = render("taken_up", source=bench.source, parents=bench.parents, attempts=attempts, budget=left)
            brief.desk.record(STATE, bench.to_json())
        else:
            said = opening(brief, bench.source)
        for role, content in (("system", system), ("user", said)):
            _record(brief.desk, {"role": role, "content": content})
        self._before = (system, said)

    def _perform(self, desk: Desk, toolbox: Toolbox, call: PendingCall) -> str:
        self._count += 1
        called = ToolCall(f"call_{self._count}", call.name, call.arguments)
        _record(desk, Reply("", (called,)).message)
        said = toolbox.call(call.name, call.arguments)
        _record(desk, result_message(called.id, said))
        desk.record(STATE, toolbox.bench.to_json())
        return said


def _record(desk: Desk, message: ChatMessage) -> None:
    desk.record(MESSAGE, {"message": message})
