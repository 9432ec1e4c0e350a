"""How reliable acceptance is, on a simulated model and a simulated GPU: the tables of docs/acceptance.md.

    python -m bench.acceptance [--trials 1000]

The model is simulated by kernels whose lead depends on constants of which only the distribution is known. The GPU is
simulated by true speeds, a clock that wanders and differs from one evaluation to the next, noise on each time, and a
difference between two processes that lasts as long as they do. Everything else is what a run does.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avo.config import RunConfig
from avo.evaluator.cuda.sequential import BLOCK, ROUNDS, verdicts
from avo.evaluator.evaluation import CaseScore, Score, Verdict
from avo.evaluator.resolution import difference
from avo.evaluator.target import ScoreKind
from avo.lineage_db.decision import Lead, Ruling
from avo.search.acceptance import share_of_alpha

KINDS = ("normal", "heavy tails", "interrupted")
SCORED_RUNS = 20
"""Timed runs whose median is the recorded speed; none of them takes part in a comparison."""
Floats = NDArray[Any]
_DRAWS = 12
"""Number of joint draws of the model's constants."""
_DRIFT = 0.002
"""Standard deviation of the clock's change from one time to the next, as a random walk."""
_WINDOW = 0.003
"""Standard deviation of the clock between evaluations."""


@dataclass(frozen=True)
class Resolved:
    """What became of challengers whose speed is predicted, as shares of them."""

    accepted: float
    right: float
    """Share of the accepted ones that are faster in truth; NaN where none is."""
    missed: float
    """Share of the others that are faster in truth, likewise."""


def resolve(
    random: np.random.Generator, gain: float, spread: float, doubts: tuple[float, float], trials: int, config: RunConfig
) -> Resolved:
    """Let ``trials`` challengers be judged whose predicted lead over the best version is ``gain``.

    Their lead varies with the model's constants, by a factor of ``1 + spread`` (standard deviation); the truth is one
    more draw. ``doubts`` are the challenger's and the best version's; in truth, any part of each may be true.
    """

    def score(draws: Floats, doubt: float) -> Score:
        case = CaseScore("one", 1.0, 1.0, "", draws=tuple(map(float, draws)), doubt=doubt)
        return Score(ScoreKind.PREDICTED, "h100", (case,))

    def accepts(lead: Floats) -> bool:
        found = replace(difference(score(np.exp(lead), doubts[0]), best), gain=gain)
        return Lead(0, found).decide(config.min_gain, config.min_share).ruling is Ruling.ACCEPTABLE

    leads = np.log1p(gain) + np.log1p(spread) * random.normal(size=(trials, _DRAWS + 1))
    best = score(np.ones(_DRAWS), doubts[1])
    accepted = np.array([accepts(lead) for lead in leads[:, :-1]])
    true = leads[:, -1] + random.random((trials, 2)) @ (np.log(doubts) * (-1, 1))
    return Resolved(float(accepted.mean()), _mean(true[accepted] > 0), _mean(true[~accepted] > 0))


def _mean(values: Floats) -> float:
    return float(values.mean()) if values.size else float("nan")


@dataclass(frozen=True)
class SimulatedGpu:
    """Times kernels. All figures are relative standard deviations."""

    random: np.random.Generator
    kind: str = "normal"
    """One of ``KINDS``."""
    noise: float = 0.01
    """Noise of one time; where the noise has tails, only that of its body."""
    placement: float = 0.001
    """Difference between two processes of the same kernel, which lasts as long as they do."""

    def log_ratios(self, gain: Floats) -> Floats:
        """Return the log ratio of each round of comparisons with candidates faster by ``gain``, rounds last.

        A round times A-B-B-A or B-A-A-B, whichever a coin says, and takes mean logarithms.
        """
        shape = (*gain.shape, ROUNDS[-1])
        times = self._noise((*shape, 4)) + np.cumsum(_DRIFT * self.random.normal(size=(*shape, 4)), axis=-1)
        contrast = (times[..., 0] + times[..., 3] - times[..., 1] - times[..., 2]) / 2
        pairs = self.placement * self.random.normal(size=(*gain.shape, len(ROUNDS)))
        lasting = np.log1p(gain)[..., None] + np.repeat(pairs, BLOCK, axis=-1)
        return np.asarray(lasting + contrast * self.random.choice([-1.0, 1.0], size=shape))

    def scores(self, speed: Floats) -> Floats:
        """Return the speed that would be recorded for kernels of this true speed, each in a window of its own."""
        window = _WINDOW * self.random.normal(size=speed.shape)
        return np.asarray(speed * np.exp(window - np.median(self._noise((*speed.shape, SCORED_RUNS)), axis=-1)))

    def _noise(self, shape: tuple[int, ...]) -> Floats:
        if self.kind == "heavy tails":
            return np.asarray(self.noise / np.sqrt(3) * self.random.standard_t(3, size=shape))
        normal = self.noise * self.random.normal(size=shape)
        if self.kind == "interrupted":  # one time in twenty takes longer, by 5% on average
            return normal + (self.random.random(shape) < 0.05) * self.random.exponential(0.05, size=shape)
        return normal


def compare(log_ratios: Floats, numbers: Sequence[int], config: RunConfig) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return verdicts and rounds, [numbers, runs] each, of the comparisons ``numbers`` of runs, as judges decide.

    ``log_ratios`` is [numbers, runs, rounds].
    """
    looks = np.array(ROUNDS)
    alphas = np.array([share_of_alpha(config.alpha, number) for number in numbers])[:, None, None]
    seen = verdicts(log_ratios, alphas, config.equivalence_margin)
    decided = seen != Verdict.UNDECIDED
    last = np.where(decided.any(-1), decided.argmax(-1), len(looks) - 1)
    return np.take_along_axis(seen, last[..., None], -1)[..., 0], looks[last]


def offer(gpu: SimulatedGpu, offers: int, runs: int, config: RunConfig) -> NDArray[Any]:
    """Return how often each of ``runs`` runs accepts a kernel identical to its best, offered ``offers`` times."""
    verdict, _ = compare(gpu.log_ratios(np.zeros((offers, runs))), range(1, offers + 1), config)
    return np.asarray((verdict == Verdict.FASTER).sum(axis=0))


@dataclass(frozen=True)
class Searches:
    """How runs ended, one value a run; speeds relative to the seed's."""

    true: Floats
    """Speed of the best version."""
    recorded: Floats
    """Speed that the run reports for it: its score when it was evaluated."""
    remeasured: Floats
    """Speed of the best version in a new measurement."""
    luckiest: Floats
    """Speed reported by runs that accept whatever scores higher than their best did."""
    luckiest_true: Floats


def search(gpu: SimulatedGpu, attempts: int, runs: int, config: RunConfig) -> Searches:
    """Simulate runs in which 5% of the attempts gain up to 3%, 25% change nothing, and the others lose up to 10%."""
    kind, size = gpu.random.random((2, attempts, runs))
    gains = np.select([kind < 0.05, kind < 0.3], [0.03 * size, 0.0 * size], -0.1 * size)
    compared, _ = compare(gpu.log_ratios(gains), range(1, attempts + 1), config)
    true, recorded = np.ones(runs), gpu.scores(np.ones(runs))
    luckiest_true, luckiest = true, recorded
    for gain, verdict in zip(1 + gains, compared, strict=True):
        accepted, score = verdict == Verdict.FASTER, gpu.scores(true * gain)
        true, recorded = np.where(accepted, true * gain, true), np.where(accepted, score, recorded)
        score = gpu.scores(luckiest_true * gain)
        luckier = score > luckiest
        luckiest_true, luckiest = np.where(luckier, luckiest_true * gain, luckiest_true), np.maximum(score, luckiest)
    return Searches(true, recorded, gpu.scores(true), luckiest, luckiest_true)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=1000)
    trials = parser.parse_args().trials
    config, random = RunConfig(), np.random.default_rng(0)
    print("| gain | spread | doubts | accepted | of these faster | of the others faster |")
    print("|---|---|---|---|---|---|")
    for doubts, words in (((1.0, 1.0), "none"), ((1.2, 1.0), "the challenger's, 1.2"), ((1.0, 1.2), "the best's, 1.2")):
        for gain in (0.02, 0.05, 0.1):
            for spread in (0.01, 0.03, 0.1):
                made = resolve(random, gain, spread, doubts, trials, config)
                shares = " | ".join(
                    "-" if np.isnan(share) else f"{share:.0%}" for share in (made.accepted, made.right, made.missed)
                )
                print(f"| {gain:+.0%} | {spread:.0%} | {words} | {shares} |", flush=True)
    print()
    print("| gain | noise | comparison | faster | equivalent | slower | undecided | rounds, median | 95% of them |")
    print("|---|---|---|---|---|---|---|---|---|")
    worlds = [(kind, 0.01) for kind in KINDS] + [(KINDS[0], 0.005)]
    for gain in (0.01, 0.02, 0.005, 0.0, -0.01):
        for kind, noise in worlds:
            for number in (1, 1000):
                ratios = SimulatedGpu(random, kind, noise).log_ratios(np.full((1, trials), gain))
                verdict, rounds = compare(ratios, [number], config)
                order = (Verdict.FASTER, Verdict.EQUIVALENT, Verdict.SLOWER, Verdict.UNDECIDED)
                shares = " | ".join(f"{np.mean(verdict == name):.1%}" for name in order)
                middle, most = np.quantile(rounds, [0.5, 0.95], method="higher")
                print(f"| {gain:+.1%} | {kind}, {noise:.1%} | {number} | {shares} | {middle} | {most} |", flush=True)
    print("\n| noise | processes differ by | runs that accept any | most accepted by one |")
    print("|---|---|---|---|")
    for kind, noise in worlds:
        for placement in (0.0, 0.001, 0.003, 0.006):
            accepted = offer(SimulatedGpu(random, kind, noise, placement), 100, trials // 5, config)
            share = f"{np.mean(accepted > 0):.1%} | {accepted.max()}"
            print(f"| {kind}, {noise:.1%} | {placement:.1%} | {share} |", flush=True)
    print("\n| noise | runs of 500 attempts | best, true | recorded against true | against re-measured | by luck |")
    print("|---|---|---|---|---|---|")
    for kind in KINDS:
        found = search(SimulatedGpu(random, kind), 500, trials // 20, config)
        off = [
            np.mean(np.log(recorded / true))
            for recorded, true in (
                (found.recorded, found.true),
                (found.recorded, found.remeasured),
                (found.luckiest, found.luckiest_true),
            )
        ]
        shares = " | ".join(f"{value:+.2%}" for value in off)
        print(f"| {kind} | {trials // 20} | {np.mean(found.true) - 1:+.1%} | {shares} |", flush=True)


if __name__ == "__main__":
    main()
