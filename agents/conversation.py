"""The conversation with a model: recorded message by message, shortened where much of it is superseded, and compacted
before it outgrows the model's context.
"""

import json
from collections.abc import Callable, Sequence

from avo.agents.desk import Record
from avo.agents.errors import ModelRefused
from avo.agents.model import CHARS_PER_TOKEN, ChatMessage, Model, Reply, estimated_tokens
from avo.agents.prompts import render
from avo.agents.superseded import without_superseded
from avo.agents.tools.tables import short
from avo.lineage_db.entries import Message

MESSAGE, SUMMARY, SHORTENED, STATE = "message", "summary", "shortened", "state"
RESUMED, CONTINUED = "resumed", "continued"
"""Kinds of transcript entries: one message of the conversation; all messages, recorded after a summary, when superseded
ones were left out, or when another step takes this one up or goes on with its conversation; and the workbench.
"""

_HEAD = 2
"""Number of messages at the start that are never compacted: the system prompt and the brief."""
_REPLY_SHARE = 0.2
"""Share of the context kept free for a reply when the reply's length is not limited."""
_KEPT_SHARE = 0.3
"""Share of the context, or of the conversation if that is shorter, that the latest turns keep as they are."""
_SUPERSEDED_SHARE = 0.1
"""Share of a request from which on superseded texts are left out, all at once: from the first of them on, an endpoint's
cache is lost, which has a tenth of the price. Of the shares from 0 to 0.4 on the conversations of ``bench.replay``,
those up to 0.1 take the fewest tokens, and the long step costs least with them.
"""
_SUMMARISED_SHARE = 0.5
"""Share of the context that a request for a summary may fill."""
_SHOWN_CHARS = (200, 2000)
"""Fewest and most characters of one message in a request for a summary."""
_MECHANICAL_LINES = 60
_INTERRUPTED = "error: interrupted before there was a result"


class Conversation:
    """Messages in order. A message is recorded before it is added."""

    def __init__(self, record: Record, context_tokens: int, reply_tokens: int | None, tools: object = ()) -> None:
        """``context_tokens`` is the size of the model's context, ``reply_tokens`` the limit of one reply; None means no
        limit. ``tools`` are sent with each request.
        """
        self.messages: list[ChatMessage] = []
        self._record = record
        self._tools = estimated_tokens(json.dumps(tools))
        self._context = context_tokens
        self._reserve = min(reply_tokens or int(_REPLY_SHARE * context_tokens), context_tokens // 2)
        self._counted, self._uncounted = 0, self._tools

    def add(self, message: ChatMessage) -> None:
        """Add a message."""
        self._record(MESSAGE, {"message": message})
        self.messages.append(message)
        self._uncounted += _tokens(message)

    def reply(self, reply: Reply) -> None:
        """Add a model's reply at the end."""
        self._record(MESSAGE, {"message": reply.message})
        self.messages.append(reply.message)
        self._counted, self._uncounted = reply.usage.tokens, 0

    def replace(self, kind: str, messages: Sequence[ChatMessage], **more: object) -> None:
        """Replace all messages."""
        self._record(kind, {"messages": list(messages), **more})
        self.messages = list(messages)
        self._counted, self._uncounted = 0, self._tools + sum(map(_tokens, messages))

    @property
    def tokens(self) -> int:
        """Tokens of the messages: counted at the last reply, estimated for what was added since."""
        return self._counted + self._uncounted

    @property
    def full(self) -> bool:
        """Whether another reply may not fit."""
        return self.tokens > self._context - self._reserve

    def too_long(self, context_tokens: int | None = None) -> None:
        """Note that the model's context is smaller than was thought: the conversation as it is now does not fit.

        ``context_tokens`` is the context's size, where it is known.
        """
        self._context = min(self._context, context_tokens or self.tokens)
        self._reserve = min(self._reserve, self._context // 2)

    def shorten(self) -> bool:
        """Leave out what is superseded, if that is much of the conversation. Returns whether it was."""
        left = without_superseded(self.messages)
        whole, rest = (self._tools + sum(map(_tokens, messages)) for messages in (self.messages, left))
        if whole - rest <= _SUPERSEDED_SHARE * whole:
            return False
        self.replace(SHORTENED, left)
        return True

    def compact(self, model: Model, exact: Callable[[str], ChatMessage]) -> bool:
        """Summarise all but the latest turns; ``exact`` makes a message of the summary and what must not be lost.

        The model summarises, or when it cannot, a list of calls has to do. Returns whether there was anything to
        summarise. Raises ``BudgetSpent``.
        """
        older, latest = self._split()
        if not older:
            return False
        self.replace(SUMMARY, [*self.messages[:_HEAD], exact(self._summary(model, older)), *latest])
        return True

    def _split(self) -> tuple[list[ChatMessage], list[ChatMessage]]:
        """Return the turns to summarise and the latest, which stay; results stay with their calls."""
        older = turns(self.messages[_HEAD:])
        latest: list[ChatMessage] = []
        most = _KEPT_SHARE * min(self._context, self.tokens)
        while older and sum(map(_tokens, (*older[-1], *latest))) <= most:
            latest = [*older.pop(), *latest]
        return [message for turn in older for message in turn], latest

    def _summary(self, model: Model, older: Sequence[ChatMessage]) -> str:
        most = int(_SUMMARISED_SHARE * self._context) * CHARS_PER_TOKEN
        each = min(max(most // len(older), _SHOWN_CHARS[0]), _SHOWN_CHARS[1])
        record = "\n\n".join(_shown(message, each) for message in older)[-most:]
        asked = [{"role": "system", "content": render("summarise")}, {"role": "user", "content": record}]
        try:
            text = model.complete(asked, ()).text.strip()
        except ModelRefused:
            text = ""
        return text or mechanical_summary(older)


def messages_in(transcript: Sequence[Message]) -> list[ChatMessage]:
    """Return the conversation that a transcript has at its end; calls without a result are answered by an error."""
    messages: list[ChatMessage] = []
    for entry in transcript:
        if entry.kind == MESSAGE:
            messages.append(entry.content["message"])
        elif entry.kind != STATE:
            messages = list(entry.content["messages"])
    return messages + [result_message(call_id, _INTERRUPTED) for call_id in unanswered(messages)]


def turns(messages: Sequence[ChatMessage]) -> list[list[ChatMessage]]:
    """Return messages in turns: each begins with what model or user says, and has the results of its calls."""
    found: list[list[ChatMessage]] = []
    for message in messages:
        if message["role"] == "tool" and found:
            found[-1].append(message)
        else:
            found.append([message])
    return found


def mechanical_summary(messages: Sequence[ChatMessage]) -> str:
    """Return the calls among ``messages`` with the first line of their results, the latest ones."""
    results = {message["tool_call_id"]: message["content"] for message in messages if message["role"] == "tool"}
    lines = []
    for message in messages:
        for call in message.get("tool_calls", ()):
            function = call["function"]
            result = short(results.get(call["id"], "").partition("\n")[0])
            lines.append(f"{function['name']} {short(function['arguments'])} -> {result}")
    return "\n".join(lines[-_MECHANICAL_LINES:]) or "nothing was called"


def result_message(call_id: str, content: str) -> ChatMessage:
    """Return the message that holds a tool's result."""
    return {"role": "tool", "tool_call_id": call_id, "content": content}


def unanswered(messages: Sequence[ChatMessage]) -> list[str]:
    """Return the ids of calls that have no results."""
    last = turns(messages)[-1] if messages else []
    answered = {message["tool_call_id"] for message in last if message["role"] == "tool"}
    return [call["id"] for message in last for call in message.get("tool_calls", ()) if call["id"] not in answered]


def _shown(message: ChatMessage, most: int) -> str:
    calls = (
        f"CALL {call['function']['name']}: {call['function']['arguments'][: most // 2]}"
        for call in message.get("tool_calls", ())
    )
    return "\n".join((f"{message['role'].upper()}: {(message.get('content') or '')[:most]}", *calls))


def _tokens(message: ChatMessage) -> int:
    return estimated_tokens(json.dumps(message, ensure_ascii=False)) + 4
