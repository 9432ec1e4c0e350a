"""A wrong kernel: a seed, edited in a few places. The wrong answers of a problem are in ``wrong.py`` of its folder."""

from dataclasses import dataclass

from avo.evaluator.evaluation import Status


@dataclass(frozen=True, slots=True)
class Mutant:
    """Edits, each ``(old, new)`` of which ``old`` occurs once, and the verdict that they deserve."""

    edits: tuple[tuple[str, str], ...]
    message: str
    """A regular expression that the judge's message matches: where it went wrong, not only that it did."""
    status: Status = Status.INCORRECT
    setting: str = ""
    """The setting in which it is wrong, as in a problem's name; empty: none."""
    seed: str | None = None
    """Name of the seed that is edited; None: the default one there."""

    def problem(self, kind: str) -> str:
        """Return the name of the problem that it is a wrong answer to."""
        return f"{kind}-{self.setting}" if self.setting else kind

    def of(self, source: str) -> str:
        """Return ``source`` with the edits made."""
        for old, new in self.edits:
            assert source.count(old) == 1, f"{source.count(old)} times: {old}"
            source = source.replace(old, new)
        return source


def one(
    old: str, new: str, message: str, status: Status = Status.INCORRECT, setting: str = "", seed: str | None = None
) -> Mutant:
    """Return the mutant with a single edit."""
    return Mutant(((old, new),), message, status, setting, seed)
