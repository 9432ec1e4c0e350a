"""Targets: where a kernel's speed is judged, and the published figures of each architecture."""

from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import Any

LAUNCH_US = 2.0
"""What one launch takes, as fitted for the performance model, and what a case that launches bound takes no less than.
"""


class ScoreKind(StrEnum):
    """How a score was obtained. Scores of different kinds, or of different targets, are never compared."""

    PREDICTED = "predicted"
    MEASURED = "measured"


@dataclass(frozen=True, slots=True)
class Architecture:
    """What the streaming multiprocessors (SMs) of all cards with one compute capability have in common.

    Rates are per SM and clock.
    """

    arch: int
    """Compute capability times ten: 80, 89, 90, 100, 103, 120."""
    fp32_lanes: int
    sfu_lanes: int
    """Special-function results (exp2, reciprocal, ...)."""
    tensor_flop: int
    """Dense bf16 tensor-core FLOP with sums in fp32."""
    shared_bytes_per_cta: int
    shared_bytes_per_sm: int
    cache_bytes_per_sm: int
    """L1 and shared memory together."""
    registers_per_sm: int
    warps_per_sm: int
    ctas_per_sm: int
    tensor_memory_columns: int
    """Columns of tensor memory; 0 where the architecture has none."""
    ctas_per_cluster: int
    """Most CTAs of a cluster: 1 without clusters, else 8, and 16 if asked for on Hopper and on the Blackwell of data
    centres (their tuning guides; for others nothing is published).
    """
    architecture_source: str
    """Where these figures were published."""

    @property
    def bulk_copies(self) -> bool:
        """Whether it has a tensor memory accelerator, which copies blocks that a tensor descriptor describes."""
        return self.arch >= 90

    @property
    def tensor_memory(self) -> bool:
        """Whether its tensor cores accumulate in a memory of their own."""
        return self.tensor_memory_columns > 0

    @property
    def warpgroup_products(self) -> bool:
        """Whether it has wgmma, as Hopper alone does."""
        return self.arch == 90

    @property
    def asynchronous_products(self) -> bool:
        """Whether its tensor cores work while the warps that started a product go on (wgmma, tcgen05)."""
        return self.warpgroup_products or self.tensor_memory


@dataclass(frozen=True, slots=True)
class Fitted:
    """One of the performance model's constants, as times of one card have it."""

    name: str
    """As ``avo.evaluator.performance.constants.Constants`` has it."""
    value: float
    slow: float
    """What it may be as well, where kernels are slowest."""
    fast: float


@dataclass(frozen=True, slots=True)
class Target(Architecture):
    """A card that kernels are compiled for and judged on: its own figures, and those of its architecture."""

    name: str
    """Short name used on the command line, e.g. ``h100``."""
    product: str
    """The product the figures belong to."""
    sms: int
    clock_ghz: float
    """Boost clock the published peak refers to."""
    sustained_clock_ratio: float
    """Clock under continuous tensor-core load over the boost clock. The power limit lowers it; cards whose boost clock
    is a promise run faster. See ``clock_source``.
    """
    sustained_clock_range: tuple[float, float]
    """Range of ``sustained_clock_ratio``: lowest and highest."""
    clock_source: str
    l2_bytes: int
    hbm_bytes_per_s: float
    """Peak bandwidth of the device memory, also where that is GDDR."""
    source: str
    """Where the card's figures were published."""
    fp32_sums_at_half_rate: bool = False
    """Whether products with sums in fp16 or int32 run at twice the rate of those with sums in fp32 (GeForce)."""
    held_against: str = ""
    """The published measurements that predictions for this card were compared with; empty if there are none."""
    kind: ScoreKind = ScoreKind.PREDICTED
    """How scores for this target are obtained."""
    fitted: tuple[Fitted, ...] = ()
    """What a calibrated card has in the place of its architecture's constants."""

    @property
    def dense_flops_per_s(self) -> float:
        """Peak of dense bf16 products of the whole card at its clock, in FLOP per second."""
        return self.tensor_flop * self.sms * self.clock_ghz * 1e9

    def roofline_s(self, flops: float, least_bytes: float) -> float:
        """Return the seconds that so many FLOPs and bytes of device memory take at least, at the card's peaks."""
        return max(flops / self.dense_flops_per_s, least_bytes / self.hbm_bytes_per_s)

    @property
    def standing(self) -> str:
        """How far predictions for this card were checked, in one sentence."""
        found = f"held against {self.held_against}" if self.held_against else "not held against anything"
        return f"Predictions for {self.name} were {found}."


_GUIDE = "CUDA C++ Programming Guide 13, technical specifications and throughput per compute capability"

_AMPERE = Architecture(
    arch=80,
    fp32_lanes=64,
    sfu_lanes=16,
    tensor_flop=2048,
    shared_bytes_per_cta=166912,
    shared_bytes_per_sm=167936,
    cache_bytes_per_sm=192 * 2**10,
    registers_per_sm=65536,
    warps_per_sm=64,
    ctas_per_sm=32,
    tensor_memory_columns=0,
    ctas_per_cluster=1,
    architecture_source=f"NVIDIA A100 Tensor Core GPU Architecture whitepaper (2020); {_GUIDE}",
)
_ADA = Architecture(
    arch=89,
    fp32_lanes=128,
    sfu_lanes=16,
    tensor_flop=1024,
    shared_bytes_per_cta=101376,
    shared_bytes_per_sm=102400,
    cache_bytes_per_sm=128 * 2**10,
    registers_per_sm=65536,
    warps_per_sm=48,
    ctas_per_sm=24,
    tensor_memory_columns=0,
    ctas_per_cluster=1,
    architecture_source=f"NVIDIA Ada GPU Architecture whitepaper (2022), tensor cores at full rate; {_GUIDE}",
)
_HOPPER = Architecture(
    arch=90,
    fp32_lanes=128,
    sfu_lanes=16,
    tensor_flop=4096,
    shared_bytes_per_cta=232448,
    shared_bytes_per_sm=233472,
    cache_bytes_per_sm=256 * 2**10,
    registers_per_sm=65536,
    warps_per_sm=64,
    ctas_per_sm=32,
    tensor_memory_columns=0,
    ctas_per_cluster=16,
    architecture_source=f"NVIDIA H100 Tensor Core GPU Architecture whitepaper (2022); {_GUIDE}",
)
_BLACKWELL = Architecture(
    arch=100,
    fp32_lanes=128,
    sfu_lanes=16,
    tensor_flop=8192,
    shared_bytes_per_cta=232448,
    shared_bytes_per_sm=233472,
    cache_bytes_per_sm=256 * 2**10,
    registers_per_sm=65536,
    warps_per_sm=64,
    ctas_per_sm=32,
    tensor_memory_columns=512,
    ctas_per_cluster=16,
    architecture_source=f"NVIDIA Blackwell architecture technical brief (2024): 2.25 PFLOPS dense bf16; {_GUIDE}",
)
_BLACKWELL_ULTRA = replace(
    _BLACKWELL,
    arch=103,
    sfu_lanes=32,
    architecture_source="as compute capability 10.0; NVIDIA, Making Softmax More Efficient with NVIDIA Blackwell "
    f"Ultra (2026): twice the throughput of exp2; {_GUIDE}",
)
_BLACKWELL_RTX = replace(
    _ADA,
    arch=120,
    ctas_per_cluster=8,
    architecture_source=f"NVIDIA RTX Blackwell GPU Architecture whitepaper (2025), tensor cores at full rate; {_GUIDE}",
)


def _card(architecture: Architecture, **own: Any) -> Target:
    """Return a card with figures of its own. Those may replace figures of its architecture."""
    common = {field.name: getattr(architecture, field.name) for field in fields(architecture)}
    return Target(**(common | own))


_H100_CLOCK = (
    "a large bf16 matrix product sustains 798 of the 989 TFLOPS peak on an H100 SXM: the power limit lowers the clock "
    "under tensor load; lighter loads keep more of it (range: estimate)"
)
_TARGETS = (
    _card(
        _AMPERE,
        name="a100",
        product="NVIDIA A100 SXM4 80GB",
        sms=108,
        clock_ghz=1.41,
        sustained_clock_ratio=0.95,
        sustained_clock_range=(0.88, 1.0),
        clock_source="cuBLAS bf16 matrix products sustain about 0.85 to 0.9 of the 312 TFLOPS peak, of which "
        "about 0.95 is clock; an estimate, not a vendor figure",
        l2_bytes=40 * 2**20,
        hbm_bytes_per_s=2.039e12,
        source="NVIDIA A100 Tensor Core GPU Architecture whitepaper (2020)",
        held_against="published timings of attention, paged attention and normalisation kernels",
    ),
    _card(
        _HOPPER,
        name="h100",
        product="NVIDIA H100 SXM5 80GB",
        sms=132,
        clock_ghz=1.83,
        sustained_clock_ratio=0.81,
        sustained_clock_range=(0.76, 0.92),
        clock_source=_H100_CLOCK,
        l2_bytes=50 * 2**20,
        hbm_bytes_per_s=3.35e12,
        source="NVIDIA H100 Tensor Core GPU Architecture whitepaper (2022)",
        held_against="published timings of matrix products, attention, paged attention and normalisation kernels",
    ),
    _card(
        _HOPPER,
        name="h200",
        product="NVIDIA H200 SXM 141GB",
        sms=132,
        clock_ghz=1.83,
        sustained_clock_ratio=0.81,
        sustained_clock_range=(0.76, 0.92),
        clock_source="same chip and power limit as the H100 SXM",
        l2_bytes=50 * 2**20,
        hbm_bytes_per_s=4.8e12,
        source="NVIDIA H200 Tensor Core GPU datasheet (2023)",
    ),
    _card(
        _HOPPER,
        name="h20",
        product="NVIDIA H20 SXM 96GB",
        sms=78,
        tensor_flop=1024,
        clock_ghz=1.85,
        sustained_clock_ratio=0.97,
        sustained_clock_range=(0.92, 1.0),
        clock_source="estimate: a quarter of the H100's tensor rate leaves the power limit far away. cuDNN's attention "
        "reaches 129 of 148 TFLOPS (github.com/Dao-AILab/flash-attention, issue 1310, 2024)",
        l2_bytes=60 * 2**20,
        hbm_bytes_per_s=4.0e12,
        source="NVIDIA H20 datasheet (2023): 148 TFLOPS dense bf16, which on 78 SMs is a quarter of the H100's "
        "rate for each",
    ),
    _card(
        _ADA,
        name="rtx4090",
        product="NVIDIA GeForce RTX 4090",
        sms=128,
        tensor_flop=512,
        fp32_sums_at_half_rate=True,
        clock_ghz=2.52,
        sustained_clock_ratio=1.06,
        sustained_clock_range=(0.97, 1.11),
        clock_source="FlashAttention-2 reaches 169 TFLOPS, 1.02 of the peak at the boost clock (github.com/apache/tvm, "
        "tl_doc/flash_perf.md, 2024), so that the clock is higher; how much is an estimate",
        l2_bytes=72 * 2**20,
        hbm_bytes_per_s=1.008e12,
        source="NVIDIA Ada GPU Architecture whitepaper (2022): 165.2 TFLOPS dense bf16",
    ),
    _card(
        _ADA,
        name="l40s",
        product="NVIDIA L40S",
        sms=142,
        clock_ghz=2.52,
        sustained_clock_ratio=0.75,
        sustained_clock_range=(0.6, 0.95),
        clock_source="estimate: 2.2 times the RTX 4090's tensor rate with 350 W instead of 450 W",
        l2_bytes=96 * 2**20,
        hbm_bytes_per_s=0.864e12,
        source="NVIDIA L40S datasheet (2023): 733 TFLOPS bf16 with sparsity, so 366 dense",
    ),
    _card(
        _BLACKWELL,
        name="b200",
        product="NVIDIA B200 SXM 180GB",
        sms=148,
        clock_ghz=1.85,
        sustained_clock_ratio=0.81,
        sustained_clock_range=(0.74, 0.95),
        clock_source="as on the H100. A large bf16 matrix product has 1772 of the 2250 TFLOPS peak, 0.79, on a B200 "
        "(modular.com, Matrix Multiplication on Blackwell, part 4, 2025); one that is capped at 750 W has 1087 "
        "(facebookexperimental/triton pull 854, 2026)",
        l2_bytes=126 * 2**20,
        hbm_bytes_per_s=8.0e12,
        source="NVIDIA Blackwell architecture technical brief (2024)",
        held_against="published timings of Triton's attention, in Triton and in Gluon, and of normalisation kernels",
    ),
    _card(
        _BLACKWELL_ULTRA,
        name="b300",
        product="NVIDIA B300 SXM 270GB",
        sms=148,
        clock_ghz=1.85,
        sustained_clock_ratio=0.81,
        sustained_clock_range=(0.74, 0.95),
        clock_source="taken over from the B200",
        l2_bytes=126 * 2**20,
        hbm_bytes_per_s=7.7e12,
        source="NVIDIA HGX B300 datasheet (2025): 2.25 PFLOPS dense bf16, 7.7 TB/s; SMs and L2 as B200",
        held_against="published timings of Triton's attention in Gluon on GB300, whose power limit is higher",
    ),
    _card(
        _BLACKWELL_RTX,
        name="rtx5090",
        product="NVIDIA GeForce RTX 5090",
        sms=170,
        tensor_flop=512,
        fp32_sums_at_half_rate=True,
        clock_ghz=2.407,
        sustained_clock_ratio=1.08,
        sustained_clock_range=(0.97, 1.17),
        clock_source="cuBLAS reaches 224 TFLOPS in a large bf16 product, 1.07 of the peak at the boost clock "
        "(main-horse.github.io, 5090 matmul performance, 2025); cards at 2.8 GHz are reported",
        l2_bytes=96 * 2**20,
        hbm_bytes_per_s=1.792e12,
        source="NVIDIA RTX Blackwell GPU Architecture whitepaper (2025): 209.5 TFLOPS dense bf16",
    ),
)

TARGETS: dict[str, Target] = {target.name: target for target in _TARGETS}
"""The cards to predict for, by name."""
CARDS = ", ".join(TARGETS)
"""Their names, for help and documents."""
CUDA = "cuda"
"""The target that is this machine's GPU, to measure on."""


def score_kind(name: str) -> ScoreKind:
    """Return how scores for the target called ``name`` are obtained."""
    return ScoreKind.MEASURED if name == CUDA else ScoreKind.PREDICTED


def unchecked(name: str) -> str:
    """Return a sentence that says so if predictions for the target called ``name`` were compared with no measurement;
    nothing if they were, or if nothing is predicted there.
    """
    target = TARGETS.get(name)
    return target.standing if target and not target.held_against else ""
