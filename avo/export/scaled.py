"""Cases that an exported package tests its kernels on: small enough for a CPU."""

from dataclasses import replace

from avo.evaluator.problem import HELD_OUT, Case, Problem

_TILE = 256
"""The remainder of a held-out length by this is kept, so that a last tile that is not full stays so."""


def tested(problem: Problem) -> tuple[Case, ...]:
    """Return the correctness cases of ``problem`` and its held-out cases, scaled down to one group of heads."""
    held_out = problem.suites.get(HELD_OUT, ())
    return (*(case for case in problem.correctness_cases if not case.far), *map(scaled_down, held_out))


def scaled_down(case: Case) -> Case:
    """Return a benchmark case with one KV head and a length below two tiles."""
    length = _TILE + case.kv_len % _TILE
    return replace(
        case,
        name=f"held-out-{case.name}",
        batch=1,
        heads=case.heads // case.kv_heads,
        kv_heads=1,
        q_len=length,
        kv_len=length,
        inputs="normal",
    )
