"""Settings of the operators that use language models: which models, where they are, what they cost."""

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field

from avo.agents.errors import NoEndpoint, NoModel, NoPrice
from avo.agents.model import Usage

BASE_URL = "OPENAI_BASE_URL"
"""Environment variable with the endpoint's address, for models whose settings have none."""
_NO_KEY = "none"
"""Key sent to servers on this machine that need none: the client insists on one."""
_PER_MTOK = 1e-6


class ModelSettings(BaseModel):
    """One language model behind an OpenAI-compatible endpoint."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str = Field(min_length=1)
    """The endpoint's name for the model."""
    api: Literal["responses", "chat"] | None = None
    """The API to use: OpenAI's Responses API or chat completions. None: what the endpoint answers decides, see
    ``avo.agents.terms``.
    """
    weight: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    """Relative probability that a step uses this model: each step has one. It changes with what the model's steps gain
    for their price: see ``avo.agents.bandit``.
    """
    context_tokens: int = Field(default=128_000, ge=8_000)
    """The model's context, replies included. A brief with its sources and tools takes about 8,000 tokens."""
    input_usd_per_mtok: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    cached_usd_per_mtok: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Price of cached input. None: the same as other input."""
    output_usd_per_mtok: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    temperature: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Sampling temperature. None is not sent, like any such field: some endpoints refuse unknown fields."""
    top_p: float | None = Field(default=None, gt=0, le=1)
    max_output_tokens: int | None = Field(default=None, ge=1)
    reasoning_effort: str | None = None
    extra_body: dict[str, Any] = Field(default_factory=dict)
    """Further fields of each request, as the endpoint expects them."""
    base_url: str | None = None
    """The endpoint's address, e.g. ``http://localhost:8000/v1``. None: that of OPENAI_BASE_URL, else OpenAI's."""
    api_key_env: str = "OPENAI_API_KEY"
    """Environment variable that holds the key; the key itself is stored nowhere."""

    @property
    def address(self) -> tuple[str, str | None]:
        """Name and address, which tell models apart."""
        return self.name, self.base_url

    @property
    def priced(self) -> bool:
        """Whether the cost of a call is known."""
        return self.input_usd_per_mtok is not None and self.output_usd_per_mtok is not None

    def usd(self, usage: Usage) -> float | None:
        """Return the cost of a call in US dollars; None if the price is unknown."""
        if self.input_usd_per_mtok is None or self.output_usd_per_mtok is None:
            return None
        cached = self.input_usd_per_mtok if self.cached_usd_per_mtok is None else self.cached_usd_per_mtok
        fresh = usage.input_tokens - usage.cached_tokens
        return _PER_MTOK * (
            fresh * self.input_usd_per_mtok
            + usage.cached_tokens * cached
            + usage.output_tokens * self.output_usd_per_mtok
        )

    def endpoint(self, environment: Mapping[str, str]) -> "Endpoint":
        """Return the model's address and key; raise ``NoEndpoint`` if neither is given."""
        url = self.base_url or environment.get(BASE_URL) or None
        key = environment.get(self.api_key_env)
        if key:
            return Endpoint(url, key)
        if url and _on_this_machine(url):
            return Endpoint(url, _NO_KEY)
        raise NoEndpoint(self.name, self.api_key_env, url)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A model's address and key."""

    base_url: str | None
    """The address; None: OpenAI's."""
    api_key: str


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings shared by the operators that use language models."""

    models: Sequence[ModelSettings] = ()
    request_timeout_s: float = 600.0
    """Longest time that one reply may take."""
    silence_timeout_s: float = 60.0
    """Longest time in which nothing comes of a reply. It is doubled for a model each time that it is exceeded."""
    command: str = ""
    """The command that the operator ``command`` starts."""
    command_env: Sequence[str] = ()
    """Environment variables that the command gets besides harmless ones."""
    continue_steps: int = 1
    """Steps in a row that the agent keeps one conversation over."""

    def model(self, name: str) -> ModelSettings:
        """Return the settings of the model called ``name``, which is one of ``models``."""
        return next(model for model in self.models if model.name == name)

    def check(self, operator: str, environment: Mapping[str, str], *, usd_limit: bool) -> None:
        """Raise ``NoModel``, ``NoEndpoint`` or ``NoPrice`` unless ``operator`` can ask its models, and a limit in USD,
        where there is one, can be held.
        """
        if not self.models:
            raise NoModel(operator)
        for model in self.models:
            model.endpoint(environment)
            if usd_limit and not model.priced:
                raise NoPrice(model.name)


def _on_this_machine(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
