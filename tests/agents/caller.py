"""A model behind an endpoint that follows a script, for tests: the real client, and a clock that waits for nobody."""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from avo.agents.chat import ChatModel
from avo.agents.connection import connect
from avo.agents.desk import FakeDesk
from avo.agents.model import Reply
from avo.agents.settings import ModelSettings
from tests.agents.endpoint import Endpoint, Line

NOW = datetime(2026, 3, 1, tzinfo=UTC)
HELLO = [{"role": "user", "content": "hello"}]
TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}]
GOOD_BODY = '{"choices": [{"message": {"content": "here"}}]}'
GOOD: Line = {"text": "here", "usage": {"prompt_tokens": 10, "completion_tokens": 2}}
STREAMED = {"stream": True, "stream_options": {"include_usage": True}}
PRICED = {"input_usd_per_mtok": 1.0, "cached_usd_per_mtok": 0.1, "output_usd_per_mtok": 4.0}


class Time:
    """Passes only when somebody sleeps, or at each look by ``tick``."""

    def __init__(self, tick: float = 0.0, on_sleep: Callable[[], None] = lambda: None) -> None:
        self.seconds = 0.0
        self.slept: list[float] = []
        self.tick, self._on_sleep = tick, on_sleep

    def clock(self) -> float:
        self.seconds += self.tick
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds
        self.slept.append(seconds)
        self._on_sleep()


class Caller:
    """A model on the other end of a script."""

    def __init__(self, url: str, desk: FakeDesk, time: Time, timeout_s: float, settings: dict[str, Any]) -> None:
        self.desk, self.time = desk, time
        silence_s, successor = settings.pop("silence_s", timeout_s), settings.pop("successor", None)
        made = ModelSettings(name="m", base_url=url, **settings)
        self.line = connect(made, timeout_s, {"OPENAI_API_KEY": "secret"}, silence_s)
        self.client = self.line.client
        self.model = ChatModel(
            made,
            desk.desk,
            self.line,
            successor=lambda: successor,
            jitter=random.Random(0),
            sleep=time.sleep,
            clock=time.clock,
            now=lambda: NOW + timedelta(seconds=time.seconds),
        )

    def complete(self, tools: Any = (), messages: Any = HELLO) -> Reply:
        return self.model.complete(messages, tools)

    @property
    def errors(self) -> list[str]:
        return [call["error"] for call in self.desk.calls]


@contextmanager
def model(
    *script: Line | Callable[[dict[str, Any]], Line],
    time: Time | None = None,
    timeout_s: float = 600.0,
    apis: Sequence[str] = ("chat",),
    **settings: Any,
) -> Iterator[Any]:
    with Endpoint(script, apis=apis) as endpoint:
        made = Caller(endpoint.url, FakeDesk(), time or Time(), timeout_s, settings)
        with closing(made.client):
            yield made, endpoint
