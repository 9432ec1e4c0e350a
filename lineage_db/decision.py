"""Decisions: whether an attempt becomes a version and why, in the one sentence that every display of it shows."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from avo.evaluator.evaluation import Comparison, Status, Verdict
from avo.evaluator.resolution import Difference
from avo.evaluator.units import percent


class Ruling(StrEnum):
    """What was decided about a correct attempt. For any other, its status says why it is no version."""

    ACCEPTABLE = "acceptable"
    """Better than the best version when it was evaluated. It is a version once it is submitted and examined."""
    ACCEPTED = "accepted"
    NOT_SUBMITTED = "not_submitted"
    """It would have been accepted, but its step submitted another attempt or none."""
    UNRESOLVED = "unresolved"
    """Better in the mean, but by less than the score resolves: faster in too few of the joint draws."""
    NO_GAIN = "no_gain"
    """Slower than the best version in the mean, or faster by less than is asked for."""
    NOT_SHOWN = "not_shown"
    """Not shown to be faster than the best version, where speed is measured."""
    OVERTAKEN = "overtaken"
    """Better than the best version when it was evaluated, but not any more when it was submitted or examined."""
    EXAMINED = "examined"
    """It failed the closer look that comes before acceptance."""
    REPEATED = "repeated"
    """It lowers to the launch plans of an earlier version or attempt."""
    INCOMPARABLE = "incomparable"
    """Its score is for another target, card or suite than those of the versions, or of another kind."""


_LABELS = {
    Ruling.ACCEPTABLE: "would be accepted",
    Ruling.ACCEPTED: "accepted",
    Ruling.NOT_SUBMITTED: "not submitted",
    Ruling.UNRESOLVED: "unresolved",
    Ruling.OVERTAKEN: "overtaken",
}
OPEN = (Ruling.ACCEPTABLE, Ruling.ACCEPTED)
"""Rulings that are no refusals."""
LASTING = (Ruling.ACCEPTED, Ruling.EXAMINED, Ruling.REPEATED, Ruling.INCOMPARABLE)
"""Rulings that hold whatever versions are added where they were made: to that lineage, island or kind."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided about a correct attempt, and why."""

    ruling: Ruling
    sentence: str
    """The reason, without a full stop."""
    gain: float | None = None
    """By how much its predicted speed exceeds the best version's in the mean, 0.03 being 3 percent."""
    share: float | None = None
    """In what share of the draws of the model's constants it is ahead of the best version, 0 to 1."""
    resolution: float | None = None
    """The gain from which on it would have been resolved."""

    @property
    def refused(self) -> bool:
        """Whether the attempt is not to become a version."""
        return self.ruling not in OPEN

    @property
    def told(self) -> str:
        """The decision and its reason: ``unresolved: +5.6% in the mean over version 3, ...``."""
        return f"{_LABELS.get(self.ruling, 'not accepted')}: {self.sentence}"

    @property
    def answer(self) -> str:
        """The answer to whether the attempt would become a version: ``would be accepted: no, +5.6% in ...``."""
        if self.ruling is Ruling.ACCEPTED:
            return self.told
        return f"would be accepted: {'no' if self.refused else 'yes'}, {self.sentence}"


def unresolved(count: int) -> str:
    """Return ``3 attempts are predicted faster than the best and not resolved``."""
    return f"{count} attempt{' is' if count == 1 else 's are'} predicted faster than the best and not resolved"


def requirement(min_gain: float, min_share: float, *, measured: bool) -> str:
    """Return in words what a version has to be."""
    better = (
        f"its predicted score must be higher than the best version's by at least {100 * min_gain:g}%, and it must be "
        f"faster than that version in at least {100 * min_share:g}% of the joint draws of the model's constants, in "
        "which each kernel's doubts can only slow it down. Both must hold for the mean over neighbours too, which have "
        "independent instructions in other orders and other rhythms. An attempt with the higher score that misses one "
        "of these is unresolved: it is no version, but it may be built on."
    )
    timed_in_turn = "it must be shown to be faster than the best version when both are timed in turn."
    return (
        "To become a version an attempt must be correct, also on shapes that nobody is shown, and lower to launch "
        f"plans that no version has; and {timed_in_turn if measured else better}"
    )


@dataclass(frozen=True, slots=True)
class Lead:
    """How the predicted speed of an attempt compares with that of the best version."""

    version: int
    """Number of the best version."""
    found: Difference
    worst: tuple[str, float] | None = None
    """The case on which the attempt is furthest behind, and its gain there; None where it is behind on none."""

    def decide(self, min_gain: float, min_share: float) -> Decision:
        """Return what follows from the lead, in words."""
        gain, share, resolution, alone = self.found.gain, self.found.share, self.found.resolution, self.found.alone
        over = f"{_gain(gain, min_gain)} in the mean over version {self.version}"
        told = "" if resolution is None else f", resolved from {percent(resolution)}"
        drawn = "" if share is None else f", faster in {math.floor(100 * share + 1e-9)}% of draws"
        behind = f", {percent(self.worst[1])} on {self.worst[0]}" if self.worst and gain > 0 else ""
        if gain < min_gain and alone is not None and alone >= min_gain:
            ruling = Ruling.UNRESOLVED
            sentence = f"{over} with its neighbours and {percent(alone)} alone{behind}, {100 * min_gain:+g}% is needed"
        elif gain < min_gain:
            ruling, sentence = Ruling.NO_GAIN, f"{over}{behind}, {100 * min_gain:+g}% is needed"
        elif (share is not None and share < min_share) or gain < (resolution or 0.0):
            needed = f"{drawn}, {100 * min_share:g}% are needed" if share is not None and share < min_share else ""
            ruling, sentence = Ruling.UNRESOLVED, f"{over}{behind}{told}{needed}"
        else:
            ruling, sentence = Ruling.ACCEPTABLE, f"{over}{told}{drawn}"
        return Decision(ruling, sentence, gain, share, resolution)


def unrivalled() -> Decision:
    """Return the decision on an attempt that has no version to beat."""
    return Decision(Ruling.ACCEPTABLE, "there is no version to beat")


def repeated(of: str) -> Decision:
    """Return the decision on an attempt with the launch plans of ``of``, an earlier version or attempt."""
    return Decision(Ruling.REPEATED, f"lowers to the same launch plans as {of}")


def incomparable(mine: str, theirs: str) -> Decision:
    """Return the decision on an attempt that was judged as ``mine`` says, and the versions as ``theirs``."""
    return Decision(Ruling.INCOMPARABLE, f"judged by another yardstick: {mine}, and the versions {theirs}")


def compared(comparison: Comparison) -> str:
    """Return the result of timing a candidate in turn with the best version so far, in words."""
    rounds = len(comparison.log_ratios)
    found = {Verdict.EQUIVALENT: "as fast as", Verdict.UNDECIDED: "not told apart from"}
    words = found.get(comparison.verdict, f"{comparison.verdict} than")
    if not rounds:
        return f"{words} the best so far"
    faster = math.exp(sum(comparison.log_ratios) / rounds) - 1
    return (
        f"{words} the best so far: {percent(faster)} in {rounds} rounds, chance of error {comparison.alpha:.2g}"
        f"{_against_itself(comparison.against_itself)}{_between(comparison.between)}"
    )


def _against_itself(log_ratios: Sequence[float]) -> str:
    """Return what the rounds find between two runs of one kernel: the A/A figure, with its standard error."""
    if len(log_ratios) < 2:
        return ""
    error = statistics.stdev(log_ratios) / math.sqrt(len(log_ratios))
    return f"; A/A {math.expm1(statistics.fmean(log_ratios)):+.2%} ± {error:.2%}"


def _between(lasting: float | None) -> str:
    """Return by how much pairs of processes differ for as long as they live."""
    return "" if lasting is None else f"; processes differ by {lasting:.2%}"


def timed(comparison: Comparison | None, version: int) -> Decision:
    """Return the decision on an attempt whose speed is measured, after its comparison with the best ``version``."""
    if comparison is None:
        return Decision(Ruling.NOT_SHOWN, f"was not compared with version {version}, the best")
    faster = comparison.verdict is Verdict.FASTER
    return Decision(Ruling.ACCEPTABLE if faster else Ruling.NOT_SHOWN, compared(comparison))


def failed(found: Status, compiled: str = "") -> Decision:
    """Return the decision on an attempt that failed the closer look. Which shapes it failed on stays unknown."""
    return Decision(Ruling.EXAMINED, f"correct on the suite, but {closer_look(found, compiled)}")


def closer_look(found: Status, compiled: str) -> str:
    """Return what a closer look at a correct attempt found, in words; ``compiled`` as in ``Evaluation``."""
    if found is Status.MISCOMPILED:
        return compiled or "miscompiled by one of Triton's passes (avo evaluate --closely names it)"
    return f"{found.words} at other shapes or in a larger sample"


def final(before: Decision | None, now: Decision | None) -> Decision | None:
    """Return the last word on an attempt: ``before`` was decided when it was evaluated, ``now`` when it is submitted.

    A refusal stands, unless a closer look found a fault. What was acceptable, submitted then or not, and is no more has
    been overtaken, or is unresolved: it may still be better than the version that has been added.
    """
    if before is None or now is None:
        return now
    acceptable = not before.refused or before.ruling is Ruling.NOT_SUBMITTED
    if not acceptable and now.refused and now.ruling is not Ruling.EXAMINED:
        return before
    if now.ruling in (Ruling.NO_GAIN, Ruling.NOT_SHOWN):
        return replace(now, ruling=Ruling.OVERTAKEN)
    return now


def unsubmitted(before: Decision) -> Decision:
    """Return the decision on an attempt that was acceptable, once its step has ended without submitting it."""
    return replace(before, ruling=Ruling.NOT_SUBMITTED)


def ending(reason: str, decision: Decision | None) -> str:
    """Return the reason of a step with why its submission was refused, if it was."""
    refusal = decision.told if decision is not None and decision.refused else ""
    return "; ".join(filter(None, (reason, refusal)))


def _gain(gain: float, needed: float) -> str:
    """Return ``+0.4%``, with as many digits as show on which side of ``needed`` it is."""
    for text in (percent(gain), f"{gain:+.1%}", f"{gain:+.2%}"):
        if (float(text[:-1]) / 100 < needed) == (gain < needed):
            break
    return text
