"""Ranking passages against the words of a query: BM25 by SQLite's FTS5, and names of API as code writes them."""

import re
import sqlite3
import threading
from collections.abc import Sequence

from avo.knowledge_base.note import Kind, Note

_WEIGHTS = {Kind.NOTE: 1.0, Kind.DOCUMENT: 0.8, Kind.API: 0.45}
"""Weight of a passage's score, by kind. Sources repeat words that a note explains once; a query that names API finds it
by name.
"""
_COLUMNS = "4.0, 4.0, 1.0"
"""BM25 weights of title, names and body."""
_WORD = re.compile(r"\w+")
_NOISE = frozenset(
    _WORD.findall("""
    a an and are as at be by can did do does for from have how i if in into is it its make my of on or should so than
    that the their there these this to use using was what when where which while why will with without you
    """)
)
_MOST_WORDS = 100
"""Longest query in characters: more is a pasted page, and SQLite's parser has limits."""
_CODE = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*")
_CODE_ONLY = re.compile(r"[._]|[a-z][A-Z]")
_ALIASES = {"tl": "triton.language", "gl": "triton.experimental.gluon.language"}
_ALIASES["ttgl"] = _ALIASES["gl"]


class Index:
    """Passages, indexed in memory. Several threads may search them."""

    def __init__(self, notes: Sequence[Note]) -> None:
        self._notes = notes
        self._lock = threading.Lock()
        self._rows = sqlite3.connect(":memory:", check_same_thread=False)
        self._rows.execute(
            "CREATE VIRTUAL TABLE note USING fts5(title, names, body, weight UNINDEXED, tokenize='porter unicode61')"
        )
        self._rows.executemany(
            "INSERT INTO note(rowid, title, names, body, weight) VALUES (?, ?, ?, ?, ?)",
            (
                (row, note.title, " ".join((note.id, *note.tags)), note.body, _WEIGHTS[note.kind])
                for row, note in enumerate(notes)
            ),
        )
        self._named: dict[str, list[Note]] = {}
        for note in notes:
            if note.kind is Kind.API:
                self._named.setdefault(note.id.rpartition(".")[2].lower(), []).append(note)

    def ranked(self, query: str) -> list[Note]:
        """Return all passages that share a word with ``query``, best first, after the API that the query names."""
        words = list(dict.fromkeys(_WORD.findall(query.lower())))
        words = [word for word in words if len(word) > 1 and word not in _NOISE] or words
        if not words:
            return []
        with self._lock:
            rows = self._rows.execute(
                f"SELECT rowid FROM note WHERE note MATCH ? ORDER BY bm25(note, {_COLUMNS}) * weight, rowid",
                (" OR ".join(f'"{word}"' for word in words[:_MOST_WORDS]),),
            ).fetchall()
        found = [*self._api_named_in(query), *(self._notes[row] for (row,) in rows)]
        return list(dict.fromkeys(found))

    def _api_named_in(self, query: str) -> list[Note]:
        """Return the API names in ``query``: words written as in code (``a.b``, ``a_b``, ``aB``), or all of it."""
        terms = _CODE.findall(query)
        found = []
        for term in terms:
            if len(terms) > 1 and not _CODE_ONLY.search(term):
                continue
            first, dot, rest = term.partition(".")
            path = f".{_ALIASES.get(first, first)}{dot}{rest}".lower()
            same = self._named.get(path.rpartition(".")[2], [])
            found += sorted(same, key=lambda note: (not f".{note.id.lower()}".endswith(path), len(note.id)))
        return found
