"""Compiles and predicts configurations, each in one of several processes, and ranks them."""

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from pathlib import Path

from avo.evaluator.compiling.compiler import Compiler
from avo.evaluator.compiling.limits import fit, fit_together
from avo.evaluator.compiling.residency import resources
from avo.evaluator.errors import EvaluatorUnavailable
from avo.evaluator.evaluation import Fault
from avo.evaluator.performance import ModelError, Timing
from avo.evaluator.performance.launch import predict_launch
from avo.evaluator.targets import get_target
from avo.evaluator.tune import Asked, CountedChoice, Outcome, Ran, Ranking, Subject, Time


def rank(runs: Sequence[Ran], jobs: int, done: Callable[[], None]) -> tuple[Ranking, ...]:
    """Compile and predict all configurations in ``jobs`` processes; return the rankings in the order of launches.

    ``done`` is called after each configuration. Raises ``EvaluatorUnavailable``.
    """
    tried = [(each, run.cache) for run in runs for each in run.tried]
    pool = ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn"))
    try:
        futures = [pool.submit(outcome, each, folder) for each, folder in tried]
        for future in as_completed(futures):
            future.result()
            done()
        outcomes = [future.result() for future in futures]
    except BrokenProcessPool:
        raise EvaluatorUnavailable("a process that predicts was killed: is there enough memory?") from None
    finally:
        pool.shutdown(cancel_futures=True)
    found: dict[Subject, list[Outcome]] = {}
    for (each, _), made in zip(tried, outcomes, strict=True):
        found.setdefault(each.subject, []).append(made)
    return tuple(Ranking(subject, ranked(made), tuple(each.choice for each in made)) for subject, made in found.items())


def ranked(outcomes: Sequence[Outcome]) -> tuple[Outcome, ...]:
    """Return outcomes by their times, equal ones in the order given, those without a time last."""
    return tuple(sorted(outcomes, key=lambda each: each.time.us if each.time else float("inf")))


def outcome(tried: CountedChoice, folder: str) -> Outcome:
    """Return the time of a configuration, or why it has none; compiled kernels are kept in ``folder``.

    An error of our own is a reason too: the other configurations still have their times.
    """
    if tried.asked is None:
        return Outcome(tried.choice, None, tried.reason)
    try:
        found = _time(tried.asked, tried.subject.target, _compiler(folder))
    except EvaluatorUnavailable:
        raise
    except Exception as error:
        found = f"an error in AVO, please report it: {error!r}"
    return Outcome(tried.choice, None, found) if isinstance(found, str) else Outcome(tried.choice, found)


@cache
def _compiler(folder: str) -> Compiler:
    return Compiler(Path(folder))


def _time(asked: Asked, name: str, compiler: Compiler) -> Time | str:
    """Return the time, or why there is none."""
    target = get_target(name)
    binary = compiler.compile(asked.kernel, target)
    if isinstance(binary, Fault):
        return binary.message
    if fault := fit(binary, target) or fit_together(asked.kernel, asked.programs, binary, target):
        return fault.message
    work = asked.counted.of(binary, asked.programs)
    try:
        time = predict_launch(work, target, asked.readable_bytes, asked.writable_bytes, Timing(cold=True))
    except ModelError as error:
        return f"its time cannot be predicted: {error}"
    taken = resources(binary, target)
    return Time(
        time.us,
        time.low_us,
        time.high_us,
        time.limiter,
        time.doubts,
        asked.programs,
        taken.registers,
        taken.spill_bytes,
        taken.shared_bytes,
        taken.ctas_per_sm,
        taken.ctas_per_sm * taken.warps / target.warps_per_sm,
        time.draws_us,
        time.doubt,
    )
