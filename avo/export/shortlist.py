"""Shortlists: the kernels of a run that are worth five minutes of a card, in a folder for torch and triton alone."""

import json
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pynvml

from avo import evaluator
from avo.evaluator.candidate import Candidate
from avo.evaluator.catalogue import get_problem
from avo.evaluator.evaluation import TRAITS, Score
from avo.evaluator.measurement import SHORTLIST, UNMEASURED, Entrant, Measurement, Range
from avo.evaluator.problem_sources import is_ours
from avo.evaluator.target import ScoreKind
from avo.export.errors import ExportError
from avo.export.package import environment
from avo.lineage_db.decision import Ruling
from avo.lineage_db.records import Attempt, Run
from avo.lineage_db.store import Store

_READ = 200
"""At most so many of the fastest attempts are looked at."""
_PACKAGES = ("cuda", "judging", "problems", "sandbox", "serving")
"""Packages of the evaluator that a folder has whole, beside the modules outside packages: it needs no other."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A kernel of a shortlist."""

    name: str
    """``v12``, or ``a38`` for an attempt that is no version."""
    attempt: Attempt
    why: str
    """Why it is on the list."""

    @property
    def score(self) -> Score:
        """Its predicted score: the attempt is correct."""
        assert self.attempt.evaluation.score is not None
        return self.attempt.evaluation.score


def choose(store: Store, run: Run, count: int) -> list[Listed]:
    """Return the kernels to time: the one that the run began with, the best, those that tie with it, and the most
    different ones whose range reaches the best's.

    Different are kernels by their structure (``TRAITS``), not by their text: each next one has most traits unlike those
    that are listed. Kernels that lower to the same launch plans are listed once. Raises ``ExportError`` for a run
    without versions or with measured scores, and for problems of other packages.
    """
    versions = store.versions(run.id)
    if not versions:
        raise ExportError(f"{run.name} has no version yet")
    if not is_ours(get_problem(run.problem)):
        raise ExportError(f"{run.name}: a shortlist has no module of the problem {run.problem}, which is not AVO's own")
    numbers = {version.attempt.id: version.number for version in versions}
    correct = [each for each in store.attempt_summaries(run.id) if each.geomean_tflops > 0]
    fastest = sorted(correct, key=lambda each: -each.geomean_tflops)[:_READ]
    read = (store.attempt(run.id, each.attempt_id) for each in fastest)
    pool = [each for each in read if not each.evaluation.refused]
    best = max(versions, key=lambda version: version.attempt.evaluation.geomean_tflops).attempt
    if (score := best.evaluation.score) is None or score.kind is not ScoreKind.PREDICTED:
        raise ExportError(f"{run.name} was measured itself: a shortlist is for what was predicted")
    listed: list[Listed] = []
    plans: set[str | None] = set()

    def take(attempt: Attempt, why: str) -> None:
        if attempt.plan_digest not in plans and len(listed) < count:
            plans.add(attempt.plan_digest)
            name = f"v{numbers[attempt.id]}" if attempt.id in numbers else f"a{attempt.id}"
            listed.append(Listed(name, attempt, why))

    take(versions[0].attempt, "the run began with it")
    take(best, "the best version")
    within = [each for each in pool if _reach(each).high >= _reach(best).low]
    ties = [each for each in within if each.decision and each.decision.ruling is Ruling.UNRESOLVED]
    for attempt in ties[: (count - len(listed) + 1) // 2]:
        take(attempt, "not told apart from the best of its time")
    while len(listed) < count and (left := [each for each in within if each.plan_digest not in plans]):
        # ``left`` begins with the fastest, which ``max`` takes of several that are as different.
        furthest = max(left, key=lambda each: min(len(_unlike(each, other.attempt)) for other in listed))
        unlike = _unlike(furthest, best)
        take(furthest, f"unlike the best in {', '.join(unlike)}" if unlike else "as the best in structure")
    return listed


def _reach(attempt: Attempt) -> Range:
    assert attempt.evaluation.score is not None
    return Range.over(attempt.evaluation.score.ranges.values())


def _unlike(one: Attempt, other: Attempt) -> list[str]:
    """Return the traits in which they differ."""
    return [name for name in TRAITS if one.evaluation.traits.get(name) != other.evaluation.traits.get(name)]


def render(run: Run, listed: Sequence[Listed]) -> dict[str, str]:
    """Return the files of the folder, by path."""
    begun = Measurement(
        shortlist=secrets.token_hex(8),
        run=run.name,
        problem=run.problem,
        suite=run.suite,
        target=run.target,
        start=listed[0].name,
        card={},
        setup={},
        began="",
        seconds=0.0,
        cases=(),
        entrants=tuple(_entrant(run, each) for each in listed),
        samples=(),
    )
    found = {f"kernels/{each.name}.py": each.attempt.source for each in listed}
    found[SHORTLIST] = json.dumps(asdict(begun), indent=1) + "\n"
    root = Path(evaluator.__file__).parent
    inside = (file for name in _PACKAGES for file in (root / name).rglob("*.py"))
    for file in (root.with_name("__init__.py"), *root.glob("*.py"), *inside):
        found[f"judge/avo/{file.relative_to(root.parent)}"] = file.read_text(encoding="utf-8")
    found["judge/pynvml.py"] = Path(pynvml.__file__).read_text(encoding="utf-8")
    context = {"run": run, "listed": listed, "entry": get_problem(run.problem).entry, "count": len(listed)}
    for name in ("README.md", "measure.py", "test_shortlist.py", "judge/fallback/msgspec.py"):
        found[name] = environment().get_template(f"shortlist/{name}.j2").render(context)
    return found


def _entrant(run: Run, each: Listed) -> Entrant:
    source = each.attempt.source
    digest = Candidate(run.problem, source).digest
    return Entrant(
        each.name, UNMEASURED, attempt=each.attempt.id, digest=digest, source=source, predicted=each.score.ranges
    )
