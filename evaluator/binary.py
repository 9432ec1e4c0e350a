"""Binaries: what the compiler makes of one kernel for one target."""

import re
from dataclasses import dataclass

_CLUSTER = re.compile(r"^\.reqnctapercluster (\d+)", re.MULTILINE)


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

    @property
    def ctas_per_program(self) -> int:
        """CTAs of the cluster that runs one program, each on an SM of its own."""
        # Asked some hundred times in a prediction: looking for the start of each line takes 20 times as long.
        found = _CLUSTER.search(self.ptx) if ".reqnctapercluster" in self.ptx else None
        return int(found[1]) if found else 1
