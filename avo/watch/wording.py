"""Wording: how durations, gains, scores and verdicts are written, wherever they are shown."""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING

from avo.evaluator import units
from avo.evaluator.confirmation import Confirmation
from avo.evaluator.evaluation import CaseScore, Score, Status
from avo.evaluator.resolution import resolution
from avo.evaluator.target import ScoreKind
from avo.evaluator.units import TFLOPS, Unit
from avo.lineage_db.decision import compared as compared
from avo.lineage_db.entries import Spend
from avo.lineage_db.records import AttemptSummary, Doing, PendingReply, Request, Run, RunState

if TYPE_CHECKING:
    from avo.agents.bandit import ModelShare
    from avo.evaluator.evaluators import Progress
    from avo.lineage_db.ablated import Ablation
    from avo.lineage_db.measurements import Measured

SPREAD = {ScoreKind.PREDICTED: "range", ScoreKind.MEASURED: "quartiles"}
"""What the two ends of a case's speed are: the range of the model's constants, or the quartiles of the timed runs."""

MOST_WORDS = 600
"""Characters of a change, a reason or a message that a report shows."""
LISTED_CHARS = 100
"""Characters of a change that a list on a terminal shows."""
_MOVE = re.compile(r"[a-z][a-z0-9-]*(?=:)")

CONFIRMATION_STYLE = {
    Confirmation.CONFIRMED: "green", Confirmation.REFUTED: "bright_red", Confirmation.UNMEASURED: "dim",
}  # fmt: skip
"""The colour of what a measurement shows on a terminal."""
STATE_STYLE = {
    RunState.RUNNING: "green", RunState.PAUSED: "yellow", RunState.STOPPED: "yellow", RunState.FINISHED: "cyan",
    RunState.INTERRUPTED: "bright_red",
}  # fmt: skip
"""The colour of a run's state on a terminal."""


def duration(seconds: float) -> str:
    """Return the two largest units: ``9s``, ``1m 05s``, ``2h 07m``, ``3d 04h``."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h {whole % 3600 // 60:02}m"
    return f"{whole // 86400}d {whole % 86400 // 3600:02}h"


def percent(gain: float | None, resolution: float | None = None) -> str:
    """Return ``+3.1%`` for 0.031, ``+162%`` for 1.62, nothing for None; with the gain from which on kernels are told
    apart ``+3.1% ±1.4%``.
    """
    if gain is None:
        return ""
    width = (resolution or 0.0) * max(1.0, 1 + gain)  # of a ratio
    text = units.percent(gain)
    digits = int("." in text)
    return text + (f" ±{max(width, 10.0 ** -(digits + 2)):.{digits}%}" if width else "")


def standing(run: Run, state: RunState) -> str:
    """Return the state of a run and what its driver was asked to do: ``paused``, ``running, asked to stop``."""
    asked = run.request not in (Request.NONE, Request.PAUSE) and state is RunState.RUNNING
    return f"{state}, asked to {run.request}" if asked else state.value


def goes_on(run: Run, state: RunState) -> str:
    """Return the command that goes on with a run that nobody works on or that is paused; empty where there is none."""
    if state is RunState.RUNNING:
        return ""
    if run.ended_by and state is run.state:
        return run.ended_by.goes_on(run.name)
    return "" if state is RunState.FINISHED else f"avo resume {run.name}"


def ending(run: Run, state: RunState) -> str:
    """Return why a run ended and the command that goes on, to follow its state: ``; it has used its 8 hours; continue
    with: avo resume mha-h100``. Empty while somebody works on it.
    """
    why = f"it {first_line(run.ended_by.why)}" if run.ended_by and state is run.state else ""
    how = goes_on(run, state)
    return "".join(f"; {each}" for each in (why, how and f"continue with: {how}") if each)


def paying(of: "ModelShare") -> str:
    """Return ``gpt-5: 12 steps, +3.1% for $4.20; asked in 72% of the next``."""
    price = f"${of.usd:.2f}" if of.usd else f"{count(of.tokens)} tokens"
    made = f"{counted(of.steps, 'step')}, {percent(of.gain)} for {price}" if of.steps else "no step yet"
    return f"{first_line(of.model)}: {made}; asked in {of.share:.0%} of the next"


def verdicts(counts: Mapping[Status, int]) -> str:
    """Return ``12 correct, 3 incorrect, 1 does not fit``: correct first, then the faults in the order of ``counts``."""
    order = sorted(counts, key=lambda status: status is not Status.CORRECT)
    return ", ".join(f"{counts[status]} {status.words}" for status in order)


def place(score: Score) -> str:
    """Return where a score holds: the GPU on which it was measured, or the card for which it is predicted."""
    return first_line(score.card) or score.target


def unit(score: Score, of: Unit = TFLOPS) -> str:
    """Return the unit of a score: ``predicted TFLOPS, h100`` or ``measured GB/s, NVIDIA H100 80GB HBM3``."""
    return f"{score.kind} {of.name}, {place(score)}"


def valued(score: Score, of: Unit = TFLOPS) -> str:
    """Return a score with its unit: ``613 predicted TFLOPS, h100``."""
    return f"{of.said(score.geomean_tflops, score.kind)}, {place(score)}"


def spread(case: CaseScore, of: Unit = TFLOPS) -> str:
    """Return the low and the high end of a case's speed; empty if they are not known."""
    return of.between(case.low_tflops, case.high_tflops)


def measured(found: "Measured | None", run: str, of: Unit = TFLOPS) -> str:
    """Return what a card measured of a kernel of ``run`` and what that shows: ``confirmed: 421 (418 to 423) TFLOPS
    measured on NVIDIA H100, 0.98 of the predicted 430; 1.21 times as fast as v1 in 20 rounds``.
    """
    if found is None:
        return f"unmeasured: avo shortlist {run}"
    finding, speed = found.finding, found.finding.measured
    if speed is None:
        return first_line(f"{finding.confirmation}: {finding.reason}")
    word = "" if finding.confirmation is Confirmation.UNMEASURED else " measured"
    figures = f"{of.said(speed.tflops, between=of.between(speed.low, speed.high))}{word} on {found.card}"
    if not found.unlike:
        figures += f", {finding.of_predicted:.2f} of the predicted {of.figure(finding.predicted.tflops)}"
    return first_line(f"{finding.confirmation}: {figures}; {finding.reason}")


def briefly_measured(found: "Measured | None", of: Unit = TFLOPS) -> str:
    """Return the same for a list: ``421 measured, confirmed``, ``unmeasured: 380 on NVIDIA A100``."""
    if found is None or found.finding.measured is None:
        return found.finding.confirmation.value if found else "unmeasured"
    speed, confirmation = of.cell(found.finding.measured.tflops), found.finding.confirmation
    if confirmation is Confirmation.UNMEASURED:
        return first_line(f"unmeasured: {speed} on {found.card}")
    return f"{speed} measured, {confirmation}"


def resolved(score: Score, of: Unit = TFLOPS) -> str:
    """Return what of a predicted score can be told apart, in words; empty where that was not found out."""
    least = resolution(score)
    if least is None:
        return ""
    means = f"mean of {len(score.neighbours)} neighbours, {of.figure(score.own_tflops)} as compiled"
    return f"{means}: resolves differences from {100 * least:.1f}% on"


def minimal_kernel(found: "Ablation", of: Unit = TFLOPS) -> str:
    """Return what a version is without its useless edits, in words."""
    if found.dropped:
        speeds = f"{of.said(found.minimal_tflops)}, the version at {of.said(found.tflops)}"
        return f"Without {len(found.dropped)} of them the minimal kernel is predicted at {speeds}"
    slower = sum(each.worth is not None and each.worth < -each.width for each in found.edits)
    but = f", though {counted(slower, 'edit')} alone made it slower" if slower else ""
    return f"No edit can go: the version is its own minimal kernel{but}"


def busiest(utilisation: Mapping[str, float]) -> str:
    """Return the busiest pipe and for how much of the time it is busy: ``tensor 74%``; empty if that is not known."""
    name = max(utilisation, key=lambda pipe: utilisation[pipe], default="")
    return name and f"{name.replace('_', ' ')} {utilisation[name]:.0%}"


def critical(case: CaseScore) -> str:
    """Return the resource whose relief would save most time, ``none`` if no relief does; empty for a score without."""
    return (case.critical or "none").replace("_", " ") if case.utilisation or case.critical else ""


def gained(percents: float, spread: float) -> str:
    """Return a gain of a profile in percent, ``none``, or that it is not larger than its spread."""
    if abs(percents) < 0.05 and spread < 0.05:
        return "none"
    return f"{percents:+.1f}%" if abs(percents) > spread else "not resolved"


UNSAID = "not known: the program does not say what it used"
"""What to show in place of tokens where a program is the operator and has not said anything."""


def spent(spend: Spend, most_tokens: int | None = None, most_usd: float | None = None) -> str:
    """Return ``1.2M tokens, 3.40 of 10 USD, 85 calls``: limits if there are any, US dollars if a price or limit is
    known.
    """
    tokens = count(spend.tokens) + (f" of {count(most_tokens)}" if most_tokens else "")
    usd = f", {spend.usd:.2f}{f' of {most_usd:g}' if most_usd else ''} USD" if spend.usd or most_usd else ""
    return f"{tokens} tokens{usd}, {counted(spend.calls, 'call')}"


def counted(number: int, what: str) -> str:
    """Return a number of things: ``1 run``, ``2,000 runs``."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def amount(number: float, unit: str) -> str:
    """Return a number of things as people read it: ``3 steps``, ``1.2M tokens``, ``2.50 USD``."""
    if unit == "USD":
        return f"{number:.2f} USD"
    return f"{count(int(number))} tokens" if unit == "token" else counted(int(number), unit)


def out_of(made: int, most: int | None) -> str:
    """Return ``3 of 9``; ``3`` without a limit."""
    return f"{made} of {most}" if most else str(made)


def count(number: int) -> str:
    """Return ``950``, ``12.3k`` or ``4.5M``."""
    if number < 1000:
        return str(number)
    return f"{number / 1000:.1f}k" if number < 999_950 else f"{number / 1e6:.1f}M"


def awaited(reply: PendingReply, now: datetime) -> str:
    """Return in words how much has come of a reply that a step waits for, or when and why the model is asked again."""
    model = first_line(reply.model)
    if reply.until:
        left = duration(max(0.0, (reply.until - now).total_seconds()))
        return f"{model} is asked again at {reply.until:%H:%M:%S} UTC, in {left}: {first_line(reply.trouble)}"
    if reply.heard is None:
        return f"{model} was asked {duration((now - reply.asked).total_seconds())} ago"
    ago = duration((now - reply.heard).total_seconds())
    return f"{model} writes: {count(reply.characters)} characters, the last {ago} ago"


def how_far(doing: "Doing | Progress") -> str:
    """Return how far something is: ``5 of 23 checks``, or what a judge that measures says; nothing if unknown."""
    return first_line(doing.words) or (f"{doing.done} of {doing.of} checks" if doing.of else "")


def under_way(doing: Doing, now: datetime) -> str:
    """Return what is being done, since when, and how far it is: ``judging seed tuned, 12s: 5 of 23 checks``."""
    far = how_far(doing)
    return f"{first_line(doing.what)}, {duration((now - doing.began).total_seconds())}{far and f': {far}'}"


def turned_down(attempt: AttemptSummary) -> str:
    """Return why an attempt is no version: ``does not fit: needs 262144 bytes ...``, or the decision and its reason."""
    if attempt.decision and attempt.decision.refused:
        return first_line(attempt.decision.told)
    return first_line(f"{attempt.status.words}: {attempt.message}")


def looked(looks: int) -> str:
    """Return ``, 912 looks``, to be added to a number of attempts; nothing where there were none."""
    return f", {counted(looks, 'look')}" if looks else ""


def printable(text: str) -> str:
    """Return ``text`` without control characters except line ends, tabs expanded: candidates control what it holds."""
    return "".join(char if char.isprintable() or char == "\n" else " " for char in text.expandtabs(4))


def cut(words: str, most: int = MOST_WORDS) -> str:
    """Return ``words``; if they are longer than ``most`` characters, the rest is replaced by its length."""
    return words if len(words) <= most else f"{words[:most]}… ({len(words) - most} more characters)"


def first_line(text: str) -> str:
    """Return the first line of a message, printable."""
    return printable(text.strip().partition("\n")[0]).strip()


def edited_from(built_on: int | None) -> list[str]:
    """Return the attempt that another was edited from, as it is named beside its parents; empty if there is none."""
    return [] if built_on is None else [f"#{built_on}"]


def headline(change: str) -> str:
    """Return a change in few words: the names of its moves if they made it, else its first line."""
    moves = [_MOVE.match(part.strip()) for part in change.split(";")]
    if all(moves):
        return " + ".join(move.group() for move in moves if move)
    return first_line(change)


def in_a_list(change: str) -> str:
    """Return a change for a line of a list: whole, or where it would fill many lines of a terminal its headline.

    A change of one part may begin with "fix:" or the like, so its first line is shown.
    """
    if len(change) <= LISTED_CHARS:
        return change
    return headline(change) if ";" in change else first_line(change)
