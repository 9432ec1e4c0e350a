"""How many CTAs of a kernel fit on one SM together, and what limits that."""

from avo.evaluator.binary import Binary
from avo.evaluator.evaluation import Resources
from avo.evaluator.performance.pipes import PARTITIONS
from avo.evaluator.target import Target

_REGISTER_UNIT = 256
"""Registers are given to warps in units of this many (CUDA occupancy calculator, compute capability 8.0 to 10.0)."""
_RESERVED_SHARED = 1024
"""Bytes of shared memory the system keeps per CTA (CUDA C++ Programming Guide, compute capability 8.0 and later)."""
_SHARED_UNIT = 128
_SHARED_SIZES = tuple(kib * 2**10 for kib in (8, 16, 32, 64, 100, 132, 164, 196, 228))
"""How many bytes of an SM can be shared memory, as far as it has them; the rest is L1 (same guide)."""
_UNASKED = 48 * 2**10
"""Bytes of a CTA above which Triton asks for as much shared memory as an SM has (its driver.c: PREFER_SHARED)."""


def ctas_per_sm(binary: Binary, target: Target) -> int:
    """Return how many CTAs of ``binary`` fit on one SM together; 0 if not even one does."""
    if binary.shared_bytes > target.shared_bytes_per_cta or binary.registers > 255 or binary.threads > 1024:
        return 0
    return min(residency_limits(binary, target).values())


def spills_missed(spilled: int, binary: Binary, target: Target, resident: int) -> float:
    """Return the share of accesses to spilled registers that go on to L2, with ``resident`` CTAs on an SM.

    A pass touches all ``spilled`` bytes of a CTA. Of more than L1 has, the rest is gone when it is needed again: an
    estimate, as which lines L1 gives up is not published, and what else passes through it is not counted.
    """
    shared = target.shared_bytes_per_sm
    if binary.shared_bytes <= _UNASKED:
        together = ctas_per_sm(binary, target) * _shared(binary)
        shared = next((size for size in _SHARED_SIZES if size >= together), shared)
    kept = target.cache_bytes_per_sm - shared
    return max(0.0, 1 - kept / (spilled * resident)) if spilled else 0.0


def resources(binary: Binary, target: Target) -> Resources:
    """Return the resources that ``binary`` needs of the target."""
    return Resources(
        kernel=binary.name,
        registers=binary.registers,
        spill_bytes=binary.spill_bytes,
        shared_bytes=binary.shared_bytes,
        tensor_memory_columns=binary.tensor_memory_columns,
        warps=binary.threads // 32,
        ctas_per_sm=ctas_per_sm(binary, target),
    )


def residency_limits(binary: Binary, target: Target) -> dict[str, int]:
    """Return how many CTAs of ``binary`` fit an SM, by resource."""
    warps = -(-binary.threads // 32)
    registers_per_warp = -(-binary.registers * 32 // _REGISTER_UNIT) * _REGISTER_UNIT
    by_registers = target.registers_per_sm // max(1, registers_per_warp) // PARTITIONS * PARTITIONS // warps
    limits = {
        "registers": by_registers,
        "shared memory": target.shared_bytes_per_sm // _shared(binary),
        "warps": target.warps_per_sm // warps,
        "CTAs": target.ctas_per_sm,
    }
    if binary.tensor_memory_columns:
        limits["tensor memory"] = target.tensor_memory_columns // binary.tensor_memory_columns
    return limits


def _shared(binary: Binary) -> int:
    """Return the bytes of shared memory that a CTA takes."""
    return -(-(binary.shared_bytes + _RESERVED_SHARED) // _SHARED_UNIT) * _SHARED_UNIT
