"""How many CTAs of a kernel fit on one SM together, and what limits that."""

from avo.evaluator.binary import Binary
from avo.evaluator.evaluation import Resources
from avo.evaluator.target import Target

_REGISTER_UNIT = 256
"""Registers are given to warps in units of this many (CUDA occupancy calculator, compute capability 8.0 to 10.0)."""
_WARP_UNIT = 4
"""Warps of an SM that registers suffice for are counted in units of this many, one a scheduler (same source)."""
_RESERVED_SHARED = 1024
"""Bytes of shared memory the system keeps per CTA (CUDA C++ Programming Guide, compute capability 8.0 and later)."""
_SHARED_UNIT = 128


def ctas_per_sm(binary: Binary, target: Target) -> int:
    """Return how many CTAs of ``binary`` fit on one SM together; 0 if not even one does."""
    if binary.shared_bytes > target.shared_bytes_per_cta or binary.registers > 255 or binary.threads > 1024:
        return 0
    return min(residency_limits(binary, target).values())


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
    by_registers = target.registers_per_sm // max(1, registers_per_warp) // _WARP_UNIT * _WARP_UNIT // warps
    limits = {
        "registers": by_registers,
        "shared memory": target.shared_bytes_per_sm // shared_bytes(binary),
        "warps": target.warps_per_sm // warps,
        "CTAs": target.ctas_per_sm,
    }
    if binary.tensor_memory_columns:
        limits["tensor memory"] = target.tensor_memory_columns // binary.tensor_memory_columns
    return limits


def shared_bytes(binary: Binary) -> int:
    """Return the bytes of shared memory that a CTA takes of an SM."""
    return -(-(binary.shared_bytes + _RESERVED_SHARED) // _SHARED_UNIT) * _SHARED_UNIT
