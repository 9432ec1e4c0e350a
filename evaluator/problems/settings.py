"""Problems in other settings than the paper's: other head dims and types, and the shapes of a model.

A setting changes the cases of a problem and nothing else: each small case is the problem's own with other dims, so that
what a wrong kernel fails on stays, and tolerances follow from the type (``avo.evaluator.problem.Rounded``).
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from avo.evaluator.problem import HELD_OUT, Case, Problem
from avo.evaluator.problems.figures import Figures, published_at
from avo.evaluator.problems.variants import suite_variants
from avo.evaluator.setting import Setting, named


def in_setting(
    problem: Any, setting: Setting, small: tuple[Case, ...], figures: Iterable[Figures] = (), **changed: Any
) -> Problem:
    """Return ``problem`` in a setting, with ``small`` cases that have what the setting adds, and other fields
    ``changed``. Its baselines are the ``figures`` that were published at the shapes of its suites, and where kernels
    take the same arguments, the seeds that stand for earlier work.
    """
    suites: Any = _of_a_model(problem.suites["quick"][0], setting) if setting.shapes else problem.suites
    made: Any = replace(
        problem,
        name=named(problem.name, setting),
        correctness_cases=_in(setting, small),
        suites={suite: _in(setting, cases) for suite, cases in suite_variants(setting, suites).items()},
        baselines=(),
        **changed,
    )
    seeds = tuple(each for each in problem.baselines if each.seed) if setting.plain else ()
    shown: Problem = replace(made, baselines=(*seeds, *published_at(made, figures)))
    return shown


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
