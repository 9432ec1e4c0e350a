"""Operators by name."""

import importlib
import sys
from pathlib import Path

import pytest

from avo.agents.errors import AgentError, InvalidOperator, UnknownOperator
from avo.agents.mutate import Mutate
from avo.agents.registry import adapts, get_operator, operator_names


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on sys.path with an installed distribution that adds operators."""
    info = tmp_path / "extra_operators-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: extra-operators\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[avo.operators]\nnothing = extra_operators:Nothing\nbroken = extra_operators:Missing\n"
        "number = extra_operators:int\nmutate = extra_operators:Nothing\nolder = agents.mutate:Mutate\n"
    )
    (tmp_path / "extra_operators.py").write_text(
        "class Nothing:\n    name = 'nothing'\n    def vary(self, brief):\n        return None\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    monkeypatch.delitem(sys.modules, "extra_operators", raising=False)
    return tmp_path


def test_mutate_is_built_in() -> None:
    assert isinstance(get_operator("mutate"), Mutate)


def test_an_unknown_name_gets_one_line_with_the_known_ones() -> None:
    with pytest.raises(
        UnknownOperator, match=r"^unknown operator 'mutant': choose one of mutate, agent, single_turn, command$"
    ) as caught:
        get_operator("mutant")
    assert isinstance(caught.value, AgentError)


def test_an_installed_package_adds_operators(plugins: Path) -> None:
    assert get_operator("nothing").name == "nothing"
    assert operator_names() == ("mutate", "agent", "single_turn", "command", "broken", "nothing", "number", "older")


def test_a_built_in_name_cannot_be_taken_over(plugins: Path) -> None:
    assert isinstance(get_operator("mutate"), Mutate)


def test_a_plugin_of_an_older_release_hears_the_new_name(plugins: Path) -> None:
    with pytest.raises(InvalidOperator, match=r"older.*write avo\.agents") as caught:
        get_operator("older")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["broken", "number"])
def test_a_plugin_that_gives_no_operator_is_named(name: str, plugins: Path) -> None:
    with pytest.raises(InvalidOperator, match=name) as caught:
        get_operator(name)
    assert "\n" not in str(caught.value)


def test_an_operator_that_cannot_adapt_the_kernel_of_another_entry_function_says_so(plugins: Path) -> None:
    assert [adapts(get_operator(name)) for name in ("mutate", "nothing")] == [False, True]
