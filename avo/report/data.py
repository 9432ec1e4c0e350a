"""What a report says about a run: a frozen record, read from the lineage database and from nothing else."""

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from difflib import unified_diff

from agents.moves import MOVES
from agents.mutate import Mutate, moves_of
from avo import transfer
from avo.failures import Failures, by_reason
from avo.kept import ISOLATION, START, TOOLS
from avo.report.figures import Bar, BarGroup, Level, Line, Trajectory
from avo.snapshot import Comparison, Snapshot, compare, gain, geomean, published, read_snapshot
from avo.tree import layout
from avo.wording import compared, unit
from evaluator.errors import EvaluatorError
from evaluator.evaluation import Score, Status, geometric_mean
from evaluator.problem import Baseline, get_problem, get_suite
from evaluator.target import TARGETS, score_kind
from lineage_db.records import Call, Intervention, Run, Spend, Step, StepState, Version
from lineage_db.store import Store

MOST_WORDS = 600
"""Characters of a change, a reason or a message that are shown."""
MOST_DIFFS = 300
"""Versions with a diff, the latest."""
MOST_DIFF_LINES, MOST_DIFF_CHARACTERS = 200, 8000
"""Of one diff."""
MOST_SOURCE = 60_000
"""Characters of a source that is compared or shown."""
MOST_REASONS, MOST_UNVERIFIED = 15, 10
"""Lines of those tables."""


@dataclass(frozen=True, slots=True)
class Diff:
    """What a version changed in the source of its first parent."""

    parent: int
    lines: tuple[str, ...]
    """Of a unified diff, without the names at its head."""
    left_out: int
    """Lines that are not shown."""
    trouble: str = ""
    """Why there is none."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A version in the tree."""

    version: Version
    depth: int
    """Lines that stand left of it."""
    gain: float | None
    """Over the fastest of its parents."""
    gains: tuple[float | None, ...]
    """The same on the cases of each trajectory."""
    step: Step
    tried: int
    """Attempts of its step."""
    failed: int
    """Those of them at fault."""
    compared: str
    """What timing it in turn with the best version before it has shown, where speed was measured."""
    diff: Diff | None


@dataclass(frozen=True, slots=True)
class Move:
    """What came of one of the moves of ``mutate``."""

    name: str
    tried: int
    correct: int
    accepted: int
    gains: tuple[float, ...]
    """Of the versions that it made, compounded: on the cases of each trajectory."""


@dataclass(frozen=True, slots=True)
class Unverified:
    """A correct-looking attempt whose numbers were not checked."""

    attempt: int
    change: str
    predicted: Score | None


@dataclass(frozen=True, slots=True)
class ModelUse:
    """What calls of one model came to."""

    model: str
    spend: Spend
    failed: int
    """Calls without a reply that could be used."""
    unpriced: int
    """Calls whose price is not known: they are not in ``spend.usd``."""
    seconds: float


@dataclass(frozen=True, slots=True)
class Report:
    """A run as its report tells it."""

    snapshot: Snapshot
    unit: str
    """What every number of a score is, e.g. ``predicted TFLOPS, h100``."""
    trajectories: tuple[Trajectory, ...]
    """Full cases, then causal ones, as far as there are any."""
    bars: tuple[BarGroup, ...]
    """Seed, best version and baselines on each case."""
    baselines: tuple[Baseline, ...]
    """Of the run's target, with a figure for one of its cases."""
    comparisons: tuple[Comparison, ...]
    """The best version beside them."""
    entries: tuple[Entry, ...]
    """The tree, line by line."""
    moves: tuple[Move, ...]
    """That were tried, the most profitable first; none of an operator that does not work by moves."""
    failures: tuple[Failures, ...]
    """By reason, all of them."""
    unverified: tuple[Unverified, ...]
    """The latest."""
    steps: Mapping[StepState, int]
    """How the steps ended."""
    models: tuple[ModelUse, ...]
    """That were called."""
    interventions: tuple[Intervention, ...]
    """Of the supervisor, oldest first."""
    transfer: str
    """What the run took over from another problem and how soon that paid, in words."""
    environment: tuple[tuple[str, str], ...]

    @property
    def run(self) -> Run:
        """The run."""
        return self.snapshot.run

    @property
    def by_number(self) -> tuple[Entry, ...]:
        """The entries in the order in which they were accepted."""
        return tuple(sorted(self.entries, key=lambda entry: entry.version.number))

    @property
    def judged_s(self) -> float:
        """Seconds of evaluation, those side by side added up."""
        return sum(trial.seconds for trial in self.snapshot.trials)


def read_report(store: Store, run_name: str) -> Report:
    """Return the report on a run as it is now; raises ``UnknownRun`` and the store's other errors."""
    snapshot = read_snapshot(store, run_name)
    run, versions = snapshot.run, snapshot.versions
    steps = store.steps(run.id)
    scores = [_score(version) for version in versions]
    baselines = tuple(
        baseline
        for baseline in published(run.problem)
        if baseline.target == run.target and scores and not baseline.tflops.keys().isdisjoint(_cases(scores))
    )
    trajectories = _trajectories(run, versions, baselines)
    entries = _entries(snapshot, {step.id: step for step in steps}, trajectories)
    taken = transfer.progress(store, run)
    return Report(
        snapshot=snapshot,
        unit=unit(scores[-1]) if scores else f"{score_kind(run.target)} TFLOPS, {run.target}",
        trajectories=trajectories,
        bars=_bars(versions, baselines),
        baselines=baselines,
        comparisons=tuple(compare(scores[-1], baselines)) if scores else (),
        entries=entries,
        moves=_moves(snapshot, entries, {step.number for step in steps if step.operator == Mutate.name}),
        failures=tuple(by_reason(snapshot.trials)),
        unverified=_unverified(store, snapshot),
        steps=Counter(step.state for step in steps),
        models=_models(store.journal.calls(run.id)),
        interventions=tuple(store.journal.interventions(run.id)),
        transfer=transfer.in_words(taken.to_json()) if taken else "",
        environment=tuple(_environment(run, scores)),
    )


def cut(words: str, most: int = MOST_WORDS) -> str:
    """Return ``words``, and what was left out where they are longer than ``most`` characters."""
    return words if len(words) <= most else f"{words[:most]}… ({len(words) - most} more characters)"


def _score(version: Version) -> Score:
    score = version.attempt.evaluation.score
    assert score is not None, "only correct attempts become versions"
    return score


def _cases(scores: Sequence[Score]) -> list[str]:
    """Return the cases that all scores have, in order."""
    common = set.intersection(*({case.case for case in score.cases} for score in scores))
    return [case.case for case in scores[-1].cases if case.case in common]


def _trajectories(run: Run, versions: Sequence[Version], baselines: Sequence[Baseline]) -> tuple[Trajectory, ...]:
    if not versions:
        return ()
    scores = [_score(version) for version in versions]
    found = []
    for name, cases in _grouped(run, _cases(scores)).items():
        lines = tuple(Line(case, tuple(_tflops(score)[case] for score in scores)) for case in cases)
        levels = (
            Level(baseline.name, geometric_mean(baseline.tflops[case] for case in cases))
            for baseline in baselines
            if baseline.tflops.keys() >= set(cases)
        )
        found.append(
            Trajectory(
                name,
                unit(scores[-1]),
                tuple(version.number for version in versions),
                tuple(geometric_mean(line.values[place] for line in lines) for place in range(len(versions))),
                tuple(cut(version.attempt.change, 120) for version in versions),
                lines,
                tuple(levels),
            )
        )
    return tuple(found)


def _grouped(run: Run, cases: Sequence[str]) -> dict[str, list[str]]:
    """Return full and causal cases apart; together where this installation does not have the problem."""
    try:
        causal = {case.name: case.causal for case in get_suite(get_problem(run.problem), run.suite)}
    except EvaluatorError:
        causal = {}
    if not causal.keys() >= set(cases):
        return {"all": list(cases)} if cases else {}
    groups = {name: [case for case in cases if causal[case] == wanted] for name, wanted in _GROUPS}
    return {name: group for name, group in groups.items() if group}


_GROUPS = (("full", False), ("causal", True))


def _tflops(score: Score) -> dict[str, float]:
    return {case.case: case.tflops for case in score.cases}


def _bars(versions: Sequence[Version], baselines: Sequence[Baseline]) -> tuple[BarGroup, ...]:
    if not versions:
        return ()
    shown = {"best": versions[-1]} if len(versions) == 1 else {"seed": versions[0], "best": versions[-1]}
    scores = {style: {case.case: case for case in _score(version).cases} for style, version in shown.items()}
    groups = []
    for name in _cases([_score(version) for version in shown.values()]):
        bars = []
        for style, version in shown.items():
            case = scores[style][name]
            words = "seed" if version.number == 0 else f"best, v{version.number}"
            bars.append(Bar(words, style, case.tflops, case.low_tflops, case.high_tflops))
        bars += [Bar(b.name, "published", b.tflops[name]) for b in baselines if name in b.tflops]
        groups.append(BarGroup(name, tuple(bars)))
    return tuple(groups)


def _entries(snapshot: Snapshot, steps: Mapping[int, Step], trajectories: Sequence[Trajectory]) -> tuple[Entry, ...]:
    versions = snapshot.by_number
    made = Counter(trial.step_number for trial in snapshot.trials)
    failed = Counter(trial.step_number for trial in snapshot.trials if trial.status is not Status.CORRECT)
    first_with_diff = len(versions) - MOST_DIFFS
    entries = []
    for row in layout(snapshot.versions):
        version = row.version
        step = steps[version.attempt.step_id]
        comparison = _score(version).comparison
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
    if max(len(old), len(new)) > MOST_SOURCE:
        return Diff(parent.number, (), 0, f"not compared here: a source is longer than {MOST_SOURCE} characters")
    lines = list(unified_diff(old.splitlines(), new.splitlines(), lineterm=""))[2:]
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
    tried = [trial for trial in snapshot.trials if trial.step_number in mutations]
    found = []
    for move in MOVES:
        trials = [trial for trial in tried if move.name in moves_of(trial.change)]
        made = [gains[trial.version] for trial in trials if trial.version]
        if trials:
            correct = sum(trial.status is Status.CORRECT for trial in trials)
            together = tuple(math.prod(1 + (each[place] or 0.0) for each in made) - 1 for place in range(count))
            found.append(Move(move.name, len(trials), correct, len(made), together))
    return tuple(sorted(found, key=lambda move: (-sum(move.gains), -move.accepted, move.name)))


def _unverified(store: Store, snapshot: Snapshot) -> tuple[Unverified, ...]:
    trials = [trial for trial in snapshot.trials if trial.status is Status.UNVERIFIED]
    return tuple(
        Unverified(
            trial.attempt_id, trial.change, store.attempt(snapshot.run.id, trial.attempt_id).evaluation.predicted
        )
        for trial in trials[-MOST_UNVERIFIED:]
    )


def _models(calls: Sequence[Call]) -> tuple[ModelUse, ...]:
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


def _environment(run: Run, scores: Sequence[Score]) -> list[tuple[str, str]]:
    """Return what the run was made with: names and values."""
    config = dict(run.config)
    start = config.pop(START, {})
    lines = [
        ("problem", run.problem),
        ("target", f"{run.target} ({TARGETS[run.target].product})" if run.target in TARGETS else run.target),
        ("measured on", scores[-1].card if scores else ""),
        ("conditions", scores[-1].conditions if scores else ""),
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
