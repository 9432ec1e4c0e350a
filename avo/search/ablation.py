"""Finds out which edits carry a version: each is taken away alone, and the kernel without it is judged again."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher

from avo.agents.edits import parts_of
from avo.agents.moves import MOVES
from avo.agents.moves.move import Move
from avo.errors import NotReproduced
from avo.evaluator.candidate import Candidate
from avo.evaluator.evaluation import Evaluation
from avo.evaluator.evaluators import Evaluator
from avo.evaluator.resolution import resolution
from avo.evaluator.target import Target
from avo.lineage_db.records import Run, Version

MOST_EDITS = 24
"""Most edits that are taken away: the first moves, then the first hunks."""
_LEAST = 0.011
"""Gain from which on kernels are told apart where a version's neighbours were not predicted: the least resolution."""
_NAME = 60
"""Characters of a line by which a hunk is named."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Ablated:
    """A version without one of its edits."""

    edit: str
    """The move, or the first line that the hunk adds or removes."""
    worth: float | None
    """By how much the edit makes the version faster, 0.03 being 3 percent; None where it cannot be taken away alone."""
    why: str = ""
    """Why not, in words."""


@dataclass(frozen=True, slots=True)
class Ablation:
    """What each edit of a version is worth in it, and the version without the useless ones."""

    run: str
    version: int
    line: tuple[int, ...]
    """The versions from a seed to it, each made from the one before: of several parents, the first."""
    merged: bool
    """Whether one of these has other parents too, whose edits are not told apart."""
    tflops: float
    """Of the version, as it was judged beside the others."""
    width: float
    """The resolution: an edit that is worth no more is useless."""
    edits: tuple[Ablated, ...]
    """Moves in the order in which they were made, or hunks from top to bottom."""
    moves: bool
    """Whether edits are moves. Where those repeated make another source, they are hunks of its difference to the seed.
    """
    left_out: int
    """Number of edits beyond ``MOST_EDITS``, which were kept."""
    dropped: tuple[str, ...]
    """The edits that the minimal kernel does without."""
    minimal: str
    """Its source; that of the version where no edit can go."""
    minimal_tflops: float


@dataclass(frozen=True, slots=True)
class _Whole:
    """A version as its edits make it."""

    names: tuple[str, ...]
    moves: bool
    without: Callable[[frozenset[int]], str | None]
    """Returns the source without some of the edits; None where the others cannot be made then."""


def ablate(
    run: str, line: Sequence[Version], problem: str, judge: Evaluator, say: Say = lambda words: None
) -> Ablation:
    """Return what the edits of the last version of ``line`` are worth in it.

    ``line`` goes from a seed to the version, each made from the one before it. Where speed is predicted a kernel takes
    seconds. ``say`` hears what is judged. Raises ``NotReproduced`` if the version is not correct now.
    """
    seed, version = line[0], line[-1]
    whole = _moves(line, problem, judge.target) or _hunks(seed.attempt.source, version.attempt.source)
    score = version.attempt.evaluation.score
    width = (resolution(score) if score else None) or _LEAST

    def judged(source: str, words: str) -> Evaluation:
        say(words)
        return judge.evaluate(Candidate(problem, source))

    itself = judged(version.attempt.source, "the version itself")
    if not itself.correct:
        why = f"{itself.status.words}: {itself.message.partition(chr(10))[0]}"
        raise NotReproduced(f"{run}@{version.number} is not correct as judged now, {why}: its edits have no worth")
    base = itself.geomean_tflops
    known: dict[str, Evaluation] = {}
    edits, useless = [], []
    for place, name in list(enumerate(whole.names))[:MOST_EDITS]:
        source = whole.without(frozenset({place}))
        if source is None:
            edits.append(Ablated(name, None, "later moves find nothing to do without it"))
            continue
        if source not in known:
            known[source] = judged(source, f"without {name}")
        found = known[source]
        if not found.correct:
            edits.append(Ablated(name, None, f"{found.status.words}: {found.message.partition(chr(10))[0]}"))
            continue
        worth = base / found.geomean_tflops - 1
        edits.append(Ablated(name, worth))
        if worth <= width:
            useless.append(place)
    dropped, minimal, tflops = _least(whole, useless, version.attempt.source, base, width, judged)
    return Ablation(
        run, version.number, tuple(each.number for each in line), any(len(each.parents) > 1 for each in line),
        base, width, tuple(edits), whole.moves, max(0, len(whole.names) - MOST_EDITS),
        tuple(whole.names[place] for place in sorted(dropped)), minimal, tflops,
    )  # fmt: skip


def _least(
    whole: _Whole, useless: Sequence[int], source: str, base: float, width: float,
    judged: Callable[[str, str], Evaluation],
) -> tuple[frozenset[int], str, float]:  # fmt: skip
    """Return the edits that can go together, the source without them and its speed: all useless ones, or as many as go
    one after the other.
    """
    best: tuple[frozenset[int], str, float] = frozenset(), source, base

    def attempt(places: frozenset[int]) -> bool:
        nonlocal best
        made = whole.without(places)
        if made is None:
            return False
        found = judged(made, f"without {len(places)} edits that are worth nothing")
        if not found.correct or found.geomean_tflops < base * (1 - width):
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


def ablate_version(
    run: Run, versions: Sequence[Version], number: int, judge: Evaluator, say: Say = lambda words: None
) -> Ablation | None:
    """Return the ablation of a version of a run; None for a seed, which has no edits."""
    by_number = {version.number: version for version in versions}
    line = [by_number[number]]
    while line[0].parents:
        line.insert(0, by_number[line[0].parents[0]])
    return ablate(run.name, line, run.problem, judge, say) if len(line) > 1 else None
