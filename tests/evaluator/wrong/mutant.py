"""A wrong kernel: a right one, edited in a few places."""

from dataclasses import dataclass

from avo.evaluator.evaluation import Status


@dataclass(frozen=True)
class Mutant:
    """Edits, each ``(old, new)`` of which ``old`` occurs once, and the verdict that they deserve."""

    edits: tuple[tuple[str, str], ...]
    message: str
    """A regular expression that the judge's message matches: where it went wrong, not only that it did."""
    status: Status = Status.INCORRECT

    def of(self, source: str) -> str:
        """Return ``source`` with the edits made."""
        for old, new in self.edits:
            assert source.count(old) == 1, f"{source.count(old)} times: {old}"
            source = source.replace(old, new)
        return source


def one(old: str, new: str, message: str, status: Status = Status.INCORRECT) -> Mutant:
    """Return the mutant with a single edit."""
    return Mutant(((old, new),), message, status)
