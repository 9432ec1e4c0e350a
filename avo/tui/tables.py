"""Tables with the details of a version, as rich renderables that adapt to the width they are given."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from avo.evaluator.evaluation import CaseResult, Resources, Score
from avo.evaluator.problem import Baseline
from avo.evaluator.units import TFLOPS, Unit, figure, units_of
from avo.lineage_db.ablated import Ablation
from avo.lineage_db.records import Run, Submission, Version
from avo.watch.scores import compare, over_parent, unit_for
from avo.watch.tables import by_case, edits
from avo.watch.wording import SPREAD, busiest, compared, critical, duration, place, printable, resolved, valued

WIDEST = 400
"""Width in columns of a page that scrolls: longer lines of candidates are cut."""
_LABEL_WIDTH, _CASE_WIDTH = 18, 11


class Drawn:
    """A renderable that is rendered only once for each width: a widget asks for its height first, then its lines."""

    def __init__(self, renderable: RenderableType) -> None:
        self._renderable = renderable
        self._segments: dict[int, list[Segment]] = {}

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = options.max_width
        if width not in self._segments:
            self._segments[width] = list(console.render(self._renderable, options))
        yield from self._segments[width]

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        # As wide as the text, not as the page, which scrolls to the ends of lines.
        return Measurement.get(console, options.update(max_width=WIDEST), self._renderable)


@dataclass(frozen=True, slots=True)
class CaseRow:
    """A row of a ``CaseTable``, with a value for each case."""

    label: str
    values: Mapping[str, str]
    style: str = ""


@dataclass(frozen=True)
class CaseTable:
    """A table with a column for each case; cases for which there is no room continue below."""

    cases: Sequence[str]
    rows: Sequence[CaseRow]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        across = max(1, (options.max_width - _LABEL_WIDTH) // _CASE_WIDTH)
        for start in range(0, len(self.cases), across):
            cases = self.cases[start : start + across]
            table = _table("", *cases, widths=(_LABEL_WIDTH - 1, *[_CASE_WIDTH - 1] * len(cases)))
            for row in self.rows:
                table.add_row(row.label, *(row.values.get(case, "") for case in cases), style=row.style)
            yield table


def scores(
    version: Version,
    versions: Mapping[int, Version],
    baselines: Sequence[Baseline],
    run: Run,
    submission: Submission | None = None,
    told: str = "",
    ablation: Ablation | None = None,
) -> RenderableType:
    """Return everything the judge found about a version, compared with its parent, the seed and published figures.

    ``submission``: what the version's operator said about it, if anything; ``told``: what a card measured, in words;
    ``ablation``: what its edits are worth, if that is known.
    """
    evaluation = version.attempt.evaluation
    score = evaluation.score
    if score is None:
        return Text(printable(evaluation.message))
    units = units_of(run.problem, run.suite, run.target, score.card)
    unit = unit_for(run, score)
    parts: list[RenderableType] = [_summary(version, versions, score, submission, unit)]
    parts += [Text(told)] if told else []
    parts += [
        _title(f"{score.kind.capitalize()} {unit.name}, {place(score)}"),
        _case_scores(version, versions, score, baselines, units),
    ]
    published = _published(score, baselines, unit)
    if published:
        parts += [_title("Against published, geometric mean"), published]
    if ablation:
        parts += [_title("Which edits carry it"), edits(ablation, unit)]
    if any(case.utilisation for case in score.cases):
        parts += [_title("Busy in the hot loop, percent"), _pipes(score)]
    if any(case.configurations for case in score.cases):
        parts += [_title("Fastest configurations"), _configurations(score)]
    if evaluation.resources:
        parts += [_title("Resources"), _resources(evaluation.resources)]
    if evaluation.cases:
        parts += [_title("Correctness"), _correctness(evaluation.cases)]
    return Drawn(Group(*parts))


def _summary(
    version: Version, versions: Mapping[int, Version], score: Score, submission: Submission | None, unit: Unit
) -> RenderableType:
    parents = ", ".join(f"v{number}" for number in version.parents)
    text = Text.assemble(
        (f"Version {version.number}  ", "bold"),
        valued(score, unit),
        (f"  {over_parent(version, versions)}", "green"),
        "\n",
    )
    change = printable(version.change.strip())
    text.append(f"from {parents}: {change}\n" if parents else "a seed: no parent\n")
    if version.niche:
        text.append(f"niche: {printable(version.niche)}\n")
    if version.attempt.hypothesis:
        text.append(f"hypothesis: {printable(version.attempt.hypothesis)}\n")
    for label, words in (("expected", submission.expected if submission else ""), ("seen", version.seen)):
        if words:
            text.append(f"{label}: {printable(words)}\n")
    text.append(
        f"attempt {version.attempt.id}, accepted {version.accepted:%Y-%m-%d %H:%M} UTC, judged in "
        f"{duration(version.attempt.evaluation.seconds)}",
        "dim",
    )
    if told := resolved(score, unit):
        text.append(f"\n{told}", "dim")
    if score.conditions:
        text.append(f"\n{printable(score.conditions)}", "dim")
    if score.comparison:
        text.append(f"\n{compared(score.comparison)}", "dim")
    if version.attempt.evaluation.compiled:
        text.append(f"\n{printable(version.attempt.evaluation.compiled)}", "dim")
    return text


def _case_scores(
    version: Version,
    versions: Mapping[int, Version],
    score: Score,
    baselines: Sequence[Baseline],
    units: Mapping[str, Unit],
) -> CaseTable:
    def figures(speeds: Iterable[tuple[str, float]]) -> Mapping[str, str]:
        return {case: units.get(case, TFLOPS).figure(tflops) for case, tflops in speeds}

    rows = [CaseRow(f"v{version.number}, this one", figures(_tflops(score)), "bold")]
    start = max((number for number, other in versions.items() if not other.parents), default=version.number)
    parents = [number for number in version.parents if number in versions and number != start]
    others = [(f"v{number}, parent", versions[number]) for number in parents]
    if start != version.number:
        others.append((f"v{start}, seed", versions[start]))
    for label, other in others:
        if other.attempt.evaluation.score:
            rows.append(CaseRow(label, figures(_tflops(other.attempt.evaluation.score))))
    for baseline in baselines:
        if baseline.target == score.target:
            rows.append(CaseRow(baseline.name, figures(baseline.tflops.items()), "dim"))
    rows.append(CaseRow("time, us", {case.case: figure(case.time_us) for case in score.cases}))
    ranged = [case for case in score.cases if case.low_tflops]
    if ranged:
        rows.append(CaseRow(f"{SPREAD[score.kind]} from", figures((case.case, case.low_tflops) for case in ranged)))
        rows.append(CaseRow(f"{SPREAD[score.kind]} to", figures((case.case, case.high_tflops) for case in ranged)))
    shares = {name: share for name, tflops in _tflops(score) if (share := units.get(name, TFLOPS).share(tflops))}
    rows += [CaseRow("of the peak", shares)] * bool(shares)
    if any(map(critical, score.cases)):
        rows.append(CaseRow("critical", {case.case: critical(case) for case in score.cases}))
        rows.append(CaseRow("busiest", {case.case: busiest(case.utilisation) for case in score.cases}))
    return CaseTable([case.case for case in score.cases], rows)


def _published(score: Score, baselines: Sequence[Baseline], unit: Unit) -> RenderableType | None:
    comparisons = compare(score, baselines)
    if not comparisons:
        return None
    table = _table("", "this", "published", "ratio", "on")
    for found in comparisons:
        table.add_row(
            found.name,
            unit.figure(found.ours),
            unit.figure(found.published),
            found.ratio,
            "" if found.shared == found.total else f"{found.shared}/{found.total}",
        )
    return table


def _pipes(score: Score) -> CaseTable:
    pipes: dict[str, float] = {}
    for case in score.cases:
        for pipe, busy in case.utilisation.items():
            pipes[pipe] = max(busy, pipes.get(pipe, 0.0))
    rows = [
        CaseRow(pipe, {case.case: f"{case.utilisation[pipe]:.0%}" for case in score.cases if pipe in case.utilisation})
        for pipe in sorted(pipes, key=lambda name: -pipes[name])
    ]
    return CaseTable([case.case for case in score.cases], rows)


def _configurations(score: Score) -> RenderableType:
    return Text("\n".join(printable(f"{case.case}: {', '.join(case.configurations)}") for case in score.cases))


def _resources(resources: Sequence[Resources]) -> RenderableType:
    return Group(*(_kernel(item) for item in resources))


def _kernel(item: Resources) -> RenderableType:
    text = Text(printable(item.kernel), "bold")
    facts = [
        f"{item.registers} registers per thread",
        f"{item.spill_bytes} bytes spilled" if item.spill_bytes else "no spills",
        f"{item.shared_bytes / 1024:.1f} KiB shared memory",
        f"{item.warps} warps",
        f"{item.ctas_per_sm} CTAs per SM",
    ]
    if item.tensor_memory_columns:
        facts.append(f"{item.tensor_memory_columns} columns of tensor memory")
    return text.append("\n" + ", ".join(facts), "not bold")


def _correctness(cases: Sequence[CaseResult]) -> RenderableType:
    table = _table("", "verdict", "error", "absolute error")
    for case in by_case(cases):
        table.add_row(
            case.case, "passed" if case.passed else "failed", _error(case.relative_error), _error(case.absolute_error)
        )
    return table


def _error(value: float | None) -> str:
    return "" if value is None else f"{value:.1e}"


def _tflops(score: Score) -> Iterable[tuple[str, float]]:
    return ((case.case, case.tflops) for case in score.cases)


def _title(text: str) -> RenderableType:
    return Text(f"\n{text}", "bold underline")


def _table(*headings: str, widths: Sequence[int] = ()) -> Table:
    """Return a bare table: names on the left, numbers aligned to the right."""
    table = Table(box=None, padding=(0, 1, 0, 0), show_edge=False, header_style="dim")
    for index, heading in enumerate(headings):
        table.add_column(
            heading,
            justify="right" if index else "left",
            no_wrap=True,
            overflow="ellipsis",
            min_width=widths[index] if widths else None,
        )
    return table
