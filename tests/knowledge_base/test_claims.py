"""Claims of notes: how they are written, and that no note states a gain without one."""

import re
from pathlib import Path

import pytest

from avo.knowledge_base.claims import Claim, read_claim
from avo.knowledge_base.library import Library, LibraryError

CLAIM = "h100 8k-full: mha/plain + tile(BLOCK_M 64 -> 128) => shape + stages(3): +8.5% within 3"
_PERCENT = re.compile(r"[+-]?(\d+(?:\.\d+)?)(?:%| percent)")
_OF_SPEED = re.compile(
    r"[+-]\d+(\.\d+)?%|\b(gain\w*|faster|slower|above|behind|los(e|es|t)|wins?|pays?|speed-?up|ahead|better|worse)\b"
)
_CODE = re.compile(r"```.*?```", re.DOTALL)
_SENTENCE = re.compile(r"(?<=[.:;])\s+|\n\n|\n(?=[-|\d])")


def stated_gains(body: str) -> set[str]:
    """Return the percentages, as written and without sign, in those sentences of a text that are about speed."""
    sentences = _SENTENCE.split(_CODE.sub("", body))
    return {number for text in sentences if _OF_SPEED.search(text) for number in _PERCENT.findall(text)}


def test_a_claim_is_read_and_written_in_one_line() -> None:
    claim = read_claim(CLAIM)
    before = ("mha/plain", "tile(BLOCK_M 64 -> 128)")
    assert claim == Claim("h100", "8k-full", before, ("shape", "stages(3)"), 8.5, 3.0)
    assert (claim.problem, str(claim)) == ("mha", CLAIM)
    assert read_claim("b200 a: fsa:bench/kernels/x.py => N=2: -3% within 1").problem == "fsa"


@pytest.mark.parametrize(
    "text",
    ["h100: mha/plain => skip: +8% within 3", "h100 a: x => skip: +8% within 3", "h100 a: mha/plain => skip: 8%", ""],
)
def test_a_claim_without_the_form_is_named_with_its_note(text: str, tmp_path: Path) -> None:
    (tmp_path / "bad.md").write_text(f"---\ntitle: T\nsource: s\nclaim: {text}\n---\nbody")
    with pytest.raises(LibraryError, match=r"^bad\.md: bad claim .*: write TARGET CASE: KERNEL"):
        Library.load(tmp_path)


def test_a_note_is_read_with_what_it_claims(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text(f"---\ntitle: T\nsource: s\ncited: 3%, 4%\nclaim: {CLAIM}\nclaim: {CLAIM}\n---\nB")
    (note,) = Library.load(tmp_path).notes
    assert (len(note.claims), note.cited) == (2, ("3%", "4%"))
    assert note.whole == f"T\n\nB\n\nPredicted: {CLAIM}\nPredicted: {CLAIM}\nSource: s"


def test_gains_are_found_where_a_sentence_is_about_speed() -> None:
    body = (
        "It gains 8.1%\n(full). It reaches 62% of the peak. It is 11.9 percent slower.\n\n1. `skip` (+94%), see there"
    )
    assert stated_gains(body) == {"8.1", "11.9", "94"}
    assert stated_gains("```python\nx = 1  # gains 5%\n```") == set()


def test_a_note_states_gains_only_as_claims_that_can_be_held_against_the_model_or_as_cited_figures() -> None:
    """A figure in the body has to be that of a ``claim`` or in ``cited``; see docs/knowledge.md."""
    for note in Library.load().notes:
        known = {each.rstrip("%") for each in note.cited} | {f"{abs(claim.gain):g}" for claim in note.claims}
        assert stated_gains(note.body) <= known, note.id
        assert not re.search(r"(?i)\d (TFLOPS predicted|predicted TFLOPS)|predicted\b[^.]*\b\d{3}", note.body), note.id
