"""The operator ``mutate``: edits a version by syntax-tree moves, without a language model.

A step looks at many edits and evaluates the one that is predicted to be fastest; where it cannot look, it draws one.

Its memory is the run's record: a change is written ``move: what; move: what``, so that what each move has paid can be
read back from looks and attempts. Equal briefs give equal candidates.
"""

import math
import random
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from avo.agents.edits import Edit, edit_of, moves_of
from avo.agents.errors import BudgetSpent, CandidateTaken
from avo.agents.moves import MOVES, Move
from avo.agents.operator import Brief, Proposal
from avo.agents.scouting import Scout, critical_resources, most_looks
from avo.evaluator.catalogue import name_of
from avo.evaluator.units import unit_of
from avo.lineage_db.entries import Intervention
from avo.lineage_db.records import Attempt, AttemptSummary, Version

_BEST_PARENT = 0.85
"""Share of steps without looks that edit the best version; the others go back to an earlier one."""
_BUILT_ON = 0.3
"""Share of steps without looks that first edit an unresolved attempt, where there are any."""
_DEPTHS = ((1, 0.85), (2, 0.12), (3, 0.03))
"""Number of moves in one edit, with the weight of each number: some moves only pay together."""
_STALLED_DEPTHS = ((1, 0.4), (2, 0.4), (3, 0.2))
"""Like ``_DEPTHS``, for use once the supervisor has seen that single moves lead nowhere."""
_COMPOSITIONS = 60
"""A parent counts as exhausted after this many draws of random compositions."""
_PRIOR_TRIES = 1.0
"""A move's prior counts as much as this many tries."""
_PLAN_TRIES = 3
"""Most candidates that a step evaluates while each has the launch plans of an earlier one."""
_RELIEF = 2.0
"""Factor on the prior of a move that relieves the critical resource of its parent."""
_POINTED_OUT = 0.5
"""Least value of a move that the supervisor suggests, as a share of the best move's value."""
_LEAST_VALUE = 0.002
"""Least value of any move, in log speed-up: a move that never paid is still tried now and then."""


class Mutate:
    """Applies one move, sometimes two or three together, to the best version or an earlier one."""

    name = "mutate"
    adapts = False

    def __init__(self, moves: Sequence[Move] = MOVES) -> None:
        self._moves = moves

    def vary(self, brief: Brief) -> Proposal:
        """Evaluate one candidate that the run has not tried; propose it if it is correct.

        That two sources have one launch plan is only known once both are evaluated: such a candidate counts as tried,
        and another is drawn.
        """
        rng = random.Random(brief.seed)
        tried = {attempt.digest for attempt in brief.attempts} | {version.attempt.digest for version in brief.versions}
        plans = {attempt.plan_digest for attempt in brief.attempts}
        plans |= {version.attempt.plan_digest for version in brief.versions}
        looked = {look.digest for look in brief.looks}
        unseen = [attempt for attempt in brief.attempts if attempt.digest not in looked]
        twins: list[str] = []
        pointed_out = {name for made in brief.interventions for name in _directed(made)}

        def values(critical: frozenset[str]) -> Mapping[str, float]:
            found = move_values(self._moves, brief.versions, unseen, critical)
            least = _POINTED_OUT * max(found.values(), default=0.0)
            return {name: max(value, least) if name in pointed_out else value for name, value in found.items()}

        scout = self._scouted(brief, values, rng)
        if scout and (words := scout.behind()):
            return Proposal(None, words)
        for parent, edit, built_on in self._edits(brief, tried, values, rng, scout):
            candidate = brief.candidate(edit.source)
            try:
                attempt = brief.evaluate(candidate, change=edit.change, parents=(parent.number,), built_on=built_on)
            except CandidateTaken:
                tried.add(candidate.digest)
                continue
            except BudgetSpent as spent:
                return Proposal(None, str(spent))
            if attempt.plan_digest is None or attempt.plan_digest not in plans:
                return _proposal(edit, parent, attempt, name_of(brief.problem))
            tried.add(candidate.digest)
            twins.append(edit.on(parent))
            if len(twins) == _PLAN_TRIES:
                return Proposal(None, f"{'; '.join(twins)}: launch plans that were tried before")
        return Proposal(None, "exhausted: every edit of every version has been tried")

    def _scouted(
        self, brief: Brief, values: Callable[[frozenset[str]], Mapping[str, float]], rng: random.Random
    ) -> Scout | None:
        """Return a scout that has looked at edits; None where no looks are left."""
        left = brief.desk.left().looks
        if brief.look is None or left == 0:
            return None
        scout = Scout(brief, brief.look, self._moves, values, rng)
        scout.explore(most_looks(brief, left))
        return scout

    def _edits(
        self,
        brief: Brief,
        tried: set[str],
        values: Callable[[frozenset[str]], Mapping[str, float]],
        rng: random.Random,
        scout: Scout | None,
    ) -> Iterator[tuple[Version, Edit, int | None]]:
        """Yield edits that are not ``tried``, a set that grows: those predicted best, then drawn ones.

        Each comes with the version that it goes back to, and with the attempt since then that it was built on, if any.
        """
        looked = set[str]()
        if scout:
            yield from scout.ranked(tried)
            looked = scout.known  # and faulty, or else it would have been tried
        for parent, base, start in _starts(brief, rng):
            score = base.evaluation.score
            worth = values(critical_resources(score) if score else frozenset())
            while edit := self._choose(start, brief, tried | looked, worth, rng):
                yield parent, edit, base.id if base.id != parent.attempt.id else None

    def _choose(
        self, start: Edit, brief: Brief, tried: Collection[str], values: Mapping[str, float], rng: random.Random
    ) -> Edit | None:
        """Draw an untried edit of ``start``: of as many moves as drawn, else of one, else any composition."""
        depths = _STALLED_DEPTHS if brief.interventions else _DEPTHS
        depth = rng.choices([depth for depth, _ in depths], [weight for _, weight in depths])[0]
        if depth > 1 and (edit := self._compose(start, depth, brief, tried, values, rng)):
            return edit
        if edit := self._draw(start, brief, values, rng, skip=tried):
            return edit
        draws = (self._compose(start, rng.choice((2, 3)), brief, tried, values, rng) for _ in range(_COMPOSITIONS))
        return next((edit for edit in draws if edit), None)

    def _compose(
        self,
        edit: Edit | None,
        depth: int,
        brief: Brief,
        tried: Collection[str],
        values: Mapping[str, float],
        rng: random.Random,
    ) -> Edit | None:
        """Draw ``depth`` different moves one after the other; None when the result was tried or there are too few."""
        for _ in range(depth):
            edit = self._draw(edit, brief, values, rng, skip=()) if edit else None
        return edit if edit and brief.candidate(edit.source).digest not in tried else None

    def _draw(
        self, edit: Edit, brief: Brief, values: Mapping[str, float], rng: random.Random, *, skip: Collection[str]
    ) -> Edit | None:
        """Apply one more move, drawn by squared value, in a variant drawn by rank; pass over digests in ``skip``.

        Each move has chances of its own, so that one that finds nothing to do changes nothing for the others.
        """
        seed = rng.getrandbits(64)
        chances = {move: random.Random(f"{seed} {move.name}") for move in self._moves if move.name not in edit.moves}
        # Weighted sampling without replacement, as by Efraimidis and Spirakis (2006).
        turns = {move: chance.expovariate(values[move.name] ** 2) for move, chance in chances.items()}
        for move in sorted(turns, key=lambda move: turns[move]):
            variants = [
                variant
                for variant in move.variants(edit.source, brief.target, brief.problem.name)
                if brief.candidate(variant.source).digest not in skip
            ]
            if variants:
                variant = chances[move].choices(variants, [1 / (rank + 1) ** 2 for rank in range(len(variants))])[0]
                return edit.then(move.name, variant.label, variant.source)
        return None


def move_values(
    moves: Sequence[Move],
    versions: Sequence[Version],
    attempts: Sequence[AttemptSummary],
    critical: Collection[str] = (),
) -> dict[str, float]:
    """Return each move's expected log speed-up per try: its prior and what its attempts gave, averaged.

    The prior is ``_RELIEF`` times as large for a move that relieves one of the ``critical`` resources. An attempt gives
    log(its score / its parent's), but nothing when it is faulty or slower. It counts for each of its moves.
    """
    scores = {version.number: version.attempt.evaluation.own_tflops for version in versions}
    gains: dict[str, list[float]] = {move.name: [] for move in moves}
    for attempt in attempts:
        if scores.keys().isdisjoint(attempt.parents):
            continue  # its parent belongs to another part of the population: its gain is not known here
        before = max(scores.get(number, 0.0) for number in attempt.parents)
        gain = math.log(attempt.geomean_tflops / before) if attempt.geomean_tflops > before > 0 else 0.0
        for name in moves_of(attempt.change):
            if name in gains:
                gains[name].append(gain)
    priors = {move.name: move.prior * (1 if move.relieves.isdisjoint(critical) else _RELIEF) for move in moves}
    return {
        name: max(_LEAST_VALUE, (_PRIOR_TRIES * prior + sum(gains[name])) / (_PRIOR_TRIES + len(gains[name])))
        for name, prior in priors.items()
    }


def _proposal(edit: Edit, parent: Version, attempt: Attempt, problem: str) -> Proposal:
    tried_on = edit.on(parent)
    score = attempt.evaluation.score
    if score is None:
        return Proposal(None, f"{tried_on}: {attempt.status.words}: {attempt.evaluation.message}")
    before = parent.attempt.evaluation.own_tflops
    unit = unit_of(problem, attempt.evaluation.suite, score.target, score.card)
    return Proposal(attempt, f"{tried_on}: {unit.cell(before)} -> {unit.said(score.geomean_tflops, score.kind)}")


def _directed(made: Intervention) -> Iterator[str]:
    """Yield the move names that directions begin with."""
    return (direction.partition(":")[0] for direction in made.directions)


def _starts(brief: Brief, rng: random.Random) -> Iterator[tuple[Version, Attempt, Edit]]:
    """Yield what to edit: a parent, the attempt whose source is edited, and the edit of the parent that this is.

    They are the versions, and now and then an unresolved attempt before them, unless a version is asked for. Such an
    attempt counts as an edit of its own parent, so that what is made of it is compared with a version.
    """
    known = {version.number: version for version in brief.versions}
    better = [] if brief.asked else [each for each in brief.unresolved if not known.keys().isdisjoint(each.parents)]
    if better and rng.random() < _BUILT_ON:
        attempt = brief.desk.attempt(rng.choice(better).attempt_id)
        parent = next(known[number] for number in attempt.parents if number in known)
        yield parent, attempt, edit_of(attempt.change, attempt.source, f"attempt {attempt.id}")
    edited = {number for attempt in brief.attempts for number in attempt.parents}
    edited |= {number for look in brief.looks for number in look.parents}
    for version in _parents(brief.versions, brief.asked, edited, rng):
        yield version, version.attempt, Edit(version.attempt.source, (), ())


def _parents(
    versions: Sequence[Version], asked: Version | None, edited: Collection[int], rng: random.Random
) -> Iterator[Version]:
    """Yield every version once, the best first, which is the last; now and then another one comes before it.

    If there are several seeds, those that were never ``edited`` come first, in any order: a slower one may lead
    further. A version that is ``asked`` for comes before all.
    """
    ranked = sorted(versions, key=lambda version: -version.number)
    if len(ranked) > 1 and rng.random() >= _BEST_PARENT:
        ranked.insert(0, ranked.pop(rng.randrange(1, len(ranked))))
    seeds = [version for version in versions if not version.parents]
    if len(seeds) > 1:
        open_ones = [version for version in seeds if version.number not in edited]
        rng.shuffle(open_ones)
        ranked = [*open_ones, *(version for version in ranked if version not in open_ones)]
    if asked is not None:
        ranked.sort(key=lambda version: version is not asked)
    yield from ranked
