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
    """Threads per CTA as launched; more than 32 * num_warps under warp specialisation."""
    registers: int
    """Registers per thread at launch."""
    spill_bytes: int
    """Bytes per thread that did not fit into registers."""
    shared_bytes: int
    """Shared memory per CTA in bytes, static and dynamic."""
    tensor_memory_columns: int
    listing: str = ""
    """The machine code with its control bits and lines of PTX, as nvdisasm prints it; spaces are not kept. Made where
    the kernel is compiled: nothing that reads hostile binaries runs elsewhere."""
    launch: str = ""
    """What Triton's launcher asks for, as JSON: the metadata of the compilation, and under ``signature`` the types of
    the parameters in the IR."""
    ttgir: str = ""
    """Triton GPU IR, after the target's passes."""
