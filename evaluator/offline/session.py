"""Sessions: while one is open, every Triton kernel launched in the process is executed on the CPU, or only counted."""

import contextlib
import sys
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Literal

import torch
import triton
import triton.testing
from triton.compiler import make_backend

from avo.evaluator.allocation import Allocation
from avo.evaluator.compiling.frontend import Lowered, UnfitArgument, lower
from avo.evaluator.compiling.limits import fit_grid
from avo.evaluator.errors import EvaluatorUnavailable
from avo.evaluator.executor.errors import ExecutionTimeout, IRError, UnsupportedOperation
from avo.evaluator.executor.kernel import Kernel
from avo.evaluator.executor.launch import DEFAULT_TEMPORARIES
from avo.evaluator.executor.launch import Launch as Executed
from avo.evaluator.executor.loading import load
from avo.evaluator.executor.order import differences
from avo.evaluator.executor.progress import decides_waits, progress
from avo.evaluator.offline import device
from avo.evaluator.offline.autotuning import Disagreement, OfflineTuning
from avo.evaluator.offline.contents import Contents, Unfilled
from avo.evaluator.offline.errors import FaultsFound, OfflineError, Undecided
from avo.evaluator.offline.garbage import Garbage
from avo.evaluator.offline.launches import Launch, OfflineKernel, misfit
from avo.evaluator.offline.options import Options
from avo.evaluator.offline.patches import Patches, active
from avo.evaluator.offline.report import SessionReport
from avo.evaluator.offline.shadows import Shadows, Watch, watch_handovers
from avo.evaluator.offline.storages import Storages, distinct_bytes, excuse_neighbours
from avo.evaluator.offline.torch_state import leave_eager, plain_torch, threads
from avo.evaluator.offline.trials import CountedTuning, Trial
from avo.evaluator.plan import Argument
from avo.evaluator.target import Target
from avo.evaluator.targets import get_target

DEFAULT_DEADLINE_S = 600.0
_lowered: dict[tuple[str, str, int], Lowered] = {}


class OfflineSession:
    """A context in which kernels run on the CPU, from Triton IR. Create it with ``offline``; enter it once."""

    def __init__(self, target: str | Target, options: Options) -> None:
        self.target = target if isinstance(target, Target) else get_target(target)
        self.launches: list[Launch] = []
        self.trials: list[Trial] = []
        """With ``execute=False`` and ``autotune="all"``: what became of each configuration of autotuned kernels."""
        self._options = options
        self._disagreements: list[Disagreement] = []
        self._lock = threading.RLock()
        self._patches = Patches()
        counts_all = options.autotune == "all" and not options.execute
        self._tuning: OfflineTuning | CountedTuning = (
            CountedTuning(self) if counts_all else OfflineTuning(options.autotune, self)
        )
        self._shadows = Shadows() if options.sanitizes else None
        self._contents = None if options.execute else Contents()
        self._watch = Watch(self._shadows) if self._contents is None else Unfilled(self._contents)
        self._driver = device.OfflineDriver(self.target)
        self._touched: dict[Any, Any] = {}
        self._eager: Any = None
        self._config = ""
        self._open = True

    def __enter__(self) -> "OfflineSession":
        if triton.knobs.runtime.interpret:
            raise OfflineError("TRITON_INTERPRET is set: unset it, an offline session executes kernels from Triton IR")
        if not active.acquire(blocking=False):
            raise OfflineError("an offline session is open already: sessions neither nest nor run side by side")
        try:
            self._install()
        except BaseException:
            self._uninstall()
            raise
        self._watch.__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._watch.__exit__(kind, error, traceback)  # type: ignore[no-untyped-call]
        self._uninstall()

    def report(self) -> SessionReport:
        """Return the report so far."""
        with self._lock:
            launches, disagreements = tuple(self.launches), tuple(self._disagreements)
            sanitizes, executes = self._options.sanitizes, self._options.execute
            return SessionReport(self.target.name, sanitizes, launches, disagreements, executes)

    def take_report(self) -> SessionReport:
        """Return the report so far, and start a new one."""
        with self._lock:
            report = self.report()
            self.launches.clear()
            self._disagreements.clear()
            return report

    def fits(self, kernel: OfflineKernel) -> bool:
        """Whether a kernel can be launched on the target; assumed where nothing can be compiled."""
        try:
            return not misfit(kernel.lowered.kernel, self.target)
        except EvaluatorUnavailable:
            return True

    @contextlib.contextmanager
    def trying(self, config: str) -> Iterator[None]:
        """Return a context in which launches are recorded as trials of an autotuner's configuration."""
        self._config = config
        try:
            yield
        finally:
            self._config = ""

    def disagree(self, disagreement: Disagreement) -> None:
        """Record that two configurations give different results."""
        self._disagreements.append(disagreement)

    def _install(self) -> None:
        patches = self._patches
        device.present(patches, self.target, self._options.claim_cuda, self._options.check_devices)
        patches.set(triton.runtime.driver, "_active", self._driver)
        for name in ("do_bench", "do_bench_cudagraph", "do_bench_proton"):
            if hasattr(triton.testing, name):
                patches.set(triton.testing, name, device.run_once)
        patches.set(torch, "compile", leave_eager)
        if "torch._dynamo" in sys.modules:  # something may have been compiled already
            self._eager = torch.compiler.set_stance("force_eager")
        if self._shadows is not None:
            watch_handovers(patches, self._shadows)
        if self._contents is not None:
            self._contents.watch_reads(patches)
        self._tuning.install(patches)
        # JITFunction.create_binder imports the name when a function is first launched on a device.
        patches.set(triton.compiler, "compile", self._compiler(triton.compiler.compile))

    def _uninstall(self) -> None:
        self._patches.undo()
        if self._eager is not None:
            self._eager.__exit__(None, None, None)
        self._tuning.forget()
        for function in self._touched.values():
            function.device_caches.pop(self._driver.get_current_device(), None)
            function.compile = triton.compiler.compile
        self._touched.clear()
        self._open = False
        active.release()

    def _compiler(self, original: Any) -> Any:
        """Return a compiler for jit functions. They keep it, so it calls Triton's own once the session is closed."""

        def compile_offline(src: Any, target: Any = None, options: Any = None, **rest: Any) -> Any:
            if not self._open:
                return original(src, target=target, options=options, **rest)
            self._touched[id(src.fn)] = src.fn
            return self._lower(src, target, options)

        return compile_offline

    def _lower(self, src: Any, target: Any, options: Any) -> OfflineKernel:
        backend = make_backend(target)
        parsed = backend.parse_options(dict(options or {}))
        key = (src.hash(), str(sorted(parsed.__dict__.items(), key=str)), self.target.arch)
        with self._lock:
            if key not in _lowered:
                with plain_torch():
                    _lowered[key] = lower(src, backend, parsed, keep_source=True, places=True)
        return OfflineKernel(src, _lowered[key], self.target, self._launch)

    def _launch(self, kernel: OfflineKernel, grid: tuple[int, int, int], values: tuple[Any, ...]) -> None:
        """Execute or count one launch; a grid with a zero in it launches nothing."""
        name = kernel.src.fn.__name__
        if fault := fit_grid(name, grid):
            raise OfflineError(fault.message)
        if 0 in grid:
            return
        with self._lock, plain_torch(), threads(self._options.threads):
            try:
                launch = self._run(kernel, name, grid, values)
            except (UnsupportedOperation, Undecided) as error:
                if self._options.unsupported == "raise":
                    raise
                launch = self._record(kernel, name, grid, unsupported=str(error))
            except UnfitArgument as unfit:
                raise OfflineError(f"kernel {name} is given {unfit}") from None
            except (IRError, ExecutionTimeout) as error:
                raise type(error)(f"kernel {name}: {error}") from None
            self.launches.append(launch)
        if launch.faults and self._options.on_fault == "raise":
            raise FaultsFound(launch.faults)

    def _run(self, kernel: OfflineKernel, name: str, grid: tuple[int, int, int], values: tuple[Any, ...]) -> Launch:
        options = self._options
        storages = Storages(self._shadows, options.check_padding and options.sanitizes)
        memory, args = storages.lay_out(_arguments(kernel, values, storages))
        deadline = None if options.deadline_s is None else time.process_time() + options.deadline_s
        asked = Executed(memory, args, grid, deadline=deadline)
        text = kernel.compiled_ir if options.level == "compiled" else kernel.lowered.kernel.ttir
        try:
            executable = load(text, sms=self.target.sms)
        except UnsupportedOperation:
            self._lose(storages, range(len(memory)))
            raise
        read, written = executable.traced_accesses(args)
        if self._executes(storages, memory, read, written):
            outcome = self._execute(executable, asked)
            storages.ran()
        else:
            try:
                outcome = self._count(executable, asked, name, storages)
            finally:
                self._lose(storages, written)
        return self._record(
            kernel,
            name,
            grid,
            ir=text,
            readable_bytes=sum(distinct_bytes(memory[buffer]) for buffer in read),
            writable_bytes=sum(distinct_bytes(memory[buffer]) for buffer in written),
            **outcome,
        )

    def _execute(self, executable: Kernel, asked: Executed) -> dict[str, Any]:
        """Execute a launch; return what is found, by fields of ``Launch``."""
        options = self._options
        asked = replace(asked, temporaries_bytes=options.temporaries_bytes)
        differing = differences(executable, asked) if options.check_order else ()
        fresh = any(asked.memory[buffer].initialised is not None for buffer in executable.may_read(asked.args))
        garbage = Garbage(executable, asked) if fresh else None
        work = options.level == "source"
        waits, unplayed = None, ""
        try:
            if work and executable.takes_turns:
                waits = progress(executable, asked).waits
        except UnsupportedOperation as error:
            unplayed = str(error)
        execution = executable.run(asked, sanitize=options.sanitizes, count=options.count, work=work and not unplayed)
        if garbage is not None:
            execution = garbage.settle(execution)
        counted = execution.work and replace(execution.work, waits=waits)
        execution = replace(execution, uncounted=execution.uncounted or unplayed)
        return {"execution": excuse_neighbours(execution), "differences": differing, "counted": counted}

    def _count(self, executable: Kernel, asked: Executed, name: str, storages: Storages) -> dict[str, Any]:
        """Count the work of a launch; return it, by fields of ``Launch``.

        Raises ``Undecided`` if it depends on contents that were never made how often the kernel loops.
        """
        for buffer in executable.trip_dependencies(asked.args):
            if self._lacks(storages, (buffer,)):
                raise Undecided(
                    f"how often kernel {name} loops depends on {storages.names(buffer)}, whose contents were never "
                    "made: execute=False leaves them out"
                )
        counted = executable.count(asked)
        if executable.takes_turns and not self._lacks(storages, decides_waits(executable, asked.args)):
            counted = replace(counted, waits=progress(executable, asked).waits)
        if self._lacks(storages, executable.address_dependencies(asked.args)):
            counted = replace(counted, accesses=())
        return {"counted": counted}

    def _executes(
        self, storages: Storages, memory: Sequence[Allocation], read: Iterable[int], written: Collection[int]
    ) -> bool:
        """Whether a launch is executed. If it only writes integers that can be computed, it always is: they may decide
        what later launches do.
        """
        if self._contents is None:
            return True
        known = not self._lacks(storages, read)
        floats = any(memory[buffer].data.is_floating_point() for buffer in written)
        return known and bool(written) and not floats and not self._config

    def _lose(self, storages: Storages, buffers: Iterable[int]) -> None:
        """Record that a launch was to write to buffers and was not executed, unless it is an autotuner's trial."""
        if self._contents is not None and not self._config:
            for buffer in buffers:
                for tensor in storages.tensors(buffer):
                    self._contents.lose(tensor)

    def _lacks(self, storages: Storages, buffers: Iterable[int]) -> bool:
        """Whether the contents of some buffer were never made."""
        contents = self._contents
        return contents is not None and any(
            contents.lacks(tensor) for buffer in buffers for tensor in storages.tensors(buffer)
        )

    def _record(self, kernel: OfflineKernel, name: str, grid: tuple[int, int, int], **outcome: Any) -> Launch:
        outcome = {"execution": None, **outcome}
        return Launch(name, grid, kernel.lowered.kernel, self.target, kernel.constants, config=self._config, **outcome)


def offline(
    target: str | Target = "h100",
    *,
    level: Literal["source", "compiled"] = "source",
    execute: bool = True,
    sanitize: bool | None = None,
    on_fault: Literal["collect", "raise"] = "collect",
    unsupported: Literal["raise", "skip"] = "raise",
    autotune: Literal["fitting", "first", "all"] = "fitting",
    check_order: bool = False,
    check_padding: bool = True,
    check_devices: bool = False,
    count: bool = False,
    claim_cuda: bool = True,
    temporaries_bytes: int = DEFAULT_TEMPORARIES,
    deadline_s: float | None = DEFAULT_DEADLINE_S,
    threads: int | None = None,
) -> OfflineSession:
    """Return a context in which Triton kernels run on the CPU, from the IR made for ``target``.

    level               what is executed: the IR that the front end makes of the ``source``, or the last Triton GPU IR
                        that is ``compiled`` from it, pipelined and warp-specialised; its work is not counted
    execute             with False, launches are not executed: their work is counted, for ``launch.predict()``. Tensors
                        may be as large as real ones and cost nothing, because floating-point tensors of more than 2**22
                        elements, and all that is computed from them, have no contents. Integers and smaller tensors
                        have, and kernels that write nothing but integers are executed. Host code that reads contents
                        that were never made is refused with ``OfflineError``. Nothing is checked
    sanitize            look for races, reads of uninitialised memory and more, by default unless ``execute`` is False;
                        out-of-bounds accesses are always faults
    on_fault            ``collect`` faults for the report, or ``raise`` ``FaultsFound`` at the launch
    unsupported         ``raise`` ``UnsupportedOperation``, or ``skip`` the launch, outputs untouched, and report it. A
                        launch whose work depends on contents that were never made raises ``OfflineError`` or is skipped
    autotune            take the first configuration that compiles for and fits the target, the ``first`` that lowers,
                        or run ``all`` on copies and report which disagree, then take the first. With ``execute=False``,
                        ``all`` are counted, and ``session.trials`` has what became of each
    check_order         run each launch on copies in two orders of programs and report where bits differ
    check_padding       treat accesses to parts of a storage that belong to no tensor of the launch as faults
    check_devices       refuse kernels tensors that ``device="cpu"`` or ``.cpu()`` made, with Triton's ``ValueError``
    count               keep operations, bytes and sectors of every program in ``launch.execution.counts``
    claim_cuda          make tensors say that they are on ``cuda:0``
    temporaries_bytes   memory for the values of programs that run together
    deadline_s          processor seconds that one launch may take before ``ExecutionTimeout``
    threads             torch's threads during launches; None leaves their number as it is

    Raises ``UnknownTarget``, and ``OfflineError`` for options that exclude each other. Entering raises ``OfflineError``
    while another session is open.
    """
    options = Options(
        level=level,
        execute=execute,
        sanitize=sanitize,
        on_fault=on_fault,
        unsupported=unsupported,
        autotune=autotune,
        check_order=check_order,
        check_padding=check_padding,
        check_devices=check_devices,
        count=count,
        claim_cuda=claim_cuda,
        temporaries_bytes=temporaries_bytes,
        deadline_s=deadline_s,
        threads=threads,
    )
    return OfflineSession(target, options)


def _arguments(kernel: OfflineKernel, values: tuple[Any, ...], storages: Storages) -> list[Argument]:
    """Return the arguments of a launch; ``storages`` hears which parameter each belongs to."""
    args: list[Argument] = []
    names = iter(kernel.parameters)
    storages.name = next(names, "")
    for parameters in kernel.lowered.arguments(values, storages.pointer):
        args.extend(parameters)
        storages.name = next(names, "")
    return args
