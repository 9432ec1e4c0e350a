"""The knowledge base K: short notes with their sources, found by words. Standard library only."""

import re
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

NOTES = Path(__file__).parent / "notes"
_KEYS = ("title", "architectures", "problems", "tags", "source")


class LibraryError(Exception):
    """A note is missing or malformed. ``str()`` is one line that names it."""


@dataclass(frozen=True, slots=True)
class Note:
    """One retrievable passage."""

    id: str
    """The file's name without ``.md``."""
    title: str
    architectures: tuple[int, ...]
    """Compute capabilities times ten that it is about; empty: any."""
    problems: tuple[str, ...]
    """Names of the problems that it is about; empty: any."""
    tags: tuple[str, ...]
    source: str
    """Where the facts were published, or how they were established."""
    body: str


@dataclass(frozen=True, slots=True)
class Library:
    """A fixed set of notes."""

    notes: tuple[Note, ...]

    @classmethod
    def load(cls, folder: Path = NOTES) -> "Library":
        """Read every ``*.md`` of ``folder``; raise ``LibraryError`` naming a file that is not a note."""
        return cls(tuple(_parse(path) for path in sorted(folder.glob("*.md"))))

    def note(self, note_id: str) -> Note:
        """Return the note called ``note_id``; raise ``LibraryError`` with the known ids otherwise."""
        for note in self.notes:
            if note.id == note_id:
                return note
        raise LibraryError(f"unknown note {note_id!r}: choose one of {', '.join(note.id for note in self.notes)}")

    def search(
        self, query: str, *, architecture: int | None = None, problem: str | None = None, limit: int = 5
    ) -> list[Note]:
        """Return at most ``limit`` notes that share a word with ``query``, best first by BM25.

        Words of title and tags count more. ``architecture`` (compute capability times ten) and ``problem`` leave out
        notes that are about others only.
        """
        words = re.findall(r"\w+", query)
        fitting = [
            note
            for note in self.notes
            if (architecture is None or not note.architectures or architecture in note.architectures)
            and (problem is None or not note.problems or problem in note.problems)
        ]
        return _rank(fitting, words, limit) if words else []


def _rank(notes: Sequence[Note], words: Sequence[str], limit: int) -> list[Note]:
    with closing(sqlite3.connect(":memory:")) as index:
        index.execute("CREATE VIRTUAL TABLE note USING fts5(title, tags, body, tokenize='porter unicode61')")
        index.executemany(
            "INSERT INTO note(rowid, title, tags, body) VALUES (?, ?, ?, ?)",
            [(row, note.title, " ".join((note.id, *note.tags)), note.body) for row, note in enumerate(notes)],
        )
        rows = index.execute(
            "SELECT rowid FROM note WHERE note MATCH ? ORDER BY bm25(note, 4.0, 4.0, 1.0), rowid LIMIT ?",
            (" OR ".join(f'"{word}"' for word in words), limit),
        ).fetchall()
    return [notes[row] for (row,) in rows]


def _parse(path: Path) -> Note:
    """Read front matter of ``key: value`` lines between two ``---`` lines, then the body."""
    head, dashes, body = path.read_text(encoding="utf-8").removeprefix("---\n").partition("\n---\n")
    fields = {}
    for line in head.splitlines():
        key, colon, value = line.partition(":")
        if not colon or key not in _KEYS or key in fields:
            raise LibraryError(f"{path.name}: bad line {line!r}: write one 'key: value' each for {', '.join(_KEYS)}")
        fields[key] = value.strip()
    missing = [key for key in ("title", "source") if not fields.get(key)]
    if not dashes or missing or not body.strip():
        raise LibraryError(
            f"{path.name}: a note needs front matter between two --- lines with a title and a source, then a body"
        )
    architectures = _names(fields.get("architectures", ""))
    if not all(name.isdecimal() for name in architectures):
        raise LibraryError(f"{path.name}: architectures must be numbers such as 80, 90, 100")
    return Note(
        id=path.stem,
        title=fields["title"],
        architectures=tuple(int(name) for name in architectures),
        problems=_names(fields.get("problems", "")),
        tags=_names(fields.get("tags", "")),
        source=fields["source"],
        body=body.strip(),
    )


def _names(value: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in value.split(",") if name.strip())
