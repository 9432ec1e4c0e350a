"""``avo baselines``: what a kernel can be compared with."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import typer

from avo.cli.common import (
    JsonOption,
    console,
    print_json,
    telling,
)
from avo.cli.options import takes_settings
from avo.evaluator.units import figure
from avo.watch.tables import row, table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.table import Table

    from avo.evaluator.evaluators import Tell
    from avo.evaluator.problem import Case, Problem
    from avo.evaluator.target import Target
    from avo.search.judging import Judging

_WIDEST = 10_000
"""Columns of a table that is only measured: more than any has."""


@dataclass(frozen=True, slots=True)
class Line:
    """One thing to compare a kernel with."""

    name: str
    kind: str
    """``published``, ``predicted``, ``measured`` or ``roofline``."""
    place: str
    """The card that the figures are for."""
    source: str
    """Where the figures were published, or how they were found."""
    tflops: "Mapping[str, float]" = field(default_factory=dict)
    """TFLOPS by case."""
    trouble: str = ""
    """Why there are no figures."""

    @property
    def geomean(self) -> float | None:
        """Geometric mean over the cases that have figures."""
        from avo.evaluator.evaluation import geometric_mean

        return geometric_mean(self.tflops.values()) if self.tflops else None


@takes_settings
def baselines(
    published_only: Annotated[
        bool, typer.Option("--published", help="Only published figures: predict and measure nothing.")
    ] = False,
    as_json: JsonOption = False,
    **settings: Any,
) -> None:
    """Show what a kernel can be compared with: published figures with their sources, and what can be judged here.

    With --target cuda, libraries are timed on this machine's GPU and shown next to what was published for its
    architecture. Where a ratio to another kernel was published, that kernel is judged, which takes a minute.

    Example: avo baselines --problem mha --target b200 --suite paper
    """
    from avo.config import RunConfig
    from avo.evaluator.catalogue import get_problem, get_suite, problem_name
    from avo.evaluator.targets import get_target
    from avo.search.judging import Judging, check_machine

    config = RunConfig.resolve(None, settings, search=False)
    target, suite, problem = config.target, config.suite, problem_name(config.problem)
    check_machine(config)
    subject, judged = get_problem(problem), get_target(target)
    cases = get_suite(subject, suite)
    lines = published(subject, judged, cases)
    if not published_only:
        if not any(line.tflops for line in lines):
            lines.append(of_peaks(subject, judged, cases))
        if config.measured:
            with telling("timing libraries") as tell:
                lines += measured(subject, judged, cases, tell, sustained=config.clock == "sustained")
        for seed in (baseline.seed for baseline in subject.baselines if baseline.seed):
            with telling(f"judging the seed {seed!r} of {subject.name} for {target}") as tell:
                lines.append(of_seed(subject.name, seed, Judging.of(config), tell))
    if as_json:
        print_json([{name: getattr(line, name) for name in (*Line.__slots__, "geomean")} for line in lines])
        return
    if not lines:
        console.print(f"We know of no baselines of {subject.name} for {judged.product}, suite {suite}")
        return
    for made in _tables(lines, [case.name for case in cases]):
        console.print(made)
    told: dict[str, list[str]] = {}
    for line in lines:
        words = "; ".join(filter(None, (line.trouble, line.source)))
        told.setdefault(f"{line.kind}: {words}", []).append(line.name)
    for words, alike in told.items():
        console.print(f"{', '.join(alike)}, {words}", soft_wrap=True)


def _tables(lines: "Sequence[Line]", cases: "Sequence[str]") -> "list[Table]":
    """Return the figures by case and their mean as tables that are no wider than the console, if it can be."""
    columns = {case: [line.tflops.get(case) for line in lines] for case in cases}
    # A mean of other cases would look like one that can be compared.
    columns["GEOMEAN"] = [None if any(case not in line.tflops for case in cases) else line.geomean for line in lines]

    def made(names: "Sequence[str]") -> "Table":
        new = table("BASELINE", "KIND", "FOR", *(f">{name}" for name in names), title="TFLOPS")
        for number, line in enumerate(lines):
            row(new, line.name, line.kind, line.place, *(_figure(columns[name][number]) for name in names))
        return new

    def width(names: "Sequence[str]") -> int:
        return console.measure(made(names), options=console.options.update(max_width=_WIDEST)).maximum

    parts: list[list[str]] = [[]]
    for name in columns:
        if parts[-1] and width([*parts[-1], name]) > console.width:
            parts.append([])
        parts[-1].append(name)
    return [made(part) for part in parts]


def published(problem: "Problem", target: "Target", cases: "Sequence[Case]") -> list[Line]:
    """Return what was published for the target, or for a card of its architecture where speed is measured."""
    from avo.evaluator.target import CUDA, TARGETS

    alike = (
        {each.name for each in TARGETS.values() if each.arch == target.arch} if target.name == CUDA else {target.name}
    )
    found = []
    for each in problem.baselines:
        figures = {case.name: each.tflops[case.name] for case in cases if case.name in each.tflops}
        if each.target in alike and (figures or each.words):
            found.append(Line(each.name, "published", each.target, each.source, figures, each.words))
    return found


def of_peaks(problem: "Problem", target: "Target", cases: "Sequence[Case]") -> Line:
    """Return the card's roofline, which stands where there are no figures of kernels."""
    from avo.evaluator.units import rooflines_s

    seconds = rooflines_s(problem, cases, target)
    tflops = {each.name: problem.flops(each) / seconds[each.name] / 1e12 for each in cases}
    how = f"no kernel: useful FLOPs and least bytes at the peaks of {target.product}"
    return Line("the card's peaks", "roofline", target.name, how, tflops)


def measured(
    problem: "Problem", target: "Target", cases: "Sequence[Case]", tell: "Tell", *, sustained: bool
) -> list[Line]:
    """Return what libraries reach on this machine's GPU; nothing for another target, or where none has the problem."""
    from avo.evaluator.catalogue import libraries_know
    from avo.evaluator.machine import library_speeds
    from avo.evaluator.target import CUDA

    if target.name != CUDA or not libraries_know(problem):
        return []
    return [
        Line(
            f"{each.name} {each.version}",
            "measured",
            target.product,
            each.conditions,
            {case.case: case.tflops for case in each.cases},
            each.trouble,
        )
        for each in library_speeds(problem, cases, tell, sustained=sustained)
    ]


def of_seed(problem: str, seed: str, judging: "Judging", tell: "Tell") -> Line:
    """Return the judge's verdict on the seed that stands for earlier work."""
    from avo.evaluator.candidate import Candidate
    from avo.evaluator.target import score_kind
    from avo.seeds import seed_source

    with judging.start() as judge:
        evaluation = judge.evaluate(Candidate(problem, seed_source(problem, seed)), tell=tell)
    target = evaluation.target
    name, kind = f"seed {seed}", str(score_kind(target))
    score = evaluation.score
    if score is None:
        return Line(name, kind, target, "", trouble=f"{evaluation.status.words}: {evaluation.message}")
    figures = {case.case: case.tflops for case in score.cases}
    how = "; ".join(filter(None, (f"seeds/{problem}/{seed}.py, judged now", score.conditions)))
    return Line(name, kind, score.card or target, how, figures)


def _figure(tflops: float | None) -> str:
    return "" if tflops is None else figure(tflops)
