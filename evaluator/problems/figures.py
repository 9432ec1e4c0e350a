"""Published figures of dense attention in other settings than the paper's, each shown at exactly its own shape.

Taken from a paper and from public threads, as they say: their cards, their clocks. None is for another shape, or scaled
to one. The paper's, in float16, stand beside cases in bfloat16 too.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from avo.evaluator.problem import Baseline, Case, Problem
from avo.evaluator.problems.visible import dense

_PULLS = "Dao-AILab/flash-attention, pull request"
_DIMS = f"{_PULLS} 2270: sm_100, card not named, a first version"
_D64 = f"{_PULLS} 2605: B200, clocks locked; 32 heads follow from times and TFLOPS"
_WINDOW = f"{_PULLS} 2749: B300, from times"
_H100 = "mlc-ai/pith-train, pull request 2: H100"
_FA3 = "FlashAttention-3, arXiv 2407.08608, figure 5: H100 SXM5, float16, heads of 2048 elements together, 16k tokens"


@dataclass(frozen=True, slots=True)
class Shape:
    """What a figure is of: a kind of problem, and a case with as many queries as keys."""

    kind: str
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


def _of(kind: str, case: Case) -> Shape | None:
    """Return the shape of a case; None where no figure can be of it."""
    of = dense(case)
    if case.q_len != case.kv_len or of.sinks or of.sequences:
        return None
    sizes = (case.batch * case.kv_heads, case.heads // case.kv_heads, case.kv_len, case.head_dim)
    return Shape(kind, *sizes, case.causal, case.head_dim_v, of.window or 0, case.dtype)


def _mla(kind: str, causal: bool) -> Shape:
    return Shape(kind, 4 * 16, 1, 8192, 192, causal, head_dim_v=128)


def _d64(batch: int, causal: bool) -> Shape:
    return Shape("mha", batch * 32, 1, 32768 // batch, 64, causal)


def _swa(kind: str) -> Shape:
    return Shape(kind, 4, 2, 65536, 256, True, window=1024)


def _qwen(length: int) -> Shape:
    return Shape("gqa", 4, 8, length, 128, True)


def _of_fa3(head_dim: int, causal: bool, at_4k_8k_16k: tuple[float, float, float]) -> dict[Shape, float]:
    """Return figures in float16, and in bfloat16, whose products take tensor cores as long."""
    return {
        Shape("mha", 16384 // length * (2048 // head_dim), 1, length, head_dim, causal, dtype=dtype): tflops
        for length, tflops in zip((4096, 8192, 16384), at_4k_8k_16k, strict=True)
        for dtype in ("float16", "bfloat16")
    }


_MILLISECONDS: tuple[tuple[str, str, str, dict[Shape, float]], ...] = (
    ("FlashAttention-4", "b200", _DIMS, {_mla("mha", False): 1.767, _mla("mha", True): 0.920}),
    ("FlashAttention-4", "b200", _DIMS, {_mla("mha_backward", False): 6.406, _mla("mha_backward", True): 3.538}),
    (
        "FlashAttention-4, deterministic",
        "b200",
        _DIMS,
        {_mla("mha_backward", False): 6.671, _mla("mha_backward", True): 3.813},
    ),
    ("FlashAttention-4", "b300", _WINDOW, {_swa("gqa"): 2.30, _swa("gqa_backward"): 4.04}),
    ("FlashAttention-2", "b300", _WINDOW, {_swa("gqa"): 1.62, _swa("gqa_backward"): 13.98}),
)
_TFLOPS: tuple[tuple[str, str, str, dict[Shape, float]], ...] = (
    (
        "FlashAttention-4",
        "b200",
        _D64,
        {
            **{_d64(batch, False): tflops for batch, tflops in ((8, 749.0), (4, 758.0), (2, 762.0))},
            **{_d64(batch, True): tflops for batch, tflops in ((8, 713.0), (4, 792.0), (2, 834.0))},
        },
    ),
    (
        "cuDNN",
        "h100",
        _FA3,
        _of_fa3(64, False, (408, 412, 413)) | _of_fa3(64, True, (363, 379, 388)) | _of_fa3(256, True, (483, 497, 509)),
    ),
    (
        "FlashAttention-3",
        "h100",
        _FA3,
        _of_fa3(64, False, (476, 496, 497)) | _of_fa3(64, True, (420, 460, 473)) | _of_fa3(256, True, (612, 628, 642)),
    ),
    ("FlashAttention-4", "h100", _H100, {_qwen(2048): 459.67, _qwen(4096): 571.68}),
    ("FlashAttention-2", "h100", _H100, {_qwen(2048): 225.11}),
)
"""Figures of forward passes, whose FLOPs are counted there as they are here."""


def published_at(problem: Problem, kind: str) -> tuple[Baseline, ...]:
    """Return what was published at the shapes of a problem's suites, for the names of its cases."""
    cases = {case.name: case for suite in problem.suites.values() for case in suite}
    shapes = {name: shape for name, case in cases.items() if (shape := _of(kind, case))}

    def shown(works: Iterable[tuple[str, str, str, dict[Shape, float]]], times: bool) -> Iterable[Baseline]:
        for name, target, source, figures in works:
            found = {
                case: problem.flops(cases[case]) / (figures[shape] * 1e9) if times else figures[shape]
                for case, shape in shapes.items()
                if shape in figures
            }
            if found:
                yield Baseline(name, target, found, source)

    return (*shown(_MILLISECONDS, times=True), *shown(_TFLOPS, times=False))
