"""Problems of the user's own: found by path or entry point, and refused in one line when they are none."""

from collections.abc import Iterator
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from types import SimpleNamespace

import pytest

from avo.evaluator import catalogue
from avo.evaluator.catalogue import get_problem, kind_of, problem_name
from avo.evaluator.errors import InvalidProblem, UnknownProblem
from avo.evaluator.problems.mha import MHA
from avo.seeds import seeds_of

GOOD = """
from dataclasses import replace
from avo.evaluator.problems.mha import MHA
PROBLEM = replace(MHA, name="mine")
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(GOOD)
    return path


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[EntryPoint]]:
    """The entry points of other packages, to be added to."""
    entries: list[EntryPoint] = []
    monkeypatch.setattr(catalogue, "entry_points", lambda group: EntryPoints(entries).select(group=group))
    yield entries
    catalogue._named.cache_clear()


def entry(name: str, value: str) -> EntryPoint:
    return EntryPoint(name, value, "avo.problems")


def test_a_file_is_a_problem_by_its_absolute_path(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(file.parent)
    name = problem_name("mine.py")
    assert name == str(file)
    assert get_problem(name).name == "mine"
    assert get_problem(name) is get_problem(name)
    assert catalogue.name_of(get_problem(name)) == name


def test_names_that_are_no_files_stay_as_they_are() -> None:
    assert problem_name("mha") == "mha"
    assert catalogue.name_of(MHA) == "mha"


BROKEN = {
    "defines no PROBLEM": "x = 1\n",
    r"cannot be imported: SyntaxError: .*, line 2": "\nx = (\n",
    r"cannot be imported: ZeroDivisionError: .*, line 3": "\n\n1 / 0\n",
    r"cannot be imported: ModuleNotFoundError: .*'nowhere'.*, line 1": "import nowhere\n",
    r"write avo\.evaluator, or run outside of AVO's checkout, line 1": "from evaluator.problem import Case\n",
    "lacks correctness_cases, suites, .*reference, plant: see avo.Problem": (
        "class PROBLEM:\n    name, entry, baselines = 'x', 'f', ()\n"
    ),
    "its name 'a/b' should": GOOD.replace('"mine"', '"a/b"'),
    "its suites should be a mapping with 'quick'": GOOD.replace('"mine"', '"mine", suites={}'),
    "quick should be a tuple of one Case or more": GOOD.replace('"mine"', '"mine", suites={"quick": ()}'),
    "correctness_cases should be a tuple": GOOD.replace('"mine"', '"mine", correctness_cases=[]'),
    "its outputs should be a tuple of Output": GOOD + 'object.__setattr__(PROBLEM, "outputs", ["out"])',
    "another problem is called 'gqa': choose another name": GOOD.replace('"mine"', '"gqa"'),
    "another problem is called 'gqa-d64': choose another name": GOOD.replace('"mine"', '"gqa-d64"'),
}


@pytest.mark.parametrize("message", BROKEN)
def test_a_file_that_is_no_problem_is_refused_in_one_line(tmp_path: Path, message: str) -> None:
    path = tmp_path / "mine.py"
    path.write_text(BROKEN[message])
    with pytest.raises(InvalidProblem, match=message) as caught:
        get_problem(str(path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_is_named_by_a_path_that_every_process_finds(tmp_path: Path) -> None:
    with pytest.raises(InvalidProblem, match="absolute"):
        get_problem("mine.py")
    with pytest.raises(InvalidProblem, match="no such file"):
        get_problem(str(tmp_path / "none.py"))


def test_an_entry_point_is_a_problem_by_its_name(installed: list[EntryPoint], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EntryPoint, "load", lambda self: SimpleNamespace(**dict(problem_attributes(), name="theirs")))
    installed.append(entry("theirs", "package:PROBLEM"))
    assert get_problem("theirs").name == "theirs"
    with pytest.raises(UnknownProblem, match=r"choose one of decode, .*mha, .*theirs, a file PATH\.py"):
        get_problem("another")


def test_an_entry_point_may_be_called_like_one_of_our_kinds(
    installed: list[EntryPoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    attributes = dict(problem_attributes(), name="decode-mla")
    monkeypatch.setattr(EntryPoint, "load", lambda self: SimpleNamespace(**attributes))
    installed.append(entry("decode-mla", "package:PROBLEM"))
    assert get_problem("decode-mla").name == "decode-mla"
    assert kind_of("decode-mla") == "decode-mla"
    assert seeds_of("decode-mla") == {}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["nowhere:PROBLEM"], "cannot be imported from nowhere:PROBLEM: ModuleNotFoundError"),
        (["avo.evaluator.problems.mha:MHA"], "calls itself 'mha': rename"),
        (["avo.evaluator.problems.mha:HEADS"], "lacks name, entry"),
        (["one:PROBLEM", "two:PROBLEM"], "defined by one:PROBLEM and two:PROBLEM"),
    ],
)
def test_an_entry_point_that_is_no_problem_is_refused(
    installed: list[EntryPoint], values: list[str], message: str
) -> None:
    installed.extend(entry("theirs", value) for value in values)
    with pytest.raises(InvalidProblem, match=message):
        get_problem("theirs")


def test_a_file_may_not_take_the_name_of_an_installed_problem(installed: list[EntryPoint], file: Path) -> None:
    installed.append(entry("mine", "package:PROBLEM"))
    with pytest.raises(InvalidProblem, match="another problem is called 'mine'"):
        get_problem(str(file))


def problem_attributes() -> dict[str, object]:
    return {name: getattr(MHA, name) for name in dir(MHA) if not name.startswith("_")}
