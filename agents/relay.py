"""The models of one step: when one keeps failing, the next of the list takes its place until the step ends."""

import json
import os
import random
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from avo.agents.desk import Desk
from avo.agents.errors import ContextOverflow, ModelFailing, ModelRefused
from avo.agents.model import ChatMessage, Model, Reply, estimated_tokens
from avo.agents.settings import ModelSettings, Settings

if TYPE_CHECKING:
    from avo.agents.connection import Connection

REST_S = 600.0
"""How long steps begin with another model after one was replaced."""
_FILLED = 0.8
"""Share of its context that a conversation may fill which another model takes over."""

MakeModel: TypeAlias = Callable[[ModelSettings, Desk, random.Random], Model]
"""Makes the model of a step: the one that was drawn, charged to a desk, with a source of randomness for its delays."""


class Relay:
    """Models that stand in for each other, in order of preference: see ``Model``.

    A model that keeps failing goes to the end of the line, one that refuses leaves it.
    """

    def __init__(
        self,
        line: Sequence[ModelSettings],
        make: Callable[[ModelSettings, Callable[[], str | None]], Model],
        replaced: Callable[[ModelSettings], None] = lambda _: None,
    ) -> None:
        """``make`` is called once for each model that is asked, with what names its successor at the time;
        ``replaced`` each time that one is given up.
        """
        self._line = deque(line)
        self._make, self._replaced = make, replaced
        self._made: dict[tuple[str, str | None], Model] = {}
        self._context = line[0].context_tokens

    def complete(self, messages: Sequence[ChatMessage], tools: Sequence[Mapping[str, Any]]) -> Reply:
        """Return the reply of the first model that gives one.

        Raises ``ContextOverflow`` too where a model that takes over has a smaller context than the conversation needs.
        """
        while True:
            settings = self._line[0]
            self._check_size(settings, messages, tools)
            try:
                return self._model(settings).complete(messages, tools)
            except ContextOverflow:
                raise
            except ModelFailing:
                self._line.rotate(-1)
            except ModelRefused:
                if len(self._line) == 1:
                    raise
                self._line.popleft()
            self._replaced(settings)

    def _model(self, settings: ModelSettings) -> Model:
        if settings.address not in self._made:
            self._made[settings.address] = self._make(settings, self._successor)
        return self._made[settings.address]

    def _successor(self) -> str | None:
        return self._line[1].name if len(self._line) > 1 else None

    def _check_size(
        self, settings: ModelSettings, messages: Sequence[ChatMessage], tools: Sequence[Mapping[str, Any]]
    ) -> None:
        context = settings.context_tokens
        if context < self._context and estimated_tokens(json.dumps([*messages, *tools])) > _FILLED * context:
            raise ContextOverflow(f"model {settings.name!r} has a smaller context", context)


def chat_models(settings: Settings, clock: Callable[[], float] = time.monotonic) -> MakeModel:
    """Return a factory of models behind endpoints. Each step gets its own; connections are kept between steps.

    A model is followed by those after it in the list, then by those before it.
    """
    connections: dict[tuple[str, str | None], Connection] = {}
    rests: dict[tuple[str, str | None], float] = {}

    def make(chosen: ModelSettings, desk: Desk, rng: random.Random) -> Model:
        place = settings.models.index(chosen)
        line = sorted(
            (*settings.models[place:], *settings.models[:place]),
            key=lambda model: rests.get(model.address, 0.0) > clock(),
        )

        def make_one(model: ModelSettings, successor: Callable[[], str | None]) -> Model:
            from avo.agents.chat import ChatModel  # the openai package takes a second to import
            from avo.agents.connection import connect

            if model.address not in connections:
                connections[model.address] = connect(
                    model, settings.request_timeout_s, os.environ, settings.silence_timeout_s
                )
            return ChatModel(model, desk, connections[model.address], jitter=rng, successor=successor)

        def rest(model: ModelSettings) -> None:
            rests[model.address] = clock() + REST_S

        return Relay(line, make_one, rest)

    return make
