"""Looks guide the operator ``mutate``: many edits are compiled and predicted, and the best of them is evaluated.

The search is a beam: each edit that is looked at adds one move to a seed or to one of the fastest sources seen. So
moves that pay alone are soon seen together, in one attempt. What earlier steps saw comes from the record.
"""

import math
import random
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from itertools import chain, islice
from typing import TypeAlias

from avo.agents.edits import Edit, edit_of, parts_of
from avo.agents.moves import Move, Variant
from avo.agents.operator import Brief, Looker, Variation
from avo.evaluator.evaluation import Score, Status, geometric_mean
from avo.evaluator.target import ScoreKind
from avo.lineage_db.decision import Ruling
from avo.lineage_db.looked import Looked
from avo.lineage_db.records import AttemptSummary, Version

LOOKS = 24
"""Looks of a step without a limit of its own."""
_BATCH = 8
"""Edits that are looked at together: what is seen of them decides the next ones."""
_BEAM = 5
"""Number of sources, besides the seeds, that further moves are added to: the fastest that are not exhausted."""
_ALIKE = 0.005
"""Sources whose speeds are nearer than this are most often one code in other words: one of them is enough."""
_AHEAD = 0.005
"""Least lead over the best version for which an edit is judged in full: acceptance resolves about twice that."""
_SURE = 0.9
"""Share of a kernel's doubts that is taken to be true: acceptance asks for a lead in that share of the draws."""
_NOISE = 0.01
"""Edits are drawn by exp(the logarithm of the speed expected of them / this)."""
_FAULT = -0.3
"""What a change that led to a fault gained, in log speed-up: elsewhere it may fit."""
_LOSS = -0.1
"""Least gain that counts against other variants of a move."""
_SHARE = 0.5
"""Share of a step's time that its looks may take: the rest is for the attempt."""

Path: TypeAlias = tuple[str, ...]
"""The changes that lead from a root of the lineage to a source."""


@dataclass(frozen=True, slots=True)
class Sight:
    """What a look showed of one source."""

    tflops: float
    """The speed that it has if most doubts about it are true; 0.0 for a faulty one."""
    digest: str
    plan_digest: str | None
    critical: frozenset[str] = frozenset()
    """The resources that hold it back most; nothing for what an earlier step looked at."""


class Paths:
    """Everything that a run has looked at, by the changes that lead to it, and what each move gained."""

    def __init__(self, brief: Brief) -> None:
        self._of: dict[int, Path] = {}
        for version in brief.versions:
            before = self._of.get(version.parents[0]) if version.parents else None
            root = (f"version {version.number}",)
            self._of[version.number] = root if before is None else (*before, *parts_of(version.attempt.change))
        self._at = {self._of[version.number]: version for version in brief.versions}
        self._attempts = {attempt.digest: attempt.attempt_id for attempt in brief.attempts}
        self.seen: dict[Path, Sight] = {}
        self.gains: dict[str, float] = {}
        """The mean gain of each change, such as ``exp2: ...``, in log speed-up, where the source before was seen too.
        """
        self._gains: defaultdict[str, list[float]] = defaultdict(list)
        for version in brief.versions:
            score = version.attempt.evaluation.score
            if score is not None and score.kind is ScoreKind.PREDICTED:
                self.seen[self.of(version)] = seen_of(score, version.attempt.digest, None)
        for look in brief.looks:
            if look.parents and look.parents[0] in self._of:
                path = (*self._of[look.parents[0]], *parts_of(look.change))
                self.add(path, Sight(_surely(look.geomean_tflops, look.doubt), look.digest, look.plan_digest))
        faulty = {attempt.digest: _faulty(attempt) for attempt in brief.attempts}
        judged = [(frozenset(path), faulty.get(sight.digest)) for path, sight in self.seen.items() if sight.tflops]
        right = frozenset().union(*(changes for changes, wrong in judged if wrong is False))
        self._wrong = [changes - right or changes for changes, wrong in judged if wrong]
        """The changes that led to what was predicted and then found to be wrong, and to nothing right."""

    def of(self, version: Version) -> Path:
        """Return the changes that lead to a version."""
        return self._of[version.number]

    def version(self, path: Path) -> tuple[Version, Path]:
        """Return the last version on a path, and the changes since."""
        end = next(end for end in range(len(path), 0, -1) if path[:end] in self._at)
        return self._at[path[:end]], path[end:]

    def built_on(self, path: Path) -> int | None:
        """Return the last attempt on the way to the end of a path; None if there is none after the last version."""
        _, added = self.version(path)
        ends = range(len(path) - 1, len(path) - len(added), -1)
        tried = (self._attempts.get(self.seen[path[:end]].digest) for end in ends if path[:end] in self.seen)
        return next((attempt for attempt in tried if attempt is not None), None)

    def sound(self, path: Path) -> bool:
        """Whether the changes do not include all those that an attempt is thought to be wrong for."""
        return not any(wrong.issubset(path) for wrong in self._wrong)

    def add(self, path: Path, sight: Sight) -> None:
        """Add what was seen at the end of a path, unless more is known of it."""
        if path not in self.seen or not self.seen[path].critical:
            self.seen[path] = sight
        before = self.seen.get(path[:-1])
        if before is not None and before.tflops > 0:
            gain = math.log(sight.tflops / before.tflops) if sight.tflops else _FAULT
            self._gains[path[-1]].append(gain)
            self.gains[path[-1]] = sum(self._gains[path[-1]]) / len(self._gains[path[-1]])


def most_looks(brief: Brief, left: int | None) -> int:
    """Return how many candidates a step may look at that has ``left`` of them, None for no limit of its own: as many as
    fit into its time, where it has a limit and earlier steps show how long a look takes.
    """
    most = LOOKS if left is None else left
    batches: defaultdict[int, list[Looked]] = defaultdict(list)
    for look in brief.looks:
        batches[look.step_number].append(look)
    # It is not known when a step's first batch began.
    timed = [look for looks in batches.values() for look in looks if look.made > looks[0].made]
    took = sum((looks[-1].made - looks[0].made for looks in batches.values()), timedelta())
    if brief.minutes is None or not timed:
        return most
    return min(most, int(_SHARE * brief.minutes * len(timed) / (took / timedelta(minutes=1))))


def seen_of(score: Score, digest: str, plan_digest: str | None) -> Sight:
    """Return what is seen of a source with this prediction."""
    doubt = geometric_mean(case.doubt for case in score.cases)
    return Sight(_surely(score.own_tflops, doubt), digest, plan_digest, critical_resources(score))


def critical_resources(score: Score) -> frozenset[str]:
    """Return what holds the benchmark cases back most, as the performance model found it; nothing where speed was only
    measured.
    """
    return frozenset(case.critical or case.limiter for case in score.cases) - {""}


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
    path: Path
    source: str


class Scout:
    """Looks at edits of a run's versions, or of one of them, and ranks what it and earlier steps have seen."""

    def __init__(
        self,
        brief: Brief,
        look: Looker,
        moves: Sequence[Move],
        values: Callable[[frozenset[str]], Mapping[str, float]],
        rng: random.Random,
    ) -> None:
        """``values`` are what each move is worth where nothing was seen of it yet, in log speed-up, given the resources
        that are critical.
        """
        self._brief, self._look, self._values, self._rng = brief, look, cache(values), rng
        self._moves = {move.name: move for move in moves}
        self._paths = paths = Paths(brief)
        self._versions = [brief.asked] if brief.asked else list(brief.versions)
        self.known = {sight.digest for sight in paths.seen.values()}
        """Digests of everything that was looked at, and of the versions."""
        self._sources: dict[Path, str | None] = {paths.of(each): each.attempt.source for each in self._versions}

    def explore(self, most: int) -> None:
        """Look at ``most`` edits, or as many as there are, where looks say anything."""
        paths = self._paths
        unseen = [paths.of(each) for each in reversed(self._versions) if paths.of(each) not in paths.seen][:most]
        self._look_at([(path, self._sources[path] or "") for path in unseen])
        most -= len(unseen)
        if not self._nodes():
            return
        while most > 0 and (batch := self._batch(min(_BATCH, most))):
            self._look_at(batch)
            most -= len(batch)

    def ranked(self, tried: Collection[str]) -> Iterator[tuple[Version, Edit, int | None]]:
        """Yield the edits that were seen and whose digests were not ``tried``, fastest first, only one for equal plans.

        Each comes with the version that it goes back to, and with the attempt since then that it was built on, if any.
        """
        plans = {sight.plan_digest for sight in self._paths.seen.values() if sight.digest in tried} - {None}
        for path, sight in self._nodes():
            version, added = self._paths.version(path)
            if not added or sight.digest in tried or sight.plan_digest in plans:
                continue
            if (source := self._source(path)) is not None:
                yield version, edit_of("; ".join(added), source, ""), self._paths.built_on(path)
                plans.add(sight.plan_digest)

    def behind(self) -> str:
        """Return, in words, that nothing new was seen to be faster than the best version; empty where something was,
        and where the step before ended so: then the best that was seen is tried, so that a run goes on.
        """
        brief, paths = self._brief, self._paths
        before = brief.looks[-1].step_number if brief.looks else None
        if before is not None and before not in {attempt.step_number for attempt in brief.attempts}:
            return ""
        best = max(brief.versions, key=lambda version: version.attempt.evaluation.geomean_tflops)
        score = best.attempt.evaluation.score
        if score is None or score.kind is not ScoreKind.PREDICTED:
            return ""
        # The mean of its neighbours, where they are known: what is accepted is compared with that.
        reached = _surely(score.geomean_tflops, geometric_mean(case.doubt for case in score.cases))
        judged = {attempt.digest for attempt in brief.attempts}
        fresh = [sight.tflops for path, sight in self._nodes() if paths.version(path)[1] and sight.digest not in judged]
        gain = max(fresh, default=math.inf) / reached - 1
        if gain >= _AHEAD:
            return ""
        return f"{len(fresh)} edits were looked at and none is ahead of version {best.number}: the best has {gain:+.1%}"

    def _nodes(self) -> list[tuple[Path, Sight]]:
        """Return what can be launched and is not known to be wrong, the fastest first, ties in the order of looking."""
        paths, wanted = self._paths, {each.number for each in self._versions}
        found = [
            (path, sight)
            for path, sight in paths.seen.items()
            if sight.tflops and paths.sound(path) and paths.version(path)[0].number in wanted
        ]
        return sorted(found, key=lambda each: -each[1].tflops)

    def _batch(self, size: int) -> list[tuple[Path, str]]:
        """Draw different edits to look at together: those that are expected to be fastest, with some noise."""
        seeds = {self._paths.of(each) for each in self._versions if not each.parents}
        nodes = self._nodes()
        options = list(chain.from_iterable(islice(self._apart(node for node in nodes if node[0] not in seeds), _BEAM)))
        options += chain.from_iterable(self._options(*node) for node in nodes if node[0] in seeds)
        noise = [-math.log(-math.log(1 - self._rng.random())) for _ in options]  # so that all are drawn by exp(value)
        order = sorted(range(len(options)), key=lambda i: -(options[i].value / _NOISE + noise[i]))
        batch: dict[str, tuple[Path, str]] = {}
        for i in order:
            batch.setdefault(options[i].digest, (options[i].path, options[i].source))
            if len(batch) == size:
                break
        return list(batch.values())

    def _apart(self, nodes: Iterable[tuple[Path, Sight]]) -> Iterator[list[_Option]]:
        """Yield the options of the nodes that have some, fastest first, but of those of about the same speed once."""
        last = math.inf
        for path, sight in nodes:
            if sight.tflops < last * (1 - _ALIKE) and (options := list(self._options(path, sight))):
                last = sight.tflops
                yield options

    def _options(self, path: Path, sight: Sight) -> Iterator[_Option]:
        """Yield what one more move makes of what lies at the end of ``path`` that is new and not known to be wrong."""
        gains, source = self._paths.gains, self._source(path)
        for move in self._moves.values() if source is not None else ():
            seen = [gain for change, gain in gains.items() if change.startswith(f"{move.name}: ")]
            expected = self._values(sight.critical)[move.name] + sum(max(_LOSS, gain) for gain in seen)
            expected /= 1 + len(seen)
            for rank, variant in enumerate(self._variants(move, source or "")):
                change = f"{move.name}: {variant.label}"
                further, digest = (*path, change), self._brief.candidate(variant.source).digest
                if digest not in self.known and self._paths.sound(further):
                    gain = gains.get(change, expected / (rank + 1) if expected > 0 else expected * (rank + 1))
                    yield _Option(math.log(sight.tflops) + gain, digest, further, variant.source)

    def _variants(self, move: Move, source: str) -> tuple[Variant, ...]:
        return move.variants(source, self._brief.target, self._brief.problem.name)

    def _source(self, path: Path) -> str | None:
        """Make the source at the end of a path again; None where the moves no longer make it."""
        if path not in self._sources:
            before = self._source(path[:-1]) if path[1:] else None
            name, _, what = path[-1].partition(": ")
            move = self._moves.get(name)
            variants = () if before is None or move is None else self._variants(move, before)
            self._sources[path] = next((variant.source for variant in variants if variant.label == what), None)
        return self._sources[path]

    def _look_at(self, batch: Sequence[tuple[Path, str]]) -> None:
        candidates = [self._brief.candidate(source) for _, source in batch]
        variations = []
        for (path, _), candidate in zip(batch, candidates, strict=True):
            version, added = self._paths.version(path)
            variations.append(Variation(candidate, "; ".join(added), (version.number,)))
        found = self._look(variations) if variations else ()
        for (path, source), candidate, findings in zip(batch, candidates, found, strict=True):
            if findings.score is None:
                sight = Sight(0.0, candidate.digest, findings.plan_digest)
            else:
                sight = seen_of(findings.score, candidate.digest, findings.plan_digest)
            self._paths.add(path, sight)
            self.known.add(sight.digest)
            self._sources[path] = source
