"""How an endpoint wants to be asked, which its refusals tell: servers speak many dialects of the same two APIs."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from avo.agents.model import CHAT, RESPONSES

_ABSENT = frozenset({400, 404, 405, 410, 415, 422, 501})
"""HTTP statuses with which servers answer that have no Responses API, or not this much of it."""
_SENT_ON = re.compile(r"v1/responses|responses api", re.IGNORECASE)
"""How chat completions say that a model has only the Responses API."""


@dataclass(frozen=True, slots=True)
class Terms:
    """How one endpoint is asked."""

    api: str = RESPONSES
    stream: bool = True
    usage: bool = True
    """Whether streamed chat completions are asked to count tokens (``stream_options``)."""
    encrypted: bool = True
    """Whether the Responses API is asked for encrypted reasoning (``include``)."""
    strict: bool = True
    """Whether the Responses API is asked to enforce the tools' schemas."""
    limit: str = "max_tokens"
    """The field of chat completions that limits a reply."""


_MENDS: tuple[tuple[str, str, Mapping[str, Any]], ...] = (
    (CHAT, r"\bstream_options\b", {"usage": False}),
    (CHAT, r"\bmax_completion_tokens\b", {"limit": "max_completion_tokens"}),
    (RESPONSES, r"\bencrypted\b|\binclude\b", {"encrypted": False}),
    (RESPONSES, r"\bstrict\b|invalid schema", {"strict": False}),
    (CHAT, r"\bstream", {"stream": False}),
    (RESPONSES, r"\bstream", {"stream": False}),
)
"""API, what a refusal says, and what then to change."""


def mended(terms: Terms, said: str) -> Terms | None:
    """Return the terms to try after a refusal with the words ``said``; None if they do not point to any."""
    for api, sign, change in _MENDS:
        if api == terms.api and re.search(sign, said, re.IGNORECASE):
            made = replace(terms, **change)
            if made != terms:
                return made
    return None


def other_api(terms: Terms, status: int, said: str, *, known: bool) -> str | None:
    """Return the API to try instead after a refusal, None if it does not point to the other one.

    ``known`` says whether the endpoint has already answered by the API of ``terms``.
    """
    if terms.api == CHAT:
        return RESPONSES if _SENT_ON.search(said) else None
    return CHAT if status in _ABSENT and not known else None
