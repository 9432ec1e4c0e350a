"""What exported packages carry along of the problems: which have a public function there, and source text."""

import inspect
from importlib.resources import files

from evaluator import problems
from evaluator.problem import Case, Problem
from evaluator.problems.dense import Attention, attend
from evaluator.problems.fsa import SelectedAttention
from evaluator.problems.selection import SelectedCase


def has_public_function(problem: Problem) -> bool:
    """Whether what the problem's entry computes is fixed: dense or selected attention, nothing of a user's own, without
    windows, sinks or packed sequences, and with keys as long as values.
    """
    return type(problem) in (Attention, SelectedAttention) and not problem.correctness_cases[0].head_dim_v


def blocks_of(case: Case) -> tuple[int, int]:
    """Return the keys of a block, and how many blocks a query may select; zeros where queries select none."""
    return (case.block_size, case.blocks) if isinstance(case, SelectedCase) else (0, 0)


def module_source(module: str) -> str:
    """Return the source of a module of ``evaluator.problems``, e.g. ``inputs.py``."""
    return files(problems).joinpath(module).read_text(encoding="utf-8")


def attend_source() -> str:
    """Return the source of the function that makes ``out`` and ``lse`` of scores and values."""
    return inspect.getsource(attend)
