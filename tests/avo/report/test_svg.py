"""Drawing: text fits and is text."""

from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from avo.report.svg import node, picture, shorten, text_width


@given(st.text(max_size=60), st.floats(10, 400))
def test_shortened_words_fit(words: str, width: float) -> None:
    assert text_width(shorten(words, width, 12), 12) <= max(width, text_width("x", 12))


def test_a_picture_is_well_formed_whatever_its_text_and_says_what_it_shows() -> None:
    hostile = "</text><script>alert(1)</script>\"' &\x00\x1b\ud800"
    drawn = picture("p", 10, 20, hostile, hostile, [node("text", hostile, x=1.25, class_=hostile, data_x=hostile)])
    root = ElementTree.fromstring(drawn)
    assert [child.tag for child in root] == ["title", "desc", "text"]
    assert root.get("aria-labelledby") == "p-title p-desc"
    assert root.get("role") == "img"
    assert root[2].get("x") == "1.2"
    assert (root[2].text or "").startswith("</text><script>")
