"""How well predictions agree with published measurements."""

import math
import os
import pickle
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from hashlib import sha256
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from avo.evaluator import executor, target, work
from avo.evaluator.offline import OfflineError
from avo.evaluator.performance import ModelError, PredictedTime, Timing, predict_time
from avo.evaluator.target import TARGETS
from avo.evaluator.work import LaunchWork
from bench.measured import capture, families, liger, points, searches
from bench.measured.families import FAMILIES, rows
from bench.measured.points import Problem, Row, held_out
from bench.measured.searches import Configuration, Search
from bench.search.remembering import version_of_the_judge

_CACHE = Path(__file__).parents[2] / "build" / "measured"
_LEAST = 4
"""Rows that a problem must have for its order to count."""


@dataclass(frozen=True)
class Judged:
    """One measurement and its prediction. Times in microseconds."""

    family: str
    card: str
    problem: Problem
    label: str
    measured_us: float
    us: float
    low_us: float
    high_us: float
    limiter: str

    @property
    def ratio(self) -> float:
        """Predicted over measured time."""
        return self.us / self.measured_us

    @property
    def inside(self) -> bool:
        """Whether the measurement lies in the predicted range."""
        return self.low_us <= self.measured_us <= self.high_us

    @property
    def held_out(self) -> bool:
        """Whether constants may not be fitted to it."""
        return held_out(self.family, self.problem, self.label)


@dataclass(frozen=True)
class Agreement:
    """How predictions agree with measurements. What cannot be said is NaN."""

    count: int
    spearman: float
    """Rank correlation over all."""
    within: float
    """Rank correlation within a problem, the mean over problems of at least four rows, weighted by rows."""
    error: float
    """Mean of \\|predicted / measured - 1\\|."""
    bias: float
    """Geometric mean of predicted / measured."""
    inside: float
    """Share of the measurements within the predicted range."""
    width: float
    """Median of the range's high end over its low end."""
    regrets: tuple[float, ...]
    """For each problem of at least four rows, measured time of the one predicted best over that of the best."""


@dataclass(frozen=True)
class Searched:
    """What the model would choose in a search whose winner is known."""

    problem: Problem
    candidates: int
    regret: float
    """Predicted time of the published winner over that of the one predicted best."""


def predicted(launches: Sequence[LaunchWork], card: str, least_bytes: int, *, cold: bool, graph: bool) -> PredictedTime:
    """Predict launches timed on ``card``: the one place where the way of timing meets the model."""
    return predict_time(launches, TARGETS[card], least_bytes=least_bytes, timing=Timing(cold, graph))


def judge(row: Row) -> Judged:
    """Predict a measured row. Raises ``OfflineError`` or ``ModelError`` where that is impossible."""
    source, work = row.source, [launch.work for launch in row.launches]
    time = predicted(work, source.card, row.least_bytes, cold=source.cold, graph=source.graph)
    return Judged(
        row.family, source.card, row.problem, row.label, row.measured_us, time.us, time.low_us, time.high_us,
        time.limiter,
    )  # fmt: skip


def search(asked: Search) -> Searched:
    """Predict the configurations of a search; those that do not fit the card are left out.

    What was found is kept: all searches take hours, and an interrupted run continues where it stopped.
    """
    made_by = f"{_digest()} {version_of_the_judge()} {sha256(Path(__file__).read_bytes()).hexdigest()}"
    key = sha256(f"{made_by} {asked.problem}".encode()).hexdigest()
    (found,) = _kept_in(_CACHE / f"search-{key}.pickle", lambda: [_search(asked)])
    return found  # type: ignore[no-any-return]


def _search(asked: Search) -> Searched:
    source, times = asked.source, dict[Configuration, float]()
    for configuration, launch in asked.launches.items():
        try:
            time = predicted([launch.work], source.card, asked.least_bytes, cold=source.cold, graph=source.graph)
        except (OfflineError, ModelError):
            continue
        times[configuration] = time.us
    return Searched(asked.problem, len(times), times[asked.best] / min(times.values()))


def agreement(found: Sequence[Judged]) -> Agreement:
    """Return how predictions agree with the measurements ``found``, at least one."""
    problems: dict[Problem, list[Judged]] = defaultdict(list)
    for each in found:
        problems[each.problem].append(each)
    ordered = [(len(rows), _order(rows)) for rows in problems.values() if len(rows) >= _LEAST]
    ranked = [(rows, order) for rows, order in ordered if not math.isnan(order)]
    ratios = np.array([each.ratio for each in found])
    return Agreement(
        len(found),
        _order(found),
        sum(rows * order for rows, order in ranked) / sum(rows for rows, _ in ranked) if ranked else math.nan,
        float(np.abs(ratios - 1).mean()),
        float(np.exp(np.log(ratios).mean())),
        float(np.mean([each.inside for each in found])),
        float(np.median([each.high_us / each.low_us for each in found])),
        tuple(_regret(rows) for rows in problems.values() if len(rows) >= _LEAST),
    )


def _order(found: Sequence[Judged]) -> float:
    if len(found) < 2:
        return math.nan
    return spearman(np.array([each.us for each in found]), np.array([each.measured_us for each in found]))


def _regret(rows: Sequence[Judged]) -> float:
    chosen = min(rows, key=lambda each: each.us)
    return chosen.measured_us / min(each.measured_us for each in rows)


@cache
def judged(names: tuple[str, ...] = tuple(FAMILIES), processes: int = 2) -> tuple[Judged, ...]:
    """Predict all rows of the families called ``names``, in ``processes`` processes."""
    return tuple(_spread(judge, every_row(names), processes))


def every_row(names: Sequence[str] = tuple(FAMILIES)) -> list[Row]:
    """Return all rows of the families called ``names``."""
    return [row for name in names for row in _kept(name, partial(rows, name))]


@cache
def searched(processes: int = 2) -> tuple[Searched, ...]:
    """Predict all searches, in ``processes`` processes."""
    return tuple(_spread(search, _kept("searches", searches.searches), processes))


def _spread(work: Callable[[Any], Any], items: Sequence[Any], processes: int) -> Iterator[Any]:
    if processes == 1:
        yield from map(work, items)
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        yield from pool.map(work, items, chunksize=-(-len(items) // (4 * processes)))


def _kept(name: str, make: Callable[[], Iterator[Any]]) -> list[Any]:
    """Return what ``make`` yields, made anew only if kernels, data, compiler or executor have changed."""
    return _kept_in(_CACHE / f"{name}-{_digest()}.pickle", make)


def _kept_in(path: Path, make: Callable[[], Iterable[Any]]) -> list[Any]:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        written = path.with_suffix(f".{os.getpid()}")
        written.write_bytes(pickle.dumps(list(make())))
        written.replace(path)
    found: list[Any] = pickle.loads(path.read_bytes())
    return found


@cache
def _digest() -> str:
    """Return a digest of all that decides what is launched, and how its work is counted."""
    digest = sha256(f"{version('triton')} {version('liger-kernel')}".encode())
    modules = [Path(str(module.__file__)) for module in (capture, families, liger, points, searches, target, work)]
    modules += sorted(Path(str(executor.__file__)).parent.rglob("*.py"))
    kernels = sorted((Path(__file__).parent / "kernels").glob("*.py"))
    for path in (*modules, *kernels, *sorted(points.DATA.glob("*.csv"))):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


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
