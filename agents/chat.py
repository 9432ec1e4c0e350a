"""A model behind an OpenAI-compatible endpoint, by whichever API that has. It and ``connection`` alone know ``openai``.

The retries are ours, so that each request is recorded with its cost, and budgets are checked before each request.
"""

import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from openai import APIConnectionError, APIStatusError, APITimeoutError, Timeout

from avo.agents import completions, responses
from avo.agents.arrival import EndpointError, NotAReply, Reader, shown
from avo.agents.bounds import estimate, pause_s, too_much
from avo.agents.connection import LONGEST_DELAY_S, MOST_FAILURES, Connection, Failed
from avo.agents.desk import Desk
from avo.agents.documents import documents
from avo.agents.errors import BudgetSpent, ContextOverflow, ModelFailing, ModelRefused
from avo.agents.model import RESPONSES, THOUGHT, ChatMessage, Reply, Usage
from avo.agents.settings import ModelSettings
from avo.agents.terms import mended, other_api
from avo.agents.usage import ESTIMATED

_SLICE_S = 10.0
"""Longest sleep between checks of the budgets, which end when the run does."""
_REPORT_S = 2.0
"""Shortest time between two notes of how much of a reply has come."""
_TRY_AGAIN = frozenset({408, 409, 425, 429})
"""HTTP statuses that are retried, besides 5xx."""
_LASTING = frozenset({"insufficient_quota", "invalid_prompt", "bio_policy", "misalignment_policy_violation"})
"""Codes of errors that a retry does not mend."""
_PATIENCE_S = 7200.0
"""How long a model is asked again on status 500, which may be the request's own fault, before the step fails."""
_MOST_NONSENSE = 5
"""The step fails after this many answers in a row that are not replies."""
_HINTS = {
    400: "see the model's settings",
    401: "is the key right?",
    403: "may this key use the model?",
    404: "is the model's name right, and does OPENAI_BASE_URL end as the server wants it, mostly in /v1?",
}


class _Interrupted(Exception):
    """An answer that did not come to its end; the message says why."""


class _Silent(_Interrupted):
    """An answer of which nothing came for too long."""


class _TooMuch(_Interrupted):
    """An answer that is longer than the model can have written."""


@dataclass(eq=False)
class _Refused(Exception):
    """A request that the endpoint does not take as it is."""

    status: int
    said: str
    lasting: bool

    @property
    def error(self) -> ModelRefused:
        reason, hint = f"HTTP {self.status}: {shown(self.said)}", _HINTS.get(self.status)
        return ModelRefused(f"{reason}: {hint}" if hint else reason)


class ChatModel:
    """A model behind an endpoint, asked on behalf of one step."""

    def __init__(
        self,
        settings: ModelSettings,
        desk: Desk,
        connection: Connection,
        *,
        jitter: random.Random,
        successor: Callable[[], str | None] = lambda: None,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """``connection`` comes from ``connect``. ``successor`` names the model that is asked if this one is given up;
        where there is one, this one is not waited for when it keeps failing.
        """
        self._settings = settings
        self._desk = desk
        self._line = connection
        self._successor = successor
        self._jitter, self._sleep, self._clock, self._now = jitter, sleep, clock, now
        self._forgets = self._fills = False

    def complete(self, messages: Sequence[ChatMessage], tools: Sequence[Mapping[str, Any]]) -> Reply:
        """Return the reply, however long the endpoint is unreachable: see ``Model``.

        Raises ``ModelFailing`` if another model can be asked and this one has failed ``MOST_FAILURES`` times in a row.
        """
        line = self._line
        while True:
            self._wait()
            started = self._clock()
            try:
                reply = self._ask(messages, tools)
            except Failed as failed:
                now = self._clock()
                line.failed(failed, now, self._jitter.uniform(0.5, 1.0))
                lost = line.nonsense == _MOST_NONSENSE or (
                    failed.status == 500 and now - line.failing_since > _PATIENCE_S
                )
                away = line.failures >= MOST_FAILURES or failed.retry_after_s > LONGEST_DELAY_S
                replaced = (lost or away) and self._successor() is not None
                self._charge(failed.usage, started, failed.reason + (self._instead if replaced else ""))
                if lost:
                    raise self._given_up(ModelRefused(failed.reason)) from None
                if replaced:
                    raise ModelFailing(failed.reason) from None
            except _Refused as refused:
                if not self._asks_differently(refused, messages):
                    self._charge(Usage(), started, f"{refused.error}{self._instead}")
                    raise self._given_up(refused.error) from None
            except ModelRefused as refusal:
                instead = "" if isinstance(refusal, ContextOverflow) else self._instead
                self._charge(Usage(), started, f"{refusal}{instead}")
                raise self._given_up(refusal) from None
            else:
                line.known = True
                line.recover()
                self._charge(reply.usage, started, reply.problem or reply.usage.doubt)
                return reply

    def _ask(self, messages: Sequence[ChatMessage], tools: Sequence[Mapping[str, Any]]) -> Reply:
        """Return the reply to one request. Raises ``Failed``, ``_Refused`` and ``ContextOverflow``."""
        settings, terms = self._settings, self._line.terms
        sent = [self._own(message) for message in messages]
        reader: Reader
        if terms.api == RESPONSES:
            request = responses.request(settings, terms, sent, tools)
            reader = responses.ResponseReader(settings.name, tools)
        else:
            request = completions.request(settings, terms, sent, tools, self._fills)
            reader = completions.CompletionReader(settings.name)
        self._desk.listen(model=settings.name, seconds=0.0, characters=None)
        try:
            reply = self._receive(request, reader)
        except _Interrupted as error:
            nonsense, silent = isinstance(error, _TooMuch), isinstance(error, _Silent)
            raise Failed(f"{error}: {ESTIMATED}", self._used(request, reader), 0.0, None, nonsense, silent) from None
        except NotAReply as error:
            usage = self._used(request, reader) if reader.usage else Usage()
            raise Failed(str(error), usage, nonsense=True) from None
        except EndpointError as error:
            usage = self._used(request, reader) if reader.usage or reader.characters else Usage()
            raise _reported(error, usage, nonsense=not reader.characters) from None
        except APIConnectionError as error:
            raise Failed(f"no connection to {self._line.client.base_url}: {error.__cause__ or error}") from None
        except APIStatusError as error:
            raise self._status(error) from None
        return replace(reply, usage=self._used(request, reader))

    def _used(self, request: Mapping[str, Any], reader: Reader) -> Usage:
        """Return the tokens of a request: a budget must hold even where none are counted, or such as cannot be."""
        counted = reader.usage
        if counted and not counted.doubt:
            return counted
        return estimate(request, reader, self._settings, counted.doubt if counted else "")

    def _receive(self, request: dict[str, Any], reader: Reader) -> Reply:
        line, terms = self._line, self._line.terms
        began = self._clock()
        api = line.client.responses if terms.api == RESPONSES else line.client.chat.completions
        silence_s = line.silence_s if terms.stream else line.timeout_s
        timeout = Timeout(line.timeout_s, connect=line.silence_s, read=silence_s)
        extra = self._settings.extra_body or None
        try:
            with api.with_streaming_response.create(**request, extra_body=extra, timeout=timeout) as response:
                for document in documents(self._heard(_chunks(response), reader, began)):
                    reader.take(document)
                    if reader.over:
                        break
        except (APITimeoutError, _Silent) as error:
            if type(error.__cause__).__name__ == "ConnectTimeout":
                raise
            setting = "silence_timeout_s" if terms.stream else "request_timeout_s"
            raise _Silent(f"nothing came for {silence_s:g} s ({setting})") from None
        except Exception as error:  # the package reads what an error says without translating the HTTP client's own
            if type(error).__module__.startswith("httpx"):
                raise Failed(f"the answer broke off: {type(error).__name__}: {error}") from None
            raise
        self._check_length(0, reader)
        if (reply := reader.reply()) is None:
            raise _Interrupted("the answer broke off before its end")
        return reply

    def _heard(self, chunks: Iterable[bytes], reader: Reader, began: float) -> Iterator[bytes]:
        """Pass an answer on, note how much of it has come, and raise ``_Interrupted`` when its time is up.

        The limit is for the whole: an answer that comes a blank at a time would never meet that of the silence.
        """
        noted, received = float("-inf"), 0
        for chunk in chunks:
            yield chunk
            received += len(chunk)
            self._check_length(received, reader)
            if (now := self._clock()) - began > self._line.timeout_s:
                raise _Interrupted(f"no whole answer within {self._line.timeout_s:g} s (request_timeout_s)")
            if now - noted >= _REPORT_S:
                self._desk.listen(model=self._settings.name, seconds=now - began, characters=reader.characters)
                noted = now

    def _check_length(self, received: int, reader: Reader) -> None:
        if too_much(received, reader, self._settings):
            raise _TooMuch("more came than the model's context holds (context_tokens)")

    def _own(self, message: ChatMessage) -> ChatMessage:
        """Return a message of the conversation without the reasoning that this model and API have no use for."""
        thought = message.get(THOUGHT)
        if thought is None:
            return message
        mine = (thought["api"], thought["model"]) == (self._line.terms.api, self._settings.name)
        if mine and not self._forgets:
            return message
        return {key: value for key, value in message.items() if key != THOUGHT}

    def _asks_differently(self, refused: _Refused, messages: Sequence[ChatMessage]) -> bool:
        """Change how the endpoint is asked, if a refusal points to a way in which it may answer."""
        line, said = self._line, refused.said.lower()
        if refused.lasting:
            return False
        if "missing" in said or "must be passed" in said:
            if "reasoning_content" in said and not self._fills:
                self._fills = True
                return True
        elif ("reasoning" in said or "encrypted" in said) and any(THOUGHT in self._own(each) for each in messages):
            self._forgets = True
            return True
        if terms := mended(line.terms, said):
            line.terms = terms
            return True
        api = None if line.pinned else other_api(line.terms, refused.status, said, known=line.known)
        if api is None or api in line.refused:
            return False
        line.refused.add(line.terms.api)
        line.use(api)
        return True

    def _status(self, error: APIStatusError) -> Exception:
        status, said = error.status_code, _said(error)
        lasting = error.code == "insufficient_quota"
        if (status in _TRY_AGAIN or status >= 500) and status != 501 and not lasting:
            reason = f"HTTP {status}: {shown(said)}"
            return Failed(reason, retry_after_s=pause_s(error.response.headers, self._now()), status=status)
        if status in (400, 413, 422) and _is_overflow(f"{said} {error.code}"):
            return ContextOverflow(f"HTTP {status}: {shown(said)}")
        return _Refused(status, said, lasting)

    @property
    def _instead(self) -> str:
        name = self._successor()
        return f"; model {name!r} is asked instead" if name else ""

    def _given_up(self, refusal: ModelRefused) -> ModelRefused:
        """Return the error that names the model, with which the next step tries again."""
        self._line.recover()
        said = f"model {self._settings.name!r}: {refusal}"
        return ContextOverflow(said) if isinstance(refusal, ContextOverflow) else ModelRefused(said)

    def _charge(self, usage: Usage, started: float, error: str) -> None:
        self._desk.charge(
            model=self._settings.name,
            usage=usage,
            usd=self._settings.usd(usage),
            seconds=self._clock() - started,
            error=error,
        )

    def _wait(self) -> None:
        """Wait until the model may be asked, and stop when a budget runs out: time is a budget too."""
        line, desk, name = self._line, self._desk, self._settings.name
        left = line.not_before - self._clock() if line.failures else 0.0
        if left > 0:
            desk.listen(model=name, seconds=0.0, characters=None, wait_s=left, trouble=line.trouble)
        while True:
            if spent := desk.left().spent:
                raise BudgetSpent(spent)
            if left <= 0:
                return
            self._sleep(min(left, _SLICE_S))
            left -= _SLICE_S


def _chunks(response: Any) -> Iterator[bytes]:
    """Yield an answer's bytes as they come. The HTTP client's own errors are not translated by the openai package."""
    try:
        yield from response.iter_bytes()
    except Exception as error:
        if type(error).__name__ == "ReadTimeout":
            raise _Silent from None
        raise _Interrupted(f"the answer broke off: {type(error).__name__}: {error}") from None


def _reported(error: EndpointError, usage: Usage, *, nonsense: bool) -> Exception:
    """Return what an error means that was reported in the place of a reply, or in the middle of one."""
    if _is_overflow(f"{error.message} {error.code}"):
        return ContextOverflow(error.message)
    if error.code in _LASTING:
        return ModelRefused(error.message)
    return Failed(f"the endpoint reports an error: {error.message}", usage, nonsense=nonsense and not error.code)


def _said(error: APIStatusError) -> str:
    """Return the endpoint's error message."""
    body = error.body
    message = body.get("message") if isinstance(body, dict) else body
    return message if isinstance(message, str) and message.strip() else error.response.text or error.message


def _is_overflow(text: str) -> bool:
    words = text.lower()
    return any(
        sign in words
        for sign in ("context_length_exceeded", "context length", "context window", "context size", "too long")
    )
