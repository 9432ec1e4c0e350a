"""Finds out which edits carry a version: each is taken away alone, and the kernel without it is judged again."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher

from avo.agents.edits import parts_of
from avo.agents.moves import MOVES
from avo.agents.moves.move import Move
from avo.config import RunConfig
from avo.errors import NotReproduced
from avo.evaluator.candidate import Candidate
from avo.evaluator.evaluation import Evaluation, Score
from avo.evaluator.evaluators import Evaluator, Progress, Tell
from avo.evaluator.inspection import Inspection, Look
from avo.evaluator.resolution import difference
from avo.evaluator.target import CUDA, Target
from avo.lineage_db.ablated import Ablation, Edit
from avo.lineage_db.decision import Lead
from avo.lineage_db.records import Run, Version
from avo.search.acceptance import Thresholds
from avo.search.judging import releases

MOST_EDITS = 24
"""Most edits that are taken away: the first moves, then the first hunks."""
_NAME = 60
"""Characters of a line by which a hunk is named."""


@dataclass(frozen=True, slots=True)
class _Whole:
    """A version as its edits make it."""

    names: tuple[str, ...]
    moves: bool
    without: Callable[[frozenset[int]], str | None]
    """Returns the source without some of the edits; None where the others cannot be made then."""


def ablate(
    run: str, line: Sequence[Version], problem: str, judge: Evaluator, thresholds: Thresholds, tell: Tell
) -> Ablation:
    """Return what the edits of the last version of ``line`` are worth in it.

    ``line`` goes from a seed to the version, each made from the one before it. An edit is useless where acceptance, by
    these ``thresholds``, would not take the version over the kernel without the edit. As there, means over neighbours
    are compared; but single predictions where the version was accepted without neighbours. A kernel takes up to half a
    minute. ``tell`` hears what is judged. Raises ``NotReproduced`` if the version is not correct now.
    """
    seed, version = line[0], line[-1]
    whole = _moves(line, problem, judge.target) or _hunks(seed.attempt.source, version.attempt.source)
    accepted = version.attempt.evaluation.score
    judging = _Judging(judge, problem, bool(accepted and accepted.neighbours), tell, 2 + len(whole.names[:MOST_EDITS]))
    itself = judging(version.attempt.source, "the version itself")
    if itself.score is None:
        raise NotReproduced(
            f"{run}@{version.number} is not correct as judged now, {_fault(itself)}: its edits have no worth"
        )
    edits, useless = [], []
    for place, name in list(enumerate(whole.names))[:MOST_EDITS]:
        source = whole.without(frozenset({place}))
        if source is None:
            edits.append(Edit(name, None, why="later moves find nothing to do without it"))
            continue
        found = judging(source, f"without {name}")
        if found.score is None:
            edits.append(Edit(name, None, why=_fault(found)))
            continue
        edits.append(_edit(name, itself.score, found.score, thresholds))
        if edits[-1].useless:
            useless.append(place)
    dropped, minimal, tflops = _least(whole, useless, version.attempt.source, itself.score, thresholds, judging)
    return Ablation(
        run, version.number, tuple(each.number for each in line), any(len(each.parents) > 1 for each in line),
        judging.ranked, itself.geomean_tflops, tuple(edits), whole.moves, max(0, len(whole.names) - MOST_EDITS),
        tuple(whole.names[place] for place in sorted(dropped)), minimal, tflops, releases(),
    )  # fmt: skip


class _Judging:
    """Judges sources, equal ones once, and says how far it is."""

    def __init__(self, judge: Evaluator, problem: str, ranked: bool, tell: Tell, count: int) -> None:
        self._judge, self._problem, self.ranked, self._tell, self._count = judge, problem, ranked, tell, count
        self._known: dict[str, Evaluation] = {}
        self._asked = 0

    def __call__(self, source: str, words: str) -> Evaluation:
        """Return the verdict, with the neighbours of a correct kernel if kernels are ``ranked``."""
        self._asked += 1
        self._tell(Progress(words=f"{self._asked} of about {max(self._asked, self._count)}, {words}"))
        if source not in self._known:
            found = self._judge.evaluate(Candidate(self._problem, source))
            self._known[source] = self._rank(found, source) if self.ranked and found.score else found
        return self._known[source]

    def _rank(self, found: Evaluation, source: str) -> Evaluation:
        seen = self._judge.inspect(Inspection(Look.RANK, self._problem, source))
        if seen.fault:
            return replace(found, status=seen.fault.status, message=seen.fault.message, score=None)
        return replace(found, score=seen.score)


def _fault(found: Evaluation) -> str:
    return f"{found.status.words}: {found.message.partition(chr(10))[0]}"


def _edit(name: str, whole: Score, without: Score, thresholds: Thresholds) -> Edit:
    """Return what an edit is worth by the scores of the whole version and of the kernel without it."""
    found = difference(whole, without, thresholds.min_share)
    decision = Lead(0, found).decide(thresholds.min_gain, thresholds.min_share)
    return Edit(name, found.gain, max(thresholds.min_gain, found.resolution or 0.0), decision.refused)


def _least(
    whole: _Whole, useless: Sequence[int], source: str, itself: Score, thresholds: Thresholds, judging: _Judging
) -> tuple[frozenset[int], str, float]:
    """Return the edits that can go together, the source without them and its speed: all useless ones, or as many as go
    one after the other.
    """
    best: tuple[frozenset[int], str, float] = frozenset(), source, itself.geomean_tflops

    def attempt(places: frozenset[int]) -> bool:
        nonlocal best
        made = whole.without(places)
        if made is None:
            return False
        found = judging(made, f"without {len(places)} useless edit{'s' * (len(places) > 1)}")
        if found.score is None or not _edit("", itself, found.score, thresholds).useless:
            return False
        best = places, made, found.geomean_tflops
        return True

    if useless and not attempt(frozenset(useless)):
        for place in useless:
            attempt(best[0] | {place})
    return best


def _moves(line: Sequence[Version], problem: str, target: Target) -> _Whole | None:
    """Return a version as the moves of its line make it; None where repeating them makes another source."""
    made = [part.partition(": ") for version in line[1:] for part in parts_of(version.change)]
    by_name = {move.name: move for move in MOVES}
    if not made or any(name not in by_name for name, _, _ in made):
        return None
    parts: list[tuple[Move, str]] = []
    source = line[0].attempt.source
    for name, _, what in made:  # a plan's moves are edits of their own
        found = _single(by_name[name], what, source, target, problem)
        if found is None:
            return None
        steps, source = found
        parts += steps

    def without(places: frozenset[int]) -> str | None:
        source = line[0].attempt.source
        for place, (move, what) in enumerate(parts):
            if place in places:
                continue
            made = _variant(move, what, source, target, problem)
            if made is None:
                return None
            source = made
        return source

    same = Candidate(problem, source).digest == line[-1].attempt.digest
    return _Whole(tuple(f"{move.name}: {what}" for move, what in parts), True, without) if same else None


def _variant(move: Move, what: str, source: str, target: Target, problem: str) -> str | None:
    return next((each.source for each in move.variants(source, target, problem) if each.label == what), None)


def _single(
    move: Move, what: str, source: str, target: Target, problem: str
) -> tuple[list[tuple[Move, str]], str] | None:
    """Return the moves of which one consists, with what each changes, and the source; None where it cannot be made."""
    alone = replace(move, first=())
    if (made := _variant(alone, what, source, target, problem)) is not None:
        return [(alone, what)], made
    steps: list[tuple[Move, str]] = []
    for other in move.first:
        for variant in other.variants(source, target, problem)[:1]:
            source = variant.source
            steps.append((other, variant.label))
    label = what.removeprefix("".join(f"{before}, " for _, before in steps))
    made = _variant(alone, label, source, target, problem)
    return None if made is None else ([*steps, (alone, label)], made)


def _hunks(old: str, new: str) -> _Whole:
    """Return a source as hunks of its difference to another."""
    before, after = old.splitlines(keepends=True), new.splitlines(keepends=True)
    steps = SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
    changed = [step for step in steps if step[0] != "equal"]

    def kept(places: frozenset[int]) -> Iterator[str]:
        gone = {changed[place] for place in places}
        for step in steps:
            _, first, last, begin, end = step
            yield from before[first:last] if step in gone else after[begin:end]

    def name(step: tuple[str, int, int, int, int]) -> str:
        _, first, last, begin, end = step
        added = next((line.strip() for line in after[begin:end] if line.strip()), "")
        removed = next((line.strip() for line in before[first:last] if line.strip()), "")
        return f"line {begin + 1}: " + (f"+ {added[:_NAME]}" if added else f"- {removed[:_NAME]}")

    return _Whole(tuple(map(name, changed)), False, lambda places: "".join(kept(places)))


def unablated(run: Run, version: Version) -> str:
    """Return why a version cannot be ablated, in words; empty where it can."""
    if run.target == CUDA:
        return f"run {run.name!r} was measured, and edits are predicted: name a run for a card such as h100"
    return "" if version.parents else f"{run.name}@{version.number} is a seed, which has no edits: name a later version"


def ablate_version(run: Run, versions: Sequence[Version], number: int, judge: Evaluator, tell: Tell) -> Ablation:
    """Return the ablation of a version of a run for which there is no ``unablated``."""
    by_number = {version.number: version for version in versions}
    line = [by_number[number]]
    while line[0].parents:
        line.insert(0, by_number[line[0].parents[0]])
    config = RunConfig.stored(run, {})
    return ablate(run.name, line, run.problem, judge, Thresholds(config.min_gain, config.min_share), tell)
