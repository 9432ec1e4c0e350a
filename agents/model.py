"""The seam to language models: what is sent, what is returned, and a scripted model for tests."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

ChatMessage: TypeAlias = dict[str, Any]
"""A message in the form of OpenAI's chat completions: role, content, and tool calls or a tool call's id.

Messages are kept and recorded in this form whatever API the model has. What a model returned of its reasoning is in its
messages below the key ``THOUGHT``, as its endpoint wants it back.
"""

THOUGHT = "thought"
RESPONSES, CHAT = "responses", "chat"
"""OpenAI's two APIs: the Responses API, and chat completions."""

CUT, FILTERED = "length", "content_filter"
"""Reasons for which a reply may be incomplete; see ``Reply.finish``."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one model call."""

    input_tokens: int = 0
    """Input tokens, cached ones included."""
    cached_tokens: int = 0
    output_tokens: int = 0
    doubt: str = ""
    """Why the endpoint's own count is not believed, in words; empty where it is, or where there is none."""

    @property
    def tokens(self) -> int:
        """Input and output tokens together."""
        return self.input_tokens + self.output_tokens


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A model's call of a tool."""

    id: str
    name: str
    arguments: str
    """The arguments as the model wrote them: a JSON object, if the model got it right."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A model's reply."""

    text: str
    calls: tuple[ToolCall, ...] = ()
    finish: str = ""
    """Why the reply ended: ``length`` at the limit of output tokens, ``content_filter``, anything else is normal."""
    usage: Usage = Usage()
    thought: Mapping[str, Any] | None = None
    """What the endpoint returned of the model's reasoning: ``api`` and ``model``, and what that API's module keeps."""

    @property
    def empty(self) -> bool:
        """Whether the reply has neither text nor tool calls."""
        return not self.text.strip() and not self.calls

    @property
    def problem(self) -> str:
        """What is wrong with the reply, in a few words; empty if it can be used as it is."""
        if self.finish == FILTERED:
            return "withheld by the content filter"
        if self.finish == CUT:
            return "cut off at the limit of output tokens"
        return "empty" if self.empty else ""

    @property
    def message(self) -> ChatMessage:
        """The reply as a message of the conversation.

        Arguments that are not JSON are left out: some servers parse them when they come back and refuse the request.
        """
        message: ChatMessage = {"role": "assistant", "content": self.text or None}
        if self.calls:
            message["tool_calls"] = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments if _is_json(call.arguments) else "{}"},
                }
                for call in self.calls
            ]
        if self.thought:
            message[THOUGHT] = dict(self.thought)
        return message


def thought_text(message: Mapping[str, Any]) -> str:
    """Return what can be read of the reasoning behind a message: empty where there was none, or an encrypted one."""
    thought = message.get(THOUGHT)
    if not isinstance(thought, Mapping):
        return ""
    fields, items = thought.get("fields", {}), [each["item"] for each in thought.get("items", ())]
    parts = [part for item in items for key in ("summary", "content") for part in item.get(key, ())]
    said = [fields.get("reasoning_content") or fields.get("reasoning") or ""]
    said += [str(part.get("text", "")) for part in parts if isinstance(part, Mapping)]
    return "\n\n".join(filter(None, said))


class Model(Protocol):
    """A language model that can call tools."""

    def complete(self, messages: Sequence[ChatMessage], tools: Sequence[Mapping[str, Any]]) -> Reply:
        """Return the model's reply to a conversation.

        Raises ``BudgetSpent`` when the budgets allow no more calls, ``ContextOverflow`` when the conversation is too
        long for the model, and ``ModelRefused`` when a retry would not help.
        """
        ...


class ScriptedModel:
    """A model for tests. It gives its replies in order, repeats the last one, and keeps what it was asked.

    A reply may be an exception, which is raised, or a function of the conversation.
    """

    def __init__(self, *script: Reply | Exception | Callable[[Sequence[ChatMessage]], Reply]) -> None:
        self.script = script
        self.asked: list[list[ChatMessage]] = []

    def complete(self, messages: Sequence[ChatMessage], tools: Sequence[Mapping[str, Any]]) -> Reply:
        """Follow the script."""
        self.asked.append(list(messages))
        line = self.script[min(len(self.asked), len(self.script)) - 1]
        if isinstance(line, Exception):
            raise line
        return line if isinstance(line, Reply) else line(messages)


def _is_json(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def readable(text: str) -> str:
    """Return ``text`` so that it can be sent: lone surrogates, which JSON may hold, are replaced."""
    return text.encode("utf-8", "replace").decode()


CHARS_PER_TOKEN = 4
"""Characters per token: the usual estimate for English and code."""


def estimated_tokens(text: str) -> int:
    """Return an estimate of the tokens of a text."""
    return len(text) // CHARS_PER_TOKEN
