"""A transcript as entries that fold: messages, tool calls with their results, and the costs of model calls."""

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from rich.text import Text

from avo.agents.model import thought_text
from avo.evaluator.units import Unit
from avo.lineage_db.entries import Message, ModelCall, Spend
from avo.lineage_db.records import AttemptSummary, Submission
from avo.tui.lines import Entry
from avo.tui.reader import Transcript
from avo.watch.wording import duration, first_line, in_a_list

CHAT = "message"
"""Kind of the transcript's entries that are chat messages."""


def entries(transcript: Transcript, unit: Unit) -> tuple[Entry, ...]:
    """Return what happened in a step, in order; its submission comes last."""
    results = {answered: message for message in transcript.messages if (answered := _answered(message))}
    asked = {name for message in transcript.messages for name, _, _ in _tool_calls(message)}
    told: list[tuple[datetime, int, Entry]] = []
    for message in transcript.messages:
        if _answered(message) in asked - {""}:
            continue  # shown with its call
        told += [(message.written, 1, entry) for entry in _message(message, results)]
    told += [(call.finished, 0, _call(call)) for call in transcript.calls]
    if not transcript.messages:
        told += [(transcript.work.step.started, 2, _attempt(attempt, unit)) for attempt in transcript.attempts]
    told.sort(key=lambda each: each[:2])
    found = [entry for _, _, entry in told]
    step = transcript.work.step
    if step.submission:
        found.append(_submission(step.submission))
    if step.reason:
        found.append(Entry("reason", Text.assemble(("reason ", "bold"), first_line(step.reason)), step.reason))
    return tuple(found)


def spent(spend: Spend) -> str:
    """Return ``12,345 tokens, $0.0421``; the price is left out if none is known."""
    return f"{spend.tokens:,} tokens" + (f", ${spend.usd:.4f}" if spend.usd else "")


def _message(message: Message, results: Mapping[str, Message]) -> Iterator[Entry]:
    key = str(message.number)
    content = _chat(message)
    if not isinstance(content.get("role"), str):
        brief = json.dumps(message.content, ensure_ascii=False, default=str)
        yield _entry(key, message.kind, _plain(message.content), brief)
        return
    calls = list(_tool_calls(message))
    if thought := thought_text(content):
        yield _entry(f"{key}.thought", "thought", thought)
    said = _text(content.get("content"))
    if said or not calls:
        yield _entry(key, content["role"], said)
    for number, (name, tool, arguments) in enumerate(calls):
        result = results.get(name)
        body = f"{_arguments(arguments)}\n"
        answer = _text(_chat(result).get("content")) if result else ""
        body += f"──\n{answer}" if result else "── no result yet"
        title = Text.assemble(
            (f"{first_line(tool)} ", "bold"),
            f"{first_line(arguments)[:60]}",
            (f"  → {first_line(answer)}" if result else "  → ...", "dim"),
        )
        yield Entry(f"{key}.{number}", title, body)


def _chat(message: Message) -> Mapping[str, Any]:
    """Return the chat message in an entry, which may be below the key ``message``; empty for other kinds."""
    if message.kind != CHAT:
        return {}
    inner = message.content.get("message")
    return inner if isinstance(inner, Mapping) else message.content


def _answered(message: Message) -> str:
    """Return the id of the tool call whose result a message is; empty for any other message."""
    return str(_chat(message).get("tool_call_id") or "")


def _tool_calls(message: Message) -> Iterator[tuple[str, str, str]]:
    """Yield id, tool and arguments of each tool call in a message; anything malformed is skipped."""
    calls = _chat(message).get("tool_calls")
    for call in calls if isinstance(calls, list) else ():
        if isinstance(call, Mapping):
            function = call.get("function")
            function = function if isinstance(function, Mapping) else {}
            yield str(call.get("id") or ""), str(function.get("name", "tool")), str(function.get("arguments", ""))


def _text(content: Any) -> str:
    """Return the text of a message's content, which is a text or a list of parts."""
    if content is None or isinstance(content, str):
        return content or ""
    if isinstance(content, list) and all(isinstance(part, Mapping) and "text" in part for part in content):
        return "\n".join(str(part["text"]) for part in content)
    return _plain(content)


def _arguments(arguments: str) -> str:
    """Return a tool's arguments, which are JSON, with one argument on each line and texts unescaped."""
    try:
        data = json.loads(arguments)
    except ValueError:
        return arguments
    if not isinstance(data, dict):
        return arguments
    return "\n".join(
        f"{name}:\n{value}" if isinstance(value, str) and "\n" in value else f"{name}: {value}"
        for name, value in data.items()
    )


def _plain(content: Any) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False, default=str)


def _entry(key: str, label: str, body: str, brief: str = "") -> Entry:
    return Entry(key, Text.assemble((f"{first_line(label)} ", "bold"), first_line(brief or body)), body)


def _call(call: ModelCall) -> Entry:
    cached = f" ({call.cached_tokens:,} cached)" if call.cached_tokens else ""
    price = f", ${call.usd:.4f}" if call.usd is not None else ", no price"
    words = f"{call.input_tokens:,}{cached} tokens in, {call.output_tokens:,} out{price}, {duration(call.seconds)}"
    title = Text(f"◦ {first_line(call.model)}: ", "dim")
    if call.error:
        title.append(f"failed: {first_line(call.error)[:40]}, ", "red")
    return Entry(f"call {call.id}", title.append(words, "dim"), call.error)


def _attempt(attempt: AttemptSummary, unit: Unit) -> Entry:
    found = unit.said(attempt.geomean_tflops) if attempt.geomean_tflops else attempt.status.words
    accepted = f" -> v{attempt.version}" if attempt.version is not None else ""
    title = Text.assemble((f"{found}{accepted} ", "bold"), first_line(in_a_list(attempt.change)) or "seed")
    parts = (attempt.change, attempt.hypothesis and f"hypothesis: {attempt.hypothesis}", attempt.message)
    return Entry(f"attempt {attempt.attempt_id}", title, "\n".join(filter(None, parts)))


def _submission(said: Submission) -> Entry:
    body = "\n".join(
        f"{label}: {words}"
        for label, words in (
            ("change", said.change),
            ("hypothesis", said.hypothesis),
            ("expected", said.expected),
            ("seen", said.seen),
        )
        if words
    )
    return Entry("submission", Text.assemble(("submitted ", "bold"), f"attempt {said.attempt_id}"), body)
