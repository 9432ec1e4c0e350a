"""Chat completions: a conversation as their request, and their answer as a reply.

What a server returns of the model's reasoning is kept as it is and sent back under the same names: DeepSeek, Moonshot
and OpenRouter want it in the turns that call tools, others ignore it.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from avo.agents.arrival import ODD, foreign, parsed
from avo.agents.model import CHAT, THOUGHT, ChatMessage, Reply, ToolCall, Usage, readable
from avo.agents.settings import ModelSettings
from avo.agents.terms import Terms
from avo.agents.usage import read_usage

_TEXTS, _LISTS = ("reasoning_content", "reasoning"), ("reasoning_details", "thinking_blocks")
"""Fields of a message that servers return reasoning in: as text, and as lists of blocks."""
_GROWING = ("text", "summary", "data", "thinking")
"""Fields of such a block that a stream brings in pieces."""


def request(
    settings: ModelSettings,
    terms: Terms,
    messages: Sequence[ChatMessage],
    tools: Sequence[Mapping[str, Any]],
    fill: bool,
) -> dict[str, Any]:
    """Return the fields of a request. Only configured fields are sent: endpoints refuse fields they do not know.

    ``fill`` gives an empty ``reasoning_content`` to replies without any: some servers insist on one.
    """
    optional = {
        "tools": list(tools) or None,
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        terms.limit: settings.max_output_tokens,
        "reasoning_effort": settings.reasoning_effort,
        "stream": terms.stream or None,
        "stream_options": {"include_usage": True} if terms.stream and terms.usage else None,
    }
    sent = [_sent(message, fill) for message in messages]
    made = {"model": settings.name, "messages": _alternating(sent)}
    return made | {key: value for key, value in optional.items() if value is not None}


class CompletionReader:
    """Reads the chunks of a chat completion, or a whole one: see ``Reader``."""

    def __init__(self, model: str) -> None:
        self.characters = 0
        self.usage: Usage | None = None
        self.over = False
        self._model = model
        self._text = ""
        self._calls: list[dict[str, Any]] = []
        self._thought: dict[str, Any] = {}
        self._finish = ""
        self._whole = self._begun = False
        self._last: object = None

    def take(self, document: str) -> None:
        """Take the next chunk."""
        if document.strip() == "[DONE]":
            self.over = True
            return
        self._last = data = parsed(document)
        self.usage = read_usage(data.get("usage")) or self.usage
        try:
            for choice in data["choices"][:1]:
                self._take(choice)
        except ODD:
            raise foreign(data) from None

    def reply(self) -> Reply | None:
        """Return the reply, unless the stream ended before its end."""
        if not self._begun:
            raise foreign(self._last)
        if not (self._finish or self._whole or self.over):
            return None
        calls = tuple(
            ToolCall(call["id"] or f"call_{number}", call["name"], readable(call["arguments"]))
            for number, call in enumerate(self._calls)
        )
        thought = {"api": CHAT, "model": self._model, "fields": self._thought} if self._thought else None
        return Reply(readable(self._text), calls, self._finish, thought=thought)

    def _take(self, choice: Mapping[str, Any]) -> None:
        self.usage = read_usage(choice.get("usage")) or self.usage
        self._finish = str(choice.get("finish_reason") or "") or self._finish
        self._whole = bool(choice.get("message"))
        delta = choice["message"] if self._whole else choice.get("delta") or {}
        self._begun = True
        said = _text(delta.get("content")) or _text(delta.get("refusal"))
        self._text += said
        self.characters += len(said)
        for call in delta.get("tool_calls") or ():
            self._take_call(call)
        for name in _TEXTS:
            if thought := delta.get(name):
                self._thought[name] = self._thought.get(name, "") + readable(thought)
                self.characters += len(thought)
        for name in _LISTS:
            for block in delta.get(name) or ():
                _add_block(self._thought.setdefault(name, []), block)

    def _take_call(self, call: Mapping[str, Any]) -> None:
        """Add a call, or a part of one. Not every server numbers its calls."""
        function, name = call["function"], str(call.get("id") or "")
        place = call.get("index")
        known = next((each for each in self._calls if each["index"] == place), None) if place is not None else None
        if known is None and place is None and not name and self._calls and not self._whole:
            known = self._calls[-1]
        if known is None or (name and known["id"] and name != known["id"]):
            known = {"index": place, "id": name, "name": "", "arguments": ""}
            self._calls.append(known)
        known["id"] = known["id"] or name
        known["name"] = known["name"] or str(function.get("name") or "")
        given = function.get("arguments") or ""
        text = given if isinstance(given, str) else json.dumps(given)  # some servers send the object
        known["arguments"] += text
        self.characters += len(text)


def _sent(message: ChatMessage, fill: bool) -> ChatMessage:
    """Return a message as the API has it: with the reasoning that belongs to it in the fields in which it came."""
    made = {key: value for key, value in message.items() if key != THOUGHT}
    if thought := message.get(THOUGHT):
        made |= thought["fields"]
    if fill and made["role"] == "assistant":
        made = {"reasoning_content": "", **made}
    return made


def _alternating(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    """Return ``messages`` with consecutive user messages merged: some chat templates insist on alternating turns."""
    sent: list[ChatMessage] = []
    for message in messages:
        if sent and message["role"] == sent[-1]["role"] == "user":
            sent[-1] = {**message, "content": f"{sent[-1]['content']}\n\n{message['content']}"}
        else:
            sent.append(message)
    return sent


def _add_block(blocks: list[dict[str, Any]], block: Mapping[str, Any]) -> None:
    """Add a block of reasoning, or the next piece of the last one."""
    last = blocks[-1] if blocks else {}
    if not last or any(last.get(key) != block.get(key) for key in ("type", "index")):
        blocks.append(dict(block))
        return
    for key, value in block.items():
        if key in _GROWING and isinstance(last.get(key), str) and isinstance(value, str):
            last[key] += value
        elif value is not None:
            last[key] = value


def _text(content: object) -> str:
    """Return the text of a message's content, which may come in parts."""
    if isinstance(content, list):
        return "".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""
