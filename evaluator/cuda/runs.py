"""Runs opened plans on a device: canary, first launch, graph, stretch, timed runs, and the verification of each."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch

from avo.evaluator.cuda.blame import first_line, is_machines, is_too_much
from avo.evaluator.cuda.device import (
    Clocks,
    Device,
    DeviceFault,
    Enqueue,
    HostFault,
    KernelFault,
    MachineFault,
    Timed,
    Took,
)
from avo.evaluator.cuda.running import Running
from avo.evaluator.evaluation import Fault
from avo.evaluator.judging.compare import Checked

FIRST = 2**61
"""Bit by which the seed of a first launch differs from that of the first run after it."""
_TOO_MUCH = "kernels ask for more memory at launch than the GPU has left"


class Runs:
    """What runs on one device, by its case. ``watch`` hears when kernels begin to run, and when they have ended.

    What goes wrong meanwhile is raised: as ``KernelFault``, as ``DeviceFault`` where memory is short, and as
    ``MachineFault`` where no kernel brings it about.
    """

    def __init__(self, device: Device, watch: Callable[[bool], None]) -> None:
        self._device, self._watch = device, watch
        self._running: dict[str, Running] = {}
        self._replays: dict[tuple[str, bool], Enqueue] = {}
        """What enqueues the work of a case, with a graph or without."""

    def open(self, case: str, running: Running) -> None:
        """Take what runs for ``case``, a name of the caller's, instead of what was opened by that name before."""
        self.forget(case)
        self._running[case] = running

    def check(self, case: str, seed: int) -> Checked:
        """Run it once, and compare everything that it should have written."""
        running = self._running[case]
        return self._run(running, seed, running.enqueue, whole=True)

    def time(self, case: str, seeds: Sequence[int], stretch_s: float, graph: bool) -> Timed | Fault:
        """Run it once for each seed, on new inputs, poisoned memory and a cold cache; time and verify each run.

        Before each, it runs for ``stretch_s`` on the inputs of the run before, so that the clock is the one it
        has under lasting work. They are not those of the timed run: what it needs could be worked out during the
        stretch. With ``graph`` the runs are replays of a graph, unless there is none of such work.

        Raises ``NotRecorded`` where recording the graph fails. torch may then be as it was within, its allocator too,
        and its stream the one that is recorded: nothing is to be run in this process any more.
        """
        running = self._running[case]
        # On other inputs than those of the first run: a stretch on them comes before it.
        if (case, False) not in self._replays and (fault := self._first(case, running, seeds[0] ^ FIRST)):
            return fault
        graph, ungraphed = graph and not running.ungraphed, running.ungraphed if graph else ""
        if graph and (case, True) not in self._replays:
            with self.watched():
                self._replays[case, True] = self._device.record(running.enqueue)
        replay = self._replays[case, graph]
        runs: list[Took] = []
        clocks: list[Clocks] = []

        def timed() -> None:
            runs.append(self._device.time(replay))

        for seed in seeds:
            if stretch_s:
                with self.watched():
                    self._device.sustain(replay, stretch_s)
            if fault := self._run(running, seed, timed, again=replay).fault:
                return fault
            if (sampled := self._device.clocks()) is not None:
                clocks.append(sampled)
        return Timed(tuple(runs), tuple(clocks), ungraphed)

    def _first(self, case: str, running: Running, seed: int) -> Fault | None:
        """Launch it a first time, which loads code.

        The launch's result is the canary: after it was found correct, a wrong number in it must be noticed.
        """
        if fault := self._run(running, seed, running.enqueue).fault:
            return fault
        running.spoil()
        if not running.verify().fault:
            raise AssertionError("a number that was made wrong was accepted as right")
        self._replays[case, False] = running.enqueue
        return None

    def _run(
        self, running: Running, seed: int, enqueue: Enqueue, *, whole: bool = False, again: Enqueue | None = None
    ) -> Checked:
        """Run it on the inputs of ``seed``, and compare what it wrote.

        A wrong result is run ``again`` on the same inputs: one that is then right is not put down to the kernel alone,
        as some releases of Triton make code for some cards that is not deterministic
        (https://github.com/triton-lang/triton/issues/9871, B200 with Triton 3.6; /issues/10590, B300 with 3.7).
        """
        found = self._once(running, seed, enqueue, whole)
        if found.fault is None or self._once(running, seed, again or enqueue, whole).fault:
            return found
        why = (
            f"{found.fault.message}; run again on the same inputs, it was right: the kernel has a race, or this Triton "
            "makes code of it that is not deterministic on this card"
        )
        return replace(found, fault=replace(found.fault, message=why))

    def _once(self, running: Running, seed: int, enqueue: Enqueue, whole: bool) -> Checked:
        running.renew(seed, whole=whole)
        with self.watched():
            running.prepare()
            enqueue()
        running.collect()
        return running.verify()

    def forget(self, case: str) -> None:
        """Forget it, if it was opened, and free its memory."""
        self._running.pop(case, None)
        for graph in (False, True):
            self._replays.pop((case, graph), None)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Tell the parent while kernels run; what goes wrong meanwhile is their fault, if it can be."""
        self._watch(True)
        try:
            yield
            self._device.synchronize()
        except torch.OutOfMemoryError as error:
            raise DeviceFault(f"{_TOO_MUCH}: {first_line(error)}") from None
        except HostFault:
            raise
        except RuntimeError as error:
            raise _blamed(error, self._device.trouble()) from None
        self._watch(False)


def _blamed(error: RuntimeError, trouble: str) -> Exception:
    """Return what an error of CUDA, torch or Triton's launcher means while kernels run; see ``Device.trouble``."""
    said = first_line(error)
    if trouble or is_machines(error):
        said = f"{said} ({trouble})" if trouble else said
        return MachineFault(
            f"the GPU reports: {said}: no kernel brings that about: nvidia-smi -q and dmesg (Xid) say more; "
            "nvidia-smi --gpu-reset, or restart the machine"
        )
    return DeviceFault(f"{_TOO_MUCH}: {said}") if is_too_much(error) else KernelFault(said)
