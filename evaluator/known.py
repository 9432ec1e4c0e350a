"""Which targets there are: published cards, and those that ``avo calibrate`` fitted to times.

Calibrated cards are in a file of the user's. A run takes its own along, so that it needs no file when it is resumed,
reported or judged elsewhere.
"""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import msgspec

from avo.evaluator.errors import BadCards, UnknownTarget
from avo.evaluator.target import CUDA, TARGETS, Target

CARD = "card"
"""Where a run's stored configuration has its calibrated card."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")
_SPELLED = quote("{")
"""How a card begins whose figures are spelled out."""
_brought: dict[str, Target] = {}


def known(name: str) -> Target | None:
    """Return the card called ``name``: a published one, one that this process was told of by ``bring``, or one in the
    user's file. None for this machine's GPU, and where there is no such card. Raises ``BadCards`` for a bad file.
    """
    if name == CUDA:
        return None
    return TARGETS.get(name) or _brought.get(name) or calibrated().get(name)


def check_target(name: str) -> None:
    """Raise ``UnknownTarget`` with the known names unless there is a target ``name``. Does not look for a GPU."""
    if name != CUDA and not known(name):
        raise UnknownTarget(name, (*TARGETS, *calibrated(), CUDA))


def figures(name: str) -> dict[str, Any] | None:
    """Return all figures of a calibrated card, for JSON; None for other targets. Raises like ``known``."""
    card = None if name in TARGETS else known(name)
    return None if card is None else json.loads(msgspec.json.encode(card))


def bring(card: Mapping[str, Any]) -> str:
    """Know a card by its ``figures`` from now on, and return its name. Raises ``BadCards``."""
    found = _read(card, "what a run or a judge was given")
    _brought[found.name] = found
    return found.name


def spelled(name: str) -> str:
    """Return by what a process that lacks the user's file knows a target: its name, or all figures of a calibrated
    card, without a character that a shell would change. Raises like ``known``.
    """
    card = figures(name)
    return name if card is None else quote(json.dumps(card), safe="")


def unspelled(text: str) -> str:
    """Return the name of a target that may be ``spelled``, and know it from now on. Raises ``BadCards``."""
    return bring(json.loads(unquote(text))) if text.startswith(_SPELLED) else text


def cards_file() -> Path:
    """Return where calibrated cards are: ``$AVO_CARDS``, else ``avo/cards.json`` in the user's data folder (XDG)."""
    if named := os.environ.get("AVO_CARDS"):
        return Path(named)
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "avo" / "cards.json"


def calibrated() -> dict[str, Target]:
    """Return the cards in the user's file by name. Raises ``BadCards``."""
    try:
        file = cards_file()
        data = json.loads(file.read_bytes())
    except (FileNotFoundError, RuntimeError):  # there is none, or no home
        return {}
    except (OSError, ValueError) as error:
        raise BadCards(f"cannot read {file}: {error}") from None
    return {card.name: card for card in (_read(each, str(file)) for each in data)}


def check_name(name: str) -> None:
    """Raise ``BadCards`` unless a new card may have this name."""
    if not _NAME.fullmatch(name):
        raise BadCards(f"{name!r} is no name for a card: use 1 to 40 letters, digits, dots, '-' or '_'")
    if name == CUDA or known(name):
        raise BadCards(f"there is a target {name!r} already: choose another name")


def keep(card: Target) -> Path:
    """Add a card to the user's file, and return that. Raises ``BadCards``, also where the name is taken."""
    check_name(card.name)
    file, cards = cards_file(), [*calibrated().values(), card]
    written = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        written.write_bytes(msgspec.json.format(msgspec.json.encode(cards)))
        written.replace(file)
    except OSError as error:
        raise BadCards(f"cannot write {file}: {error.strerror}") from None
    return file


def _read(data: object, where: str) -> Target:
    try:
        return msgspec.convert(data, Target)
    except msgspec.ValidationError as error:
        raise BadCards(f"{where} is no card that this release knows ({error}): calibrate it again") from None
