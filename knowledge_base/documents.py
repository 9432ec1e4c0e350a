"""The user's documents: copied into a folder outside the repository, and read from there as passages.

A collection is what one ``add`` copied: a file, or the texts of a folder. It is kept as ``FOLDER/NAME/...``, next to
``FOLDER/NAME.json``, which says where it came from.
"""

import json
import os
import re
import shutil
import tempfile
from collections import Counter
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from avo.knowledge_base.errors import LibraryError
from avo.knowledge_base.note import Kind, Note
from avo.knowledge_base.splitting import split

SUFFIXES = (".md", ".markdown", ".txt", ".rst", ".py")
MAX_FILE_BYTES = 2**20
MAX_FILES = 2000
MAX_BYTES = 32 * 2**20
"""Largest size of one collection, in bytes."""
_LEFT_OUT = frozenset({"__pycache__", "node_modules", "build", "dist", "venv"})


@dataclass(frozen=True, slots=True)
class Collection:
    """A collection: what one ``add`` copied."""

    name: str
    origin: str
    """The path that it was copied from."""
    added: str
    """When it was added: ISO date and time."""
    files: int
    bytes: int
    skipped: int = 0
    """Number of files that were skipped: other kinds, too large, hidden, or links."""


def documents_folder() -> Path:
    """Return where documents are kept: ``$AVO_KB``, else ``avo/knowledge`` in the user's data folder (XDG)."""
    named = os.environ.get("AVO_KB")
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(named) if named else Path(data) / "avo" / "knowledge"


def add(folder: Path, path: Path, now: datetime) -> Collection:
    """Copy a file, or the texts of a folder, into ``folder`` under its own name.

    Raises ``LibraryError`` when there is nothing that can be read, or too much, or the name is taken.
    """
    path = path.absolute()
    name = path.resolve().name
    if not path.exists():
        raise LibraryError(f"cannot add {path}: there is no such file or folder")
    if _record(folder, name).exists():
        raise LibraryError(f"{name!r} was added before: avo kb remove {name} first")
    if not name.isprintable():
        raise LibraryError(f"cannot add {path}: its name holds characters that cannot be printed")
    if folder.resolve().is_relative_to(path.resolve()):
        raise LibraryError(f"cannot add {path}: added documents are kept within it")
    texts, skipped = _texts(path)
    size = sum(len(text.encode()) for text in texts.values())
    if not texts:
        raise LibraryError(f"cannot add {path}: it holds no text files of the kinds {', '.join(SUFFIXES)}")
    if len(texts) > MAX_FILES or size > MAX_BYTES:
        raise LibraryError(
            f"cannot add {path}: {len(texts)} texts with {size / 2**20:.1f} MB, and at most {MAX_FILES} with "
            f"{MAX_BYTES / 2**20:g} MB can be added at once: add parts of it"
        )
    made = Collection(name, str(path), now.isoformat(timespec="seconds"), len(texts), size, skipped)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".adding-") as staging:
            for relative, text in texts.items():
                copy = Path(staging, name, relative)
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_text(text, encoding="utf-8")
            shutil.rmtree(folder / name, ignore_errors=True)
            Path(staging, name).rename(folder / name)
        _record(folder, name).write_text(json.dumps(asdict(made)), encoding="utf-8")
    except OSError as error:
        raise LibraryError(f"cannot write to {folder}: {error.strerror}; AVO_KB names another folder") from None
    return made


def remove(folder: Path, name: str) -> None:
    """Delete a collection; raise ``LibraryError`` with the known names for an unknown one."""
    known = [collection.name for collection in collections(folder)]
    if name not in known:
        raise LibraryError(
            f"{name!r} was not added: " + (f"choose one of {', '.join(known)}" if known else "nothing was")
        )
    try:
        _record(folder, name).unlink()
        shutil.rmtree(folder / name)
    except OSError as error:
        raise LibraryError(f"cannot remove {folder / name}: {error.strerror}") from None


def collections(folder: Path) -> list[Collection]:
    """Return the collections by name; other files in the folder are ignored."""
    found = []
    for record in sorted(folder.glob("*.json")):
        try:
            made = Collection(**json.loads(record.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            continue
        if made.name == record.stem and (folder / made.name).is_dir():
            found.append(made)
    return found


def read_documents(folder: Path) -> tuple[Note, ...]:
    """Return the passages of all collections; files that can no longer be read have none."""
    return tuple(note for collection in collections(folder) for note in passages(folder, collection))


def passages(folder: Path, collection: Collection) -> list[Note]:
    """Return the passages of one collection. Ids are ``NAME/FILE#SECTION``, ``NAME#SECTION`` for a single file."""
    root = folder / collection.name
    seen: Counter[str] = Counter()
    found = []
    for file in sorted(path for path in root.rglob("*") if path.is_file()):
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        relative = file.relative_to(root).as_posix()
        where = collection.name if relative == collection.name else f"{collection.name}/{relative}"
        for title, body in split(file.suffix, text):
            slug = re.sub(r"[^\w.]+", "-", title).strip("-").lower()
            note_id = f"{where}#{slug}" if slug else where
            seen[note_id] += 1
            found.append(
                Note(
                    id=f"{note_id}~{seen[note_id]}" if seen[note_id] > 1 else note_id,
                    title=f"{relative}: {title}" if title else relative,
                    architectures=(),
                    problems=(),
                    tags=(),
                    source=f"added from {collection.origin}",
                    body=body,
                    kind=Kind.DOCUMENT,
                )
            )
    return found


def _record(folder: Path, name: str) -> Path:
    return folder / f"{name}.json"


def _texts(path: Path) -> tuple[dict[str, str], int]:
    """Return the texts below ``path`` by relative name, and the number of other files."""
    if path.is_file():
        return {path.resolve().name: _text(path)}, 0
    texts, skipped = {}, 0
    for folder, folders, files in os.walk(path):
        folders[:] = sorted(name for name in folders if name[0] != "." and name not in _LEFT_OUT)
        for file in (Path(folder, name) for name in sorted(files)):
            try:
                relative = file.relative_to(path).as_posix()
                if file.name[0] == "." or file.is_symlink() or not file.is_file() or not relative.isprintable():
                    raise LibraryError("hidden, a link, no file, or no name")
                texts[relative] = _text(file)
            except LibraryError:
                skipped += 1
        if len(texts) > MAX_FILES:
            break
    return texts, skipped


def _text(file: Path) -> str:
    if file.suffix.lower() not in SUFFIXES:
        raise LibraryError(f"cannot add {file}: it is not one of {', '.join(SUFFIXES)}")
    try:
        size = file.stat().st_size
        content = file.read_bytes() if size <= MAX_FILE_BYTES else b""
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise LibraryError(f"cannot read {file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise LibraryError(f"cannot add {file}: not UTF-8 text") from None
    if size > MAX_FILE_BYTES:
        raise LibraryError(
            f"cannot add {file}: {size / 2**20:.1f} MB, and at most {MAX_FILE_BYTES / 2**20:g} MB can be added"
        )
    if "\0" in text:
        raise LibraryError(f"cannot add {file}: it holds NUL bytes, so it is not text")
    if not text.strip():
        raise LibraryError(f"cannot add {file}: it is empty")
    return text
