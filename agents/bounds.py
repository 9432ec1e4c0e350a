"""Bounds on what an endpoint says or sends, so that no answer of it can use up a budget, a disk or a day."""

import json
from collections.abc import Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

from avo.agents.arrival import Reader
from avo.agents.model import Usage, estimated_tokens
from avo.agents.settings import ModelSettings

LONGEST_PAUSE_S = 3600.0
"""Longest pause that a Retry-After is granted; the endpoint is asked again then."""
_CHARS_PER_TOKEN = 16
"""Characters per token that no reply reaches: blanks in code come nearest."""
_BYTES_PER_TOKEN = 1024
"""Bytes per token that no answer reaches: an event of a stream repeats some 300 bytes around each token."""


def pause_s(headers: Mapping[str, str], now: datetime) -> float:
    """Return the pause that the header Retry-After asks for, in seconds or as a date (RFC 9110, section 10.2.3), of at
    most ``LONGEST_PAUSE_S``.
    """
    text = headers.get("retry-after", "")
    try:
        asked = float(text)
    except ValueError:
        try:
            asked = (parsedate_to_datetime(text) - now).total_seconds()
        except (ValueError, TypeError, OverflowError):
            asked = 0.0
    return min(max(0.0, asked), LONGEST_PAUSE_S)


def estimate(request: Mapping[str, Any], reader: Reader, settings: ModelSettings, doubt: str = "") -> Usage:
    """Return an estimate of a request's tokens, for an endpoint that has counted none: never more than the model's
    context holds, and no more output than ``max_output_tokens``. ``doubt`` says why its own count is not believed.
    """
    context = settings.context_tokens
    sent = min(estimated_tokens(json.dumps(request)), context)
    received = min(estimated_tokens("x" * min(reader.characters, _CHARS_PER_TOKEN * context)) + 1, context - sent)
    return Usage(sent, 0, min(received, settings.max_output_tokens or received), doubt)


def too_much(received: int, reader: Reader, settings: ModelSettings) -> bool:
    """Return whether an answer of ``received`` bytes so far has more than a model with this context can write."""
    context = settings.context_tokens
    return received > _BYTES_PER_TOKEN * context or reader.characters > _CHARS_PER_TOKEN * context
