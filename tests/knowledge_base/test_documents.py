"""Documents are copied, split into passages, found together with the notes, and removed."""

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from avo.knowledge_base import documents
from avo.knowledge_base.library import Kind, Library, LibraryError
from avo.knowledge_base.note import Note

NOW = datetime(2026, 5, 6, 7, 8, 9, tzinfo=UTC)
MARKDOWN = """Before all headings.

# One

Text of one.

```bash
# no heading
```

## Two ##

Text of two.

# One

Again.
"""
PYTHON = '''"""Of the module."""

import math

LIMIT = 3


@cached
def area(r):
    """Of a circle."""
    return math.pi * r**2


class Shape:
    def name(self):
        return "shape"


print(area(1))
'''


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data" / "avo" / "knowledge"


def added(folder: Path, path: Path) -> dict[str, Note]:
    collection = documents.add(folder, path, NOW)
    return {note.id: note for note in documents.passages(folder, collection)}


def made(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_markdown_is_split_at_headings_outside_of_code(folder: Path, tmp_path: Path) -> None:
    notes = added(folder, made(tmp_path / "a b.md", MARKDOWN))
    assert list(notes) == ["a b.md", "a b.md#one", "a b.md#two", "a b.md#one~2"]
    assert "# no heading" in notes["a b.md#one"].body
    assert notes["a b.md#two"].title == "a b.md: Two"
    assert notes["a b.md#one~2"].body == "# One\n\nAgain."


def test_python_is_split_into_functions_and_classes(folder: Path, tmp_path: Path) -> None:
    notes = added(folder, made(tmp_path / "shapes.py", PYTHON))
    assert list(notes) == ["shapes.py", "shapes.py#area", "shapes.py#shape", "shapes.py~2"]
    assert notes["shapes.py#area"].body.startswith("@cached\ndef area(r):")
    assert "return math.pi" in notes["shapes.py#area"].body
    assert "LIMIT" in notes["shapes.py"].body
    assert "print" in notes["shapes.py~2"].body


def test_python_that_does_not_parse_is_text(folder: Path, tmp_path: Path) -> None:
    assert list(added(folder, made(tmp_path / "old.py", "print 'x'\n"))) == ["old.py"]


def test_long_texts_become_pieces_that_lose_nothing(folder: Path, tmp_path: Path) -> None:
    text = "\n\n".join(f"paragraph {i} " + "x" * (i * 37 % 900) for i in range(60)) + "\n\n" + "y" * 9000
    notes = added(folder, made(tmp_path / "long.txt", text))
    assert len(notes) > 5
    assert all(len(note.body) <= 4000 for note in notes.values())
    assert "".join("".join(note.body for note in notes.values()).split()) == "".join(text.split())


def test_a_folder_gives_its_texts_and_leaves_the_rest(folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "checkout"
    made(source / "README.md", "# Hello\n\nworld\n")
    made(source / "src" / "kernel.py", "def kernel():\n    pass\n")
    for name in (".git/config.txt", "__pycache__/a.py", "node_modules/b.md"):
        made(source / name, "hidden")
    made(source / "image.png", b"\x89PNG")
    made(source / "binary.txt", b"a\0b")
    made(source / "latin.txt", b"\xe9")
    made(source / "empty.md", " \n")
    made(source / os.fsdecode(b"\xff.md"), "its name is no UTF-8")
    made(source / "huge.txt", "x" * (documents.MAX_FILE_BYTES + 1))
    (source / "link.md").symlink_to(source / "README.md")
    os.mkfifo(source / "pipe.txt")
    collection = documents.add(folder, source, NOW)
    assert (collection.name, collection.files, collection.skipped) == ("checkout", 2, 8)
    assert collection.added == "2026-05-06T07:08:09+00:00"
    ids = [note.id for note in documents.passages(folder, collection)]
    assert ids == ["checkout/README.md#hello", "checkout/src/kernel.py#kernel"]


def test_documents_are_searched_with_the_notes_and_say_where_they_are_from(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = made(tmp_path / "frobnicate.md", "# Frobnication\n\nHow to frobnicate a softmax.\n")
    documents.add(folder, source, NOW)
    monkeypatch.setenv("AVO_KB", str(folder))
    found = Library.load().search("frobnicate", architecture=80, problem="mha")
    assert [(note.id, note.kind) for note in found] == [("frobnicate.md#frobnication", Kind.DOCUMENT)]
    assert found[0].source == f"added from {source}"
    source.unlink()
    assert Library.load().note("frobnicate.md#frobnication").body.endswith("softmax.")


def test_a_collection_is_added_once_and_can_be_forgotten(folder: Path, tmp_path: Path) -> None:
    source = made(tmp_path / "a.md", "text")
    documents.add(folder, source, NOW)
    with pytest.raises(LibraryError, match=r"'a\.md' was added before: avo kb remove a\.md first"):
        documents.add(folder, source, NOW)
    documents.remove(folder, "a.md")
    assert documents.collections(folder) == []
    assert list(folder.iterdir()) == []
    documents.add(folder, source, NOW)
    with pytest.raises(LibraryError, match=r"'b' was not added: choose one of a\.md"):
        documents.remove(folder, "b")
    with pytest.raises(LibraryError, match=r"'\.\./x' was not added"):
        documents.remove(folder, "../x")


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.png", b"x", "it is not one of .md"),
        ("a.txt", b"\xff\xfe", "not UTF-8 text"),
        ("a.txt", b"a\0b", "NUL bytes"),
        ("a.txt", b"", "it is empty"),
        ("a.txt", b"x" * (documents.MAX_FILE_BYTES + 1), "1.0 MB, and at most 1 MB can be added"),
        ("a/b.png", b"x", "it holds no text files of the kinds .md"),
    ],
)
def test_what_is_no_text_is_refused_in_one_line(
    folder: Path, tmp_path: Path, name: str, content: bytes, reason: str
) -> None:
    made(tmp_path / "in" / name, content)
    with pytest.raises(LibraryError) as caught:
        documents.add(folder, tmp_path / "in" / name.partition("/")[0], NOW)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
    assert documents.collections(folder) == []


def test_what_is_missing_too_much_or_within_itself_is_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(LibraryError, match="there is no such file or folder"):
        documents.add(folder, tmp_path / "nothing", NOW)
    for i in range(4):
        made(tmp_path / "many" / f"{i}.md", "text")
    monkeypatch.setattr(documents, "MAX_FILES", 3)
    with pytest.raises(LibraryError, match=r"4 texts with 0\.0 MB, and at most 3 with 32 MB can be added at once"):
        documents.add(folder, tmp_path / "many", NOW)
    with pytest.raises(LibraryError, match="its name holds characters that cannot be printed"):
        documents.add(folder, made(tmp_path / "a\tb.md", "text"), NOW)
    with pytest.raises(LibraryError, match="added documents are kept within it"):
        documents.add(folder, tmp_path, NOW)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    blocked = made(tmp_path / "file", "x")
    with pytest.raises(LibraryError, match=r"cannot write to .*AVO_KB names another folder"):
        documents.add(blocked / "knowledge", made(tmp_path / "a.md", "text"), NOW)


def test_what_others_put_into_the_folder_is_skipped(folder: Path, tmp_path: Path) -> None:
    documents.add(folder, made(tmp_path / "a.md", "text"), NOW)
    made(folder / "b.json", "{")
    made(folder / "c.json", '{"name": "../../etc"}')
    made(folder / "a.md" / "broken.md", b"\xff")
    assert [note.id for note in documents.read_documents(folder)] == ["a.md"]


def test_the_folder_is_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AVO_KB", raising=False)
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    assert documents.documents_folder() == Path.home() / ".local" / "share" / "avo" / "knowledge"
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert documents.documents_folder() == Path("/data/avo/knowledge")
    monkeypatch.setenv("AVO_KB", "/mine")
    assert documents.documents_folder() == Path("/mine")
