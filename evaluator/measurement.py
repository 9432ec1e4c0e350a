"""What a shortlist took on a card: the file ``measured.json``, which ``measure.py`` writes and ``avo ingest`` reads.

Whoever measures has torch and triton only, so writing needs nothing else.
"""

import hashlib
import json
import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from avo.evaluator.errors import EvaluatorError
from avo.evaluator.evaluation import Status, geometric_mean

FORMAT = "avo measured 1"
FILE = "measured.json"
SHORTLIST = "shortlist.json"
"""What a folder has before anything is measured: the same, without a card and samples."""
_SHORTEST_US, _LONGEST_US = 1e-3, 1e9
"""Shortest and longest run that is believed."""
UNMEASURED = "unmeasured"
"""The status of an entrant that has not run."""


class BadMeasurement(EvaluatorError):
    """A file is no measurement, or was changed after it was written; ``str()`` says why in a line."""


@dataclass(frozen=True, slots=True)
class MeasuredCase:
    """A benchmark case that was timed."""

    name: str
    flops: int
    floor_us: float
    """No run is faster on this card: see ``Card.floor_s``."""


@dataclass(frozen=True, slots=True)
class Range:
    """Geometric means over the cases, in TFLOPS."""

    low: float
    """Of the low ends of the predicted ranges, or of the quartiles of the timed runs."""
    tflops: float
    high: float

    @classmethod
    def over(cls, cases: Iterable[tuple[float, float, float]]) -> Self:
        """Return the means of (low end, middle, high end) of each case."""
        return cls(*map(geometric_mean, zip(*cases, strict=True)))


@dataclass(frozen=True, slots=True)
class Entrant:
    """A kernel of the shortlist, or a library of that machine."""

    name: str
    """``v12`` or ``a38`` for a kernel, after its version or attempt."""
    status: str
    """A ``Status``, or ``UNMEASURED``: a library that is not there, or no time was left for a first run."""
    message: str = ""
    attempt: int | None = None
    """The number of the attempt in its run; None for a library."""
    digest: str = ""
    """Digest of the candidate, as the run has it."""
    source: str = ""
    release: str = ""
    """Of a library."""
    predicted: Mapping[str, tuple[float, float, float]] | None = None
    """TFLOPS in each case for the run's target: low end of the range, prediction, high end. None for a library."""

    @property
    def predicted_range(self) -> Range | None:
        """What is predicted over all cases; None for a library."""
        return Range.over(self.predicted.values()) if self.predicted else None


@dataclass(frozen=True, slots=True)
class Sample:
    """One timed run, whose result was verified."""

    session: int
    """The process that it ran in, from 1: each has new buffers and loads all code anew."""
    round: int
    """In each round of a session every entrant runs every case once, in an order of its own."""
    entrant: str
    case: str
    us: float
    """By events on the device, after a stretch of runs, on a cold L2 cache."""
    wall_us: float
    """By the host's clock."""
    sm_mhz: int | None = None
    reasons: int | None = None
    """Why the clock was not higher: NVML's bits."""
    celsius: int | None = None
    watts: float | None = None


@dataclass(frozen=True, slots=True)
class Speed:
    """What an entrant reached in one case."""

    runs: int
    median_us: float
    low_us: float
    high_us: float
    """Quartiles."""
    tflops: float
    """Of the median."""


@dataclass(frozen=True)
class Measurement:
    """All that was found on one card in one call of ``measure.py``."""

    shortlist: str
    """The id that its shortlist was given."""
    run: str
    problem: str
    suite: str
    target: str
    """What the run predicts for."""
    start: str
    """The entrant that the run began with."""
    card: Mapping[str, Any]
    """Fields of ``avo.evaluator.cuda.cards.Card``."""
    setup: Mapping[str, Any]
    """Fields of ``avo.evaluator.cuda.device.Setup``."""
    began: str
    """UTC, in ISO format."""
    seconds: float
    cases: tuple[MeasuredCase, ...]
    entrants: tuple[Entrant, ...]
    samples: tuple[Sample, ...]
    ungraphed: str = ""
    """Why runs were not replays of a CUDA graph, for those that were not."""
    others: tuple[str, ...] = ()
    """Who else computed on the card meanwhile."""
    format: str = FORMAT
    digest: str = ""
    """Of everything else: a file that was edited is refused."""

    @property
    def kernels(self) -> tuple[Entrant, ...]:
        """The entrants that are candidates of the run."""
        return tuple(each for each in self.entrants if each.attempt is not None)

    def times_us(self, entrant: str) -> dict[str, list[float]]:
        """Return the times of an entrant's runs by case, in microseconds."""
        found: dict[str, list[float]] = {}
        for sample in self.samples:
            if sample.entrant == entrant:
                found.setdefault(sample.case, []).append(sample.us)
        return found

    def speeds(self, entrant: str) -> dict[str, Speed]:
        """Return what an entrant reached in each case that it has runs of."""
        flops = {case.name: case.flops for case in self.cases}
        return {case: _speed(flops[case], times) for case, times in self.times_us(entrant).items()}

    def reached(self, entrant: str) -> Range | None:
        """Return what an entrant reached over all cases; None where there is one without a run."""
        speeds = self.speeds(entrant).values()
        if not speeds or len(speeds) < len(self.cases):
            return None
        work = ((each.tflops * each.median_us, each) for each in speeds)
        return Range.over((flops / each.high_us, each.tflops, flops / each.low_us) for flops, each in work)

    def ratios(self, entrant: str) -> list[float]:
        """Return, for each round of all sessions, the mean over cases of log(time of the start / time of ``entrant``).

        Rounds in which one of them has not run every case are left out.
        """
        rounds: dict[tuple[int, int], dict[tuple[str, str], float]] = {}
        for each in self.samples:
            rounds.setdefault((each.session, each.round), {})[each.entrant, each.case] = each.us
        found = []
        for _, times in sorted(rounds.items()):
            pairs = [(times.get((self.start, case.name)), times.get((entrant, case.name))) for case in self.cases]
            if all(theirs and mine for theirs, mine in pairs):
                found.append(statistics.fmean(math.log(theirs / mine) for theirs, mine in pairs if theirs and mine))
        return found

    def conditions(self) -> str:
        """Return in words on what, when and how it was measured."""
        watts, limit = _span((each.watts for each in self.samples), "W"), self.setup.get("power_limit_w")
        parts = (
            f"{self.card_name}, {self.began}",
            f"driver {self.card.get('driver') or 'not known'}",
            str(self.setup.get("versions") or ""),
            _span((each.sm_mhz for each in self.samples), "MHz"),
            _span((each.celsius for each in self.samples), "C"),
            f"{watts} of {limit:g} W" if watts and isinstance(limit, int | float) else watts,
            f"without a graph: {self.ungraphed}" if self.ungraphed else "",
            f"not alone on the card: {', '.join(self.others)}" if self.others else "",
        )
        return ", ".join(filter(None, parts))

    @property
    def card_name(self) -> str:
        """The name of the card as its driver has it."""
        return str(self.card.get("name") or "a card without a name")

    def to_json(self) -> str:
        """Return the text of the file, with its digest."""
        data = asdict(self)
        return json.dumps({**data, "digest": _sum(data)}, indent=1, allow_nan=False) + "\n"

    @classmethod
    def begun(cls, text: str) -> "Measurement":
        """Return what a shortlist's folder begins with: only the kernels are known."""
        data = json.loads(text)
        entrants = tuple(
            Entrant(**{**each, "predicted": {case: tuple(three) for case, three in each["predicted"].items()}})
            for each in data["entrants"]
        )
        return cls(**{**data, "entrants": entrants, "cases": (), "samples": (), "others": ()})

    @classmethod
    def from_json(cls, text: str | bytes) -> "Measurement":
        """Return what ``to_json`` wrote. Raises ``BadMeasurement``."""
        import msgspec  # a machine that only measures need not have it

        try:
            data = json.loads(text)
        except ValueError:
            raise BadMeasurement("it is not JSON: is it whole?") from None
        named = data.get("format") if isinstance(data, dict) else None
        if named != FORMAT:
            raise BadMeasurement(f"its format is {named!r:.60}, not {FORMAT!r}: it is no file of measure.py's")
        if data.get("digest") != _sum(data):
            raise BadMeasurement("it was changed after measure.py wrote it: its digest does not fit")
        try:
            found = msgspec.convert(data, cls)
        except msgspec.ValidationError as error:
            raise BadMeasurement(f"it is not as measure.py writes it: {error}") from None
        found.check()
        return found

    def check(self) -> None:
        """Raise ``BadMeasurement`` for what contradicts itself, and figures that cannot be true."""
        if not self.cases or not all(0 < case.flops < 2**63 for case in self.cases):
            raise BadMeasurement("it has no cases, or one without work")
        entrants, floors = {each.name: each for each in self.entrants}, {case.name: case for case in self.cases}
        if len(entrants) != len(self.entrants) or len(floors) != len(self.cases) or self.start not in entrants:
            raise BadMeasurement("it names an entrant or a case twice, or has not the kernel that the run began with")
        for run in self.samples:
            if run.entrant not in entrants or run.case not in floors:
                raise BadMeasurement(f"it has a run of {run.entrant} on {run.case}, which it does not name")
            if not max(floors[run.case].floor_us, 0.0) <= run.us < math.inf or run.us <= 0:
                raise BadMeasurement(f"{run.entrant} takes {run.us:g} us on {run.case}, which no kernel can")
            if not _SHORTEST_US <= run.us <= _LONGEST_US:
                raise BadMeasurement(f"it has a run of less than {_SHORTEST_US:g} or more than {_LONGEST_US:g} us")
        known = {*(status.value for status in Status), UNMEASURED}
        for each in self.kernels:
            if each.status not in known or each.predicted is None:
                raise BadMeasurement(f"{each.name} has no verdict, or no prediction")
        if self.start not in {each.name for each in self.kernels}:
            raise BadMeasurement(f"{self.start}, with which it says that the run began, is no kernel of it")


def _span(values: Iterable[float | None], unit: str) -> str:
    known = [each for each in values if each is not None]
    return f"{min(known):g} to {max(known):g} {unit}" if known else ""


def _sum(data: Mapping[str, Any]) -> str:
    """Return the digest of a file's data as they stand: those of another release may have other fields."""
    return hashlib.sha256(json.dumps({**data, "digest": ""}, sort_keys=True).encode()).hexdigest()


def _speed(flops: int, times_us: list[float]) -> Speed:
    low, median, high = times_us[:1] * 3 if len(times_us) < 2 else statistics.quantiles(times_us, method="inclusive")
    return Speed(len(times_us), median, low, high, flops / median / 1e6)
