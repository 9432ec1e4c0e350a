"""Leaves out of a conversation what later calls supersede: sources that were replaced, and measurements of them.

Each call keeps its place, its id and its result, so that pairs and the reasoning before a call stay valid.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from avo.agents.model import ChatMessage

_SHORT = 400
"""Arguments and results with fewer characters stay."""
_WITH_SOURCE = frozenset({"write_source", "edit_source", "try_variants", "check", "profile"})
"""Tools whose arguments may hold the working source, or passages of it."""
_LEFT_OUT = "left out: the working source has changed since. Ask again, of an attempt or version, if you need it"
_SOURCE = re.compile(r"(?<=# Working source\n)([^\n]*\n)```python\n.*?\n```", re.DOTALL)
_NONE: Mapping[str, Any] = {"name": "", "arguments": "{}"}


def without_superseded(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    """Return ``messages`` with a note in the place of whatever is superseded.

    A whole source that the model writes, or that a step begins with, supersedes all earlier texts of the working
    source, and edits and variants of them. Any change of the working source supersedes earlier checks and profiles of
    it. Evaluations, notes, and versions and attempts that the model has read stay, as do its own words.
    """
    called = [_NONE] * len(messages)
    written = changed = caller = 0
    functions: Mapping[str, Mapping[str, Any]] = {}
    for place, message in enumerate(messages):
        if message["role"] != "tool":
            caller, functions = place, {call["id"]: call["function"] for call in message.get("tool_calls", ())}
            if message["role"] == "user" and _SOURCE.search(message["content"]):
                written = changed = place
            continue
        called[place] = functions.get(message["tool_call_id"], _NONE)
        match called[place]["name"], message["content"].partition(": ")[0]:
            case ("edit_source", "edited"):
                changed = caller
            case ("write_source", "written"):
                written = changed = caller
            case ("write_source", said) if said.startswith("the working source is"):
                written, changed = 0, caller  # its text may be one that the model has read or written above
    return [
        _shortened(message, function, rewritten=place < written, changed=place < changed)
        for place, (message, function) in enumerate(zip(messages, called, strict=True))
    ]


def texts(messages: Sequence[ChatMessage]) -> list[str]:
    """Return all that can be read in ``messages``: what was said, results, and sources that were written."""
    functions = (call["function"] for message in messages for call in message.get("tool_calls", ()))
    written = (json.loads(each["arguments"]).get("source") for each in functions if each["name"] == "write_source")
    return [text for text in (*(message["content"] for message in messages), *written) if isinstance(text, str)]


def _shortened(message: ChatMessage, function: Mapping[str, Any], *, rewritten: bool, changed: bool) -> ChatMessage:
    """Return a message; ``function`` is the call whose result it is, if it is one."""
    match message["role"]:
        case "user" if rewritten:
            return {**message, "content": _SOURCE.sub(rf"\1[{_LEFT_OUT}]", message["content"])}
        case "assistant" if rewritten and "tool_calls" in message:
            calls = [{**call, "function": _without_source(call["function"])} for call in message["tool_calls"]]
            return {**message, "tool_calls": calls}
        case "tool" if changed and len(message["content"]) > _SHORT:
            names = {"check", "profile", *(("view_source", "try_variants") if rewritten else ())}
            if function["name"] in names and not {"version", "attempt"} & set(json.loads(function["arguments"])):
                first = message["content"].partition("\n")[0][: _SHORT // 2]
                return {**message, "content": f"{first}\n[{_LEFT_OUT}]"}
    return message


def _without_source(function: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a call without long arguments. No tool accepts those in their place, should a model copy them."""
    if function["name"] not in _WITH_SOURCE or len(function["arguments"]) <= _SHORT:
        return function
    return {**function, "arguments": json.dumps({"left_out": _LEFT_OUT})}
