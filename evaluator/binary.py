"""Binaries: what the compiler makes of one kernel for one target."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Binary:
    """A compiled kernel."""

    name: str
    target: str
    cubin: bytes
    ptx: str
    threads: int
    """Per CTA as launched; more than 32 * num_warps under warp specialisation."""
    registers: int
    """Per thread at launch."""
    spill_bytes: int
    """Bytes per thread that registers could not hold."""
    shared_bytes: int
    """Per CTA, static and dynamic."""
    tensor_memory_columns: int
