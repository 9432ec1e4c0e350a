"""Runs of one operator on one problem and target, in this process, until a goal is reached; each leaves a record."""

import math
import os
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from avo.agents.mutate import Mutate
from avo.agents.operator import VariationOperator
from avo.config import START, RunConfig
from avo.evaluator.candidate import Candidate
from avo.evaluator.evaluation import Status
from avo.evaluator.evaluators import Evaluator
from avo.evaluator.targets import get_target
from avo.knowledge_base.library import Library
from avo.lineage_db.records import Run
from avo.lineage_db.store import Store
from avo.search.budget import Allowance
from avo.search.run import utc_now
from avo.search.seeding import SeedOperator
from avo.search.step import Work
from avo.seeds import fitting, seed_source
from bench.claims import made
from bench.known import GLUON, SUITE, TRITON
from bench.search.remembering import ROOT, RememberingJudge

PROBLEMS = {False: ("mha", "gqa", "fsa"), True: ("mha", "gqa")}
"""What is searched without Gluon, and with it: fsa has no seed in Gluon."""
TARGETS, OPERATORS, SEEDS = ("h100", "b200"), ("mutate", "tpe", "random"), range(5)
Cell = tuple[str, str, bool]
"""A problem, a target, and whether Gluon is allowed there."""
LEVELS = (0.9, 0.95, 0.98)
"""Shares of the best score known."""
ATTEMPTS = 60
"""A run ends after so many attempts at most, the seeds not counted."""
BARREN = 3
"""A run ends after so many steps in a row without a new attempt, as a worker's does."""
SAME = 5e-3
"""By what share a score may differ and be the same: which blocks an input of fsa selects is drawn by each judge."""


@dataclass(frozen=True, slots=True)
class Place:
    """What one run searches, and with what."""

    problem: str
    target: str
    operator: str
    seed: int
    gluon: bool = False
    """Whether it starts from the seeds in Gluon too, as ``avo run`` does, and is held against the best of any kind."""

    @property
    def cell(self) -> Cell:
        """What it is held against."""
        return self.problem, self.target, self.gluon

    @property
    def name(self) -> str:
        """How its record is called."""
        return f"{self.problem}-{self.target}{'-gluon' * self.gluon}-{self.operator}-{self.seed}"


@dataclass(frozen=True, slots=True)
class Point:
    """How a run stood after a step: what it had spent since its seeds were judged, and the best attempt's speed."""

    attempts: int
    looks: int
    seconds: float
    """Processor time, the operator's and the judge's; a remembered answer counts what it took when it was given."""
    tflops: float


@dataclass(frozen=True, slots=True)
class Record:
    """One run."""

    place: Place
    known: float
    """TFLOPS of the best kernel known, by the same model."""
    commit: str
    allowed: int
    """The attempts that it might make at most."""
    points: tuple[Point, ...]
    """The first is that of the seeds."""

    def reached(self, level: float) -> Point | None:
        """Return where the run first had this share of the best score known."""
        return next((point for point in self.points if point.tflops >= level * self.known), None)


def make(place: Place, known: float, allowed: int, records: Path, answers: Path) -> Record:
    """Do a run and keep its record.

    A run that was stopped starts again, but the judge remembers what it was asked: this takes little time.
    """
    record = search(place, known, allowed, answers)
    records.mkdir(parents=True, exist_ok=True)
    path = records / f"{place.name}.json"
    written = path.with_suffix(f".{os.getpid()}")
    written.write_bytes(msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n")
    written.replace(path)
    return record


def best_known(cell: Cell, answers: Path) -> float:
    """Return the TFLOPS of the best kernel known; end the program if that is refused."""
    problem, target, in_gluon = cell
    steps = (GLUON if in_gluon else TRITON)[problem, target]
    with RememberingJudge(target, SUITE, answers) as judge:
        found = judge.evaluate(Candidate(problem, made(steps, target)))
    if not found.correct:
        raise SystemExit(f"the best kernel known for {problem} on {target} is {found.status.words}: {found.message}")
    return found.geomean_tflops


def operator_of(place: Place) -> VariationOperator:
    """Return a new operator."""
    if place.operator == "mutate":
        return Mutate()
    from bench.search.tuners import Tuner

    return Tuner(place.operator, place.seed)


def search(place: Place, known: float, allowed: int, answers: Path) -> Record:
    """Do a run: as by ``avo run`` with one worker, but with a judge that remembers, and that examines closely only what
    ends the run. ``known`` are the TFLOPS of the best kernel known.
    """
    problem, target = place.problem, place.target
    names = fitting(problem, get_target(target), gluon=place.gluon)
    starts = [seed_source(problem, name) for name in names]
    config = RunConfig(problem=problem, target=target, suite=SUITE, seed=place.seed, workers=1)
    start = [{"origin": name, "source": source} for name, source in zip(names, starts, strict=True)]
    with (
        tempfile.TemporaryDirectory() as folder,
        Store.open(str(Path(folder, "lineage.db"))) as store,
        RememberingJudge(target, SUITE, answers, closely_from=LEVELS[-1] * known) as judge,
    ):
        stored = {**config.model_dump(), START: start}
        run = store.create_run(
            name=place.name, problem=problem, target=target, suite=SUITE, operator=place.operator, seed=place.seed,
            config=stored, now=utc_now(),
        )  # fmt: skip
        work = Work(store, run, config, judge, Library.load(), utc_now, Allowance.of(config))
        seeded = work.perform(SeedOperator(*starts, names=names), "w0")
        if seeded.version is None:
            raise SystemExit(f"{place.name}: no seed is a version: {seeded.reason}")
        goal = LEVELS[-1] * known
        points = [Point(0, 0, 0.0, _best(store, run, judge, goal))]
        before, barren, operator = judge.spent, 0, operator_of(place)
        began = time.process_time() - judge.worked
        while points[-1].tflops < goal and points[-1].attempts < allowed and barren < BARREN:
            barren = 0 if work.perform(operator, "w0").tried else barren + 1
            best, history = _best(store, run, judge, goal), store.history(run.id)
            own = time.process_time() - judge.worked - began
            attempts = len(history.attempts) - seeded.tried
            spent = Point(attempts, len(history.looks), own + judge.spent - before, best)
            points.append(spent)
            print(f"{place.name}: {attempts} attempts, {spent.looks} looks, {spent.tflops / known:.1%}", flush=True)
        return Record(place, known, _commit(), allowed, tuple(points))


def read(records: Path, known: Mapping[Cell, float]) -> list[Record]:
    """Return the records that hold.

    A record holds as long as the best score ``known`` for its cell is the one of its run: a better kernel or another
    model makes it another.
    """
    found = [msgspec.json.decode(path.read_bytes(), type=Record) for path in sorted(records.glob("*.json"))]
    return [
        record for record in found if math.isclose(record.known, known.get(record.place.cell, math.inf), rel_tol=SAME)
    ]


def _best(store: Store, run: Run, judge: Evaluator, goal: float) -> float:
    """Return the TFLOPS of the best correct attempt, a version or not.

    The score known is held against no other one either. What reaches the ``goal`` is examined as a version is.
    """
    correct = [each for each in store.history(run.id).attempts if each.status is Status.CORRECT]
    for each in sorted(correct, key=lambda each: -each.geomean_tflops):
        if each.geomean_tflops < goal or each.version is not None:
            return each.geomean_tflops
        candidate = Candidate(run.problem, store.attempt(run.id, each.attempt_id).source)
        if judge.verify(candidate, each.plan_digest).correct:
            return each.geomean_tflops
    return 0.0


def _commit() -> str:
    """Return the commit of the code, marked where that has changed since: records and the page may have."""

    def git(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)

    found = git("describe", "--always").stdout.strip()
    changed = git("status", "--porcelain", "--", ".", ":!bench/search/records", ":!docs").stdout
    return f"{found}-dirty" if found and changed else found or "unknown"
