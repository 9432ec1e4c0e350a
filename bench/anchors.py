"""What is known about the speed of kernels: published figures, and pairs of kernels whose order is known."""

from dataclasses import dataclass, replace
from itertools import product

from bench.variants import Variant

LENGTHS = (4096, 8192, 16384)
_FA3 = "Triton in the FlashAttention-3 paper (arXiv:2407.08608, 2024), tile unknown"
_PLAIN = "Triton tutorial 06-fused-attention, autotuned (TLX, github.com/facebookexperimental/triton pull 205, 2025)"
_TUTORIAL = "Triton tutorial 2024 on block pointers, autotuned, github.com/pytorch/benchmark pull 2391"
_TLX = "Triton with warp specialisation, the same tile (TLX, github.com/facebookexperimental/triton pull 205, 2025)"
_FA2 = "FlashAttention-2's 230 (arXiv:2307.08691, 2023) over 1.3 to 1.5, its stated lead on Triton"
_B200 = "Triton tutorial 06-fused-attention, autotuned, card unstated (tritonbench pull 1014, 2026)"
_SIXTEEN_K_TOKENS = tuple(16 * 16384 // length for length in LENGTHS)
"""Sequences times heads at each length in FlashAttention's benchmarks: 16k tokens, 16 heads."""
_FOUR_TIMES_32, _FOUR_TIMES_48 = (4 * 32,) * len(LENGTHS), (4 * 48,) * len(LENGTHS)
"""Sequences times heads where the batch is 4 at every length."""
TUNED = Variant(128, 64, 8, 3)
BULK = replace(TUNED, descriptors=True)
ROLES = Variant(128, 64, 4, 3, descriptors=True, specialised=True)
WIDE = Variant(128, 128, 8, 3)
WIDE_ROLES = Variant(128, 128, 4, 3, descriptors=True, specialised=True)
SMALL = Variant(64, 64, 4, 3)
NARROW = Variant(128, 32, 4, 4)
"""The configuration of Triton's tutorial 06-fused-attention that is predicted to be the fastest on an H100."""
NARROW_IN_BULK = Variant(128, 32, 4, 3, descriptors=True)
"""The same where the tutorial has descriptors."""
TUTORIAL_SPACE = tuple(
    Variant(rows, keys, warps, stages, descriptors=True)
    for rows, keys, warps, stages in product((64, 128), (32, 64, 128), (4, 8), (2, 3, 4))
)
"""What the tutorial tunes over."""
BLACKWELL_SPACE = tuple(
    replace(each, specialised=True, halves=each.block_m == 128, registers=168)
    for each in TUTORIAL_SPACE
    if each.warps == 4
)
"""The same on a B200, with what the tutorial does there unless told otherwise; eight warps take too many registers."""
TUTORIAL = replace(WIDE_ROLES, stages=2, halves=True, registers=168)
"""The configuration in that space that is predicted to be the fastest."""
HOPPER_SPACE = tuple(each for each in TUTORIAL_SPACE if each.warps == 4 or each.block_m * each.block_n >= 128 * 128)
"""What it tunes over on an H100."""


@dataclass(frozen=True)
class Anchor:
    """A kernel of ours, and the TFLOPS published for a similar one at each of ``LENGTHS``, lowest and highest."""

    target: str
    name: str
    variant: Variant
    rows: tuple[int, ...]
    """Sequences times heads at each of the lengths, as they were published."""
    low: tuple[int, int, int]
    high: tuple[int, int, int]
    source: str


@dataclass(frozen=True)
class Pair:
    """Two kernels of which the second is known to be faster."""

    target: str
    name: str
    """What makes it faster."""
    slower: Variant
    faster: Variant
    source: str


def _anchor(
    target: str, name: str, variant: Variant, rows: tuple[int, ...], published: tuple[int, int, int], source: str
) -> Anchor:
    return Anchor(target, name, variant, rows, published, published, source)


_SPLIT = replace(TUNED, schedule="split")
_ROLES_IN_TWO_STAGES = replace(WIDE_ROLES, stages=2)
ANCHORS = (
    _anchor("h100", "128x64, 8 warps, 3 stages", TUNED, _SIXTEEN_K_TOKENS, (389, 392, 395), _FA3),
    _anchor("h100", "128x32, 4 warps, 4 stages", NARROW, _SIXTEEN_K_TOKENS, (458, 471, 477), _TUTORIAL),
    _anchor("h100", "128x32, 4 warps, 3 stages, descriptors", NARROW_IN_BULK, _FOUR_TIMES_32, (460, 464, 487), _PLAIN),
    _anchor("h100", "128x64 causal, diagonal split off", _SPLIT, _SIXTEEN_K_TOKENS, (353, 369, 378), _FA3),
    _anchor("h100", "128x128, warp-specialised, 2 stages", _ROLES_IN_TWO_STAGES, _FOUR_TIMES_32, (501, 526, 502), _TLX),
    Anchor("a100", "128x64, 8 warps, 3 stages", TUNED, _SIXTEEN_K_TOKENS, (153, 153, 153), (177, 177, 177), _FA2),
    _anchor("b200", "128x128, warp-specialised, 2 stages", TUTORIAL, _FOUR_TIMES_48, (567, 671, 746), _B200),
)

_WORK = "less work"
_LATENCY = "hides the latency of loads"


def _everywhere(target: str) -> tuple[Pair, ...]:
    """Pairs that hold on every target."""
    return (
        Pair(target, "masked blocks skipped", replace(TUNED, schedule="all"), replace(TUNED, schedule="stop"), _WORK),
        Pair(target, "diagonal split off", replace(TUNED, schedule="stop"), replace(TUNED, schedule="split"), _WORK),
        Pair(target, "exp2, scale folded in", replace(TUNED, exp2=False), TUNED, _WORK),
        Pair(target, "prefetching", replace(TUNED, stages=1), TUNED, _LATENCY),
        Pair(target, "large tiles", Variant(16, 16, 4, 3), TUNED, "reads less, fewer passes"),
    )


PAIRS = (
    *_everywhere("h100"),
    *_everywhere("a100"),
    *_everywhere("b200"),
    Pair("h100", "tensor cores", Variant(16, 16, 4, 1, tensor_cores=False), Variant(16, 16, 4, 3), "whitepaper"),
    Pair("h100", "no spills", Variant(128, 64, 4, 3), TUNED, "no local memory"),
    Pair("h100", "prefetching bulk copies", replace(BULK, stages=1), BULK, _LATENCY),
    Pair("h100", "prefetching small tiles", Variant(64, 64, 4, 1), SMALL, _LATENCY),
    Pair(
        "h100",
        "prefetching small tiles in bulk",
        Variant(64, 64, 4, 1, descriptors=True),
        replace(SMALL, descriptors=True),
        _LATENCY,
    ),
    Pair(
        "h100",
        "prefetching small masked tiles",
        Variant(64, 64, 4, 1, schedule="stop"),
        Variant(64, 64, 4, 3, schedule="stop"),
        _LATENCY,
    ),
    Pair(
        "h100",
        "prefetching a split loop",
        replace(TUNED, stages=1, schedule="split"),
        replace(TUNED, schedule="split"),
        _LATENCY,
    ),
    Pair(
        "h100",
        "exp2 in a plain kernel",
        Variant(64, 64, 4, 1, schedule="stop", exp2=False),
        Variant(64, 64, 4, 1, schedule="stop"),
        _WORK,
    ),
    Pair("h100", "warp specialisation", BULK, ROLES, "Triton, FlashAttention-3: 464 to 526"),
    Pair("h100", "wide tiles for roles", ROLES, replace(WIDE_ROLES, stages=2), "FlashAttention-3's choice"),
    Pair("b200", "warp specialisation", WIDE, WIDE_ROLES, "Triton, Gluon and FlashAttention-4"),
)
