"""OpenAI's Responses API: a conversation as its request, and its answer as a reply.

Nothing is stored at the endpoint: each request has the whole conversation. The items in which the model's reasoning
came, encrypted or not, are kept and sent back in their places, without which a model begins each time anew.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from avo.agents.arrival import ODD, foreign, parsed, reported
from avo.agents.model import CUT, FILTERED, RESPONSES, THOUGHT, ChatMessage, Reply, ToolCall, Usage, readable
from avo.agents.settings import ModelSettings
from avo.agents.strict import strict_schema, without_nulls
from avo.agents.terms import Terms
from avo.agents.usage import read_usage

_ENDS = {"max_output_tokens": CUT, "content_filter": FILTERED}
"""Reasons of incomplete answers, and what a ``Reply`` calls them."""
_FINAL = ("response.completed", "response.incomplete", "response.failed")


def request(
    settings: ModelSettings, terms: Terms, messages: Sequence[ChatMessage], tools: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Return the fields of a request."""
    system = "\n\n".join(message["content"] for message in messages if message["role"] == "system")
    optional = {
        "instructions": system or None,
        "tools": [_tool(tool["function"], terms.strict) for tool in tools] or None,
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "max_output_tokens": settings.max_output_tokens,
        "reasoning": {"effort": settings.reasoning_effort} if settings.reasoning_effort else None,
        "include": ["reasoning.encrypted_content"] if terms.encrypted else None,
        "stream": terms.stream or None,
    }
    items = [item for message in messages for item in _items(message)]
    made = {"model": settings.name, "input": items, "store": False}
    return made | {key: value for key, value in optional.items() if value is not None}


class ResponseReader:
    """Reads the events of a response, or a whole one: see ``Reader``."""

    def __init__(self, model: str, tools: Sequence[Mapping[str, Any]]) -> None:
        self.characters = 0
        self.usage: Usage | None = None
        self.over = False
        self._model = model
        self._schemas = {tool["function"]["name"]: tool["function"]["parameters"] for tool in tools}
        self._done: dict[int, Mapping[str, Any]] = {}
        self._reply: Reply | None = None
        self._begun = False

    def take(self, document: str) -> None:
        """Take the next event."""
        if document.strip() == "[DONE]":
            self.over = True
            return
        data = parsed(document)
        try:
            if data.get("object") == "response":
                self._end(data)
            else:
                self._take(data, data["type"])
        except ODD:
            raise foreign(data) from None

    def reply(self) -> Reply | None:
        """Return the reply, unless the stream ended before its end."""
        if not self._begun:
            raise foreign("nothing")
        return self._reply

    def _take(self, event: Mapping[str, Any], kind: str) -> None:
        if kind == "error":
            raise reported(event)
        if not kind.startswith("response."):
            return  # such as a keepalive
        self._begun = True
        if kind in _FINAL:
            self._end(event["response"])
        elif kind == "response.output_item.done":
            self._done[int(event["output_index"])] = event["item"]
        elif isinstance(delta := event.get("delta"), str):
            self.characters += len(delta)

    def _end(self, response: Mapping[str, Any]) -> None:
        self.over = self._begun = True
        self.usage = read_usage(response.get("usage"))
        status = response.get("status")
        if status == "failed":
            raise reported(response.get("error"))
        if status in ("completed", "incomplete", None):
            output = response["output"] or [self._done[place] for place in sorted(self._done)]
            ended = str((response.get("incomplete_details") or {}).get("reason") or "")
            self._reply = self._replied(output, _ENDS.get(ended, ended))

    def _replied(self, output: Sequence[Mapping[str, Any]], finish: str) -> Reply:
        """Return the items as a reply: the texts, then the calls, and the reasoning with its places among these."""
        text, calls, phase = "", list[ToolCall](), None
        reasoning: list[dict[str, Any]] = []
        for item in output:
            if item["type"] == "message":
                text += "".join(str(part.get("text") or part.get("refusal") or "") for part in item["content"])
                phase = item.get("phase") or phase
            elif item["type"] == "function_call":
                name = str(item["name"])
                arguments = without_nulls(readable(str(item.get("arguments") or "")), self._schemas.get(name, {}))
                calls.append(ToolCall(str(item.get("call_id") or f"call_{len(calls)}"), name, arguments))
            elif item["type"] == "reasoning":
                kept = {key: value for key, value in item.items() if value is not None and key != "status"}
                reasoning.append({"at": bool(text) + len(calls), "item": {"summary": [], **kept}})
        thought = {"api": RESPONSES, "model": self._model, "items": reasoning, **({"phase": phase} if phase else {})}
        return Reply(readable(text), tuple(calls), finish, thought=thought if reasoning or phase else None)


def _items(message: ChatMessage) -> Iterator[dict[str, Any]]:
    """Yield the items of a message of the conversation."""
    match message["role"]:
        case "user":
            yield {"role": "user", "content": message["content"]}
        case "tool":
            yield {"type": "function_call_output", "call_id": message["tool_call_id"], "output": message["content"]}
        case "assistant":
            thought = message.get(THOUGHT, {})
            phase = {"phase": thought["phase"]} if "phase" in thought else {}
            said = [{"role": "assistant", "content": message["content"], **phase}] if message.get("content") else []
            said += [
                {"type": "function_call", "call_id": call["id"], **call["function"]}
                for call in message.get("tool_calls", ())
            ]
            for place, item in enumerate(said):  # reasoning that nothing follows would be refused
                yield from (
                    each["item"] for each in thought.get("items", ()) if each["at"] == place and _usable(each["item"])
                )
                yield item


def _usable(item: Mapping[str, Any]) -> bool:
    """Whether a reasoning item holds the reasoning: one without is the name of what the endpoint has not stored."""
    return bool(item.get("encrypted_content") or item.get("content"))


def _tool(function: Mapping[str, Any], strictly: bool) -> dict[str, Any]:
    strict = strict_schema(function["parameters"]) if strictly else None
    return {
        "type": "function",
        "name": function["name"],
        "description": function.get("description", ""),
        "parameters": strict or function["parameters"],
        "strict": strict is not None,
    }
