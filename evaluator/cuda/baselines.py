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
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from avo.evaluator.catalogue import PROBLEMS, get_problem, get_suite, libraries_know
from avo.evaluator.cuda import CLOCK_HELP
from avo.evaluator.cuda.blame import first_line
from avo.evaluator.cuda.called import library_running
from avo.evaluator.cuda.device import Clocks, Device, DeviceFault, KernelFault, NotRecorded, Timed
from avo.evaluator.cuda.holding import Place
from avo.evaluator.cuda.libraries import LIBRARIES, Library
from avo.evaluator.cuda.measured import conditions
from avo.evaluator.cuda.measuring import Stopwatch, Timing, alike
from avo.evaluator.cuda.protocol import TimedCase
from avo.evaluator.cuda.runs import Runs
from avo.evaluator.errors import EvaluatorError, EvaluatorUnavailable, UnknownProblem
from avo.evaluator.evaluation import CaseScore, Fault, Status
from avo.evaluator.evaluators import CLOCKS, Progress, Tell
from avo.evaluator.problem import Case, Problem


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
    found = Found(library.name, _release(library))
    try:
        library.prepare(cases[0], device.place)
    except (ImportError, RuntimeError) as error:
        return replace(found, unavailable=first_line(error))
    scores: list[CaseScore] = []
    clocks: list[Clocks] = []
    failed: list[tuple[str, str]] = []
    ungraphed = ""
    for number, case in enumerate(cases):
        tell(Progress(number, len(cases), f"{library.name}, {case.name}"))
        stopwatch = Stopwatch([TimedCase.of(problem, case, device.card)], chance, sustained=sustained)
        timing = _timing(device, problem, library, case, stopwatch)
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


class _Opened:
    """A case of a library in this process, which all libraries share: see ``Timer``."""

    def __init__(self, device: Device, problem: Problem, library: Library, case: Case) -> None:
        self._runs = Runs(device, lambda running: None)
        self._runs.open(case.name, library_running(device, problem, library, case))

    def time(
        self, case: str, seeds: Sequence[int], limit_s: float, stretch_s: float = 0.0, graph: bool = True
    ) -> Timed | Fault:
        """See ``Timer.time``; limits of time are not enforced."""
        try:
            return self._runs.time(case, seeds, stretch_s, graph)
        except NotRecorded as error:
            return Timed((), (), str(error))


def _timing(device: Device, problem: Problem, library: Library, case: Case, stopwatch: Stopwatch) -> Timing | Fault:
    """Return the times, or why there are none, so that other cases have their chance."""
    try:
        opened = _Opened(device, problem, library, case)
        return alike(lambda: stopwatch.score(opened))
    except EvaluatorUnavailable as error:
        why = str(error)
    except DeviceFault as error:
        why = f"case {case.name}: {error}"
    except KernelFault as error:
        why = f"case {case.name}: the GPU reports: {error}"
    except torch.OutOfMemoryError as error:
        why = f"out of memory on the GPU: {first_line(error)}"
    except Exception as error:
        traceback.print_exc()
        why = f"{library.name} failed: {error!r:.300}"
    return Fault(Status.CRASHED, why)


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
            yield Found(library.name, _release(library), unavailable=f"the GPU failed under {broken}")
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


def _release(library: Library) -> str:
    return library.release or "not installed"


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
        held = Place(card) if open_device is None else None
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
