"""Timings of kernels on real GPUs, kept as data, and how well predictions agree with them.

The format is in ``bench/timings/README.md``.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

FOLDER = Path(__file__).parent / "timings"


@dataclass(frozen=True)
class Timing:
    """One kernel on one benchmark case."""

    problem: str
    suite: str
    case: str
    source: str
    """The candidate's text."""
    plan: str
    """Digest of its launch plans."""
    times_us: tuple[float, ...]
    """Time of each run, in microseconds."""

    @property
    def median_us(self) -> float:
        """Median of the times, in microseconds."""
        return float(np.median(self.times_us))


@dataclass(frozen=True)
class TimingSession:
    """What was timed on one card."""

    card: str
    target: str
    """Name of the card to predict for."""
    driver: str
    triton: str
    torch: str
    timings: tuple[Timing, ...]


@dataclass(frozen=True)
class Agreement:
    """How predictions for the kernels of one problem agree with their times. Kernels are compared case by case."""

    problem: str
    kernels: int
    spearman: float
    """Rank correlation, mean over the cases."""
    error: float
    """Mean error of the prediction over kernels and cases, as a share of the time."""
    fitted_error: float
    """The same, when the predictions of each half of the kernels are multiplied by the factor that is right for the
    median of the other half: an error of the clock alone would leave none."""


Predict = Callable[[TimingSession, Timing], float]
"""Returns the predicted time in microseconds."""


def load(path: Path) -> TimingSession:
    """Read one session; raise a ``ValueError`` that names the file and what is wrong with it."""
    try:
        data = json.loads(path.read_text())
        timings = tuple(_timing(path.parent, item) for item in data.pop("timings"))
        session = TimingSession(timings=timings, **data)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path}: {error!r}") from error
    if not session.timings:
        raise ValueError(f"{path}: nothing was timed")
    return session


def _timing(folder: Path, item: dict[str, Any]) -> Timing:
    name = item.pop("source")
    source = (folder / name).read_bytes()
    if name != f"{hashlib.sha256(source).hexdigest()}.py":
        raise ValueError(f"{name} is not what was timed: its digest is another")
    times = tuple(map(float, item.pop("times_us")))
    if not times or min(times) <= 0:
        raise ValueError(f"{name}: times must be positive, and there must be some")
    return Timing(source=source.decode(), times_us=times, **item)


def compare(session: TimingSession, predict: Predict) -> Iterator[Agreement]:
    """Yield the agreement of each problem of the session, in the order of their names."""
    by_problem: dict[str, list[Timing]] = defaultdict(list)
    for timing in session.timings:
        by_problem[timing.problem].append(timing)
    for problem, timings in sorted(by_problem.items()):
        predicted = np.array([predict(session, timing) for timing in timings])
        measured = np.array([timing.median_us for timing in timings])
        cases = np.array([f"{timing.suite} {timing.case}" for timing in timings])
        plans = sorted({timing.plan for timing in timings})
        even = np.array([plans.index(timing.plan) % 2 == 0 for timing in timings])
        ranks = [spearman(predicted[cases == case], measured[cases == case]) for case in sorted(set(cases))]
        yield Agreement(
            problem,
            len(plans),
            float(np.nanmean(ranks)) if np.isfinite(ranks).any() else float("nan"),
            _error(predicted, measured),
            _fitted_error(predicted, measured, even),
        )


def spearman(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> float:
    """Return the rank correlation (Spearman, 1904) of two samples; NaN where one has only equal values."""
    ranks = [_ranks(values) for values in (one, other)]
    deviations = [values - values.mean() for values in ranks]
    spread = np.sqrt((deviations[0] ** 2).sum() * (deviations[1] ** 2).sum())
    return float((deviations[0] * deviations[1]).sum() / spread) if spread else float("nan")


def _ranks(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return for each value how many others are smaller, plus half of those that are equal."""
    above = np.sign(values[:, None] - values)
    return np.asarray((above + 1).sum(1, dtype=np.float64) / 2)


def _error(predicted: npt.NDArray[np.float64], measured: npt.NDArray[np.float64]) -> float:
    return float(np.abs(predicted / measured - 1).mean())


def _fitted_error(
    predicted: npt.NDArray[np.float64], measured: npt.NDArray[np.float64], even: npt.NDArray[np.bool_]
) -> float:
    """Return the error with each half scaled by the factor of the other; NaN where a half is empty."""
    if even.all():
        return float("nan")
    factors = [float(np.median(measured[half] / predicted[half])) for half in (even, ~even)]
    return _error(predicted * np.where(even, factors[1], factors[0]), measured)


def sessions(folder: Path = FOLDER) -> Sequence[TimingSession]:
    """Return all sessions of the folder, by file name."""
    return [load(path) for path in sorted(folder.glob("*.json"))]


def predicted_us(session: TimingSession, timing: Timing) -> float:
    """Predict by the judge, as a search would; raise ``ValueError`` when it cannot."""
    from avo.evaluator.candidate import Candidate
    from avo.evaluator.evaluation import Fault
    from avo.evaluator.judging.judge import Judge
    from avo.evaluator.targets import get_target

    with Judge(get_target(session.target), timing.suite) as judge:
        found = judge.profile(Candidate(timing.problem, timing.source), timing.case)
    if isinstance(found, Fault):
        raise ValueError(f"{session.card}, {timing.problem} {timing.case}: {found.message}")
    return found[0].score.time_us
