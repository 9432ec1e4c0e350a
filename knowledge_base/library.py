"""The knowledge base K: short notes, the API of the installed Triton and the user's documents, found by words.

Standard library only.
"""

import difflib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from avo.knowledge_base.documents import documents_folder, read_documents
from avo.knowledge_base.errors import LibraryError
from avo.knowledge_base.index import Index
from avo.knowledge_base.note import Kind, Note, read_notes
from avo.knowledge_base.triton_api import installed_api

__all__ = ["Kind", "Library", "LibraryError", "Note"]

NOTES = Path(__file__).parent / "notes"


@dataclass(frozen=True, slots=True)
class Library:
    """A fixed set of passages. The search index is built at the first search in each process."""

    notes: tuple[Note, ...]
    """Notes written for this project."""
    api: tuple[Note, ...] = ()
    """A passage for each public function and class of the installed triton."""
    documents: tuple[Note, ...] = ()
    """Passages of the documents that the user added."""

    @classmethod
    def load(cls, folder: Path = NOTES) -> "Library":
        """Read the notes of ``folder``, the installed triton and the user's documents.

        Raises ``LibraryError`` naming a file of ``folder`` that is not a note.
        """
        return cls(read_notes(folder), installed_api(), read_documents(documents_folder()))

    @property
    def passages(self) -> tuple[Note, ...]:
        """All passages: notes, API, documents."""
        return self.notes + self.api + self.documents

    def note(self, note_id: str) -> Note:
        """Return the passage called ``note_id``; raise ``LibraryError`` with the nearest ids otherwise."""
        known = {note.id: note for note in reversed(self.passages)}
        if note_id in known:
            return known[note_id]
        near = difflib.get_close_matches(note_id, known, n=3) or [note.id for note in self.search(note_id, limit=3)]
        advice = f"choose one of {', '.join(near)}" if near else "search for what it should say"
        raise LibraryError(f"unknown note {note_id!r}: {advice}")

    def search(
        self, query: str, *, architecture: int | None = None, problem: str | None = None, limit: int = 5
    ) -> list[Note]:
        """Return at most ``limit`` passages that share a word with ``query``, best first.

        The rank is BM25; words of title and tags count more, and notes before API, unless the query names a function as
        code does (``tl.dot``, ``make_tensor_descriptor``). ``architecture`` (compute capability times ten) and
        ``problem`` leave out passages that are about others only.
        """
        return [note for note in _index(self).ranked(query) if note.concerns(architecture, problem)][:limit]


@lru_cache(maxsize=2)
def _index(library: Library) -> Index:
    return Index(library.passages)
