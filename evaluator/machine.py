"""What this machine has for judging: a compiler and a sandbox that work, a GPU, and libraries to compare with on it."""

import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING

from avo.evaluator import cuda
from avo.evaluator.binary import Binary
from avo.evaluator.capture import Capturer
from avo.evaluator.catalogue import get_problem
from avo.evaluator.compiling.compiler import Compiler
from avo.evaluator.errors import EvaluatorUnavailable
from avo.evaluator.evaluation import Fault
from avo.evaluator.evaluators import Tell
from avo.evaluator.plan import LaunchPlan
from avo.evaluator.problem import Case, Problem
from avo.evaluator.sandbox.memory import free_bytes as free_bytes
from avo.evaluator.target import Target

if TYPE_CHECKING:
    from avo.evaluator.cuda.baselines import Found
    from avo.evaluator.cuda.nvml import CardState as CardState


def strain() -> str:
    """Return in words what may keep processes from starting: the load of the last minute, and the free memory."""
    whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    memory = f"{free_bytes() / 2**30:.1f} of {whole / 2**30:.1f} GiB of memory free"
    return f"load average {os.getloadavg()[0]:.1f} on {len(os.sched_getaffinity(0))} cores, {memory}"


def try_kernel(source: str, target: Target) -> Iterator[LaunchPlan | Binary | Fault]:
    """Yield the launch plan of a candidate for ``mha``, as captured in the sandbox, and the binary of its kernel.

    A fault instead of either is the last. Raises ``EvaluatorUnavailable`` when no child process starts.
    """
    problem = get_problem("mha")
    call = problem.call(problem.correctness_cases[0])
    with closing(Capturer()) as capturer, closing(Compiler(None)) as compiler:
        plans = capturer.capture(source, problem.entry, [call], target)
        if isinstance(plans, Fault):
            yield plans
            return
        yield plans[0]
        yield compiler.compile(plans[0].kernels[0], target)


def choose_gpus(devices: str) -> None:
    """Let this process and its children see these GPUs alone, of which one judge measures on the first.

    ``devices`` are numbers as ``nvidia-smi`` counts, or uuids, separated by commas. Must come before anything looks.
    """
    os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # else CUDA counts the fastest first
    os.environ["CUDA_VISIBLE_DEVICES"] = devices


def gpus() -> "list[CardState]":
    """Return all GPUs, as the driver describes them; raise ``EvaluatorUnavailable`` where no driver answers."""
    from avo.evaluator.cuda import nvml

    try:
        return nvml.cards()
    except nvml.NvmlMissing as error:
        raise EvaluatorUnavailable(str(error)) from None


def try_gpu(uuid: str) -> None:
    """Run an empty kernel on a GPU; raise ``EvaluatorUnavailable`` with what the driver says where that fails."""
    from avo.evaluator.cuda.contender import ask_card

    ask_card(device=uuid)


def gpu_clocks(*, measured: bool) -> str:
    """Return the SM clock of the GPU that is measured on, or else of the driver's first, and what holds it down.

    Raises ``EvaluatorUnavailable`` where the driver does not tell.
    """
    from avo.evaluator.cuda import nvml

    try:
        clocks = nvml.Nvml(cuda.card().uuid if measured else None).clocks()
    except nvml.NvmlMissing as error:
        raise EvaluatorUnavailable(str(error)) from None
    return f"SM {clocks.sm_mhz} MHz, held down by: {nvml.in_words(clocks.reasons)}"


def library_speeds(problem: Problem, cases: Sequence[Case], tell: Tell, *, sustained: bool) -> "list[Found]":
    """Return what libraries reach on this machine's GPU, which no judge measures on meanwhile; ``tell`` hears which one
    is timed. ``sustained``: see ``avo.evaluator.cuda.measuring.Stopwatch``.

    Raises ``EvaluatorUnavailable`` where there is no such GPU, or a judge measures on it.
    """
    import random
    import secrets

    from avo.evaluator.cuda.baselines import measure
    from avo.evaluator.cuda.contender import start_worker
    from avo.evaluator.cuda.holding import Place
    from avo.evaluator.cuda.libraries import LIBRARIES

    chance = random.Random(secrets.randbits(64))
    with Place(cuda.card()):
        return [
            measure(start_worker, problem, cases, library, chance, sustained=sustained, tell=tell)
            for library in LIBRARIES
        ]
