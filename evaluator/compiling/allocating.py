"""Where Triton's compiler puts what a kernel allocates in shared memory."""

from contextlib import suppress
from typing import Any

from triton._C.libtriton import ir, nvidia
from triton.backends.nvidia.compiler import get_ptx_version_from_options


def with_places(module: Any, backend: Any, options: Any) -> str:
    """Return a module of Triton GPU IR as text in which operations say at which byte of shared memory what they
    allocate begins; without that where the compiler cannot allocate. The module is changed.

    The same pass runs again when the module is compiled, and then says the same.
    """
    arch = backend.target.arch
    manager = ir.pass_manager(module.context)
    nvidia.passes.ttgpuir.add_allocate_shared_memory_nv(manager, arch, get_ptx_version_from_options(options, arch))
    with suppress(RuntimeError):
        manager.run(module, "allocate_shared_memory")
    return str(module)
