"""What exported packages take from the problems: which of them have a public function there, and source text."""

import inspect
from importlib.resources import files

from avo.evaluator import problems
from avo.evaluator.problem import Case, Problem, signature
from avo.evaluator.problems import decode, visible
from avo.evaluator.problems.decode import DecodeCase
from avo.evaluator.problems.dense import attend
from avo.evaluator.problems.selection import SelectedCase

_KNOWN = {
    "attention": "q k v sinks cu_seqlens_q cu_seqlens_k causal scale window softcap max_seqlen_q max_seqlen_k",
    "selected_attention": (
        "q k v block_indices sinks cu_seqlens_q cu_seqlens_k block_size scale max_seqlen_q max_seqlen_k"
    ),
    "decode": "q k v block_table lengths sinks scale window softcap",
}
"""What exported functions can give to kernels, by the function's name."""
_RESULTS = {"": "out lse", "_backward": "out lse dout dq dk dv dsinks"}
"""What kernels get besides, by the end of their entry's name."""


def public_function(problem: Problem) -> str:
    """Return the name of the exported function that kernels for ``problem`` run in; empty where there is none.

    What a kernel computes must be fixed, so the problem is one of ours, and the function must have all that it takes.
    """
    entry, *names = signature(problem)
    function = entry.removesuffix("_backward")
    known = f"{_KNOWN.get(function, '')} {_RESULTS[entry.removeprefix(function)]}".split()
    return function if is_ours(problem) and function in _KNOWN and {*names[0], *names[1]} <= {*known} else ""


def is_ours(problem: Problem) -> bool:
    """Return whether a problem is one of AVO's own."""
    return type(problem).__module__.startswith(f"{problems.__name__}.")


def window_of(case: Case) -> int:
    """Return how many keys a query sees at most, 0 for all."""
    return visible.dense(case).window or 0


def cap_of(problem: Problem) -> float:
    """Return the soft cap of a problem's benchmark cases, 0 where scores are not capped."""
    return max((visible.dense(case).softcap for suite in problem.suites.values() for case in suite), default=0.0)


def lengths_of(case: Case) -> tuple[int, ...]:
    """Return the keys of each sequence that is packed, or is decoded with others of other lengths; else nothing."""
    if isinstance(case, DecodeCase):
        return tuple(decode.lengths(case)) if case.ragged else ()
    return tuple(keys for _, keys in visible.lengths(case)) if visible.dense(case).sequences else ()


def blocks_of(case: Case) -> tuple[int, int]:
    """Return the keys of a block or of a page, and how many blocks a query may select; zeros where there are none."""
    if isinstance(case, DecodeCase):
        return case.page_size, 0
    return (case.block_size, case.blocks) if isinstance(case, SelectedCase) else (0, 0)


def is_local(case: Case) -> bool:
    """Return whether a query's own block is the only one that it always selects."""
    return isinstance(case, SelectedCase) and case.local


def module_source(module: str) -> str:
    """Return the source of a module of ``avo.evaluator.problems``, e.g. ``inputs.py``."""
    return files(problems).joinpath(module).read_text(encoding="utf-8")


def attend_source() -> str:
    """Return the source of the function that makes ``out`` and ``lse`` of scores and values."""
    return inspect.getsource(attend)
