"""Operators whose tools are called from outside: an external agent's calls come through a queue."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

from avo.agents.agentic import proposal
from avo.agents.briefing import opening, taken_up
from avo.agents.conversation import MESSAGE, STATE, result_message
from avo.agents.desk import Desk
from avo.agents.errors import StepLeft
from avo.agents.folder import with_source
from avo.agents.model import ChatMessage, Reply, ToolCall
from avo.agents.operator import COMMAND_OPERATOR, Brief, Proposal
from avo.agents.prompts import render
from avo.agents.task import told
from avo.agents.tools import Toolbox, Workbench
from avo.agents.tools.arguments import BadCall

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

    def __init__(
        self, first: PendingCall | None, more: Callable[[], PendingCall | None], folder: Path | None = None
    ) -> None:
        """``first`` is a call already received; ``more`` waits for the next and returns None when there are no more.

        Where the agent has a ``folder``, calls may name files in it.
        """
        self.pending = first
        """The call that has no answer yet. After the step, it is the call that ended the step."""
        self.said = ""
        """The result of the pending call's tool, if it ran."""
        self._more = more
        self._folder = folder
        self._before: tuple[str, ...] = ()
        self._count = 0

    def vary(self, brief: Brief) -> Proposal:
        """Work until a submission; raise ``StepLeft`` if the calls end before it."""
        states = [entry.content for entry in brief.transcript if entry.kind == STATE]
        toolbox = Toolbox(brief, Workbench.from_json(states[-1]) if states else None)
        toolbox.shown.add(toolbox.bench.source)
        self._begin(self._open(brief, toolbox.bench, resumed=bool(states)), toolbox.bench.source)
        while not toolbox.bench.done:
            self.pending = self.pending or self._more()
            if self.pending is None:
                toolbox.finish()
                return self._left(toolbox.bench, brief.desk)
            said = self._perform(brief.desk, toolbox, self.pending)
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

    def _begin(self, texts: tuple[str, ...], source: str) -> None:
        """Tell the agent what the step begins with: here before the first answer. ``source`` is the working source."""
        self._before = texts

    def _left(self, bench: Workbench, desk: Desk) -> Proposal:
        """Return what becomes of the step when the calls end before a submission."""
        raise StepLeft("the agent disconnected before it submitted")

    def _open(self, brief: Brief, bench: Workbench, *, resumed: bool) -> tuple[str, str]:
        """Return the task and the lineage, or the state in which an earlier step was left; both are recorded."""
        system = render("system", **told(brief))
        if resumed:
            said = taken_up(brief, bench)
            brief.desk.record(STATE, bench.to_json())
        else:
            said = opening(brief, bench.source)
        for role, content in (("system", system), ("user", said)):
            _record(brief.desk, {"role": role, "content": content})
        return system, said

    def _perform(self, desk: Desk, toolbox: Toolbox, call: PendingCall) -> str:
        """Perform a call. Recorded is what it stands for, so that a replay needs no files."""
        try:
            calls = with_source(call.name, call.arguments, self._folder)
        except BadCall as error:
            return f"error: {error}"
        said = ""
        for name, arguments in calls:
            self._count += 1
            called = ToolCall(f"call_{self._count}", name, arguments)
            _record(desk, Reply("", (called,)).message)
            said = toolbox.call(name, arguments)
            _record(desk, result_message(called.id, said))
            desk.record(STATE, toolbox.bench.to_json())
            if said.startswith("error: "):
                break
        return said


class Unattended(Served):
    """Serves a program that nobody attends: when its calls end, its best correct attempt is submitted."""

    name = COMMAND_OPERATOR

    def __init__(
        self,
        more: Callable[[], PendingCall | None],
        begin: Callable[[Sequence[str], str], None] = lambda texts, source: None,
        ending: Callable[[], str] = lambda: "the program made no more calls",
        folder: Path | None = None,
    ) -> None:
        """``begin`` gets the task and the working source before any call; ``ending`` says why no more calls come."""
        super().__init__(None, more, folder)
        self._start, self._ending = begin, ending

    def _begin(self, texts: tuple[str, ...], source: str) -> None:
        self._start(texts, source)

    def _left(self, bench: Workbench, desk: Desk) -> Proposal:
        return proposal(bench, desk, self._ending())


def _record(desk: Desk, message: ChatMessage) -> None:
    desk.record(MESSAGE, {"message": message})
