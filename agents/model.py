"""The seam to language models: what is sent, what comes back, and a scripted model for tests."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

ChatMessage: TypeAlias = dict[str, Any]
"""A message of a chat completion as the OpenAI API has it: role, content, and calls of tools or their id."""

CUT, FILTERED = "length", "content_filter"
"""Why a reply may have ended before its time; see ``Reply.finish``."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one call."""

    input_tokens: int = 0
    """Cached ones included."""
    cached_tokens: int = 0
    output_tokens: int = 0

    @property
    def tokens(self) -> int:
        """All together."""
        return self.input_tokens + self.output_tokens


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool that the model calls."""

    id: str
    name: str
    arguments: str
    """As the model wrote them: an object in JSON, or not even that."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model said."""

    text: str
    calls: tuple[ToolCall, ...] = ()
    finish: str = ""
    """Why it ended: ``length`` at the limit of output tokens, ``content_filter``, else as it should."""
    usage: Usage = Usage()

    @property
    def empty(self) -> bool:
        """Whether it says nothing and calls nothing."""
        return not self.text.strip() and not self.calls

    @property
    def problem(self) -> str:
        """What is wrong with it, in a few words; nothing where it can be used as it is."""
        if self.finish == FILTERED:
            return "withheld by the content filter"
        if self.finish == CUT:
            return "cut off at the limit of output tokens"
        return "empty" if self.empty else ""

    @property
    def message(self) -> ChatMessage:
        """The reply as a message of the conversation.

        Arguments that are no JSON are left out: servers that read them when they come back would refuse the request.
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
        return message


class Model(Protocol):
    """A language model that can call tools."""

    def complete(self, messages: Sequence[ChatMessage], tools: Sequence[Mapping[str, Any]]) -> Reply:
        """Return the reply to a conversation.

        Raises ``BudgetSpent`` when no call may be made any more, ``ContextOverflow`` when the conversation is too long
        for the model, and ``ModelRefused`` when asking again would not help.
        """
        ...


class ScriptedModel:
    """A model for tests: gives its replies in order, the last one for ever, and keeps what it was asked.

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
    """Return ``text`` as it can be sent: half characters, which JSON may hold, are replaced."""
    return text.encode("utf-8", "replace").decode()


CHARS_PER_TOKEN = 4
"""About, as is usual for English and code."""


def estimated_tokens(text: str) -> int:
    """Return about how many tokens a text takes."""
    return len(text) // CHARS_PER_TOKEN
