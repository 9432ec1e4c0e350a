"""Looks guide the operator ``mutate``: many edits are compiled and predicted, and the best of them is evaluated.

The search is a beam: each edit that is looked at adds one move to the version itself or to one of the best edits seen.
So moves that pay alone are soon seen together, in one attempt. What earlier steps saw comes from the record.
"""

import math
import random
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import TypeAlias

from agents.edits import Edit, parts_of
from agents.moves import Move
from agents.operator import Brief, Looker, Variation
from evaluator.evaluation import Score, Status, geometric_mean
from evaluator.inspection import Findings
from evaluator.target import ScoreKind
from lineage_db.decision import Ruling
from lineage_db.records import AttemptSummary, Version

LOOKS = 24
"""Looks of a step without a limit of its own."""
_BATCH = 8
"""Edits that are looked at together: what is seen of them decides the next ones."""
_BEAM = 4
"""Number of edits, besides the version itself, that further moves are added to: the fastest that are not exhausted."""
_SURE = 0.9
"""Share of a kernel's doubts that is taken to be true: acceptance asks for a lead in that share of the draws."""
_NOISE = 0.07
"""Edits are drawn by exp(the logarithm of the speed expected of them / this)."""
_FAULT = -0.3
"""What a change that led to a fault gained, in log speed-up: elsewhere it may fit."""

Path: TypeAlias = tuple[str, ...]
"""The changes that lead from a root of the lineage to a source."""


@dataclass(frozen=True, slots=True)
class Sight:
    """What a look showed of one source."""

    tflops: float
    """The speed that it has if most doubts about it are true; 0.0 for a faulty one."""
    digest: str
    plan_digest: str | None


class Paths:
    """Everything that a run has looked at, by the changes that lead to it, and what each move gained."""

    def __init__(self, brief: Brief) -> None:
        self._of: dict[int, Path] = {}
        for version in brief.versions:
            before = self._of.get(version.parents[0]) if version.parents else None
            root = (f"version {version.number}",)
            self._of[version.number] = root if before is None else (*before, *parts_of(version.attempt.change))
        self.seen: dict[Path, Sight] = {}
        self.gains: dict[str, float] = {}
        """The mean gain of each change, such as ``exp2: ...``, in log speed-up, where the source before was seen too.
        """
        self._gains: defaultdict[str, list[float]] = defaultdict(list)
        for version in brief.versions:
            score = version.attempt.evaluation.score
            if score is not None and score.kind is ScoreKind.PREDICTED:
                attempt = version.attempt
                self.seen[self.of(version)] = Sight(surely(score), attempt.digest, None)
        for look in brief.looks:
            if look.parents and look.parents[0] in self._of:
                path = (*self._of[look.parents[0]], *parts_of(look.change))
                self.add(path, Sight(_surely(look.geomean_tflops, look.doubt), look.digest, look.plan_digest))
        faulty = {attempt.digest: _faulty(attempt) for attempt in brief.attempts}
        judged = [(frozenset(path), faulty.get(sight.digest)) for path, sight in self.seen.items() if sight.tflops]
        right = frozenset().union(*(changes for changes, wrong in judged if wrong is False))
        self._wrong = [changes - right or changes for changes, wrong in judged if wrong]
        """Of what was predicted and then found to be wrong, the changes that led to it and to nothing right."""

    def of(self, version: Version) -> Path:
        """Return the changes that lead to a version."""
        return self._of[version.number]

    def below(self, path: Path) -> Iterator[tuple[Path, Sight]]:
        """Yield what was seen further on: the changes that were added to ``path``, and what they led to.

        What lies beyond another version is that version's.
        """
        first, versions = len(path), set(self._of.values())
        for there, sight in self.seen.items():
            later = (there[:end] for end in range(first + 1, len(there) + 1))
            if there[:first] == path and len(there) > first and versions.isdisjoint(later):
                yield there[first:], sight

    def sound(self, path: Path) -> bool:
        """Whether the changes do not include all those that an attempt is thought to be wrong for."""
        return not any(wrong.issubset(path) for wrong in self._wrong)

    def add(self, path: Path, sight: Sight) -> None:
        """Add what was seen at the end of a path."""
        self.seen[path] = sight
        before = self.seen.get(path[:-1])
        if before is not None and before.tflops > 0:
            gain = math.log(sight.tflops / before.tflops) if sight.tflops else _FAULT
            self._gains[path[-1]].append(gain)
            self.gains[path[-1]] = sum(self._gains[path[-1]]) / len(self._gains[path[-1]])


def surely(score: Score) -> float:
    """Return the predicted speed if most doubts are true, in TFLOPS."""
    return _surely(score.geomean_tflops, geometric_mean(case.doubt for case in score.cases))


def _surely(tflops: float, doubt: float) -> float:
    return tflops / math.pow(doubt, _SURE)


def _faulty(attempt: AttemptSummary) -> bool:
    failed = attempt.decision is not None and attempt.decision.ruling is Ruling.EXAMINED
    return failed or attempt.status is not Status.CORRECT


@dataclass(frozen=True, slots=True)
class _Option:
    """An edit that may be looked at."""

    value: float
    """Logarithm of the speed in TFLOPS that is expected of it."""
    digest: str
    edit: Edit


class Scout:
    """Looks at edits of one start, and ranks what it and earlier steps have seen."""

    def __init__(
        self,
        brief: Brief,
        look: Looker,
        parent: Version,
        start: Edit,
        moves: Sequence[Move],
        values: Mapping[str, float],
        rng: random.Random,
    ) -> None:
        """``values`` are what each move is worth where nothing was seen of it yet, in log speed-up."""
        self._brief, self._look, self._parent, self._start = brief, look, parent, start
        self._moves, self._values, self._rng = {move.name: move for move in moves}, values, rng
        self._paths = Paths(brief)
        self._path: Path = (*self._paths.of(parent), *start.parts)
        self._known = {sight.digest for sight in self._paths.seen.values()}
        self._edits: dict[Path, Edit] = {(): start}

    def explore(self, most: int) -> bool:
        """Look at ``most`` edits, or as many as there are; return whether looks say anything here."""
        start = self._paths.seen.get(self._path)
        if start is None and most > 0:
            (found,) = self._look([self._variation(self._start)])
            start = self._keep(self._start, found)
            most -= 1
        if start is None or not start.tflops:
            return False
        while most > 0 and (batch := self._batch(min(_BATCH, most))):
            for edit, found in zip(batch, self._look([self._variation(edit) for edit in batch]), strict=True):
                self._keep(edit, found)
            most -= len(batch)
        return True

    def ranked(self, tried: Collection[str]) -> Iterator[Edit]:
        """Yield the edits that were seen and not ``tried``, by digest, the fastest first; of equal plans only one."""
        plans = {sight.plan_digest for sight in self._paths.seen.values() if sight.digest in tried} - {None}
        for added, sight in self._seen():
            if sight.digest not in tried and sight.plan_digest not in plans and (edit := self._edit(added)):
                yield edit
                plans.add(sight.plan_digest)

    def _seen(self) -> list[tuple[Path, Sight]]:
        """Return what can be launched and is not known to be wrong, the fastest first, ties in the order of looking."""
        seen, path = self._paths, self._path
        found = [each for each in seen.below(path) if each[1].tflops and seen.sound((*path, *each[0]))]
        return sorted(found, key=lambda each: -each[1].tflops)

    def _batch(self, size: int) -> list[Edit]:
        """Draw different edits to look at together: those that are expected to be fastest, with some noise."""
        nodes = [((), self._paths.seen[self._path]), *self._seen()]
        made = ((sight, edit) for added, sight in nodes if (edit := self._edit(added)))
        open_ones = filter(None, (list(self._options(edit, sight.tflops)) for sight, edit in made))
        options = list(chain.from_iterable(islice(open_ones, 1 + _BEAM)))
        noise = [-math.log(-math.log(1 - self._rng.random())) for _ in options]  # so that all are drawn by exp(value)
        order = sorted(range(len(options)), key=lambda i: -(options[i].value / _NOISE + noise[i]))
        batch: dict[str, Edit] = {}
        for i in order:
            batch.setdefault(options[i].digest, options[i].edit)
            if len(batch) == size:
                break
        return list(batch.values())

    def _options(self, node: Edit, tflops: float) -> Iterator["_Option"]:
        """Yield what one more move makes of ``node`` that is new and not known to be wrong."""
        gains, root = self._paths.gains, self._paths.of(self._parent)
        for move in self._moves.values():
            seen = [gain for change, gain in gains.items() if change.startswith(f"{move.name}: ")]
            value = (self._values[move.name] + sum(max(0.0, gain) for gain in seen)) / (1 + len(seen))
            for rank, variant in enumerate(move.variants(node.source, self._brief.target)):
                edit = node.then(move.name, variant.label, variant.source)
                digest = self._brief.candidate(variant.source).digest
                if digest not in self._known and self._paths.sound((*root, *edit.parts)):
                    gain = gains.get(edit.parts[-1], value / (rank + 1))
                    yield _Option(math.log(tflops) + gain, digest, edit)

    def _edit(self, added: Path) -> Edit | None:
        """Make an edit again that was seen; None where the moves no longer make it."""
        if added not in self._edits:
            before = self._edit(added[:-1])
            name, _, what = added[-1].partition(": ")
            variants = (
                ()
                if before is None or name not in self._moves
                else self._moves[name].variants(before.source, self._brief.target)
            )
            made = next((variant for variant in variants if variant.label == what), None)
            if before is None or made is None:
                return None
            self._edits[added] = before.then(name, what, made.source)
        return self._edits[added]

    def _variation(self, edit: Edit) -> Variation:
        return Variation(self._brief.candidate(edit.source), edit.change, (self._parent.number,))

    def _keep(self, edit: Edit, found: Findings) -> Sight:
        tflops = surely(found.score) if found.score else 0.0
        sight = Sight(tflops, self._brief.candidate(edit.source).digest, found.plan_digest)
        added = edit.parts[len(self._start.parts) :]
        self._paths.add((*self._path, *added), sight)
        self._known.add(sight.digest)
        self._edits[added] = edit
        return sight
