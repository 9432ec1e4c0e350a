"""One small request per model, which shows before a run whether the model can be asked and calls tools."""

import random
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from typing import Any

from avo.agents.desk import FakeDesk, Left
from avo.agents.errors import BudgetSpent, ModelRefused
from avo.agents.settings import ModelSettings
from avo.agents.written import PARSER_MISSING, PARSER_OPTIONS, is_written

ASKED = "Call the tool ready now. Say nothing else."
_TOOL = "ready"
_TOOLS = [
    {
        "type": "function",
        "function": {
            "name": _TOOL,
            "description": "Says that you can call tools.",
            "parameters": {"type": "object", "properties": {}, "additionalProperties": False},
        },
    }
]
_WAIT_S = 20.0
"""Longest wait for the reply: the search itself waits for longer."""
_TRIES = 2
"""Requests before a failure counts: the second may be by the other API, and a model may forget to call once."""


def probe(
    model: ModelSettings, environment: Mapping[str, str], *, tools: bool, wait_s: float = _WAIT_S
) -> tuple[list[dict[str, Any]], str]:
    """Return the requests made, as ``Charge`` takes them, and what is wrong with the endpoint that may pass.

    Raises ``ModelRefused`` for what lasts: a wrong key, address or name, or, with ``tools``, no call of a tool. Raises
    ``NoEndpoint``.
    """
    from avo.agents.chat import ChatModel  # the openai package takes a second to import
    from avo.agents.connection import connect

    fake = FakeDesk()

    def charge(**call: Any) -> None:
        fake.calls.append(call)
        if len(fake.calls) >= _TRIES:
            fake.budget = Left(spent=call["error"] or "the model was asked")

    slept = 0.0

    def sleep(seconds: float) -> None:
        nonlocal slept
        slept += seconds
        if slept > wait_s:  # a pause that the endpoint asks for is the search's to wait for
            raise BudgetSpent(str(fake.calls[-1]["error"]))
        time.sleep(seconds)

    desk = replace(fake.desk, charge=charge)
    connection = connect(model, wait_s, environment, wait_s)
    said = ""
    with closing(connection.client):
        asked = ChatModel(model, desk, connection, jitter=random.Random(0), sleep=sleep)
        try:
            while len(fake.calls) < _TRIES:
                reply = asked.complete([{"role": "user", "content": ASKED}], _TOOLS if tools else ())
                if reply.calls or not tools:
                    return fake.calls, ""
                said = said or reply.text
        except BudgetSpent as spent:
            failure = f"model {model.name!r}: {spent}"
            if str(spent).startswith("no connection"):
                raise ModelRefused(f"{failure}: does the server run, and is its address right?") from None
            if any(option in str(spent) for option in PARSER_OPTIONS):
                raise ModelRefused(failure) from None
            if connection.nonsense:
                raise ModelRefused(f"{failure}: does its address end as the server wants it, mostly in /v1?") from None
            return fake.calls, failure
    why = PARSER_MISSING if is_written(said, [_TOOL]) else "it answers without the call of a tool that it was asked for"
    raise ModelRefused(f"model {model.name!r}: {why}")
