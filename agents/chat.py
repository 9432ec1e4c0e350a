"""Chat completions with tool calls from an OpenAI-compatible endpoint. The only module that knows ``openai``.

The retries are ours, so that each request is recorded with its cost, and budgets are checked before each request.
"""

import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from openai import APIConnectionError, APIStatusError, APITimeoutError, OpenAI

from agents.desk import Desk
from agents.errors import BudgetSpent, ContextOverflow, ModelRefused
from agents.model import ChatMessage, Reply, ToolCall, Usage, estimated_tokens, readable
from agents.settings import ModelSettings

_FIRST_DELAY_S, _LONGEST_DELAY_S = 1.0, 60.0
_SLICE_S = 10.0
"""Longest sleep between checks of the budgets, which end when the run does."""
_TRY_AGAIN = frozenset({408, 409, 425, 429})
"""HTTP statuses that are retried, besides 5xx."""
_PATIENCE_S = 7200.0
"""How long one request is retried on status 500, which may be the request's own fault, before the step fails."""
_MOST_NONSENSE = 5
"""The step fails after this many answers in a row that are not chat completions."""
_HINTS = {
    400: "see the model's settings",
    401: "is the key right?",
    403: "may this key use the model?",
    404: "is the model's name right, and does OPENAI_BASE_URL end as the server wants it, mostly in /v1?",
}
_SHOWN = 300


@dataclass(eq=False)
class _Failed(Exception):
    """A request that gave no usable reply; a retry may succeed."""

    reason: str
    usage: Usage = field(default_factory=Usage)
    retry_after_s: float = 0.0
    status: int | None = None
    nonsense: bool = False


def connect(settings: ModelSettings, timeout_s: float, environment: Mapping[str, str]) -> OpenAI:
    """Return a client for a model's endpoint; steps may use it one after another. Raises ``NoEndpoint``."""
    endpoint = settings.endpoint(environment)
    return OpenAI(api_key=endpoint.api_key, base_url=endpoint.base_url, timeout=timeout_s, max_retries=0)


class ChatModel:
    """A model behind an endpoint, asked on behalf of one step."""

    def __init__(
        self,
        settings: ModelSettings,
        desk: Desk,
        client: OpenAI,
        *,
        timeout_s: float,
        jitter: random.Random,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """``client`` comes from ``connect``; ``timeout_s`` limits one request."""
        self._settings = settings
        self._desk = desk
        self._timeout_s = timeout_s
        self._jitter, self._sleep, self._clock, self._now = jitter, sleep, clock, now
        self._client = client
        self._openai = (urlsplit(str(self._client.base_url)).hostname or "").endswith("openai.com")

    def complete(self, messages: Sequence[ChatMessage], tools: Sequence[Mapping[str, Any]]) -> Reply:
        """Return the reply, however long the endpoint is unreachable: see ``Model``."""
        request = self._request(messages, tools)
        began, tries, nonsense = self._clock(), 0, 0
        while True:
            self._check_budget()
            started = self._clock()
            try:
                reply = self._reply(self._ask(request), request)
            except _Failed as failed:
                self._charge(failed.usage, started, failed.reason)
                nonsense = nonsense + 1 if failed.nonsense else 0
                if nonsense == _MOST_NONSENSE or (failed.status == 500 and self._clock() - began > _PATIENCE_S):
                    raise self._named(ModelRefused(failed.reason)) from None
                delay = min(_LONGEST_DELAY_S, _FIRST_DELAY_S * 2 ** min(tries, 10)) * self._jitter.uniform(0.5, 1.0)
                self._wait(max(delay, failed.retry_after_s))
                tries += 1
            except ModelRefused as refusal:
                self._charge(Usage(), started, str(refusal))
                raise self._named(refusal) from None
            else:
                self._charge(reply.usage, started, reply.problem)
                return reply

    def _request(self, messages: Sequence[ChatMessage], tools: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return the request. Only configured fields are sent: endpoints refuse fields they do not know."""
        settings = self._settings
        limit = "max_completion_tokens" if self._openai else "max_tokens"
        optional = {
            "tools": list(tools) or None,
            "temperature": settings.temperature,
            "top_p": settings.top_p,
            limit: settings.max_output_tokens,
            "reasoning_effort": settings.reasoning_effort,
            "extra_body": settings.extra_body or None,
        }
        request = {"model": settings.name, "messages": _alternating(messages)}
        return request | {key: value for key, value in optional.items() if value is not None}

    def _ask(self, request: dict[str, Any]) -> object:
        """Return the answer's JSON; raise ``_Failed`` or ``ModelRefused``.

        The time limit is for the whole answer: one that comes a blank at a time would never meet the client's.
        """
        deadline = self._clock() + self._timeout_s
        try:
            with self._client.chat.completions.with_streaming_response.create(**request) as response:
                body = self._read(response.iter_bytes(), deadline)
        except APITimeoutError:
            raise _Failed(self._too_slow) from None
        except APIConnectionError as error:
            raise _Failed(f"no connection to {self._client.base_url}: {error.__cause__ or error}") from None
        except APIStatusError as error:
            raise self._status(error) from None
        try:
            return json.loads(body)
        except (ValueError, RecursionError):
            text = body.decode("utf-8", "replace").strip()
            raise _Failed(f"the endpoint's answer is not JSON: {text[:_SHOWN]!r}", nonsense=True) from None

    def _read(self, chunks: Any, deadline: float) -> bytes:
        body = bytearray()
        try:
            for chunk in chunks:
                body += chunk
                if self._clock() > deadline:
                    raise _Failed(self._too_slow)
        except _Failed:
            raise
        except Exception as error:  # the HTTP client's own errors, which the openai package does not translate here
            raise _Failed(f"the answer broke off: {type(error).__name__}: {error}") from None
        return bytes(body)

    @property
    def _too_slow(self) -> str:
        return f"no answer within {self._timeout_s:g} s (request_timeout_s)"

    def _status(self, error: APIStatusError) -> Exception:
        status, said = error.status_code, _said(error)
        reason = f"HTTP {status}: {said[:_SHOWN]}"
        lasting = error.code == "insufficient_quota"
        if (status in _TRY_AGAIN or status >= 500) and not lasting:
            return _Failed(reason, retry_after_s=self._retry_after_s(error.response.headers), status=status)
        kind = ContextOverflow if _is_overflow(status, f"{said} {error.code}") else ModelRefused
        hint = _HINTS.get(status)
        return kind(f"{reason}: {hint}" if hint else reason)

    def _retry_after_s(self, headers: Mapping[str, str]) -> float:
        """Return what the header Retry-After asks for, in seconds or as a date (RFC 9110, section 10.2.3)."""
        text = headers.get("retry-after", "")
        try:
            return max(0.0, float(text))
        except ValueError:
            pass
        try:
            return max(0.0, (parsedate_to_datetime(text) - self._now()).total_seconds())
        except (ValueError, TypeError):
            return 0.0

    def _reply(self, data: object, request: Mapping[str, Any]) -> Reply:
        """Return the reply in an answer, in whatever form it has; raise ``_Failed`` if there is none."""
        usage = _usage(data.get("usage")) if isinstance(data, dict) else None
        try:
            choice = data["choices"][0]  # type: ignore[index]
            message = choice["message"]
            calls = tuple(_call(number, call) for number, call in enumerate(message.get("tool_calls") or ()))
            text = readable(_text(message.get("content")) or _text(message.get("refusal")))
            finish = str(choice.get("finish_reason") or "")
        except (KeyError, IndexError, TypeError, AttributeError):
            said = data.get("error", data) if isinstance(data, dict) else data
            reason = f"the endpoint's answer is not a chat completion: {json.dumps(said)[:_SHOWN]}"
            raise _Failed(reason, usage or Usage(), nonsense=True) from None
        if usage is None:  # estimated: a budget must hold even with endpoints that count no tokens
            said = text + "".join(call.arguments for call in calls)
            usage = Usage(estimated_tokens(json.dumps(request)), 0, estimated_tokens(said) + 1)
        return Reply(text, calls, finish, usage)

    def _named(self, refusal: ModelRefused) -> ModelRefused:
        return type(refusal)(f"model {self._settings.name!r}: {refusal}")

    def _check_budget(self) -> None:
        if spent := self._desk.left().spent:
            raise BudgetSpent(spent)

    def _charge(self, usage: Usage, started: float, error: str) -> None:
        self._desk.charge(
            model=self._settings.name,
            usage=usage,
            usd=self._settings.usd(usage),
            seconds=self._clock() - started,
            error=error,
        )

    def _wait(self, delay_s: float) -> None:
        """Sleep, but stop when a budget runs out: time is a budget too."""
        while delay_s > 0:
            self._check_budget()
            self._sleep(min(delay_s, _SLICE_S))
            delay_s -= _SLICE_S


def _alternating(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    """Return ``messages`` with consecutive user messages merged: some chat templates insist on alternating turns."""
    sent: list[ChatMessage] = []
    for message in messages:
        if sent and message["role"] == sent[-1]["role"] == "user":
            sent[-1] = {**message, "content": f"{sent[-1]['content']}\n\n{message['content']}"}
        else:
            sent.append(message)
    return sent


def _said(error: APIStatusError) -> str:
    """Return the endpoint's error message, on one line."""
    body = error.body
    message = body.get("message") if isinstance(body, dict) else body
    text = message if isinstance(message, str) and message.strip() else error.response.text or error.message
    return " ".join(readable(text).split())


def _is_overflow(status: int, text: str) -> bool:
    words = text.lower()
    return status in (400, 413, 422) and any(
        sign in words
        for sign in ("context_length_exceeded", "context length", "context window", "context size", "too long")
    )


def _text(content: object) -> str:
    """Return the text of a message's content, which may come in parts."""
    if isinstance(content, list):
        return "".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def _call(number: int, call: Mapping[str, Any]) -> ToolCall:
    function = call["function"]
    arguments = function.get("arguments")
    text = arguments if isinstance(arguments, str) else json.dumps(arguments or {})  # some servers send the object
    return ToolCall(str(call.get("id") or f"call_{number}"), str(function["name"]), readable(text))


def _usage(data: object) -> Usage | None:
    if not isinstance(data, dict) or not data.get("prompt_tokens"):
        return None
    details = data.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else 0
    return Usage(_count(data["prompt_tokens"]), _count(cached), _count(data.get("completion_tokens")))


def _count(value: object) -> int:
    return max(0, int(value)) if isinstance(value, int | float) else 0
