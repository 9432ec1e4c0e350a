"""The way to one model: its client, how the endpoint is asked, and how it has failed of late."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

from openai import OpenAI

from avo.agents.model import CHAT, RESPONSES, Usage
from avo.agents.settings import ModelSettings
from avo.agents.terms import Terms

MOST_FAILURES = 3
"""Failures in a row after which another model is asked, where there is one, or another API, where none is known."""
_FIRST_DELAY_S, LONGEST_DELAY_S = 1.0, 60.0


@dataclass(eq=False)
class Failed(Exception):
    """A request that gave no usable reply; a retry may succeed."""

    reason: str
    usage: Usage = field(default_factory=Usage)
    retry_after_s: float = 0.0
    status: int | None = None
    nonsense: bool = False
    silent: bool = False


class Connection:
    """The way to one model, which the steps of a worker share: its client, and what was learnt of the endpoint."""

    def __init__(self, settings: ModelSettings, client: OpenAI, timeout_s: float, silence_s: float) -> None:
        self.client = client
        self.timeout_s = timeout_s
        self.silence_s = min(silence_s, timeout_s)
        """How long to wait for the next part of a reply. A model may think for longer without a sign."""
        openai = (urlsplit(str(client.base_url)).hostname or "").endswith("openai.com")
        limit = "max_completion_tokens" if openai else "max_tokens"
        self.terms = Terms(api=settings.api or RESPONSES, limit=limit)
        self.pinned = settings.api is not None
        self.known = self.pinned
        """Whether the endpoint has answered by the API of ``terms``."""
        self.refused: set[str] = set()
        """APIs by which it refused to answer."""
        self.failures = self.nonsense = 0
        """Failures in a row, and answers in a row that are not replies."""
        self.failing_since = 0.0
        self.not_before = 0.0
        """When it may be asked again."""
        self.reasons: Counter[str] = Counter()
        """How often it failed in a row for which reason."""

    @property
    def trouble(self) -> str:
        """Where the endpoint is and what it failed with, in words; empty when it has answered."""
        often = (f"{reason} ({count} times)" if count > 1 else reason for reason, count in self.reasons.most_common(2))
        return f"{self.client.base_url}: {'; '.join(often)}" if self.reasons else ""

    def use(self, api: str) -> None:
        """Ask by another API from now on."""
        self.terms, self.known = replace(self.terms, api=api), False

    def recover(self) -> None:
        """Forget the failures."""
        self.failures = self.nonsense = 0
        self.refused.clear()
        self.reasons.clear()

    def failed(self, failure: Failed, now: float, share: float) -> None:
        """Note a failure; ``share`` of the longest delay passes before the model is asked again."""
        self.failing_since = self.failing_since if self.failures else now
        delay = min(LONGEST_DELAY_S, _FIRST_DELAY_S * 2 ** min(self.failures, 10)) * share
        self.failures += 1
        self.reasons[failure.reason] += 1
        self.nonsense = self.nonsense + 1 if failure.nonsense else 0
        self.not_before = now + max(delay, failure.retry_after_s)
        if failure.silent:
            self.silence_s = min(2 * self.silence_s, self.timeout_s)
        other = CHAT if self.terms.api == RESPONSES else RESPONSES
        unsuitable = failure.nonsense or (failure.status == 500 and self.failures % MOST_FAILURES == 0)
        if unsuitable and not self.known and other not in self.refused:
            self.use(other)


def connect(
    settings: ModelSettings, timeout_s: float, environment: Mapping[str, str], silence_s: float = 60.0
) -> Connection:
    """Return the way to a model; steps may use it one after another. Raises ``NoEndpoint``.

    ``timeout_s`` limits one reply, ``silence_s`` the time in which nothing comes of it.
    """
    endpoint = settings.endpoint(environment)
    client = OpenAI(api_key=endpoint.api_key, base_url=endpoint.base_url, timeout=timeout_s, max_retries=0)
    return Connection(settings, client, timeout_s, silence_s)
