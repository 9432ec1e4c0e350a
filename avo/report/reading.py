"""Reading a report from the lineage database."""

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from difflib import unified_diff

from avo.agents.edits import moves_of
from avo.agents.moves import MOVES
from avo.agents.mutate import Mutate
from avo.config import DIRECTIONS, ISOLATION, START, TIMED_FIRST, TOOLS, TRANSFERRED
from avo.evaluator.evaluation import Score, Status
from avo.evaluator.known import CARD, known
from avo.evaluator.target import score_kind
from avo.lineage_db.decision import Ruling
from avo.lineage_db.entries import Intervention, ModelCall, Spend
from avo.lineage_db.records import AttemptSummary, Run, Step, StepState, Version
from avo.lineage_db.spans import covered
from avo.lineage_db.store import Store
from avo.report.data import (
    MOST_DIFF_CHARACTERS,
    MOST_DIFF_LINES,
    MOST_DIFFS,
    MOST_SOURCE,
    MOST_SOURCE_LINES,
    MOST_UNVERIFIED,
    Charts,
    IdeaTally,
    ModelUse,
    Report,
    Unverified,
    VersionDiff,
    VersionEntry,
)
from avo.report.speeds import bars_of
from avo.search import transfer
from avo.subject import FOR
from avo.watch.failures import by_reason, reasons
from avo.watch.scores import compare, gain, geomean, published, scored
from avo.watch.trajectory import NOTHING, AttemptScores, Trajectory, by_group, cases_of, overall
from avo.watch.tree import layout
from avo.watch.view import RunView, read_view
from avo.watch.wording import compared, cut, unit


@dataclass(frozen=True, slots=True)
class _Rows:
    """Everything that a report needs from the database. It is read in one snapshot and worked on after that: a server
    ends transactions that are idle for long.
    """

    view: RunView
    versions: tuple[Version, ...]
    attempts: tuple[AttemptSummary, ...]
    steps: Sequence[Step]
    taken: transfer.Progress | None
    unverified: tuple[Unverified, ...]
    calls: Sequence[ModelCall]
    interventions: tuple[Intervention, ...]


def read_report(store: Store, run_name: str, now: datetime) -> Report:
    """Return the report on a run as it is at ``now``. Raises ``UnknownRun`` and the store's other errors."""
    rows = store.snapshot(lambda: _read(store, run_name, now))
    view, versions, attempts, steps = rows.view, rows.versions, rows.attempts, rows.steps
    run, score = view.run, scored(view.best) if view.best else None
    charts = charts_of(view, versions, NOTHING.with_more(attempts), rows.interventions)
    whole, groups = charts.trajectory, charts.groups
    entries = _entries(versions, attempts, {step.number: step for step in steps}, groups or (whole,) if whole else ())
    ended = {step.number: step for step in steps if step.state in (StepState.DONE, StepState.FAILED)}
    busy = covered((step.started, step.finished) for step in ended.values() if step.finished)
    concluded = sum(attempt.step_number in ended for attempt in attempts)
    moves, ideas = _ideas(attempts, entries, {step.number for step in steps if step.operator == Mutate.name})
    return Report(
        **{field.name: getattr(charts, field.name) for field in fields(charts)},
        attempts=attempts,
        busy=busy,
        attempts_per_minute=concluded / (busy / timedelta(minutes=1)) if concluded and busy else None,
        entries=entries,
        moves=moves,
        ideas=ideas,
        failures=tuple(by_reason(attempts)),
        refused=tuple(_refused(attempts)),
        unverified=rows.unverified,
        steps=Counter(step.state for step in steps),
        models=_models(rows.calls),
        transfer=transfer.in_words(rows.taken.to_json()) if rows.taken else "",
        environment=tuple(_environment(run, score)),
    )


def charts_of(
    view: RunView, versions: tuple[Version, ...], tried: AttemptScores, interventions: tuple[Intervention, ...]
) -> Charts:
    """Return what figures show of a run whose attempts are ``tried``."""
    run, seed, best = view.run, view.seed, view.best
    score = scored(best) if best else None
    cases = cases_of([scored(version) for version in versions]) if versions else []
    baselines = tuple(
        baseline
        for baseline in published(run.problem)
        if baseline.target == run.target and not baseline.tflops.keys().isdisjoint(cases)
    )
    whole = overall(run, versions, tried, baselines)
    return Charts(
        view=view,
        versions=versions,
        unit=unit(score, view.unit) if score else f"{score_kind(run.target)} TFLOPS, {run.target}",
        trajectory=whole,
        groups=by_group(run, whole, versions, baselines) if whole else (),
        bars=bars_of(run, seed, best, baselines) if seed and best else (),
        baselines=baselines,
        comparisons=tuple(compare(score, baselines)) if score else (),
        interventions=interventions,
    )


def _read(store: Store, run_name: str, now: datetime) -> _Rows:
    view = read_view(store, run_name, now)
    run = view.run
    attempts = tuple(store.attempt_summaries(run.id))
    return _Rows(
        view,
        tuple(store.versions(run.id)),
        attempts,
        store.steps(run.id),
        transfer.progress(store, run),
        _unverified(store, run, attempts),
        store.journal.calls(run.id),
        tuple(store.journal.interventions(run.id)),
    )


def _entries(
    lineage: Sequence[Version],
    attempts: Sequence[AttemptSummary],
    steps: Mapping[int, Step],
    trajectories: Sequence[Trajectory],
) -> tuple[VersionEntry, ...]:
    versions = {version.number: version for version in lineage}
    made = Counter(attempt.step_number for attempt in attempts)
    failed = Counter(attempt.step_number for attempt in attempts if attempt.status is not Status.CORRECT)
    first_with_diff = len(versions) - MOST_DIFFS
    entries = []
    for row in layout(lineage):
        version = row.version
        step = steps[version.step_number]
        comparison = scored(version).comparison
        entries.append(
            VersionEntry(
                version,
                row.depth,
                gain(version, versions),
                tuple(_gain(figure, version, versions) for figure in trajectories),
                step,
                made[step.number],
                failed[step.number],
                compared(comparison) if comparison else "",
                diff_of(version.parents[0], versions[version.parents[0]].attempt.source, version.attempt.source)
                if version.parents and version.number >= first_with_diff
                else None,
            )
        )
    return tuple(entries)


def _gain(figure: Trajectory, version: Version, versions: Mapping[int, Version]) -> float | None:
    if not version.parents:
        return None
    parent = max(version.parents, key=lambda number: geomean(versions[number]))
    return figure.scores[version.number] / figure.scores[parent] - 1


def diff_of(parent: int, old: str, new: str) -> VersionDiff:
    """Return what ``new`` changes in ``old``, the source of version ``parent``, cut to what a page shows."""
    sources = old.splitlines(), new.splitlines()
    if max(len(old), len(new)) > MOST_SOURCE or max(map(len, sources)) > MOST_SOURCE_LINES:
        most = f"{MOST_SOURCE} characters or {MOST_SOURCE_LINES} lines"
        return VersionDiff(parent, (), 0, f"not compared here: a source is longer than {most}")
    lines = list(unified_diff(*sources, lineterm=""))[2:]
    shown: list[str] = []
    room = MOST_DIFF_CHARACTERS
    for line in lines[:MOST_DIFF_LINES]:
        room -= len(line)
        if room < 0:
            break
        shown.append(line)
    return VersionDiff(parent, tuple(shown), len(lines) - len(shown))


def _ideas(
    attempts: Sequence[AttemptSummary], entries: Sequence[VersionEntry], mutations: Collection[int]
) -> tuple[tuple[IdeaTally, ...], tuple[IdeaTally, ...]]:
    """Return how the moves fared in the steps with the numbers ``mutations``, and the ideas of the other steps.

    The gain of a version that was built on an earlier attempt is not that of its last edit: all that it changes is the
    idea.
    """
    gains = {entry.version.number: entry.gains for entry in entries}
    moves: dict[str, list[AttemptSummary]] = {move.name: [] for move in MOVES}
    ideas: dict[str, list[AttemptSummary]] = {}
    together: dict[int, int] = {}
    for attempt in attempts:
        if attempt.step_number in mutations:
            made_by = [name for name in dict.fromkeys(moves_of(attempt.change)) if name in moves]
            together[attempt.attempt_id] = len(made_by)
            for name in made_by:
                moves[name].append(attempt)
        elif attempt.parents:
            whole = attempt.whole_change if attempt.built_on is not None else ""
            ideas.setdefault(" ".join((whole or attempt.hypothesis or attempt.change).split()), []).append(attempt)
    return _tallied(moves, gains, together), _tallied(ideas, gains, {})


def _tallied(
    by_name: Mapping[str, Sequence[AttemptSummary]],
    gains: Mapping[int, tuple[float | None, ...]],
    joint: Mapping[int, int],
) -> tuple[IdeaTally, ...]:
    """``joint``: by how many moves an attempt was made. Each has an equal part of its gain, so that all parts
    compounded are the gain; what each is worth alone only an ablation tells.
    """
    count = len(next(iter(gains.values()), ()))
    found = []
    for name, its in by_name.items():
        made = [(gains[each.version], joint.get(each.attempt_id, 1)) for each in its if each.version]
        correct = [attempt for attempt in its if attempt.status is Status.CORRECT]
        refused = sum(attempt.decision is not None and attempt.decision.refused for attempt in correct)
        together = tuple(
            math.prod((1 + (of[place] or 0.0)) ** (1 / parts) for of, parts in made) - 1 for place in range(count)
        )
        if its:
            found.append(IdeaTally(name, len(its), len(correct), refused, len(made), together, reasons(its)))
    return tuple(sorted(found, key=lambda idea: (-sum(idea.gains), -idea.accepted, -idea.tried, idea.name)))


def _refused(attempts: Sequence[AttemptSummary]) -> list[AttemptSummary]:
    found = [attempt for attempt in attempts if attempt.decision and attempt.decision.refused]
    return sorted(found, key=_distance)


def _distance(attempt: AttemptSummary) -> tuple[bool, float, float, int]:
    """Return what orders refused attempts by how far they were from being versions."""
    decision = attempt.decision
    assert decision is not None, "what is refused was decided"
    gain = -math.inf if decision.gain is None else decision.gain
    return decision.ruling is not Ruling.UNRESOLVED, -gain, -attempt.geomean_tflops, attempt.attempt_id


def _unverified(store: Store, run: Run, attempts: Sequence[AttemptSummary]) -> tuple[Unverified, ...]:
    found = [attempt for attempt in attempts if attempt.status is Status.UNVERIFIED]
    return tuple(
        Unverified(attempt.attempt_id, attempt.change, store.attempt(run.id, attempt.attempt_id).evaluation.predicted)
        for attempt in found[-MOST_UNVERIFIED:]
    )


def _models(calls: Sequence[ModelCall]) -> tuple[ModelUse, ...]:
    found = []
    for model in dict.fromkeys(call.model for call in calls):
        its = [call for call in calls if call.model == model]
        spend = Spend(
            len(its),
            sum(call.input_tokens for call in its),
            sum(call.cached_tokens for call in its),
            sum(call.output_tokens for call in its),
            sum(call.usd or 0.0 for call in its),
        )
        failed, unpriced = sum(bool(call.error) for call in its), sum(call.usd is None for call in its)
        found.append(ModelUse(model, spend, failed, unpriced, sum(call.seconds for call in its)))
    return tuple(found)


def _environment(run: Run, score: Score | None) -> list[tuple[str, str]]:
    """Return the names and values of everything that determines how the run was made."""
    config = {name: value for name, value in run.config.items() if value is not None}
    start = [each["origin"] for each in config.pop(START, ())]
    card = known(run.target)
    model = config.pop(FOR, {"model": "", "phase": "", "read": (), "not_served": ()})
    lines = [
        ("model", model["model"]),
        ("phase", model["phase"]),
        ("read of its configuration", "; ".join(model["read"])),
        ("not served", "; ".join(model["not_served"])),
        ("problem", run.problem),
        ("target", f"{run.target} ({card.product})" if card else run.target),
        ("predictions", card.standing if card else ""),
        ("measured on", score.card if score else ""),
        ("conditions", score.conditions if score else ""),
        ("suite", run.suite),
        ("operator", run.operator),
        ("random seed", str(run.seed)),
        ("seeds", ", ".join(start)),
        ("candidates kept apart by", "; or by ".join(map(str, config.pop(ISOLATION, ())))),
        ("releases", "; or ".join(map(str, config.pop(TOOLS, ())))),
    ]
    config.pop(TRANSFERRED, None)
    config.pop(TIMED_FIRST, None)
    config.pop(DIRECTIONS, None)
    shown = {"problem", "target", "suite", "operator", "seed", "name", CARD}
    lines += [(name.replace("_", " "), _shown(value)) for name, value in config.items() if name not in shown]
    return [(name, cut(value)) for name, value in lines if value]


def _shown(value: object) -> str:
    """Return a setting in words; nothing for an empty list or table, which sets nothing."""
    if isinstance(value, Mapping):
        return "; ".join(f"{name}: {_shown(each)}" for name, each in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_shown, value))
    return "none" if value is None else str(value)
