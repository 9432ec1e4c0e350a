"""What a target's driver refuses to launch, all in one place, each in the words of who refuses it."""

from avo.evaluator.binary import Binary
from avo.evaluator.compiling.residency import ctas_per_sm
from avo.evaluator.evaluation import Fault, Status
from avo.evaluator.plan import Grid, KernelIR
from avo.evaluator.target import Target

# CUDA C++ Programming Guide, technical specifications per compute capability
_MOST_REGISTERS = 255
"""Registers per thread."""
_MOST_THREADS = 1024
_GRID = (2**31 - 1, 65535, 65535)
"""Extents of a grid."""
_REGISTER_UNIT = 8
"""Registers are allocated to a warp in units of 8 a thread (256 a warp)."""
_PORTABLE_CLUSTER = 8
"""CTAs of a cluster that every target with clusters takes. Triton's launcher (driver.c) asks for more only if they are
16. Not all sizes are powers of two: a kernel without tensors compiles with any."""

# CUDA driver API, CUresult, with the texts of cuGetErrorString
_INVALID_VALUE = "CUDA_ERROR_INVALID_VALUE: invalid argument"
_OUT_OF_RESOURCES = "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES: too many resources requested for launch"
_TOO_LARGE = "CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE: too many blocks in cooperative launch"
_CLUSTER = "CUDA_ERROR_INVALID_CLUSTER_SIZE"


def fit(binary: Binary, target: Target) -> Fault | None:
    """Return why ``binary`` cannot be launched on ``target``, over whatever grid, or None when it can."""
    rounded = -(-binary.registers // _REGISTER_UNIT) * _REGISTER_UNIT
    needs = (
        (
            binary.shared_bytes,
            target.shared_bytes_per_cta,
            "bytes of shared memory per CTA",
            "use smaller tiles or fewer stages",
            "Triton: out of resource: shared memory",
        ),
        (
            binary.tensor_memory_columns,
            target.tensor_memory_columns,
            "columns of tensor memory",
            "use smaller accumulator tiles or fewer of them",
            "Triton: out of resource: tensor memory",
        ),
        (binary.threads, _MOST_THREADS, "threads a CTA", "use fewer warps", "Triton: out of resource: threads"),
        (
            binary.registers,
            _MOST_REGISTERS,
            "registers per thread",
            "use smaller tiles or more warps",
            _OUT_OF_RESOURCES,
        ),
        (
            rounded * binary.threads,
            target.registers_per_sm,
            "registers a CTA",
            "use fewer warps or smaller tiles",
            _OUT_OF_RESOURCES,
        ),
    )
    for need, most, what, advice, words in needs:
        if need > most:
            message = f"kernel {binary.name} needs {need} {what}, {target.name} has {most}: {advice} ({words})"
            return Fault(Status.DOES_NOT_FIT, message)
    cluster, largest = binary.ctas_per_program, target.ctas_per_cluster
    if cluster == largest or cluster <= min(_PORTABLE_CLUSTER, largest):
        return None
    takes = (
        f"at most {_PORTABLE_CLUSTER}, or exactly {largest}" if largest > _PORTABLE_CLUSTER else f"at most {largest}"
    )
    message = f"kernel {binary.name} has num_ctas={cluster}: {target.name} takes {takes} CTAs a cluster ({_CLUSTER})"
    return Fault(Status.DOES_NOT_FIT, message)


def fit_grid(name: str, grid: Grid) -> Fault | None:
    """Return why no target launches a kernel over ``grid``, or None when it may."""
    if all(0 <= extent <= most for extent, most in zip(grid, _GRID, strict=True)):
        return None
    limits = f"{_GRID[0]} in x and {_GRID[1]} in y or z"
    message = f"kernel {name} is launched over {grid}: a grid has at most {limits} ({_INVALID_VALUE})"
    return Fault(Status.DOES_NOT_FIT, message)


def fit_together(kernel: KernelIR, programs: int, binary: Binary, target: Target) -> Fault | None:
    """Return why a grid of ``programs`` cannot be launched cooperatively, if that is asked for, or None when it can.

    All CTAs of such a grid must be resident at once: at most as many as fit on one SM, times the SMs (CUDA driver API,
    cuLaunchCooperativeKernel). Clusters may leave SMs empty, which is not counted.
    """
    each = ctas_per_sm(binary, target)
    ctas = programs * binary.ctas_per_program
    if not kernel.option.get("launch_cooperative_grid") or ctas <= each * target.sms:
        return None
    message = (
        f"kernel {binary.name} is launched cooperatively with {ctas} CTAs, {target.name} holds {each * target.sms} at "
        f"once, {each} on each of {target.sms} SMs: launch no more and let each loop over its work ({_TOO_LARGE})"
    )
    return Fault(Status.DOES_NOT_FIT, message)
