"""Edits: sources made from a version by moves, and how the record names them: ``move: what; move: what``."""

from dataclasses import dataclass

from avo.lineage_db.records import Version


@dataclass(frozen=True, slots=True)
class Edit:
    """A source made from a version by one or more moves."""

    source: str
    changes: tuple[str, ...]
    moves: tuple[str, ...]

    @property
    def change(self) -> str:
        """How the record names it."""
        return "; ".join(self.parts)

    @property
    def parts(self) -> tuple[str, ...]:
        """Each move with what it changed."""
        return tuple(f"{move}: {change}" for move, change in zip(self.moves, self.changes, strict=True))

    def then(self, move: str, what: str, source: str) -> "Edit":
        """Return the edit with one more move."""
        return Edit(source, (*self.changes, what), (*self.moves, move))

    def on(self, parent: Version) -> str:
        """Return the edit and its parent in words."""
        return f"{self.change} (on version {parent.number})"


def parts_of(change: str) -> tuple[str, ...]:
    """Return a recorded change in its parts, each by one move; none of a source that was not changed."""
    return tuple(change.split("; ")) if change else ()


def moves_of(change: str) -> list[str]:
    """Return the names of the moves in a change by ``mutate``; for another operator's change, meaningless words."""
    return [part.partition(":")[0].strip() for part in change.split(";")]


def edit_of(change: str, source: str, otherwise: str) -> Edit:
    """Return the edit that the record names ``change``; another operator's is one by the move ``otherwise``."""
    parts = [part.partition(": ") for part in parts_of(change)]
    if not all(what for _, _, what in parts):
        parts = [(otherwise, ": ", change)]
    return Edit(source, tuple(what for _, _, what in parts), tuple(name for name, _, _ in parts))
