"""Sources as they are exported."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avo.evaluator.candidate import Candidate
from avo.export.errors import ExportError
from avo.export.source import about, saying, tidied
from avo.seeds import seed_source

UNTIDY = """# a kernel
import os, torch
import triton   # the language
import triton.language as tl
def grid( n ):

  # rounded up
  a=n+ 1


  return  a//2 if n>=2 else -a**2   #here
# on the device
@triton.jit
def kernel(x, name='x'):
\ttl.store(x, 0)
N=3
"""

TIDY = """# a kernel
import triton  # the language
import triton.language as tl


def grid(n):

    # rounded up
    a = n + 1

    return a // 2 if n >= 2 else -(a**2)  # here


# on the device
@triton.jit
def kernel(x, name="x"):
    tl.store(x, 0)


N = 3
"""


def test_unused_imports_go_comments_stay_and_layout_is_the_usual_one() -> None:
    assert tidied(UNTIDY) == TIDY
    assert tidied(TIDY) == TIDY


@pytest.mark.parametrize(("problem", "name"), [("mha", "plain"), ("mha", "tuned"), ("fsa", "kv_outer")])
def test_a_tidy_source_stays_as_it_is(problem: str, name: str) -> None:
    source = seed_source(problem, name)
    assert tidied(source) == source


def test_windows_line_ends_and_missing_ones_are_mended() -> None:
    assert tidied("x = 1\r\nif x:\r\n    y = 2") == "x = 1\nif x:\n    y = 2\n"


@pytest.mark.long
@settings(max_examples=25)
@given(st.lists(st.sampled_from(["x=1", "def f(a):\n  return a*2", "# c", "", "  ", "if 1<2:\n\tpass", "s='q'"])))
def test_what_a_source_says_stays(lines: list[str]) -> None:
    source = "\n".join(lines) + "\n"
    assert Candidate("mha", tidied(source)).digest == Candidate("mha", source).digest


def test_a_docstring_gives_way_and_the_rest_stays() -> None:
    source = seed_source("mha")
    said = saying(source, 'a "new" one\n\n\\ here')
    assert about(said) == "a 'new' one\n\n\\ here\n"
    assert Candidate("mha", said).digest == Candidate("mha", source).digest
    assert tidied(said) == said
    assert about(saying("x = 1\n", "new")) == "new\n"
    assert about("def f(:") == ""


def test_what_is_no_python_is_refused() -> None:
    with pytest.raises(ExportError, match="the source cannot be read"):
        tidied("def attention(:")


def test_nothing_is_executed(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    tidied(f"open({str(mark)!r}, 'w')")
    assert not mark.exists()
