"""Records what host code launches, without computing anything, and counts the work of what was recorded."""

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import numpy.typing as npt
import torch
import triton
from triton.compiler import make_backend
from triton.tools.tensor_descriptor import TensorDescriptor

from evaluator import executor
from evaluator.compiling.frontend import Lowered, lower
from evaluator.evaluation import Fault
from evaluator.executor.triton_offline.device import OfflineDriver
from evaluator.executor.triton_offline.launches import OfflineKernel, compiled
from evaluator.executor.triton_offline.patches import Patches
from evaluator.plan import Argument, KernelIR, Pointer
from evaluator.target import Target
from evaluator.work import LaunchWork

_DEFAULTS = {"TRITON_DEFAULT_FP_FUSION": "1"}
"""Defaults of the Tritons that the kernels were timed with; 3.9 warns where this one is not set."""
_lowered: dict[tuple[str, str, int], Lowered] = {}


@dataclass(frozen=True)
class Buffer:
    """Memory that a launch was given."""

    dtype: str
    """Name of a torch dtype."""
    size: int
    """Elements."""
    values: npt.NDArray[Any] | None = None
    """The contents [size] where they decide what programs do; None: never looked at."""

    def allocation(self, name: str) -> executor.Allocation:
        """Return memory of this size; the system provides what is touched only."""
        if self.values is not None:
            return executor.Allocation(name, torch.from_numpy(self.values))
        return executor.Allocation(name, torch.empty(self.size, dtype=getattr(torch, self.dtype)))


@dataclass(frozen=True)
class Recorded:
    """One launch: all that is needed to compile it and to count its work."""

    kernel: KernelIR
    args: tuple[Argument, ...]
    grid: tuple[int, int, int]
    buffers: tuple[Buffer, ...]

    def work(self, target: Target) -> LaunchWork:
        """Return the work of the launch. Raises ``ValueError`` if the kernel does not compile for the target."""
        binary = compiled(self.kernel, target)
        if isinstance(binary, Fault):
            raise ValueError(binary.message)
        kernel = executor.load(self.kernel.ttir)
        memory = [buffer.allocation(f"buffer{i}") for i, buffer in enumerate(self.buffers)]
        return kernel.count(memory, self.args, self.grid).of(binary, math.prod(self.grid))


def record(host: Callable[[], object], target: Target) -> tuple[Recorded, ...]:
    """Call ``host`` and return what it launched, lowered for ``target``.

    Its tensors are on torch's ``meta`` device, or on the CPU where their contents decide what programs do: those of
    integers are kept.
    """
    recorder = _Recorder(target)
    with torch.no_grad():
        recorder.run(host)
    return tuple(recorder.launches)


class _Recorder:
    """Takes the place of triton's driver and compiler."""

    def __init__(self, target: Target) -> None:
        self.launches: list[Recorded] = []
        self._target = target
        self._driver = OfflineDriver(target)

    def run(self, host: Callable[[], object]) -> None:
        patches = Patches()
        functions: dict[int, Any] = {}

        def compile_offline(src: Any, target: Any = None, options: Any = None, **_: Any) -> OfflineKernel:
            functions[id(src.fn)] = src.fn
            return self._lower(src, target, options)

        original = triton.compiler.compile
        patches.set(triton.runtime.driver, "_active", self._driver)
        patches.set(triton.compiler, "compile", compile_offline)
        try:
            with patch.dict(os.environ, _DEFAULTS):
                host()
        finally:
            patches.undo()
            for function in functions.values():  # they keep the compiler of their first launch
                function.device_caches.pop(self._driver.get_current_device(), None)
                function.compile = original

    def _lower(self, src: Any, target: Any, options: Any) -> OfflineKernel:
        backend = make_backend(target)
        parsed = backend.parse_options(dict(options or {}))
        key = (src.hash(), str(sorted(parsed.__dict__.items(), key=str)), self._target.arch)
        if key not in _lowered:
            _lowered[key] = lower(src, backend, parsed)
        return OfflineKernel(src, _lowered[key], self._target, self._record)

    def _record(self, kernel: OfflineKernel, grid: tuple[int, int, int], values: Sequence[Any]) -> None:
        if 0 in grid:
            return
        index: dict[int, int] = {}
        buffers: list[Buffer] = []

        def pointer(tensor: torch.Tensor) -> Pointer:
            storage = tensor.untyped_storage()
            if storage._cdata not in index:
                index[storage._cdata] = len(buffers)
                buffers.append(_buffer(tensor))
            return Pointer(index[storage._cdata], int(tensor.storage_offset()) * tensor.element_size())

        args = tuple(arg for found in kernel.lowered.arguments(values, pointer) for arg in found)
        self.launches.append(Recorded(kernel.lowered.kernel, args, grid, tuple(buffers)))


def _buffer(tensor: torch.Tensor) -> Buffer:
    dtype = str(tensor.dtype).removeprefix("torch.")
    size = tensor.untyped_storage().nbytes() // tensor.element_size()
    values = None
    if tensor.device.type == "cpu" and not tensor.is_floating_point():
        values = tensor.detach().as_strided((size,), (1,), 0).numpy().copy()
    return Buffer(dtype, size, values)


def empty(shape: Sequence[int], dtype: str) -> torch.Tensor:
    """Return a contiguous tensor without memory."""
    return torch.empty(*shape, dtype=getattr(torch, dtype), device="meta")


def descriptor(tensor: torch.Tensor, block_shape: list[int]) -> Any:
    """Return a tensor descriptor as host code makes it."""
    return TensorDescriptor.from_tensor(tensor, block_shape)
