"""Reading a report from the lineage database."""

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from difflib import unified_diff

from agents.moves import MOVES
from agents.mutate import Mutate, moves_of
from avo.config import ISOLATION, START, TOOLS
from avo.report.data import (
    MOST_DIFF_CHARACTERS,
    MOST_DIFF_LINES,
    MOST_DIFFS,
    MOST_SOURCE,
    MOST_SOURCE_LINES,
    MOST_UNVERIFIED,
    Diff,
    Entry,
    ModelUse,
    Move,
    Report,
    Unverified,
    cut,
)
from avo.report.figures import Trajectory
from avo.report.speeds import bars_of, cases_of, score_of, trajectories_of
from avo.search import transfer
from avo.watch.failures import by_reason
from avo.watch.snapshot import Snapshot, compare, gain, geomean, published, read_snapshot
from avo.watch.tree import layout
from avo.watch.wording import compared, unit
from evaluator.evaluation import Score, Status
from evaluator.target import TARGETS, score_kind
from lineage_db.records import ModelCall, Run, Spend, Step, Version
from lineage_db.store import Store


def read_report(store: Store, run_name: str) -> Report:
    """Return the report on a run as it is now; raises ``UnknownRun`` and the store's other errors."""
    snapshot = read_snapshot(store, run_name)
    run, versions, seed, best = snapshot.run, snapshot.versions, snapshot.seed, snapshot.best
    steps = store.steps(run.id)
    score = score_of(best) if best else None
    cases = cases_of([score_of(version) for version in versions]) if versions else []
    baselines = tuple(
        baseline
        for baseline in published(run.problem)
        if baseline.target == run.target and not baseline.tflops.keys().isdisjoint(cases)
    )
    trajectories = trajectories_of(run, versions, baselines)
    entries = _entries(snapshot, {step.number: step for step in steps}, trajectories)
    taken = transfer.progress(store, run)
    return Report(
        snapshot=snapshot,
        unit=unit(score) if score else f"{score_kind(run.target)} TFLOPS, {run.target}",
        trajectories=trajectories,
        bars=bars_of(seed, best, baselines) if seed and best else (),
        baselines=baselines,
        comparisons=tuple(compare(score, baselines)) if score else (),
        entries=entries,
        moves=_moves(snapshot, entries, {step.number for step in steps if step.operator == Mutate.name}),
        failures=tuple(by_reason(snapshot.attempts)),
        unverified=_unverified(store, snapshot),
        steps=Counter(step.state for step in steps),
        models=_models(store.journal.calls(run.id)),
        interventions=tuple(store.journal.interventions(run.id)),
        transfer=transfer.in_words(taken.to_json()) if taken else "",
        environment=tuple(_environment(run, score)),
    )


def _entries(snapshot: Snapshot, steps: Mapping[int, Step], trajectories: Sequence[Trajectory]) -> tuple[Entry, ...]:
    versions = snapshot.by_number
    made = Counter(attempt.step_number for attempt in snapshot.attempts)
    failed = Counter(attempt.step_number for attempt in snapshot.attempts if attempt.status is not Status.CORRECT)
    first_with_diff = len(versions) - MOST_DIFFS
    entries = []
    for row in layout(snapshot.versions):
        version = row.version
        step = steps[version.step_number]
        comparison = score_of(version).comparison
        entries.append(
            Entry(
                version,
                row.depth,
                gain(version, versions),
                tuple(_gain(figure, version, versions) for figure in trajectories),
                step,
                made[step.number],
                failed[step.number],
                compared(comparison) if comparison else "",
                _diff(version, versions) if version.parents and version.number >= first_with_diff else None,
            )
        )
    return tuple(entries)


def _gain(figure: Trajectory, version: Version, versions: Mapping[int, Version]) -> float | None:
    if not version.parents:
        return None
    parent = max(version.parents, key=lambda number: geomean(versions[number]))
    return figure.scores[version.number] / figure.scores[parent] - 1


def _diff(version: Version, versions: Mapping[int, Version]) -> Diff:
    parent = versions[version.parents[0]]
    old, new = parent.attempt.source, version.attempt.source
    sources = old.splitlines(), new.splitlines()
    if max(len(old), len(new)) > MOST_SOURCE or max(map(len, sources)) > MOST_SOURCE_LINES:
        most = f"{MOST_SOURCE} characters or {MOST_SOURCE_LINES} lines"
        return Diff(parent.number, (), 0, f"not compared here: a source is longer than {most}")
    lines = list(unified_diff(*sources, lineterm=""))[2:]
    shown: list[str] = []
    room = MOST_DIFF_CHARACTERS
    for line in lines[:MOST_DIFF_LINES]:
        room -= len(line)
        if room < 0:
            break
        shown.append(line)
    return Diff(parent.number, tuple(shown), len(lines) - len(shown))


def _moves(snapshot: Snapshot, entries: Sequence[Entry], mutations: Collection[int]) -> tuple[Move, ...]:
    """Return the moves of the steps with these numbers."""
    gains = {entry.version.number: entry.gains for entry in entries}
    count = len(entries[0].gains) if entries else 0
    tried = [(attempt, moves_of(attempt.change)) for attempt in snapshot.attempts if attempt.step_number in mutations]
    found = []
    for move in MOVES:
        attempts = [attempt for attempt, names in tried if move.name in names]
        made = [gains[attempt.version] for attempt in attempts if attempt.version]
        if attempts:
            correct = sum(attempt.status is Status.CORRECT for attempt in attempts)
            together = tuple(math.prod(1 + (each[place] or 0.0) for each in made) - 1 for place in range(count))
            found.append(Move(move.name, len(attempts), correct, len(made), together))
    return tuple(sorted(found, key=lambda move: (-sum(move.gains), -move.accepted, move.name)))


def _unverified(store: Store, snapshot: Snapshot) -> tuple[Unverified, ...]:
    attempts = [attempt for attempt in snapshot.attempts if attempt.status is Status.UNVERIFIED]
    return tuple(
        Unverified(
            attempt.attempt_id, attempt.change, store.attempt(snapshot.run.id, attempt.attempt_id).evaluation.predicted
        )
        for attempt in attempts[-MOST_UNVERIFIED:]
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
    """Return what the run was made with: names and values."""
    config = dict(run.config)
    start = config.pop(START, {})
    lines = [
        ("problem", run.problem),
        ("target", f"{run.target} ({TARGETS[run.target].product})" if run.target in TARGETS else run.target),
        ("measured on", score.card if score else ""),
        ("conditions", score.conditions if score else ""),
        ("suite", run.suite),
        ("operator", run.operator),
        ("random seed", str(run.seed)),
        ("first kernel", str(start.get("origin", "")) if isinstance(start, Mapping) else ""),
        ("candidates kept apart by", "; or by ".join(map(str, config.pop(ISOLATION, ())))),
        ("releases", "; or ".join(map(str, config.pop(TOOLS, ())))),
    ]
    config.pop(transfer.TRANSFERRED, None)
    known = {"problem", "target", "suite", "operator", "seed", "name"}
    lines += [(name.replace("_", " "), _shown(value)) for name, value in config.items() if name not in known]
    return [(name, cut(value)) for name, value in lines if value]


def _shown(value: object) -> str:
    return "none" if value is None else str(value)
