"""By which name each room is imported, and at what cost; the direction of imports is checked by import-linter."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path
from pkgutil import resolve_name

import pytest
from setuptools import find_namespace_packages

import avo
from avo.evaluator.renamed import FORMER

ROOT = Path(__file__).parents[1]

HEAVY = {
    "torch", "triton", "ray", "sqlalchemy", "alembic", "openai", "textual", "libcst", "pydantic", "jinja2",
    "numpy",
}  # fmt: skip


def loaded_by(statement: str) -> set[str]:
    """Return the heavy modules that are loaded after ``statement`` in a fresh interpreter."""
    return HEAVY & modules_after(statement)


def modules_after(statement: str) -> set[str]:
    """Return the modules that are loaded after ``statement`` in a fresh interpreter."""
    code = f"import sys\n{statement}\nprint(*sys.modules)"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    return set(output.split())


def test_a_wheel_has_one_name() -> None:
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]
    packages = find_namespace_packages(str(ROOT), **wanted)
    assert {name.partition(".")[0] for name in packages} == {"avo"}
    assert {f"avo.{room}" for room in FORMER} < {*packages}


@pytest.mark.parametrize("room", FORMER)
def test_a_folder_of_a_checkout_is_no_package_of_its_own(room: str) -> None:
    assert (ROOT / "avo" / room).readlink() == Path("..", room)
    done = subprocess.run([sys.executable, "-c", f"import {room}"], cwd=ROOT, capture_output=True, text=True)
    assert done.stderr.endswith(f"\nModuleNotFoundError: write avo.{room}, or run outside of AVO's checkout\n")


def test_what_users_import_is_loaded_when_it_is_asked_for() -> None:
    added = {name.partition(".")[0] for name in modules_after("import avo") - modules_after("")}
    assert added - sys.stdlib_module_names == {"avo"}  # a judge on a bare GPU machine imports it too
    assert modules_after("import avo; avo.__all__, dir(avo)").isdisjoint({"avo.agents", "avo.evaluator"})
    assert loaded_by("from avo import Brief, Case, Operator, Problem, Proposal") == set()
    assert "triton" in loaded_by("from avo import offline")


def test_the_public_names() -> None:
    assert " ".join(avo.__all__) == (
        "HELD_OUT Absolute Baseline Brief BudgetSpent Call CandidateTaken Case Expected FaultsFound LooksSpent "
        "Operator Output Problem Proposal Rounded Toolbox UnsupportedOperation offline"
    )
    assert {*avo.__all__} <= {*dir(avo)}
    typed = {
        alias.asname or alias.name: resolve_name(f"{node.module}:{alias.name}")
        for node in ast.walk(ast.parse(Path(str(avo.__file__)).read_text()))
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("avo.")
        for alias in node.names
    }
    assert {name: getattr(avo, name) for name in avo.__all__} == typed
    with pytest.raises(AttributeError, match="module 'avo' has no attribute 'nothing'"):
        avo.nothing  # noqa: B018


@pytest.mark.parametrize(
    "module",
    [
        "target",
        "targets",
        "errors",
        "candidate",
        "evaluation",
        "inspection",
        "judges",
        "sandbox.isolation",
        "machine",
        "plan",
        "problem",
        "problem_sources",
        "profile",
        "catalogue",
        "evaluators",
        "serving.protocol",
        "serving.process",
        "binary",
    ],
)
def test_evaluator_nouns_load_nothing_heavy(module: str) -> None:
    assert loaded_by(f"import avo.evaluator.{module}") == set()


def test_problems_load_without_torch() -> None:
    assert loaded_by("from avo.evaluator.catalogue import get_problem; get_problem('mha')") == set()


def test_records_and_operator_nouns_load_nothing_heavy() -> None:
    assert loaded_by("import avo.lineage_db.records, avo.agents.operator, avo.seeds") == set()


def test_the_knowledge_base_knows_triton_without_loading_it() -> None:
    assert (
        loaded_by("from avo.knowledge_base.library import Library; Library.load().note('triton.language.dot')") == set()
    )
