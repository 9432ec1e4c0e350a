"""How an evaluation is printed: scores with published figures, correctness, resources and busy pipes."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from avo.evaluator.catalogue import name_of
from avo.evaluator.problem import HELD_OUT
from avo.evaluator.resolution import resolution
from avo.evaluator.target import ScoreKind, unchecked
from avo.evaluator.units import TFLOPS, Unit, figure, rooflines_us, unit_of, units_of
from avo.lineage_db.decision import closer_look
from avo.watch.tables import by_case, gain, row, table
from avo.watch.wording import SPREAD, busiest, compared, critical, percent, printable, resolved, spread, valued

if TYPE_CHECKING:
    from avo.evaluator.evaluation import Evaluation, Score
    from avo.evaluator.problem import Baseline, Problem


def published(problem: "Problem", target: str) -> "tuple[Baseline, ...]":
    """Return the problem's published figures for this target."""
    return tuple(baseline for baseline in problem.baselines if baseline.target == target)


def render(evaluation: "Evaluation", problem: "Problem", seed: "Score | None" = None) -> RenderableType:
    """Return the evaluation as text and tables, one below the other; ``seed`` adds a column with the gain over it."""
    parts: list[RenderableType] = []
    score = evaluation.score or evaluation.predicted
    if evaluation.message:
        parts.append(Text(f"{evaluation.status.words}: {printable(evaluation.message)}"))
    if score:
        cases = units_of(name_of(problem), evaluation.suite, score.target, score.card)
        unit = unit_of(name_of(problem), evaluation.suite, score.target, score.card)
        words = f"{evaluation.status.words}, {valued(score, unit)}, geomean of {evaluation.suite}"
        if evaluation.held_out_tflops is not None:
            held_out = unit_of(name_of(problem), HELD_OUT, score.target, score.card)
            words += f"; {held_out.said(evaluation.held_out_tflops)} on shapes that are held out"
        if evaluation.refused:
            words += f"; {closer_look(evaluation.refused, evaluation.compiled)}"
        if told := resolved(score, unit):
            words += f"; {told}"
        parts += [
            Text(words),
            *(Text(line) for line in _conditions(score)),
            Text(),
            _scores(evaluation, score, cases, seed, _unpublished(evaluation, problem, score)),
        ]
        if evaluation.atomic:
            parts.append(Text("It adds by atomics: results differ in their last bits from run to run"))
        if evaluation.compiled and not evaluation.refused:
            parts.append(Text(printable(evaluation.compiled)))
        if evaluation.correct:
            parts += _published(score, published(problem, evaluation.target))
        parts += [*_configurations(score), *_pipes(score)]
    if evaluation.cases:
        parts += [Text(), _correctness(evaluation)]
    if evaluation.resources:
        parts += [Text(), _resources(evaluation)]
    return Group(*parts)


def _conditions(score: "Score") -> list[str]:
    """Return how a score was measured, or that nobody checked how well it is predicted, in lines."""
    doubt = unchecked(score.target) if score.kind is ScoreKind.PREDICTED else ""
    lines = (score.conditions, compared(score.comparison) if score.comparison else "", doubt)
    return [printable(line) for line in lines if line]


def _unpublished(evaluation: "Evaluation", problem: "Problem", score: "Score") -> "Mapping[str, float]":
    """Return the rooflines, in microseconds, of the cases that nothing was published for on the target."""
    covered = {name for baseline in published(problem, evaluation.target) for name in baseline.tflops}
    found = rooflines_us(name_of(problem), evaluation.suite, score.target, score.card)
    return {name: bound for name, bound in found.items() if name not in covered}


def _scores(
    evaluation: "Evaluation", score: "Score", units: "Mapping[str, Unit]", seed: "Score | None",
    rooflines: "Mapping[str, float]",
) -> RenderableType:  # fmt: skip
    kind = score.kind if evaluation.correct else f"{evaluation.status.words}, {score.kind}"
    width = resolution(score)
    over = f">over seed{f', ±{width:.1%}' if width else ''}"
    written = dict.fromkeys(units.get(case.case, TFLOPS).head for case in score.cases)
    names = dict.fromkeys(units.get(case.case, TFLOPS).name for case in score.cases)
    spreads = ", ".join([f">{SPREAD[score.kind]}", *([" or ".join(names)] if names != written else [])])
    columns = ["CASE", f">{kind} {' or '.join(written)}", *([over] if seed else []), spreads, ">us"]
    bounded = any(case.case in rooflines for case in score.cases)
    limited = any(map(critical, score.cases))
    made = table(*columns, *([">ROOFLINE us"] if bounded else []), *(["CRITICAL", "BUSIEST"] if limited else []))
    seeds = {case.case: case.tflops for case in seed.cases} if seed else {}
    for case in score.cases:
        gains = [percent(gain(case.tflops, seeds.get(case.case)))] if seed else []
        of = units.get(case.case, TFLOPS)
        limits = [critical(case), busiest(case.utilisation)] if limited else []
        bound = [figure(rooflines[case.case]) if case.case in rooflines else None] if bounded else []
        row(made, case.case, of.cell(case.tflops), *gains, spread(case, of), figure(case.time_us), *bound, *limits)
    return made


def _published(score: "Score", baselines: "Sequence[Baseline]") -> list[RenderableType]:
    baselines = [each for each in baselines if any(case.case in each.tflops for case in score.cases)]
    if not baselines:
        return []
    made = table(f"PUBLISHED TFLOPS, {score.target}", *(f">{baseline.name}" for baseline in baselines))
    for case in score.cases:
        figures = [baseline.tflops.get(case.case) for baseline in baselines]
        row(made, case.case, *(None if figure is None else f"{figure:.0f}" for figure in figures))
    sources = dict.fromkeys(baseline.source for baseline in baselines)
    return [Text(), made, *(Text(source, style="dim") for source in sources)]


def _configurations(score: "Score") -> list[RenderableType]:
    if not any(case.configurations for case in score.cases):
        return []
    made = table("CASE", "FASTEST CONFIGURATION")
    for case in score.cases:
        for configuration in case.configurations:
            row(made, case.case, configuration)
    return [Text(), made]


def _pipes(score: "Score") -> list[RenderableType]:
    pipes = list(dict.fromkeys(pipe for case in score.cases for pipe in case.utilisation))
    if not pipes:
        return []
    made = table(f"BUSY ({score.kind})", *(f">{pipe}" for pipe in pipes))
    for case in score.cases:
        row(made, case.case, *(f"{case.utilisation[p]:.0%}" if p in case.utilisation else None for p in pipes))
    return [Text(), made]


def _correctness(evaluation: "Evaluation") -> RenderableType:
    cases = by_case(evaluation.cases)
    made = table(f"CORRECT {sum(case.passed for case in cases)}/{len(cases)}", ">RELATIVE ERROR", ">ABSOLUTE ERROR", "")
    for case in cases:
        errors = ["" if error is None else f"{error:.1e}" for error in (case.relative_error, case.absolute_error)]
        row(made, case.case, *errors, case.message, style="" if case.passed else "red")
    return made


def _resources(evaluation: "Evaluation") -> RenderableType:
    made = table("KERNEL", ">REGISTERS", ">SPILL B", ">SHARED B", ">TENSOR COLS", ">WARPS", ">CTAS/SM")
    for item in dict.fromkeys(evaluation.resources):  # of each case and configuration
        row(
            made, item.kernel, item.registers, item.spill_bytes, item.shared_bytes, item.tensor_memory_columns,
            item.warps, item.ctas_per_sm,
        )  # fmt: skip
    return made
