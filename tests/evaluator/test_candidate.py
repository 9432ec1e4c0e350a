from hypothesis import given
from hypothesis import strategies as st

from avo.evaluator.candidate import Candidate

SOURCE = "def attention(q, k):\n    return q @ k\n"


def digest(source: str, problem: str = "mha") -> str:
    return Candidate(problem, source).digest


def test_layout_comments_and_docstrings_do_not_count() -> None:
    dressed = '"""Module."""\n# comment\ndef attention(q,\n              k):\n    """Doc."""\n    return (q @ k)\n'
    assert digest(dressed) == digest(SOURCE)


def test_a_changed_constant_counts() -> None:
    assert digest(SOURCE.replace("q @ k", "q @ k @ 2")) != digest(SOURCE)


def test_the_problem_counts() -> None:
    assert digest(SOURCE, "gqa") != digest(SOURCE)


@given(st.text())
def test_any_text_has_a_digest(text: str) -> None:
    assert len(digest(text)) == 64


def test_a_string_that_is_no_docstring_counts() -> None:
    assert digest("x = 'a'") != digest("x = 'b'")
