"""Notes are well-formed, and found by words."""

from pathlib import Path

import pytest

from evaluator.problem import get_problem
from evaluator.target import TARGETS
from knowledge_base.library import Library, LibraryError

HEAD = "---\ntitle: A title\nsource: here\n---\n"


@pytest.fixture(scope="module")
def library() -> Library:
    return Library.load()


def test_every_note_is_short_and_about_something_that_exists(library: Library) -> None:
    known = {target.arch for target in TARGETS.values()}
    for note in library.notes:
        assert set(note.architectures) <= known, note.id
        assert len(note.body) < 1500, note.id
        assert max(map(len, note.body.splitlines())) <= 120, note.id
    assert get_problem("mha").name in {name for note in library.notes for name in note.problems}


@pytest.mark.parametrize(
    ("query", "best"),
    [
        ("exponential 2^x", "exp2"),
        ("warp specialization", "specialise"),
        ("B200 tensor memory", "limits-blackwell"),
        ("how is a score predicted without a GPU", "predicted-scores"),
        ("TMA loads", "descriptors"),
        ("num_stages", "stages"),
    ],
)
def test_the_best_note_comes_first(library: Library, query: str, best: str) -> None:
    assert library.search(query)[0].id == best


def test_notes_about_other_architectures_and_problems_are_left_out(library: Library) -> None:
    ampere = library.search("registers tensor memory warp", architecture=80, limit=50)
    assert {note.id for note in ampere} & {"limits-ampere", "limits-hopper", "specialise"} == {"limits-ampere"}
    assert not any(note.problems for note in library.search("causal mask", problem="other", limit=50))


def test_a_search_is_limited_and_repeatable(library: Library) -> None:
    assert len(library.search("softmax", limit=2)) == 2
    assert library.search("softmax tiles") == library.search("softmax tiles")


@pytest.mark.parametrize("query", ["", "?!", "zyzzyva"])
def test_no_known_word_finds_nothing(library: Library, query: str) -> None:
    assert library.search(query) == []


def test_a_query_is_words_not_search_syntax(library: Library) -> None:
    assert library.search('exp2" OR title:NEAR( *') != []


def test_a_note_is_read_by_its_id(library: Library) -> None:
    assert library.note("exp2").title
    with pytest.raises(LibraryError, match="unknown note 'exp3': choose one of "):
        library.note("exp3")


def test_fields_are_read_from_the_front_matter(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text(
        "---\ntitle: T: with colon\narchitectures: 80, 90\nproblems: mha\ntags: x, y z\nsource: s\n---\n"
        "\nBody\n---\nmore\n"
    )
    (note,) = Library.load(tmp_path).notes
    assert (note.id, note.title, note.architectures, note.problems) == ("a", "T: with colon", (80, 90), ("mha",))
    assert (note.tags, note.source, note.body) == (("x", "y z"), "s", "Body\n---\nmore")


@pytest.mark.parametrize(
    "text",
    [
        "no front matter",
        HEAD,
        HEAD.replace("source: here\n", "") + "body",
        HEAD.replace("title", "titel") + "body",
        HEAD.replace("source: here", "source: here\nsource: there") + "body",
        HEAD.replace("source: here", "source: here\narchitectures: sm_90") + "body",
    ],
)
def test_a_malformed_note_is_named_in_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "bad.md").write_text(text)
    with pytest.raises(LibraryError, match=r"^bad\.md: ") as caught:
        Library.load(tmp_path)
    assert "\n" not in str(caught.value)
