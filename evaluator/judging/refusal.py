"""Refusals: how a fault of the candidate gets from inside an examination to the judge, which returns it as a value."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

from avo.evaluator.evaluation import Fault

T = TypeVar("T")


class Refused(Exception):
    """The candidate has a fault, so its examination ends. Never leaves ``avo.evaluator.judging``."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self.fault = fault


def passed(found: T | Fault) -> T:
    """Return ``found``; raise ``Refused`` if it is a fault."""
    if isinstance(found, Fault):
        raise Refused(found)
    return found


def outcome(work: Callable[[], T]) -> T | Fault:
    """Return what ``work`` returns, or the fault for which it raises ``Refused``."""
    try:
        return work()
    except Refused as refused:
        return refused.fault


@contextmanager
def told(*, before: str = "", after: str = "") -> Iterator[None]:
    """Add text before and after the message of a fault that is raised inside."""
    try:
        yield
    except Refused as refused:
        fault = refused.fault
        raise Refused(replace(fault, message=f"{before}{fault.message}{after}")) from None
