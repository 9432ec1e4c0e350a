"""What importing each room may cost; the direction of imports is checked by import-linter."""

import subprocess
import sys

import pytest

HEAVY = {
    "torch",
    "triton",
    "ray",
    "sqlalchemy",
    "alembic",
    "openai",
    "textual",
    "libcst",
    "pydantic",
    "jinja2",
    "numpy",
}


def loaded_by(statement: str) -> set[str]:
    """Return the heavy modules that are loaded after ``statement`` in a fresh interpreter."""
    code = f"import sys\n{statement}\nprint(*sys.modules)"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    return HEAVY & set(output.split())


@pytest.mark.parametrize(
    "module",
    [
        "target",
        "targets",
        "errors",
        "candidate",
        "evaluation",
        "inspection",
        "isolation",
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
    assert loaded_by(f"import evaluator.{module}") == set()


def test_problems_load_without_torch() -> None:
    assert loaded_by("from evaluator.catalogue import get_problem; get_problem('mha')") == set()


def test_records_and_operator_nouns_load_nothing_heavy() -> None:
    assert loaded_by("import lineage_db.records, agents.operator, seeds") == set()


def test_the_knowledge_base_knows_triton_without_loading_it() -> None:
    assert loaded_by("from knowledge_base.library import Library; Library.load().note('triton.language.dot')") == set()
