"""Notes are well-formed, and found by words, together with the installed triton's API."""

import ast
import pickle
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from avo.evaluator.catalogue import get_problem
from avo.evaluator.target import TARGETS
from avo.knowledge_base.library import Kind, Library, LibraryError

HEAD = "---\ntitle: A title\nsource: here\n---\n"


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Library]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AVO_KB", str(tmp_path_factory.mktemp("no-documents")))
        yield Library.load()


def test_every_note_is_short_and_about_something_that_exists(library: Library) -> None:
    known = {target.arch for target in TARGETS.values()}
    for note in library.notes:
        assert set(note.architectures) <= known, note.id
        assert len(note.body) < 1500, note.id
        assert max(map(len, note.body.splitlines())) <= 120, note.id
    assert get_problem("mha").name in {name for note in library.notes for name in note.problems}


def test_there_are_notes_enough_and_each_says_what_it_is_about(library: Library) -> None:
    assert len(library.notes) >= 60
    assert all(note.tags and 8 <= len(note.body.splitlines()) <= 40 for note in library.notes)


def test_code_in_notes_is_python(library: Library) -> None:
    blocks = [(note.id, code) for note in library.notes for code in re.findall(r"```python\n(.*?)```", note.body, re.S)]
    assert len(blocks) >= 40
    for _, code in blocks:
        ast.parse(code)


def test_notes_name_notes_that_exist(library: Library) -> None:
    """What stands in backticks and has a hyphen within is the name of a note."""
    known = {note.id for note in library.notes}
    for note in library.notes:
        assert set(re.findall(r"`([a-z0-9]+(?:-[a-z0-9]+)+)`", note.body)) <= known, note.id


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


GLUON = "triton.experimental.gluon.language"


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("why is the output NaN in the first rows", "masked-rows"),
        ("lse is off but out is right", "lse"),
        ("register spills in the hot loop", "spills"),
        ("how many CTAs fit on an SM", "occupancy"),
        ("Loop-carried variable acc has initial type int32", "triton-control-flow"),
        ("Input shapes should have M >= 1, N >= 1 and K >= 16", "dot-shapes"),
        ("block pointers have been removed", "triton-versions"),
        ("needs bytes of shared memory does_not_fit", "status-compile"),
        ("read out of bounds in kernel", "status-memory"),
        ("stall counts and scoreboard barriers in SASS", "control-bits"),
        ("bf16 rounding errors and tolerance", "bf16-numerics"),
        ("traffic of partial outputs in FSA", "partial-traffic"),
        ("pack query heads of a group for GQA", "group"),
        ("is exp or latency the critical resource", "critical-resource"),
        ("issue the next QK product before the softmax", "skew"),
        ("what FlashAttention-3 reaches on H100", "anchors-hopper"),
        ("tl.dot", "triton.language.dot"),
        ("tl.dot_scaled formats", "triton.language.dot_scaled"),
        ("make_tensor_descriptor", "triton.language.make_tensor_descriptor"),
        ("arguments of TensorDescriptor", "triton.tools.tensor_descriptor.TensorDescriptor"),
        ("TensorDescriptor", "triton.tools.tensor_descriptor.TensorDescriptor"),
        ("gl.warp_specialize", f"{GLUON}.warp_specialize"),
        ("tcgen05_mma use_acc", f"{GLUON}.nvidia.blackwell.tcgen05_mma"),
        ("triton.autotune prune_configs_by", "triton.autotune"),
        ("inline_asm_elementwise", "triton.language.inline_asm_elementwise"),
        ("tl.range", "triton.language.range"),
    ],
)
def test_what_is_wanted_is_among_the_first_three(library: Library, query: str, wanted: str) -> None:
    assert wanted in [note.id for note in library.search(query, limit=3)]


def test_notes_come_before_api_unless_it_is_named(library: Library) -> None:
    assert library.search("store the output of a tile")[0].kind is Kind.NOTE
    assert library.search("tl.store")[0].kind is Kind.API


def test_a_module_tells_functions_of_one_name_apart(library: Library) -> None:
    assert library.search("tl.load")[0].id == "triton.language.load"
    assert library.search("gl.load")[0].id == f"{GLUON}.load"


def test_a_library_is_plain_data(library: Library) -> None:
    library.search("softmax")
    assert pickle.loads(pickle.dumps(library)) == library


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


def test_a_query_may_be_a_pasted_page(library: Library) -> None:
    assert library.search("lazy rescaling " + " ".join(f"word{i}" for i in range(20_000)))[0].id == "lazy"


def test_a_query_is_words_not_search_syntax(library: Library) -> None:
    assert library.search('exp2" OR title:NEAR( *') != []


def test_a_note_is_read_by_its_id(library: Library) -> None:
    assert library.note("exp2").title
    with pytest.raises(LibraryError, match="unknown note 'exp3': choose one of "):
        library.note("exp3")


def test_an_unknown_id_is_answered_with_the_nearest(library: Library) -> None:
    with pytest.raises(LibraryError) as caught:
        library.note("triton.language.make_block_descriptor")
    assert "triton.language.make_tensor_descriptor" in str(caught.value)
    assert len(str(caught.value)) < 300
    with pytest.raises(LibraryError, match="unknown note 'zyzzyva': search for what it should say"):
        library.note("zyzzyva")


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
