"""``python -m avo.evaluator.cuda.baselines``: the speed of libraries on this card, timed as candidates are.

A library returns tensors of its own, which are compared after the clock has stopped. Most libraries do not return lse:
it is computed here, so only their out is judged. In a backward pass the gradients alone are timed, from an out that the
library computed before. None of this has run on a GPU yet.
"""

import argparse
import json
import random
import secrets
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from itertools import product
from pathlib import Path
from typing import Any

import torch

from avo.evaluator.catalogue import PROBLEMS, get_problem, get_suite, libraries_know
from avo.evaluator.cuda import CLOCK_HELP
from avo.evaluator.cuda.blame import first_line
from avo.evaluator.cuda.contender import WorkerContender
from avo.evaluator.cuda.device import Clocks, Device
from avo.evaluator.cuda.holding import hold
from avo.evaluator.cuda.libraries import LIBRARIES, Attend, Library
from avo.evaluator.cuda.measured import conditions
from avo.evaluator.cuda.measuring import Stopwatch, TimedCase, Timing, alike
from avo.evaluator.cuda.running import Inputs, Running
from avo.evaluator.cuda.worker import LocalLink, Say, Worker
from avo.evaluator.errors import EvaluatorError, EvaluatorUnavailable, UnknownProblem
from avo.evaluator.evaluation import CaseScore, Fault, Status
from avo.evaluator.evaluators import CLOCKS, Progress, Tell
from avo.evaluator.judging.speed import CompiledPlan
from avo.evaluator.plan import Buffer, LaunchPlan
from avo.evaluator.problem import Case, Problem
from avo.evaluator.problems.dense import softmax_scale

_LSE_ROWS = 1024


@dataclass(frozen=True)
class Found:
    """What was found about one library."""

    name: str
    version: str
    cases: tuple[CaseScore, ...] = ()
    conditions: str = ""
    failed: tuple[tuple[str, str], ...] = ()
    """The cases without figures, and why."""
    unavailable: str = ""
    """Why there are no figures at all."""

    @property
    def trouble(self) -> str:
        """Why figures are missing, in words; nothing where none are."""
        by_reason: dict[str, list[str]] = {}
        for case, why in self.failed:
            by_reason.setdefault(why.removeprefix(f"case {case}: "), []).append(case)
        failed = [f"{', '.join(cases)}: {why}" for why, cases in by_reason.items()]
        return self.unavailable or "; ".join(failed)


class LibraryRunning(Running):
    """A case that a library computes instead of a plan."""

    def __init__(self, device: Device, problem: Problem, case: Case, plan: LaunchPlan, attend: Attend) -> None:
        super().__init__(device, problem, case, plan, ())
        self._attend = attend
        self._result: torch.Tensor | None = None

    def enqueue(self) -> None:
        """Enqueue the library's work."""
        self._result = self._attend(*(self.view(name) for name in ("q", "k", "v")))

    def collect(self) -> None:
        """Copy what the library returned into ``out``, and compute lse for the heads that are compared."""
        assert self._result is not None
        self.view("out").copy_(self._result)
        self.view("lse").zero_()
        for batch, head in self.compared()["queries"].any(-1).nonzero().tolist():
            self._take_lse(batch, head)

    def _take_lse(self, batch: int, head: int) -> None:
        kv_head = head // (self.case.heads // self.case.kv_heads)
        self.view("lse")[batch, head] = lse(self.view("q")[batch, head], self.view("k")[batch, kv_head], self.case)


class GradientsRunning(LibraryRunning):
    """A case of a backward pass that a library computes by torch's autograd.

    It is given the out that the library itself computed, and the lse of the keys at hand: a candidate's may be of more.
    """

    ungraphed = "torch runs a backward pass on the stream of its forward pass, which is not recorded"

    def __init__(self, device: Device, problem: Problem, case: Case, plan: LaunchPlan, attend: Attend) -> None:
        super().__init__(device, problem, case, plan, attend)
        self._leaves: tuple[torch.Tensor, ...] = ()
        self._computed: dict[str, torch.Tensor] = {}
        self._gradients: tuple[torch.Tensor, ...] = ()

    def renew(self, seed: int, *, whole: bool = False) -> None:
        """See ``Running.renew``."""
        self._computed = {}
        super().renew(seed, whole=whole)

    def prepare(self) -> None:
        """Have the library compute out."""
        self._leaves = tuple(self.view(name).detach().requires_grad_() for name in ("q", "k", "v"))
        self._result = self._attend(*self._leaves)
        self.view("out").copy_(self._result.detach())
        for batch, head in product(range(self.case.batch), range(self.case.heads)):
            self._take_lse(batch, head)
        self._computed = {name: self.flat(name).clone() for name in ("out", "lse")}

    def enqueue(self) -> None:
        """Enqueue the library's backward pass."""
        assert self._result is not None
        self._gradients = torch.autograd.grad(self._result, self._leaves, self.view("dout"), retain_graph=True)

    def collect(self) -> None:
        """Copy the gradients into ``dq``, ``dk`` and ``dv``."""
        for name, gradient in zip(("dq", "dk", "dv"), self._gradients, strict=True):
            self.view(name).copy_(gradient)

    def _inputs(self) -> Inputs:
        return {**super()._inputs(), **self._computed}


class LibraryWorker(Worker):
    """Answers requests by calling a library; uses no binaries."""

    def __init__(self, open_device: Callable[[], Device], say: Say, library: Library) -> None:
        super().__init__(open_device, say)
        self._library = library

    def running(self, problem: Problem, case: Case, plan: LaunchPlan, binaries: Sequence[Any]) -> Running:
        """See ``Worker.running``."""
        backward = any(output.name == "dq" for output in problem.outputs)
        kind = GradientsRunning if backward else LibraryRunning
        return kind(self.device, problem, case, plan, self._library.prepare(case, self.device.place))


def lse(q: torch.Tensor, k: torch.Tensor, case: Case) -> torch.Tensor:
    """Return the log of the sum of exponentials of one head, float32 [q_len], computed some rows at a time."""
    parts = []
    for first in range(0, case.q_len, _LSE_ROWS):
        scores = (q[first : first + _LSE_ROWS].float() @ k.float().T) * softmax_scale(case)
        if case.causal:
            last = torch.arange(first, first + len(scores), device=q.device) + case.kv_len - case.q_len
            scores.masked_fill_(torch.arange(case.kv_len, device=q.device) > last[:, None], -torch.inf)
        parts.append(scores.logsumexp(-1))
    return torch.cat(parts)


def measure(
    device: Device,
    problem: Problem,
    cases: Sequence[Case],
    library: Library,
    chance: random.Random,
    *,
    sustained: bool = True,
    tell: Tell = lambda progress: None,
) -> Found:
    """Return the speed of ``library`` on ``cases``: all those that it computes, whatever it does with others.

    ``tell`` hears which case is timed.
    """
    found = Found(library.name, _version(library.package))
    try:
        library.prepare(cases[0], device.place)
    except (ImportError, RuntimeError) as error:
        return replace(found, unavailable=first_line(error))
    scores: list[CaseScore] = []
    clocks: list[Clocks] = []
    failed: list[tuple[str, str]] = []
    ungraphed = ""
    contender = WorkerContender(LocalLink(lambda say: LibraryWorker(lambda: device, say, library)))
    for number, case in enumerate(cases):
        tell(Progress(number, len(cases), f"{library.name}, {case.name}"))
        flops = problem.flops(case)
        timed = TimedCase(case.name, flops, device.card.floor_s(flops, problem.least_bytes(case)))
        stopwatch = Stopwatch([timed], chance, sustained=sustained)
        timing = _timing(contender, problem, case, stopwatch)
        ungraphed = ungraphed or stopwatch.ungraphed
        if isinstance(timing, Fault):
            failed.append((case.name, timing.message))
            if _broken(device):
                break
        else:
            scores += timing.scores
            clocks += timing.clocks
    told = conditions(device.card, device.setup, clocks, sustained=sustained, ungraphed=ungraphed)
    found = replace(found, cases=tuple(scores), failed=tuple(failed), conditions=told)
    return found if scores else replace(found, conditions="", unavailable=failed[0][1] if failed else "")


def _timing(contender: WorkerContender, problem: Problem, case: Case, stopwatch: Stopwatch) -> Timing | Fault:
    try:
        if fault := contender.open(problem, CompiledPlan(case, _plan(problem, case), {}, ())):
            return fault
        try:
            return alike(lambda: stopwatch.score(contender))  # libraries share one process
        finally:
            contender.forget(case.name)
    except EvaluatorUnavailable as error:  # so that other cases have their chance
        return Fault(Status.CRASHED, str(error))


def measure_all(
    device: Device,
    problem: Problem,
    cases: Sequence[Case],
    chance: random.Random,
    *,
    sustained: bool = True,
    tell: Tell = lambda progress: None,
) -> Iterator[Found]:
    """Yield the speed of each of ``LIBRARIES`` on ``cases``; see ``measure``. After one breaks the device, none is
    tried.
    """
    broken = ""
    for library in LIBRARIES:
        if broken:
            yield Found(library.name, _version(library.package), unavailable=f"the GPU failed under {broken}")
            continue
        yield measure(device, problem, cases, library, chance, sustained=sustained, tell=tell)
        if _broken(device):
            broken = library.name


def _broken(device: Device) -> bool:
    try:
        device.synchronize()
    except RuntimeError:
        return True
    return False


def _plan(problem: Problem, case: Case) -> LaunchPlan:
    specs = problem.call(case).tensors
    return LaunchPlan(case.name, tuple(Buffer(s.name, s.dtype, s.size, s.role) for s in specs), (), ())


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def table(found: Sequence[Found], cases: Sequence[Case]) -> str:
    """Return the figures as text: median TFLOPS with their quartiles and conditions, or why there are none."""
    names = [case.name for case in cases]
    lines = [f"{'TFLOPS, median (quartiles)':36}" + "".join(f"{name:>22}" for name in names)]
    for each in found:
        cells = {c.case: f"{c.tflops:.1f} ({c.low_tflops:.1f} {c.high_tflops:.1f})" for c in each.cases}
        figures = "".join(f"{cells.get(name, '-'):>22}" for name in names) if cells else f"  {each.unavailable}"
        lines.append(f"{each.name + ' ' + each.version:36}{figures}")
    lines += [f"{each.name}: {each.trouble}" for each in found if each.cases and each.failed]
    lines += [f"{each.name}: {each.conditions}" for each in found if each.conditions]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None, open_device: Callable[[], Device] | None = None) -> int:
    """Print a table and write JSON. Exit code 2 where nothing can be measured."""
    parser = argparse.ArgumentParser(prog="python -m avo.evaluator.cuda.baselines", description=__doc__)
    parser.add_argument("--problem", default="mha")
    parser.add_argument("--suite", default="paper")
    parser.add_argument("--clock", choices=CLOCKS, default=CLOCKS[0], help=CLOCK_HELP)
    parser.add_argument("--json", metavar="FILE", help="write the figures there, too, after each library")
    options = parser.parse_args(arguments)
    try:
        problem = get_problem(options.problem)
        if not libraries_know(problem):
            known = tuple(name for name, each in PROBLEMS.items() if libraries_know(each))
            raise UnknownProblem("problem with library baselines", options.problem, known)
        cases = get_suite(problem, options.suite)
        device = (open_device or _gpu)()
        card = device.card
        card.target()
        held = hold(card) if open_device is None else None
    except EvaluatorError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    chance = random.Random(secrets.randbits(64))
    found: list[Found] = []
    data: dict[str, Any] = {
        "card": asdict(card),
        "problem": problem.name,
        "suite": options.suite,
        "setup": asdict(device.setup),
        "clock": options.clock,
    }
    for each in measure_all(device, problem, cases, chance, sustained=options.clock == CLOCKS[0], tell=_tell):
        found.append(each)
        if options.json:  # after each, so that whoever ends this early has something
            libraries = [asdict(library) for library in found]
            Path(options.json).write_text(json.dumps({**data, "libraries": libraries}, indent=1))
    print(f"{card.name}\n{table(found, cases)}")
    if held:
        held.close()
    return 0


def _tell(progress: Progress) -> None:
    print(progress.words, file=sys.stderr, flush=True)


def _gpu() -> Device:
    from avo.evaluator.cuda.triton_device import TritonDevice

    return TritonDevice()


if __name__ == "__main__":
    sys.exit(main())
