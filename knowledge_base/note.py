"""Notes: passages with their sources, and how they are read from files."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from avo.knowledge_base.claims import FORM, Claim, read_claim
from avo.knowledge_base.errors import LibraryError

_KEYS = ("title", "architectures", "problems", "tags", "source", "cited", "claim")


class Kind(StrEnum):
    """Where a passage comes from."""

    NOTE = "note"
    """A note of this project."""
    API = "api"
    """The installed triton package."""
    DOCUMENT = "document"
    """A document that the user added."""


@dataclass(frozen=True, slots=True)
class Note:
    """One retrievable passage."""

    id: str
    """A note's file name without ``.md``; an API passage's dotted name; a document's path and section."""
    title: str
    architectures: tuple[int, ...]
    """Compute capabilities, times ten, that the passage is about; empty: any."""
    problems: tuple[str, ...]
    """Names of the problems that the passage is about; empty: any."""
    tags: tuple[str, ...]
    source: str
    """Where the facts were published, or how they were established."""
    body: str
    kind: Kind = Kind.NOTE
    claims: tuple[Claim, ...] = ()
    """By how much it says that kernels are predicted to become faster."""
    cited: tuple[str, ...] = ()
    """Percentages of speed in the body that are no predictions: published ones, arithmetic, settings."""

    @property
    def whole(self) -> str:
        """All that a reader is told: title, body, claims and source."""
        claims = "".join(f"\nPredicted: {claim}" for claim in self.claims)
        return f"{self.title}\n\n{self.body}\n{claims}\nSource: {self.source}"

    def concerns(self, architecture: int | None, problem: str | None) -> bool:
        """Return whether the passage is about this architecture and problem; None stands for any."""
        return (architecture is None or not self.architectures or architecture in self.architectures) and (
            problem is None or not self.problems or problem in self.problems
        )


def read_notes(folder: Path) -> tuple[Note, ...]:
    """Read every ``*.md`` of ``folder``; raise ``LibraryError`` naming a file that is not a note."""
    return tuple(_parse(path) for path in sorted(folder.glob("*.md")))


def _parse(path: Path) -> Note:
    """Read front matter of ``key: value`` lines between two ``---`` lines, then the body. There may be many claims."""
    head, dashes, body = path.read_text(encoding="utf-8").removeprefix("---\n").partition("\n---\n")
    fields: dict[str, str] = {}
    claims = []
    for line in head.splitlines():
        key, colon, value = line.partition(":")
        if key == "claim":
            try:
                claims.append(read_claim(value.strip()))
            except ValueError:
                raise LibraryError(f"{path.name}: bad claim {value.strip()!r}: write {FORM}") from None
            continue
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
        claims=tuple(claims),
        cited=_names(fields.get("cited", "")),
    )


def _names(value: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in value.split(",") if name.strip())
