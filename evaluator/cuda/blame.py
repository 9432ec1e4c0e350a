"""Whose fault an error of CUDA is: the machine's, whatever runs on it, or that of the kernel that runs."""

MACHINES = {
    46: "busy or unavailable",  # CUDA_ERROR_DEVICE_UNAVAILABLE: another process has the card alone, or it is lost
    100: "no CUDA-capable device is detected",  # CUDA_ERROR_NO_DEVICE
    101: "invalid device ordinal",  # CUDA_ERROR_INVALID_DEVICE
    214: "uncorrectable ECC error encountered",  # CUDA_ERROR_ECC_UNCORRECTABLE
    220: "uncorrectable NVLink error detected during the execution",  # CUDA_ERROR_NVLINK_UNCORRECTABLE
    # CUDA_ERROR_CONTAINED: cuda.h names accesses of a peer's memory, of which a worker has none, and hardware errors.
    226: "Invalid access of peer GPU memory over nvlink or a hardware error",
    802: "system not yet initialized",  # CUDA_ERROR_SYSTEM_NOT_READY: the fabric manager does not run
    999: "unknown error",  # CUDA_ERROR_UNKNOWN: what is left of a card that fell off the bus
}
"""Errors that no kernel brings about, by their numbers in cuda.h, which ``CUresult`` and ``cudaError`` share; with the
end of what ``cuGetErrorString`` and ``cudaGetErrorString`` say. All others may be a kernel's.
"""

XIDS = frozenset({48, 64, 74, 79, 94, 95, 119, 120, 140})
"""Xid errors that no kernel brings about: of memory, NVLink, the bus and the GPU's own processor (NVIDIA, "XID Errors",
Xid catalog). Others, such as 13 and 31, are mostly a kernel's.
"""


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or the error's type."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def is_machines(error: RuntimeError) -> bool:
    """Return whether an error is the machine's. torch's may have a number; Triton's have words alone."""
    return getattr(error, "error_code", None) in MACHINES or names_machine(first_line(error))


def names_machine(words: str) -> bool:
    """Return whether the driver's words for an error are those of a fault of the machine."""
    return words.endswith(tuple(MACHINES.values()))


def is_too_much(error: RuntimeError) -> bool:
    """Return whether no memory is left for what a launch needs, such as the stacks of its threads."""
    return first_line(error).endswith("out of memory")
