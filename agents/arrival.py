"""A reply as it arrives from an endpoint: what the readers of both APIs have in common."""

import json
from dataclasses import dataclass
from typing import Any, Protocol

from avo.agents.model import Reply, Usage, readable

ODD = (LookupError, TypeError, AttributeError, ValueError, ArithmeticError, RecursionError)
"""What reading a document raises that has not the form of the API."""
_SHOWN = 300


class NotAReply(Exception):
    """What came is not what the API returns; the message shows it."""


@dataclass(eq=False)
class EndpointError(Exception):
    """The endpoint reports an error in the place of a reply."""

    code: str
    message: str

    def __str__(self) -> str:
        return self.message


class Reader(Protocol):
    """Reads the documents of one answer, each an event of a stream or the whole."""

    characters: int
    """Characters of text, reasoning and calls that have come so far."""
    usage: Usage | None
    """The tokens that the endpoint has counted so far."""
    over: bool
    """Whether nothing more is to come."""

    def take(self, document: str) -> None:
        """Take the next document. Raises ``NotAReply`` and ``EndpointError``."""
        ...

    def reply(self) -> Reply | None:
        """Return the reply, without usage; None if it is not complete. Raises ``NotAReply`` if nothing came."""
        ...


def parsed(document: str) -> dict[str, Any]:
    """Return the object in a document; raise ``NotAReply`` or ``EndpointError``."""
    try:
        data = json.loads(document)
    except (ValueError, RecursionError):
        raise NotAReply(f"the endpoint's answer is not JSON: {document.strip()[:_SHOWN]!r}") from None
    if not isinstance(data, dict):
        raise foreign(data)
    if (error := data.get("error")) and data.get("object") != "response":
        raise reported(error)
    return data


def reported(error: object) -> EndpointError:
    """Return the error that an endpoint reports with ``error``, an object or a text."""
    if not isinstance(error, dict):
        return EndpointError("", shown(error))
    code = error.get("code") or error.get("type") or ""
    message = error.get("message")
    return EndpointError(str(code), shown(message if isinstance(message, str) and message.strip() else error))


def foreign(data: object) -> NotAReply:
    """Return the error for an answer that does not have the API's form."""
    return NotAReply(f"the endpoint's answer is not a model's reply: {shown(data)}")


def shown(data: object) -> str:
    """Return data on one line, cut off."""
    text = data if isinstance(data, str) else json.dumps(data)
    return " ".join(readable(text).split())[:_SHOWN]
