"""The model's figures that no data sheet states: one table, with source and date.

Where nothing was published the source says "estimate", or "fitted" where a figure was fitted to published measurements.
Such figures, and disputed ones, have a range: the slow end makes kernels slowest, the fast end makes them fastest. A
product's own figures (SMs, rates from whitepapers, sizes, clocks) are in ``avo.evaluator.target``.
"""

import random
from dataclasses import dataclass, fields
from functools import lru_cache

from avo.evaluator.target import LAUNCH_US, Fitted, Target

DRAWS = 12
"""Number of joint draws of all constants: enough to tell a share of 0.9 from all."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure for one architecture."""

    value: float
    source: str
    slow: float
    fast: float

    def at(self, place: float) -> float:
        """Return the figure at a place of its range: 0 is the slow end, 0.5 the value, 1 the fast end."""
        end = self.slow if place < 0.5 else self.fast
        return self.value + (end - self.value) * abs(2 * place - 1)


@dataclass(frozen=True, slots=True)
class Constants:
    """One architecture's figures. Clocks are the SM's; rates are per clock and SM unless said otherwise."""

    shared_bytes: float
    """Bandwidth of shared memory, and of L1, in bytes per clock. Loads and stores share that of shared memory with the
    operands of matrix products and what copies write.
    """
    l2_bytes: float
    """Bytes per clock that each SM gets from L2 when all SMs read."""
    integer_lanes: float
    """Integer, logic, comparison and conversion results per clock."""
    shared_latency: float
    l1_latency: float
    global_latency: float
    """Latency of a load that misses L1, in clocks, without queueing; the bytes ahead of it come on top."""
    shuffle_latency: float
    exp_latency: float
    constant_latency: float
    """Latency of constant memory and of special registers, in clocks."""
    barrier_latency: float
    """Clocks from the last arrival at a CTA barrier until the warps continue."""
    mbarrier_latency: float
    """Clocks from an arrival at an mbarrier until the waiting warp continues."""
    fence_latency: float
    wgmma_latency: float
    """Clocks from the end of a warpgroup's product, or of one on tensor memory, until its accumulators can be read."""
    wgmma_drain: float
    """Extra clocks of the tensor pipe for a warpgroup's product that is waited for alone, as when ptxas serialises
    products because registers run out (its warning C7512).
    """
    wgmma_queue: float
    """Clocks of products that the tensor cores of a sub-partition accept ahead of time."""
    wgmma_in_turn: float
    """1: warpgroups whose products wait for the tensor cores take turns. 0: the youngest goes on until it is done."""
    memory_queue: float
    """Clocks of work that shared memory and the load-store unit accept ahead of time."""
    operands_read: float
    """Clocks until a queued instruction has read its registers."""
    tensor_memory_latency: float
    tensor_memory_bytes: float
    """Bytes per clock of each sub-partition's port."""
    mma_sync_share: float
    """Share of the tensor peak that ``mma.sync`` (HMMA) reaches."""
    l2_hit_latency: float
    """Latency of a load that hits L2, in clocks."""
    flag_trips: float
    """Clocks from a release until a program that polls for it goes on, in latencies of L2."""
    hbm_latency: float
    """Latency of a load that HBM serves, in clocks."""
    loaded_latency: float
    """Share by which latency grows where HBM is always busy."""
    flushed_latency: float
    """Latency of a load that HBM serves while L2 is full of lines that must be written back first, in clocks."""
    flushed_dirty: float
    """Share of an L2 overwritten before a launch that is still to be written back to HBM when it starts."""
    l2_merging: float
    """Share of the requests for lines that other SMs ask for at the same time that L2 need not serve again."""
    l2_share: float
    """Share of the L2 cache that data read by all SMs can fill: each half keeps a copy of the other half's lines."""
    l2_most_bytes: float
    """Most bytes per clock that one SM gets from L2."""
    hbm_share: float
    """Share of the peak bandwidth of HBM that long streams reach."""
    half_line_cost: float
    """Cost of bytes in pieces of 64, relative to bytes in whole lines of 128."""
    overlap: float
    """Exponent of the mean that adds up the times of computing, L2 and HBM: at 2.7, two equal ones take 29% longer."""
    arithmetic_power: float
    """Power of FP32 units, or of those for exponentials, that are always busy, relative to that of tensor cores."""
    free_clock: float
    """Clock without tensor load, relative to the boost clock of the target."""
    event_us: float
    """Microseconds that a time between two events has besides the launches between them."""
    launch_us: float
    """Microseconds to start and end one launch in a stream of launches."""
    graph_us: float
    """Microseconds to start and end one launch of a CUDA graph."""


_LUO = "Luo et al., arXiv:2501.12084 (2025)"
_JIA = "Jia et al., arXiv:1804.06826 (2018), measured on Volta"
_GPU_BENCHES = "github.com/te42kyfo/gpu-benches, raw data of gpu-l2-cache (read November 2026)"
_TVM = "github.com/apache/tvm, tl_doc/flash_perf.md (2024)"


def _known(value: float, source: str, *, slow: float | None = None, fast: float | None = None) -> Figure:
    return Figure(value, source, value if slow is None else slow, value if fast is None else fast)


def _fitted(value: float, slow: float, fast: float, why: str) -> Figure:
    return Figure(value, f"fitted to published measurements (bench/measured): {why}", slow, fast)


def _estimate(value: float, slow: float, fast: float, why: str) -> Figure:
    return Figure(value, f"estimate: {why}", slow, fast)


_ALL: dict[str, Figure] = {
    "shared_bytes": _known(128, "NVIDIA A100 and H100 architecture whitepapers (2020, 2022)"),
    "integer_lanes": _known(64, "CUDA C++ Programming Guide 12, arithmetic instructions (2024)"),
    "shared_latency": _known(29, f"{_LUO}: A100 and H100"),
    "l1_latency": _known(40, f"{_LUO}: A100 38, H100 41; gpu-benches, gpu-latency: H100 34"),
    "global_latency": _estimate(
        620,
        800,
        450,
        "between L2 hit and HBM under load. Unloaded, gpu-benches, gpu-latency has 265 clocks for the near half "
        "of an H100's L2, 475 for the far half and 650 for HBM; Luo et al. have 466 (A100) and 479 (H100) for HBM",
    ),
    "shuffle_latency": _known(23, _JIA),
    "exp_latency": _known(18, _JIA),
    "constant_latency": _estimate(30, 45, 20, "about that of shared memory"),
    "barrier_latency": _estimate(20, 40, 15, "a barrier of few warps"),
    "mbarrier_latency": _estimate(60, 100, 30, "two trips through shared memory"),
    "fence_latency": _estimate(20, 60, 10, "a trip through the load-store unit"),
    "wgmma_latency": _estimate(60, 100, 30, "about twice that of mma.sync"),
    "wgmma_drain": _estimate(32, 64, 0, "half of a product's latency cannot be filled by another warpgroup"),
    "wgmma_queue": _fitted(384, 256, 512, "matrix products that issue copies while the tensor cores work"),
    "wgmma_in_turn": _estimate(
        1,
        1,
        0,
        "the FlashAttention-3 paper (arXiv:2407.08608, 2024) gains 570 to 620 TFLOPS by making warpgroups take turns "
        "with barriers, which would gain nothing if the tensor cores finished one's products before another's",
    ),
    "memory_queue": _estimate(64, 64, 64, "sixteen 128-bit accesses"),
    "operands_read": _estimate(12, 20, 8, "the depth of the load-store unit's queue"),
    "l2_hit_latency": _fitted(
        320,
        420,
        250,
        "unloaded, gpu-benches, gpu-latency has 265 clocks for the near half of an H100's L2, 475 for the far half",
    ),
    "flag_trips": _estimate(
        2.5, 4, 1.5, "a fence that waits for stores to reach L2, the flag's way there, and a poll there and back"
    ),
    "hbm_latency": _fitted(
        760, 1000, 650, "cold matrix products; gpu-benches, gpu-latency has 650 clocks on an H100 without load"
    ),
    "loaded_latency": _fitted(0.5, 0.8, 0.2, "matrix products with few bytes on their way, which HBM nearly limits"),
    "flushed_latency": _fitted(
        330, 640, 240, "on top of hbm_latency, for the first bytes that fill an L2 full of lines to be written back"
    ),
    "flushed_dirty": _fitted(
        0.5,
        0.7,
        0.3,
        "matrix products: what they take on top of the time for their bytes is that of half of L2",
    ),
    "l2_merging": _fitted(
        0.6,
        0.4,
        0.8,
        "an H100 serves requests of neighbouring matrix tiles at 11 TB/s, which is more than its L2 delivers",
    ),
    "l2_share": _fitted(1.0, 0.7, 1.2, "data that is read again after as many bytes as L2 holds is still found there"),
    "l2_most_bytes": _fitted(
        80, 64, 96, "more than the 64 bytes that the port of an L2 slice delivers, as requests are merged before"
    ),
    "hbm_share": _fitted(0.93, 0.9, 0.96, "long streams"),
    "half_line_cost": _fitted(1.35, 1.45, 1.2, "tiles with rows of 64 bytes against those with longer rows"),
    "arithmetic_power": _fitted(1.2, 1.6, 0.8, "attention with much work besides its products"),
    "overlap": _fitted(3.2, 3.2, 3.2, "matrix products and attention that memory nearly limits"),
    "free_clock": _estimate(1.0, 0.95, 1.05, "the boost clock is held without tensor load"),
    "event_us": _fitted(3.4, 3.9, 2.9, "smallest kernels timed by do_bench"),
    "launch_us": _fitted(LAUNCH_US, 2.3, 1.7, "smallest kernels timed by do_bench"),
    "graph_us": _fitted(1.0, 1.2, 0.8, "smallest kernels in a CUDA graph"),
    "tensor_memory_latency": _estimate(60, 100, 30, "twice that of shared memory"),
    "tensor_memory_bytes": _estimate(512, 256, 512, "16 bytes for each of 32 lanes"),
}
_BLACKWELL = {
    "arithmetic_power": _estimate(
        0.3,
        0.6,
        0.1,
        "chosen between 0.6, half of an H100's, as tensor cores do twice as much in a clock, and 0.1. A B200 capped at "
        "750 W has 1087 TFLOPS in a matrix product and 885 in causal attention (facebookexperimental/triton pull 854, "
        "2026; half of its 1770 are masked), which allows no more than 0.15 to 0.35: docs/performance-model.md",
    ),
    "free_clock": _estimate(1.06, 1.0, 1.06, "1.965 GHz, the maximum clock that nvidia-smi reports for a B200"),
    "l2_bytes": _estimate(36, 28, 45, "that of an H100"),
    "mma_sync_share": _estimate(0.31, 0.31, 0.5, "the rate per SM of an H100, at twice its peak"),
}
_BY_ARCH: dict[int, dict[str, Figure]] = {
    80: {
        "l2_bytes": _known(35.5, f"{_GPU_BENCHES}: A100 80 GB, 5.4 TB/s at 1.41 GHz", slow=33),
        "mma_sync_share": _known(1.0, _LUO),
        "l2_hit_latency": _fitted(410, 480, 330, "attention with a warm L2"),
        "hbm_share": _fitted(0.78, 0.74, 0.82, "long streams"),
        "event_us": _fitted(4.4, 5.0, 3.8, "smallest kernels timed by do_bench"),
        "graph_us": _fitted(1.5, 1.8, 1.2, "smallest kernels in a CUDA graph"),
    },
    90: {
        "l2_bytes": _known(
            36,
            f"{_GPU_BENCHES}: H100 PCIe, 6.9 TB/s on 114 SMs at 1.755 GHz are 34.5; H200, 9.75 TB/s are 37.3 "
            "if it held 1.98 GHz",
            slow=34.5,
            fast=37.3,
        ),
        "mma_sync_share": _known(0.62, f"{_LUO}: 62% of the peak"),
        "free_clock": _known(1.08, "1.98 GHz, the maximum clock that nvidia-smi reports for an H100 SXM"),
    },
    89: {
        "l2_bytes": _known(
            15,
            f"{_GPU_BENCHES}: L40, 5.23 TB/s on 142 SMs at 2.49 GHz are 14.8; github.com/smallscientist1/"
            "cuda_microbenchmark (2023): RTX 4090, 1946 bytes a clock are 15.2",
            slow=14.8,
            fast=15.2,
        ),
        "l2_hit_latency": _known(
            290,
            "gpu-benches, gpu-latency: 277 clocks for an L40; github.com/markdewing/AI_kernels (2025): 296, RTX 4090",
            slow=380,
            fast=270,
        ),
        "hbm_latency": _known(
            640,
            "github.com/markdewing/AI_kernels (2025): 636 clocks for an RTX 4090, without load",
            slow=1000,
            fast=600,
        ),
        "mma_sync_share": _known(1.0, f"{_TVM}: 169 TFLOPS of attention on an RTX 4090 are all of the peak"),
    },
    100: _BLACKWELL,
    103: _BLACKWELL,
    120: {
        "l2_bytes": _known(
            17,
            "chipsandcheese.com, Blackwell: Nvidia's Massive GPU (2025): RTX PRO 6000, 8.7 TB/s on 188 SMs are 17.8 at "
            "2.6 GHz, 16.5 at 2.8 GHz",
            slow=16.5,
            fast=17.8,
        ),
        "integer_lanes": _known(
            128, "NVIDIA RTX Blackwell GPU Architecture whitepaper (2025): integers at the rate of fp32", slow=64
        ),
        "l2_hit_latency": _known(
            360, "github.com/markdewing/AI_kernels (2025): RTX 5090, without load", slow=480, fast=340
        ),
        "hbm_latency": _known(
            936, "github.com/markdewing/AI_kernels (2025): RTX 5090, without load", slow=1300, fast=900
        ),
        "mma_sync_share": _known(
            1.0,
            "gau-nernst.github.io, Writing Speed-of-Light Flash Attention for 5090 (2025): cuDNN's attention reaches "
            "0.97 of the peak",
        ),
    },
}


_OF_EACH = ("l2_bytes", "mma_sync_share")
"""What every architecture has a figure of its own for."""


def figures(arch: int, fitted: tuple[Fitted, ...] = ()) -> dict[str, Figure]:
    """Return the table of an architecture, by the names of ``Constants``. A card has some ``fitted`` in their place.

    Raises ``LookupError``, which says what to do, for an architecture without figures.
    """
    if arch not in _BY_ARCH:
        raise LookupError(
            f"compute capability {arch / 10:.1f} has no figures in evaluator/performance/constants.py: add those of "
            f"_BY_ARCH ({', '.join(_OF_EACH)})"
        )
    own = {each.name: Figure(each.value, "fitted to times of the card", each.slow, each.fast) for each in fitted}
    table = {**_ALL, **_BY_ARCH[arch], **own}
    return {field.name: table[field.name] for field in fields(Constants)}


@lru_cache(maxsize=256)
def constants(arch: int, draw: int | None = None, fitted: tuple[Fitted, ...] = ()) -> Constants:
    """Return an architecture's figures, or those of a joint draw, 0 to ``DRAWS`` - 1, from their ranges."""
    return Constants(**{name: figure.at(place(name, draw)) for name, figure in figures(arch, fitted).items()})


def constants_of(target: Target, draw: int | None = None) -> Constants:
    """Return what ``constants`` has for a target."""
    return constants(target.arch, draw, target.fitted)


def place(name: str, draw: int | None) -> float:
    """Return where in its range a figure lies in a draw; without one, in the middle.

    Latin hypercube sampling (McKay, Beckman, Conover, Technometrics 21, 1979): over all draws, every figure takes
    ``DRAWS`` evenly spaced places, in an order of its own.
    """
    if draw is None:
        return 0.5
    return (random.Random(name).sample(range(DRAWS), DRAWS)[draw] + 0.5) / DRAWS
