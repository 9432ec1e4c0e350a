"""Launches as a session records them, what is predicted of them, and the stand-in for a compiled kernel."""

import functools
import hashlib
import math
from collections import UserDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from triton import knobs
from triton.compiler.compiler import CompiledKernel
from triton.tools.disasm import get_sass

from avo.evaluator.binary import Binary
from avo.evaluator.compiling.compiler import OFFLINE_OPTIONS, Compiler
from avo.evaluator.compiling.frontend import Lowered
from avo.evaluator.compiling.limits import fit, fit_together
from avo.evaluator.compiling.residency import resources
from avo.evaluator.evaluation import Fault, Resources
from avo.evaluator.executor.execution import Execution
from avo.evaluator.executor.faults import MemoryFault
from avo.evaluator.executor.order import Difference
from avo.evaluator.locations import relocated
from avo.evaluator.offline.errors import OfflineError
from avo.evaluator.performance import ModelError, PredictedTime, Timing
from avo.evaluator.performance.launch import predict_launch
from avo.evaluator.plan import KernelIR
from avo.evaluator.target import Target
from avo.evaluator.work import Counted, LaunchWork


@dataclass(frozen=True)
class Launch:
    """One launch that was executed or only counted, or that was skipped as unsupported."""

    kernel: str
    """Name of the jit function."""
    grid: tuple[int, int, int]
    lowered: KernelIR
    target: Target
    constants: Mapping[str, object]
    """Compile-time arguments by name."""
    ir: str = ""
    """The IR that was executed or counted, ``""`` if the launch was skipped."""
    execution: Execution | None = None
    """Findings of the execution; None if the launch was only counted, or skipped."""
    counted: Counted | None = None
    """What its programs ask for; None if the launch was skipped, or does what cannot be counted."""
    readable_bytes: int = 0
    """Distinct bytes of the tensors that it may read."""
    writable_bytes: int = 0
    """Distinct bytes of the tensors that it may write to."""
    unsupported: str = ""
    """Why the launch was skipped, ``""`` if it was not."""
    differences: tuple[Difference, ...] = ()
    """Where a shuffled order of programs gives other bits, if that was tried."""
    config: str = ""
    """The configuration that an autotuner was trying, if it tries all."""

    @property
    def programs(self) -> int:
        """Number of programs in the grid."""
        return math.prod(self.grid)

    @property
    def faults(self) -> tuple[MemoryFault, ...]:
        """The faults of this launch."""
        return self.execution.faults if self.execution else ()

    @property
    def notes(self) -> tuple[MemoryFault, ...]:
        """Findings that are not faults."""
        return self.execution.notes if self.execution else ()

    @property
    def options(self) -> dict[str, int | float | str | bool | None]:
        """Launch options such as ``num_warps``."""
        return self.lowered.option

    @property
    def binary(self) -> Binary:
        """The kernel compiled for the target. Raises ``OfflineError`` if it does not compile."""
        binary = compiled(self.lowered, self.target)
        if isinstance(binary, Fault):
            raise OfflineError(binary.message)
        return binary

    @property
    def cubin(self) -> bytes:
        """The GPU binary. Raises like ``binary``."""
        return self.binary.cubin

    @property
    def resources(self) -> Resources:
        """Registers, shared memory and occupancy on the target. Raises like ``binary``."""
        return resources(self.binary, self.target)

    @property
    def work(self) -> LaunchWork:
        """What the launch asks of the target. Raises like ``binary``, and ``OfflineError`` where it is not known."""
        if self.counted is None:
            why = f"skipped: {self.unsupported}"
            if self.execution:
                why = f"not counted: {self.execution.uncounted or 'what the compiler made of it was executed'}"
            raise OfflineError(f"a launch of kernel {self.kernel} was {why}")
        return self.counted.of(self.binary, self.programs)

    def predict(self, cold: bool = True, graph: bool = False) -> PredictedTime:
        """Return the predicted time on the target, in microseconds ``us``, with its range ``low_us`` to ``high_us``.

        With ``cold``, L2 is overwritten before each launch, as ``triton.testing.do_bench`` does; without, it holds what
        the launch before, the same one, left there. With ``graph``, launches are replayed from a CUDA graph.

        Raises ``OfflineError`` if the launch was skipped or does not compile, and ``ModelError`` if the target's driver
        would not launch it or its binary cannot be modelled.
        """
        if self.options.get("clc"):
            raise ModelError(
                f"kernel {self.kernel} is launched with clc=True: who takes over whose work is not modelled"
            )
        work = self.work
        if self.misfit:
            raise ModelError(self.misfit)
        timing = Timing(cold, graph)
        return predict_launch(work, self.target, self.readable_bytes, self.writable_bytes, timing)

    @property
    def misfit(self) -> str:
        """Why the kernel cannot be launched over this grid on the target, ``""`` if it can."""
        return misfit(self.lowered, self.target, self.programs)


@functools.cache
def _compiler() -> Compiler:
    return Compiler(Path(knobs.cache.dir) / "offline", options=OFFLINE_OPTIONS)


@functools.lru_cache(maxsize=256)
def compiled(kernel: KernelIR, target: Target) -> Binary | Fault:
    """Return the binary of a kernel, or why there is none. Raises ``EvaluatorUnavailable``."""
    return _compiler().compile(kernel, target)


def misfit(kernel: KernelIR, target: Target, programs: int = 1) -> str:
    """Return why a kernel does not compile for the target or ``programs`` of it do not fit, ``""`` if they do."""
    binary = compiled(kernel, target)
    if isinstance(binary, Fault):
        return binary.message
    fault = fit(binary, target) or fit_together(kernel, programs, binary, target)
    return fault.message if fault else ""


Execute = Callable[["OfflineKernel", tuple[int, int, int], tuple[Any, ...]], None]


@dataclass(eq=False)
class OfflineKernel:
    """Stands in for a compiled kernel; what host code asks of it is compiled on demand."""

    src: Any
    lowered: Lowered
    target: Target
    execute: Execute = field(repr=False)

    function = None
    packed_metadata = None
    module = None
    n_max_threads = 1024

    @property
    def name(self) -> str:
        """Symbol of the kernel."""
        return self.lowered.kernel.name

    @property
    def hash(self) -> str:
        """What tells it from other compiled kernels."""
        return hashlib.sha256(repr((self.lowered.kernel, self.target.name)).encode()).hexdigest()

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the Python parameters."""
        return tuple(self.src.signature)

    @property
    def constants(self) -> dict[str, object]:
        """Compile-time arguments by name."""
        return {self.parameters[path[0]]: value for path, value in self.src.constants.items() if len(path) == 1}

    def launch_metadata(self, grid: object, stream: object, *args: object) -> Any:
        """Return what hooks are told of a launch, as Triton makes it; it takes a compilation. None if none listens."""
        listening = knobs.runtime.launch_enter_hook, knobs.runtime.launch_exit_hook
        if not any(getattr(hook, "calls", hook) for hook in listening):  # chains, single hooks before Triton 3.5
            return None
        return CompiledKernel.launch_metadata(self, grid, stream, *args)

    def run(self, x: Any, y: Any, z: Any, stream: object, function: None, *rest: Any) -> None:
        """Execute the kernel between the hooks.

        ``rest`` has metadata, what hooks are told and the two hooks, as for a real launcher, then one value per
        parameter.
        """
        _, told, enter, leave, *values = rest
        if enter is not None:
            enter(told)
        self.execute(self, (int(x), int(y), int(z)), tuple(values))
        if leave is not None:
            leave(told)

    def __getitem__(self, grid: Any) -> Callable[..., None]:
        def launch(*args: Any, stream: object = None) -> None:
            told = self.launch_metadata(grid, stream, *args)
            hooks = knobs.runtime.launch_enter_hook, knobs.runtime.launch_exit_hook
            self.run(*(*grid, 1, 1)[:3], stream, None, None, told, *hooks, *args)

        return launch

    def _init_handles(self) -> None:
        """Do nothing: there is no module to load."""

    @property
    def _binary(self) -> Binary:
        binary = compiled(self.lowered.kernel, self.target)
        if isinstance(binary, Fault):
            raise OfflineError(binary.message)
        return binary

    @property
    def n_regs(self) -> int:
        """Registers per thread."""
        return self._binary.registers

    @property
    def n_spills(self) -> int:
        """Spilled values, in units of 4 bytes per thread."""
        return self._binary.spill_bytes // 4

    @property
    def metadata(self) -> Any:
        """The part of a compiled kernel's metadata that host code reads."""
        binary = self._binary
        options = self.lowered.kernel.option
        return SimpleNamespace(
            **{**options, "name": binary.name, "shared": binary.shared_bytes, "tmem_size": binary.tensor_memory_columns}
        )

    @property
    def compiled_ir(self) -> str:
        """The last Triton GPU IR that the compiler makes of the kernel. Raises ``OfflineError`` if it makes none."""
        return relocated(self._binary.ttgir, self.lowered.kernel.ttir)

    @functools.cached_property
    def asm(self) -> "_Texts":
        """The texts ``source``, ``glir`` or ``ttir``, ``ttgir``, ``llir``, ``ptx`` and ``sass``, and the ``cubin``."""
        binary, source, kernel = self._binary, self.lowered.source, self.lowered.kernel
        first = {"source": source, self.src.ext: source, kernel.level.value: kernel.ttir}
        further = {"ttgir": self.compiled_ir, "llir": self._llvm_ir, "ptx": binary.ptx, "cubin": binary.cubin}
        return _Texts(first | further | {"sass": lambda: get_sass(binary.cubin)})

    def _llvm_ir(self) -> str:
        text = _compiler().llvm_ir(self.lowered.kernel, self.target)
        if isinstance(text, Fault):
            raise OfflineError(text.message)
        return text


class _Texts(UserDict[str, Any]):
    """What a kernel is on its way to machine code; a function makes what takes time, once it is asked for."""

    def __getitem__(self, key: str) -> Any:
        value = super().__getitem__(key)
        if callable(value):
            value = self.data[key] = value()
        return value
