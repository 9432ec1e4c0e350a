"""The device that is a GPU: torch for memory, streams, events and graphs, Triton's own launcher for kernels.

The judge's binary is loaded as it is, with the metadata of its compilation. Nothing is compiled here: no compiler reads
text that a candidate can influence in the process that holds the clock. Written from the sources of Triton 3.6 to 3.9
(``compiler/compiler.py``, ``backends/nvidia/driver.py`` and ``driver.c``); it has not run on a GPU.
"""

import gc
import json
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import torch
import triton
from triton.backends.nvidia.compiler import get_ptxas
from triton.backends.nvidia.driver import TMA_DTYPE_DEVICE_TO_HOST
from triton.compiler.compiler import CompiledKernel
from triton.runtime.errors import OutOfResources

from avo.evaluator.binary import Binary
from avo.evaluator.cuda.cards import Card
from avo.evaluator.cuda.clock import SmClock
from avo.evaluator.cuda.device import (
    Clocks,
    DeviceFault,
    Enqueue,
    LoadedKernel,
    MachineFault,
    NotRecorded,
    PlanFault,
    Setup,
    Took,
)
from avo.evaluator.cuda.nvml import Nvml, NvmlMissing
from avo.evaluator.cuda.runtime import Cuda
from avo.evaluator.cuda.start import Driver, building
from avo.evaluator.plan import Argument, Descriptor, KernelIR, Pointer, Scalar

FLUSH_BYTES = 2**28
"""Overwritten and read between timed runs to empty the cache; twice the L2 cache where that is more."""
_SCRATCH_BYTE = 0xFF
"""Fills memory that kernels get from Triton's allocator: read as floats, it is NaN."""
TIMED = "avo timed run"
"""NVTX range around each timed run, by which profilers find them."""
_EMPTY_RUNS = 9
_AT_ONCE_S = 0.01
"""How long the device may work on what is enqueued before the host looks at its clock again."""
_NOT_SUPPORTED = 801
"""``CUDA_ERROR_NOT_SUPPORTED`` of cuda.h: a part of a GPU, under MIG, has no persisting cache lines."""
_TENSOR_MAP = "nvTmaDesc"
_LAUNCHER_TYPES = {"f16": "fp16", "f64": "fp64"}
"""MLIR's names of types, to those that Triton's launcher has for them."""
T = TypeVar("T")
_TF32 = 11
"""CU_TENSOR_MAP_DATA_TYPE_TFLOAT32 of the CUDA driver."""
_INT_BITS = {"i1": 8, "i8": 8, "i16": 16, "i32": 32, "i64": 64}


class TritonDevice:
    """The device that ``cuda`` reaches, by default the current one of this process; ``flush_bytes``: see
    ``FLUSH_BYTES``; ``alone``: no other process of ours needs it meanwhile. Raises ``MachineFault`` when there is none
    to measure on.
    """

    def __init__(self, cuda: Cuda | None = None, flush_bytes: int = FLUSH_BYTES, *, alone: bool = False) -> None:
        self._cuda = cuda or Cuda()
        self.place = self._cuda.place
        properties = self._cuda.properties()
        with building():
            limits = triton.runtime.driver.active.utils.get_device_properties(self._cuda.index)
        self._nvml = _answer(lambda: Nvml(str(properties.uuid)))
        self._clocks: Clocks | None = None
        self.card = Card(
            name=properties.name,
            arch=10 * properties.major + properties.minor,
            sms=properties.multi_processor_count,
            l2_bytes=properties.L2_cache_size,
            # CUDA's figure is below what some cards boost to, where an honest kernel would seem impossible.
            max_clock_ghz=max(limits["sm_clock_rate"] / 1e6, ((self._nvml and self._nvml.most_mhz()) or 0) / 1e3),
            # Two transfers a clock: as triton.testing.get_dram_gbps.
            hbm_bytes_per_s=limits["mem_clock_rate"] * 1e3 * limits["mem_bus_width"] * 2 / 8,
            driver=(self._nvml and _answer(self._nvml.driver)) or "",
            uuid=str(properties.uuid),
        )
        self._driver = Driver(self._cuda.driver, self._cuda.index)
        self._driver.check_sharing(alone=alone)
        assembler = self._driver.check_assembler(self.card.arch, self.card.driver)
        os.environ.update(assembler)
        self.card = replace(self.card, assembler=assembler)
        self.setup = Setup(
            f"CUDA {self._driver.cuda()}, torch {torch.__version__}, Triton {triton.__version__}, "
            f"ptxas {get_ptxas(self.card.arch).version}",
            None if self._nvml is None else self._nvml.power_limit_w(),
            0.0,
        )
        self._flushed = torch.zeros(max(flush_bytes, 2 * self.card.l2_bytes) // 4, dtype=torch.int32, device=self.place)
        self._sm_clock = SmClock(self._cuda, self._driver, self.card.arch, self.card.sms)
        self._events = [self._cuda.event() for _ in range(2)]
        self._scratch: list[torch.Tensor] = []
        triton.set_allocator(self._allocate)
        self._empty_s = 0.0
        # No candidate's kernel has run yet that could influence this.
        self._empty_s = statistics.median(self.time(lambda: None).wall_s for _ in range(_EMPTY_RUNS))
        self.setup = replace(self.setup, overhead_s=self._overhead_s())

    def _overhead_s(self) -> float:
        """Return what an empty graph takes by the events. Raises ``MachineFault`` where none can be recorded."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The CUDA Graph is empty")
            try:
                empty = self.record(lambda: None)
            except NotRecorded as error:  # after that nothing can be trusted in this process: see ``Runs.time``
                raise MachineFault(f"CUDA does not even record an empty graph: {error}") from None
            return statistics.median(self.time(empty).seconds for _ in range(_EMPTY_RUNS))

    def _allocate(self, size: int, alignment: int, stream: int | None) -> torch.Tensor:
        """Return memory that a kernel asks for, to build descriptors in; see triton.runtime._allocation."""
        scratch = torch.empty(size, dtype=torch.uint8, device=self.place)
        if self._cuda.capturing():
            self._scratch.append(scratch)  # the graph keeps its address: poisoned before every replay
        else:
            scratch.fill_(_SCRATCH_BYTE)
        return scratch

    def load(self, ir: KernelIR, binary: Binary) -> LoadedKernel:
        """Return the binary behind Triton's launcher."""
        metadata = json.loads(binary.launch)
        types = [launcher_type(kind) for kind in metadata.pop("signature")]
        descriptors = metadata.get("tensordesc_meta") or []
        # The plan gives every parameter of the IR, so the launcher must not expand descriptors into several.
        metadata["tensordesc_meta"] = None
        with tempfile.TemporaryDirectory() as folder:
            files = {"kernel.json": Path(folder, "kernel.json"), "kernel.cubin": Path(folder, "kernel.cubin")}
            files["kernel.json"].write_text(json.dumps(metadata))
            files["kernel.cubin"].write_bytes(binary.cubin)
            source = SimpleNamespace(signature=dict(enumerate(types)))
            compiled = CompiledKernel(source, {name: str(path) for name, path in files.items()}, "")
        try:
            with building():  # up to Triton 3.7 there is a launcher for each signature
                compiled._init_handles()
        except OutOfResources as error:
            raise DeviceFault(f"kernel {ir.name}: {error}") from None
        except RuntimeError as error:  # the driver runs what the assembler makes, but not this
            raise MachineFault(f"kernel {ir.name} is not loaded: {error}") from None

        def launch(grid: tuple[int, int, int], arguments: Sequence[Argument], buffers: Sequence[torch.Tensor]) -> None:
            try:
                values = placed(arguments, types, buffers, descriptors)
            except (ValueError, TypeError, OverflowError) as error:
                raise PlanFault(f"kernel {ir.name}: its arguments do not fit its parameters: {error}") from None
            compiled[grid](*values)

        return launch

    def record(self, enqueue: Enqueue) -> Enqueue:
        """Return the work as a CUDA graph's replay.

        Not everything can be captured: on some cards and drivers, launches with ``launch_pdl`` are said to fail
        (https://github.com/sgl-project/sglang/pull/18596, on RTX 5090).
        """
        collecting = gc.isenabled()
        gc.disable()  # a kernel that is garbage-collected now would unload its module, which capture forbids
        try:
            return self._cuda.capture(enqueue)
        except RuntimeError as error:
            self.synchronize()  # raises where the device is broken, and not the capture alone
            raise NotRecorded(str(error).strip().splitlines()[0][:300]) from None
        finally:
            if collecting:
                gc.enable()

    def sustain(self, enqueue: Enqueue, seconds: float) -> None:
        """Run the work for so long, in batches, so that the device is never idle for long."""
        began = now = time.perf_counter()
        batch = 1
        while now < began + seconds:
            for _ in range(batch):
                enqueue()
            self.synchronize()
            before, now = now, time.perf_counter()
            batch = max(1, min(1000, int(batch * _AT_ONCE_S / max(now - before, 1e-6))))

    def time(self, enqueue: Enqueue) -> Took:
        """Return the time between events around ``enqueue``, on a cold L2 cache without persisting lines."""
        code = self._cuda.driver.cuCtxResetPersistingL2Cache()
        if code not in (0, _NOT_SUPPORTED):
            raise RuntimeError(f"cuCtxResetPersistingL2Cache: {self._driver.words(code)}")
        for scratch in self._scratch:
            scratch.fill_(_SCRATCH_BYTE)
        self.synchronize()
        began = time.perf_counter()
        # Without waiting, so that the host has enqueued the run before the device reaches it.
        self._flushed.fill_(1)  # erases what a kernel may have kept here
        self._flushed.sum()  # evicts the lines just written: a run must not pay for writing them back
        start, end = self._events
        self._sm_clock.read(0)
        with self._cuda.range(TIMED):
            start.record()
            enqueue()
            end.record()
        self._sm_clock.read(1)
        end.synchronize()
        wall_s = time.perf_counter() - began - self._empty_s
        clocks = None if self._nvml is None else _answer(self._nvml.clocks)
        self._clocks = clocks and replace(clocks, mean_mhz=self._sm_clock.mhz())
        return Took(start.elapsed_time(end) / 1e3, wall_s)

    def clocks(self) -> Clocks | None:
        """Return what NVML said just after the last timed run, with the SM clock during it."""
        return self._clocks

    def trouble(self) -> str:
        """Return errors of the hardware that NVML knows of."""
        return "" if self._nvml is None else self._nvml.trouble()

    def synchronize(self) -> None:
        """Wait for the device."""
        self._cuda.synchronize()


def _answer(ask: Callable[[], T]) -> T | None:
    """Return NVML's answer, None where it has none."""
    try:
        return ask()
    except NvmlMissing:
        return None


def launcher_type(kind: str) -> str:
    """Return the name by which Triton's launcher knows a parameter's type in the IR.

    Pointers are passed as addresses and tensor descriptors as ready-made tensor maps.
    """
    if "tensordesc" in kind:
        return _TENSOR_MAP
    return "*i8" if kind.startswith("*") else _LAUNCHER_TYPES.get(kind, kind)


def placed(
    arguments: Sequence[Argument],
    types: Sequence[str],
    buffers: Sequence[torch.Tensor],
    descriptors: Sequence[Mapping[str, Any]],
) -> list[Any]:
    """Return a plan's arguments as the launcher takes them.

    ``descriptors`` are the layouts in shared memory that the compiler chose, one per tensor descriptor in order. Raises
    ``TypeError``, ``ValueError`` or ``OverflowError`` for arguments that are not of their parameters' kinds.
    """
    layouts = iter(descriptors)
    values: list[Any] = []
    for argument, kind in zip(arguments, types, strict=True):
        wanted = Pointer if kind.startswith("*") else Descriptor if kind == _TENSOR_MAP else Scalar
        if not isinstance(argument, wanted):
            raise TypeError(f"a {type(argument).__name__.lower()} for a {wanted.__name__.lower()}")
        if isinstance(argument, Pointer):
            values.append(buffers[argument.buffer].data_ptr() + argument.byte_offset)
        elif isinstance(argument, Scalar):
            values.append(_scalar(argument.value, kind))
        else:
            values.append(_tensor_map(argument, buffers[argument.buffer], next(layouts, None)))
    return values


def _scalar(value: int | float | bool, kind: str) -> int | float:
    """Return a number of the parameter's type; integers are wrapped to what its bits hold."""
    if kind not in _INT_BITS:
        return float(value)
    bits = _INT_BITS[kind]
    below = 0 if bits == 8 else 1 << (bits - 1)  # Triton 3.6 reads bytes without a sign, newer ones either way
    return (int(value) + below) % (1 << bits) - below


def _tensor_map(descriptor: Descriptor, base: torch.Tensor, layout: Mapping[str, Any] | None) -> Any:
    """Return a tensor map, made as ``make_tensordesc_arg`` in triton/backends/nvidia/driver.py makes it."""
    if layout is None or layout["fp4_padded"] or layout.get("is_im2col"):
        raise TypeError("a tensor descriptor of a kind that plans do not have")
    utils = triton.runtime.driver.active.utils
    fill = getattr(utils, "fill_tma_descriptor_tiled", None) or utils.fill_tma_descriptor  # since 3.7, before
    return fill(
        base.data_ptr() + descriptor.byte_offset,
        layout["swizzle"],
        layout["elem_size"],
        _TF32 if descriptor.rounds_tf32 else TMA_DTYPE_DEVICE_TO_HOST[layout["elem_type"]],
        layout["block_size"],
        list(descriptor.shape),
        list(descriptor.strides),
        int(descriptor.padding == "nan"),
    )
