"""Settings of models: prices, endpoints and keys, and what is refused before anything is asked."""

import pytest

from avo.agents.errors import AgentError, NoEndpoint, NoModel, NoPrice
from avo.agents.model import Usage
from avo.agents.settings import Endpoint, ModelSettings, Settings

LOCAL = "http://127.0.0.1:8000/v1"


def test_a_call_costs_what_its_tokens_do() -> None:
    usage = Usage(1_000_000, 400_000, 100_000)
    assert ModelSettings(name="m").usd(usage) is None
    assert ModelSettings(name="m", input_usd_per_mtok=2.0).usd(usage) is None
    priced = ModelSettings(name="m", input_usd_per_mtok=2.0, output_usd_per_mtok=10.0)
    assert priced.usd(usage) == pytest.approx(3.0)
    assert priced.model_copy(update={"cached_usd_per_mtok": 0.5}).usd(usage) == pytest.approx(2.4)


@pytest.mark.parametrize(
    ("url", "environment", "endpoint"),
    [
        (None, {"OPENAI_API_KEY": "k"}, Endpoint(None, "k")),
        (None, {"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": "https://e.com/v1"}, Endpoint("https://e.com/v1", "k")),
        (None, {"OPENAI_BASE_URL": LOCAL}, Endpoint(LOCAL, "none")),
        (LOCAL, {"OPENAI_BASE_URL": "https://e.com/v1"}, Endpoint(LOCAL, "none")),
        ("http://localhost:11434/v1", {}, Endpoint("http://localhost:11434/v1", "none")),
        ("http://[::1]:8000/v1", {}, Endpoint("http://[::1]:8000/v1", "none")),
    ],
)
def test_a_model_is_asked_where_settings_or_environment_say(
    url: str | None, environment: dict[str, str], endpoint: Endpoint
) -> None:
    assert ModelSettings(name="m", base_url=url).endpoint(environment) == endpoint


@pytest.mark.parametrize(
    ("environment", "part"),
    [
        ({}, "set OPENAI_API_KEY, or OPENAI_BASE_URL for a server on this machine"),
        ({"OPENAI_API_KEY": ""}, "there is no key and no address"),
        ({"OPENAI_BASE_URL": "https://e.com/v1"}, "https://e.com/v1 is not on this machine, so a key is needed"),
    ],
)
def test_a_model_without_key_is_refused_in_one_line(environment: dict[str, str], part: str) -> None:
    with pytest.raises(NoEndpoint) as error:
        ModelSettings(name="m").endpoint(environment)
    assert part in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("models", "usd_limit", "error"),
    [
        ((), False, NoModel),
        ((ModelSettings(name="m"),), True, NoPrice),
        ((ModelSettings(name="m", base_url="https://e.com"),), False, NoEndpoint),
    ],
)
def test_what_could_not_work_is_refused_at_start(
    models: tuple[ModelSettings, ...], usd_limit: bool, error: type[AgentError]
) -> None:
    with pytest.raises(error):
        Settings(models).check("agent", {"OPENAI_BASE_URL": LOCAL}, usd_limit=usd_limit)
    Settings((ModelSettings(name="m"),)).check("agent", {"OPENAI_BASE_URL": LOCAL}, usd_limit=False)
