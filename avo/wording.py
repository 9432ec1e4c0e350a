"""Wording: how durations, gains and verdicts read in live displays."""

from collections.abc import Mapping

from evaluator.evaluation import Status


def duration(seconds: float) -> str:
    """Return the two largest units: ``9s``, ``1m 05s``, ``2h 07m``, ``3d 04h``."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h {whole % 3600 // 60:02}m"
    return f"{whole // 86400}d {whole % 86400 // 3600:02}h"


def percent(gain: float | None) -> str:
    """Return ``+3.1%`` for 0.031, nothing for None."""
    return "" if gain is None else f"{gain:+.1%}"


def verdict(status: Status) -> str:
    """Return the status in words."""
    return status.value.replace("_", " ")


def verdicts(counts: Mapping[Status, int]) -> str:
    """Return ``12 correct, 3 incorrect, 1 does not fit``: correct first, then the faults as they come."""
    order = sorted(counts, key=lambda status: status is not Status.CORRECT)
    return ", ".join(f"{counts[status]} {verdict(status)}" for status in order)


def printable(text: str) -> str:
    """Return ``text`` without control characters other than line ends: candidates choose what their sources hold."""
    return "".join(char if char.isprintable() or char == "\n" else " " for char in text.expandtabs(4))


def first_line(text: str) -> str:
    """Return the first line of a message that may have several, printable."""
    return printable(text.strip().partition("\n")[0]).strip()
