"""Operators that let a tuner compose moves: random search and Optuna's TPE over the space that ``mutate`` searches."""

from collections.abc import Sequence
from dataclasses import dataclass

import optuna

from avo.agents.moves import MOVES, Move
from avo.agents.operator import Brief, Proposal, Variation
from avo.agents.scouting import LOOKS, seen_of

STEPS = 6
"""Most moves that a tuner makes one after the other: no kernel known needs more."""
VARIANTS = 8
"""No move has more variants."""
_STOP = "none"
_DRAWS = 40
"""So many compositions in a row that were seen before end a step's looks."""


@dataclass(frozen=True, slots=True)
class _Seen:
    source: str
    change: str
    parent: int
    value: float
    """TFLOPS if most doubts are true; 0.0 for a faulty one."""
    plan_digest: str | None


class Tuner:
    """Looks at what a sampler composes, and evaluates the best of it, as ``mutate`` does with its own edits.

    A composition is a seed, and up to ``STEPS`` moves, each with the number of its variant; a move that finds nothing
    to do is passed over. What the sampler learns is the speed that a look shows. It is kept in this object: use one for
    each run.
    """

    adapts = False

    def __init__(self, name: str, seed: int, moves: Sequence[Move] = MOVES) -> None:
        """``name`` is ``random`` or ``tpe``."""
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        sampler = {"random": optuna.samplers.RandomSampler, "tpe": optuna.samplers.TPESampler}[name](seed=seed)
        self.name = name
        self._study = optuna.create_study(direction="maximize", sampler=sampler)
        self._moves = {move.name: move for move in moves}
        self._seen: dict[str, _Seen] = {}

    def vary(self, brief: Brief) -> Proposal:
        """Spend the step's looks, and evaluate the fastest that was seen and not tried."""
        left = brief.desk.left().looks
        for _ in range(LOOKS if left is None else left):
            if not self._look(brief):
                break
        tried = {attempt.digest for attempt in brief.attempts}
        plans = {seen.plan_digest for digest, seen in self._seen.items() if digest in tried} - {None}
        for digest, seen in sorted(self._seen.items(), key=lambda item: -item[1].value):
            if seen.value and digest not in tried and seen.plan_digest not in plans:
                candidate = brief.candidate(seen.source)
                attempt = brief.evaluate(candidate, change=seen.change, parents=(seen.parent,))
                return Proposal(attempt if attempt.evaluation.correct else None, attempt.status.words)
        return Proposal(None, "nothing that was seen is left to evaluate")

    def _look(self, brief: Brief) -> bool:
        """Look at one new composition; return whether the sampler came up with one."""
        assert brief.look is not None
        for _ in range(_DRAWS):
            trial = self._study.ask()
            parent, change, source = self._compose(trial, brief)
            candidate = brief.candidate(source)
            if (seen := self._seen.get(candidate.digest)) is None and change:
                (found,) = brief.look([Variation(candidate, change, (parent,))])
                value = seen_of(found.score, candidate.digest, None).tflops if found.score else 0.0
                self._seen[candidate.digest] = _Seen(source, change, parent, value, found.plan_digest)
                self._study.tell(trial, value)
                return True
            start = next(each for each in brief.versions if each.number == parent).attempt.evaluation.geomean_tflops
            self._study.tell(trial, seen.value if seen else start)
        return False

    def _compose(self, trial: optuna.Trial, brief: Brief) -> tuple[int, str, str]:
        """Return the seed's number, the changes and the source."""
        seeds = {each.number: each.attempt.source for each in brief.versions if not each.parents}
        parent = trial.suggest_categorical("seed", list(seeds))
        source, changes = seeds[parent], []
        for place in range(STEPS):
            name = trial.suggest_categorical(f"move {place}", [_STOP, *self._moves])
            if name == _STOP:
                break
            number = trial.suggest_int(f"variant {place}", 0, VARIANTS - 1)
            if variants := self._moves[name].variants(source, brief.target, brief.problem.name):
                variant = variants[number % len(variants)]
                source = variant.source
                changes.append(f"{name}: {variant.label}")
        return parent, "; ".join(changes), source
