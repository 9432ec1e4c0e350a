"""Counts of tokens in an endpoint's answer, in the words of each kind of server."""

from collections.abc import Mapping
from typing import Any

from avo.agents.model import Usage

MOST_TOKENS = 10**8
"""Largest number of tokens of one call that is believed: ten times the longest context that is on offer."""
ESTIMATED = "the call's tokens are estimated"
_READ, _WRITTEN = "cache_read_input_tokens", "cache_creation_input_tokens"


def read_usage(data: object) -> Usage | None:
    """Return the tokens that an answer's ``usage`` counts; None where it counts none. A count beyond ``MOST_TOKENS`` is
    returned as the usage's ``doubt`` instead, without any tokens.

    Cached input is ``prompt_tokens_details.cached_tokens`` in OpenAI's chat completions, vLLM, SGLang and OpenRouter,
    ``input_tokens_details.cached_tokens`` in the Responses API, ``prompt_cache_hit_tokens`` at DeepSeek,
    ``cached_tokens`` at Moonshot, and ``cache_read_input_tokens`` at Anthropic and gateways to it. Only Anthropic's own
    ``input_tokens`` leave out what was read from or written to the cache.
    """
    if not isinstance(data, Mapping):
        return None
    if wild := [each for key, each in data.items() if str(key).endswith("tokens") and _count(each) > MOST_TOKENS]:
        return Usage(doubt=f"the endpoint counts {str(wild[0])[:12]} tokens, which is not believed: {ESTIMATED}")
    sent = _count(data.get("prompt_tokens")) or _count(data.get("input_tokens"))
    details = data.get("prompt_tokens_details") or data.get("input_tokens_details")
    cached = max(
        _count(details.get("cached_tokens")) if isinstance(details, Mapping) else 0,
        *(_count(data.get(name)) for name in ("prompt_cache_hit_tokens", "cached_tokens", _READ)),
    )
    if not data.get("prompt_tokens") and not isinstance(details, Mapping):
        sent += _count(data.get(_READ)) + _count(data.get(_WRITTEN))
    if not sent:
        return None
    received = _count(data.get("completion_tokens")) or _count(data.get("output_tokens"))
    return Usage(sent, min(cached, sent), received)


def _count(value: Any) -> int:
    """Return a count; one that is no number of tokens, however large, is ``MOST_TOKENS`` and one."""
    if not isinstance(value, int | float):
        return 0
    return int(value) if 0 <= value <= MOST_TOKENS else 0 if value < 0 else MOST_TOKENS + 1
