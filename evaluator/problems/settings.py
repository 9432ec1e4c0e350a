"""Problems in other settings than the paper's: other head dims and types, and the shapes of a model.

A setting changes the cases of a problem and nothing else: each small case is the problem's own with other dims, so that
what a wrong kernel fails on stays, and tolerances follow from the type (``avo.evaluator.problem.Rounded``).
"""

from dataclasses import replace
from functools import cache
from typing import Any

from avo.evaluator.problem import HELD_OUT, Case, Problem
from avo.evaluator.problems.backward import GQA_BACKWARD, MHA_BACKWARD, backward_case
from avo.evaluator.problems.decode import DECODE
from avo.evaluator.problems.figures import published_at
from avo.evaluator.problems.fsa import FSA
from avo.evaluator.problems.fsa_backward import FSA_BACKWARD
from avo.evaluator.problems.gqa import GQA
from avo.evaluator.problems.gradients import OF_SINKS
from avo.evaluator.problems.mha import MHA
from avo.evaluator.problems.variants import small_decodes, small_selected, small_variants, suite_variants
from avo.evaluator.setting import Setting, named, read

_KINDS: dict[str, Any] = {each.name: each for each in (MHA, GQA, MHA_BACKWARD, GQA_BACKWARD, DECODE, FSA, FSA_BACKWARD)}
_LONG = 500
"""Queries from which a small case is one of the forward pass alone."""


@cache
def in_setting(name: str) -> Problem | None:
    """Return the problem whose name says a setting; None for a name that says none.

    Raises ``InvalidProblem`` as ``avo.evaluator.setting.read`` does.
    """
    found = read(name)
    if found is None:
        return None
    kind, setting = found
    problem = _KINDS[kind]
    suites: Any = _of_a_model(problem.suites["quick"][0], setting) if setting.shapes else problem.suites
    more = {"outputs": (*problem.outputs, OF_SINKS)} if setting.sinks and kind.endswith("backward") else {}
    made: Any = replace(
        problem,
        name=named(kind, setting),
        correctness_cases=_in(setting, _small(kind, problem, setting)),
        suites={suite: _in(setting, cases) for suite, cases in suite_variants(setting, suites).items()},
        baselines=(),
        **more,
    )
    # Seeds of earlier work take what the problem itself does.
    seeds = tuple(each for each in problem.baselines if each.seed) if setting.plain else ()
    shown: Problem = replace(made, baselines=(*seeds, *published_at(made, kind)))
    return shown


def _small(kind: str, problem: Any, setting: Setting) -> tuple[Case, ...]:
    """Return small cases with what a setting has."""
    own: tuple[Any, ...] = problem.correctness_cases
    if kind == "decode":
        return small_decodes(setting, own)
    if kind.startswith("fsa"):
        return small_selected(setting, own)
    made = small_variants(setting, own, grouped=kind.startswith("gqa"))
    if not kind.endswith("backward") or not (setting.window or setting.packed):
        return made
    # The longest ones are for what only a forward pass has: many tiles of keys for one of queries.
    return tuple(backward_case(case, float(case.inputs != "normal")) for case in made if case.q_len < _LONG)


def _in(setting: Setting, cases: tuple[Case, ...]) -> tuple[Case, ...]:
    return tuple(
        replace(case, head_dim=setting.head_dim, head_dim_v=setting.head_dim_v, dtype=setting.dtype) for case in cases
    )


def _of_a_model(case: Case, setting: Setting) -> dict[str, tuple[Case, ...]]:
    """Return causal cases like ``case`` with the heads, blocks and shapes of a model, and three held-out ones: with the
    heads of one of several devices; at a length that no tile divides; and with one sequence more.
    """
    assert setting.heads is not None
    blocks: Any = {"block_size": setting.block_size, "blocks": setting.blocks} if setting.block_size else {}

    def shaped(heads: tuple[int, int], length: int, batch: int) -> Case:
        return replace(
            case,
            # With other heads it is another case than the model's own of this length and batch.
            name=("" if heads == setting.heads else f"h{heads[0]}x{heads[1]}-") + f"{length}x{batch}",
            batch=batch,
            heads=heads[0],
            kv_heads=heads[1],
            q_len=length if case.q_len == case.kv_len else case.q_len,
            kv_len=length,
            causal=True,
            **blocks,
        )

    heads, kv_heads = setting.heads
    length, batch = max(setting.shapes)
    held_out = (
        shaped(_of_one_device(heads, kv_heads), length * 3 // 4, batch),
        shaped(setting.heads, length * 5 // 8 // 16 * 16 + 8, max(batch // 2, 1)),
        shaped(setting.heads, max(length // 3 // 128 * 128, 64), batch + 1),
    )
    return {"quick": tuple(shaped(setting.heads, *shape) for shape in setting.shapes), HELD_OUT: held_out}


def _of_one_device(heads: int, kv_heads: int) -> tuple[int, int]:
    """Return the heads of one of as few devices as can share them evenly; a single KV head is on all of them."""
    shared = heads if kv_heads == 1 else kv_heads
    devices = next((count for count in range(2, shared + 1) if shared % count == 0), 1)
    return heads // devices, max(kv_heads // devices, 1)
