"""Published figures of dense attention in other settings than the paper's, each shown at exactly its own shape.

Taken from a paper and from public threads, as they say: their cards, their clocks. None is for another shape, or scaled
to one. The paper's, in float16, stand beside cases in bfloat16 too.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from avo.evaluator.problem import Baseline, Case, Problem
from avo.evaluator.problems.visible import dense

PULLS = "Dao-AILab/flash-attention, pull request"
DIMS = f"{PULLS} 2270: sm_100, card not named, a first version"
WINDOW = f"{PULLS} 2749: B300, from times"


@dataclass(frozen=True, slots=True)
class Shape:
    """What a figure is of: a case with as many queries as keys."""

    kv_heads: int
    """Number of KV heads of all sequences together: each is a computation of its own."""
    group: int
    """Query heads on a KV head."""
    length: int
    head_dim: int
    causal: bool
    head_dim_v: int = 0
    window: int = 0
    dtype: str = "bfloat16"


@dataclass(frozen=True, slots=True)
class Figures:
    """Work that was published in settings: TFLOPS by shape, or ``milliseconds``."""

    name: str
    target: str
    source: str
    shapes: Mapping[Shape, float]
    milliseconds: bool = False
    """Times, where FLOPs are not counted there as they are here."""


def latent(causal: bool) -> Shape:
    """Return the shape of the figures from ``DIMS``."""
    return Shape(4 * 16, 1, 8192, 192, causal, head_dim_v=128)


WINDOWED = Shape(4, 2, 65536, 256, True, window=1024)
"""The shape of the figures from ``WINDOW``."""


def _of(case: Case) -> Shape | None:
    """Return the shape of a case; None where no figure can be of it."""
    of = dense(case)
    if case.q_len != case.kv_len or of.softcap or of.sinks or of.sequences:
        return None
    sizes = (case.batch * case.kv_heads, case.heads // case.kv_heads, case.kv_len, case.head_dim)
    return Shape(*sizes, case.causal, case.head_dim_v, of.window or 0, case.dtype)


def published_at(problem: Problem, figures: Iterable[Figures]) -> Iterator[Baseline]:
    """Yield what was published at the shapes of a problem's suites, for the names of its cases."""
    cases = {case.name: case for suite in problem.suites.values() for case in suite}
    shapes = {name: shape for name, case in cases.items() if (shape := _of(case))}
    for work in figures:
        found = {name: work.shapes[shape] for name, shape in shapes.items() if shape in work.shapes}
        if work.milliseconds:
            found = {name: problem.flops(cases[name]) / (time * 1e9) for name, time in found.items()}
        if found:
            yield Baseline(work.name, work.target, found, work.source)
