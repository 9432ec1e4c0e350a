"""What a step hands over to the next one: the model's own words, or what the record of the step says."""

import re
from collections.abc import Collection

from avo.agents.desk import Desk
from avo.agents.tools.tables import short
from avo.agents.tools.workbench import Workbench

MOST_WORDS = 600
"""Longest handover."""
_ATTEMPTS = 12
"""Attempts that a handover made from the record lists, the latest."""
_MADE = "(From the record, not in the step's own words.)"
"""How a handover begins that was made from the record."""
_ATTEMPT = re.compile(r"- attempt (\d+): ")
_LAST_WORDS = 1_200
"""Characters of what the model said last in a handover made from the record."""


def handover(bench: Workbench, ending: str, last_words: str = "") -> str:
    """Return what a step on ``bench`` hands over: the model's words if it left any, else what is on record.

    ``ending`` says why the step is over, if it was not the model that ended it; ``last_words`` are the latest words of
    the model. Empty if the step did nothing.
    """
    return abridged(bench.handover or _from_record(bench, ending, last_words))


def hand_over(bench: Workbench, desk: Desk, ending: str, last_words: str = "") -> None:
    """Leave the handover of a step to the next one, if there is anything to say."""
    if text := handover(bench, ending, last_words):
        desk.hand_over(text)


def abridged(text: str) -> str:
    """Return the first lines of ``text``, ``MOST_WORDS`` words at most; if the first is longer, its whole sentences."""
    kept: list[str] = []
    left = MOST_WORDS
    for line in text.strip().splitlines():
        words = line.split()
        if len(words) > left:
            return "\n".join(kept) or short(line, len(" ".join(words[:left])))
        kept.append(line)
        left -= len(words)
    return "\n".join(kept)


def without_attempts(text: str, told: Collection[int]) -> str:
    """Return a handover that was made from the record without the lines on attempts that are ``told`` of elsewhere."""
    if not text.startswith(_MADE):
        return text
    lines = text.splitlines()
    return "\n".join(line for line in lines if not ((of := _ATTEMPT.match(line)) and int(of[1]) in told))


def _from_record(bench: Workbench, ending: str, last_words: str) -> str:
    """Return what was tried, where the working source stands, and what the model said last."""
    if not bench.attempts and not last_words:
        return ""
    lines = [f"{_MADE} {f'The step ended: {ending}.' if ending else ''}".strip()]
    if bench.reason:
        lines.append(f"It submitted nothing: {bench.reason}")
    lines += [f"- {attempt.line}" for attempt in bench.attempts[-_ATTEMPTS:]]
    if last_words:
        lines.append(f"Last said: {short(last_words, _LAST_WORDS)}")
    return "\n".join(lines)
