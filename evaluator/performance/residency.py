"""What CTAs that are resident together leave of L1 to spilled registers."""

from avo.evaluator.binary import Binary
from avo.evaluator.compiling.residency import ctas_per_sm, shared_bytes
from avo.evaluator.target import Target

_SHARED_SIZES = tuple(kib * 2**10 for kib in (8, 16, 32, 64, 100, 132, 164, 196, 228))
"""How many bytes of an SM can be shared memory, as far as it has them; the rest is L1 (CUDA C++ Programming Guide)."""
_UNASKED = 48 * 2**10
"""Bytes of a CTA above which Triton asks for as much shared memory as an SM has (its driver.c: PREFER_SHARED)."""


def spills_missed(spilled: int, binary: Binary, target: Target, resident: int) -> float:
    """Return the share of accesses to spilled registers that go on to L2, with ``resident`` CTAs on an SM.

    A pass touches all ``spilled`` bytes of a CTA. Of more than L1 has, the rest is gone when it is needed again: an
    estimate, as which lines L1 gives up is not published, and what else passes through it is not counted.
    """
    shared = target.shared_bytes_per_sm
    if binary.shared_bytes <= _UNASKED:
        together = ctas_per_sm(binary, target) * shared_bytes(binary)
        shared = next((size for size in _SHARED_SIZES if size >= together), shared)
    kept = target.cache_bytes_per_sm - shared
    return max(0.0, 1 - kept / (spilled * resident)) if spilled else 0.0
