"""Targets: where a kernel's speed is judged, and the published figures of each architecture."""

from dataclasses import dataclass, replace
from enum import StrEnum

from evaluator.errors import UnknownTarget


class ScoreKind(StrEnum):
    """How a score was obtained. Scores of different kinds, or of different targets, are never compared."""

    PREDICTED = "predicted"
    MEASURED = "measured"


@dataclass(frozen=True, slots=True)
class Target:
    """An NVIDIA architecture, or a card of one, that kernels are compiled for and judged on.

    Rates are per streaming multiprocessor (SM) and clock unless named otherwise.
    """

    name: str
    """Short name used on the command line, e.g. ``h100``."""
    product: str
    """The product the figures belong to."""
    arch: int
    """Compute capability times ten: 80, 90, 100."""
    sms: int
    clock_ghz: float
    """Boost clock the published peak refers to."""
    sustained_clock_ratio: float
    """Clock under continuous tensor-core load, which the power limit lowers, over the boost clock. See
    ``clock_source``.
    """
    sustained_clock_range: tuple[float, float]
    """Range of ``sustained_clock_ratio``: lowest and highest."""
    clock_source: str
    fp32_lanes: int
    sfu_lanes: int
    """Special-function results (exp2, reciprocal, ...) per SM and clock."""
    tensor_flop: int
    """Dense bf16 tensor-core FLOP per SM and clock."""
    shared_bytes_per_cta: int
    shared_bytes_per_sm: int
    registers_per_sm: int
    warps_per_sm: int
    ctas_per_sm: int
    tensor_memory_columns: int
    """Columns of tensor memory; 0 where the architecture has none."""
    l2_bytes: int
    hbm_bytes_per_s: float
    launch_overhead_s: float
    """Start and end of one launch in a stream of launches: an estimate, 2 to 4 microseconds are usually measured."""
    source: str
    """Where the figures were published."""
    kind: ScoreKind = ScoreKind.PREDICTED
    """How scores for this target are obtained."""

    @property
    def bulk_copies(self) -> bool:
        """Whether it has a tensor memory accelerator, which copies blocks that a tensor descriptor describes."""
        return self.arch >= 90

    @property
    def tensor_memory(self) -> bool:
        """Whether its tensor cores accumulate in a memory of their own."""
        return self.tensor_memory_columns > 0


_H100 = Target(
    name="h100",
    product="NVIDIA H100 SXM5 80GB",
    arch=90,
    sms=132,
    clock_ghz=1.83,
    sustained_clock_ratio=0.81,
    sustained_clock_range=(0.76, 0.92),
    clock_source="a large bf16 matrix product sustains 798 of the 989 TFLOPS peak on an H100 SXM: the power "
    "limit lowers the clock under tensor load; lighter loads keep more of it (range: estimate)",
    fp32_lanes=128,
    sfu_lanes=16,
    tensor_flop=4096,
    shared_bytes_per_cta=232448,
    shared_bytes_per_sm=233472,
    registers_per_sm=65536,
    warps_per_sm=64,
    ctas_per_sm=32,
    tensor_memory_columns=0,
    l2_bytes=50 * 2**20,
    hbm_bytes_per_s=3.35e12,
    launch_overhead_s=3e-6,
    source="NVIDIA H100 Tensor Core GPU Architecture whitepaper (2022); CUDA C++ Programming Guide, "
    "technical specifications per compute capability",
)

_TARGETS = (
    Target(
        name="a100",
        product="NVIDIA A100 SXM4 80GB",
        arch=80,
        sms=108,
        clock_ghz=1.41,
        sustained_clock_ratio=0.95,
        sustained_clock_range=(0.88, 1.0),
        clock_source="cuBLAS bf16 matrix products sustain about 0.85 to 0.9 of the 312 TFLOPS peak, of which "
        "about 0.95 is clock; an estimate, not a vendor figure",
        fp32_lanes=64,
        sfu_lanes=16,
        tensor_flop=2048,
        shared_bytes_per_cta=166912,
        shared_bytes_per_sm=167936,
        registers_per_sm=65536,
        warps_per_sm=64,
        ctas_per_sm=32,
        tensor_memory_columns=0,
        l2_bytes=40 * 2**20,
        hbm_bytes_per_s=2.039e12,
        launch_overhead_s=3e-6,
        source="NVIDIA A100 Tensor Core GPU Architecture whitepaper (2020); CUDA C++ Programming Guide, "
        "technical specifications per compute capability",
    ),
    _H100,
    replace(
        _H100,
        name="h200",
        product="NVIDIA H200 SXM 141GB",
        clock_source="same chip and power limit as the H100 SXM",
        hbm_bytes_per_s=4.8e12,
        source="NVIDIA H200 Tensor Core GPU datasheet (2023)",
    ),
    Target(
        name="b200",
        product="NVIDIA B200 SXM 180GB",
        arch=100,
        sms=148,
        clock_ghz=1.85,
        sustained_clock_ratio=0.81,
        sustained_clock_range=(0.74, 0.95),
        clock_source="taken over from the H100: no published sustained figure is known to us",
        fp32_lanes=128,
        sfu_lanes=16,
        tensor_flop=8192,
        shared_bytes_per_cta=232448,
        shared_bytes_per_sm=233472,
        registers_per_sm=65536,
        warps_per_sm=64,
        ctas_per_sm=32,
        tensor_memory_columns=512,
        l2_bytes=126 * 2**20,
        hbm_bytes_per_s=8.0e12,
        launch_overhead_s=3e-6,
        source="NVIDIA Blackwell architecture technical brief (2024): 2.25 PFLOPS dense bf16; CUDA C++ Programming "
        "Guide, technical specifications per compute capability",
    ),
)

TARGETS: dict[str, Target] = {target.name: target for target in _TARGETS}
"""The architectures to predict for."""
ARCHITECTURES = ", ".join(TARGETS)
"""Their names, for help and documents."""
CUDA = "cuda"
"""The target that is this machine's GPU, to measure on."""


def check_target(name: str) -> None:
    """Raise ``UnknownTarget`` with the known names unless there is a target ``name``. Does not look for a GPU."""
    if name != CUDA and name not in TARGETS:
        raise UnknownTarget(name, (*TARGETS, CUDA))


def score_kind(name: str) -> ScoreKind:
    """Return how scores for the target called ``name`` are obtained. Raises like ``check_target``."""
    check_target(name)
    return ScoreKind.MEASURED if name == CUDA else TARGETS[name].kind
