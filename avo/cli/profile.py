"""``avo profile``: why a kernel is as fast as predicted, and what would make it faster."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from avo.cli import completion
from avo.cli.common import DbOption, JsonOption, console, err, fail, load, print_json, read_source, read_store
from avo.evaluator.inspection import Show
from avo.evaluator.target import CARDS
from avo.watch.wording import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from avo.evaluator.profile import Profile
    from avo.evaluator.units import Unit


def profile(
    kernel: Annotated[
        str,
        typer.Argument(metavar="FILE|RUN[@VERSION|#ATTEMPT]", help="A kernel's file, or a version or an attempt."),
    ],
    problem: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="What a file's kernel computes. Default: mha.", autocompletion=completion.problems
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help=f"Card to predict for: {CARDS}. Default: the run's, else h100.",
            autocompletion=completion.cards,
        ),
    ] = None,
    suite: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Benchmark cases: quick, paper, held_out or another suite. Default: the run's, else quick.",
            autocompletion=completion.suites,
        ),
    ] = None,
    case: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Only this case, e.g. 8k-causal. Default: all."),
    ] = None,
    show: Annotated[
        Show,
        typer.Option(
            help="Show instead: two passes of the hot loop by pipe and role (timeline), or code of one case: machine "
            "code of the hot loop (sass), ptx, ttgir, or the IR before one of Triton's passes (ir).",
        ),
    ] = Show.PIPES,
    before: Annotated[
        str | None,
        typer.Option(
            metavar="PASS",
            help="With --show ir: the pass, by name or number. Default: the one that fails, else a list of all.",
        ),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|RUN[@VERSION|#ATTEMPT]",
            help="With --show sass: another kernel, whose hot loop is set beside this one's.",
        ),
    ] = None,
    svg: Annotated[Path | None, typer.Option(metavar="FILE", help="Also draw two passes of the hot loop.")] = None,
    db: DbOption = None,
    as_json: JsonOption = False,
) -> None:
    """Explain a kernel's predicted time, and what would shorten it.

    The kernel is captured, compiled and simulated as in avo evaluate. Its results are not checked.
    With --target cuda, ncu counts on this machine's GPU, where it is installed.

    Exit code 0: done. 1: the kernel fails. 2: the call is wrong.

    Example: avo profile kernel.py --target h100 --case 8k-full --svg timeline.svg
    """
    source, problem, target, suite = _chosen(kernel, problem, target, suite, db)
    other = _chosen(against, problem, target, suite, db)[0] if against else ""

    from avo.evaluator.beside import beside
    from avo.evaluator.candidate import Candidate
    from avo.evaluator.catalogue import get_cases, get_problem, problem_name
    from avo.evaluator.evaluation import Fault
    from avo.evaluator.inspection import Inspection, Look
    from avo.evaluator.judges import local_judge
    from avo.evaluator.lanes import drawn
    from avo.evaluator.targets import get_target
    from avo.evaluator.units import TFLOPS, units_of

    _check(show, before, svg, against, as_json=as_json)
    chosen = get_target(target)
    problem = problem_name(problem)
    get_cases(get_problem(problem), suite, case)
    units = units_of(problem, suite, target, chosen.product)
    found: tuple[Profile, ...] | str | Fault
    with err.status(f"profiling {kernel} for {target} ..."), local_judge(chosen, suite) as judge:
        if show in (Show.PIPES, Show.TIMELINE):
            found = judge.profile(Candidate(problem, source), case)
            if show is Show.TIMELINE and not isinstance(found, Fault):
                found = "\n\n".join(map(drawn, found))
        elif against:
            both = [judge.profile(Candidate(problem, text), case) for text in (source, other)]
            faults = [each for each in both if isinstance(each, Fault)]
            loops = [each[0] for each in both if not isinstance(each, Fault)]
            of = units.get(loops[0].score.case, TFLOPS) if loops else TFLOPS
            found = faults[0] if faults else beside(loops[0], loops[1], of, kernel, against)
        else:
            seen = judge.inspect(Inspection(Look(show), problem, source, None, case, before))
            found = seen.fault or seen.text
    if isinstance(found, Fault):
        if as_json:
            print_json({"status": found.status, "message": found.message})
        else:
            console.print(f"{found.status.words}: {printable(found.message)}")
        raise typer.Exit(1)
    if isinstance(found, str):
        console.print(printable(found), soft_wrap=True)
        return
    if svg:
        _write_picture(svg, found, kernel, units)
    if as_json:
        print_json(_record(kernel, problem, suite, found))
    else:
        _explain(found, kernel, target, units)


def _check(show: Show, before: str | None, svg: Path | None, against: str | None, *, as_json: bool) -> None:
    """Leave with one line where options do not go together."""
    if against is not None and show is not Show.SASS:
        fail("--against is for --show sass")
    if before is not None and show is not Show.IR:
        fail("--before is for --show ir")
    if show is not Show.PIPES and (svg or as_json):
        fail(f"--show {show} prints text: leave {'--svg' if svg else '--json'} out")
    if svg and (svg.is_dir() or not svg.parent.is_dir()):
        fail(f"--svg: {svg} is not a file in an existing folder")


def _explain(profiles: "tuple[Profile, ...]", kernel: str, target: str, units: "Mapping[str, Unit]") -> None:
    from avo.evaluator.target import unchecked
    from avo.evaluator.units import TFLOPS
    from avo.watch.explanation import render

    console.print(f"{kernel} on {target}, {profiles[0].kind}; its results are not checked")
    if doubt := unchecked(target):
        console.print(doubt)
    for made in profiles:
        console.print(render(made, units.get(made.score.case, TFLOPS)))


def _chosen(
    kernel: str, problem: str | None, target: str | None, suite: str | None, db: str | None
) -> tuple[str, str, str, str]:
    """Return the source to profile, its problem, the target and the suite."""
    file = Path(kernel)
    if file.suffix == ".py" or file.exists():
        return read_source(file), problem or "mha", target or "h100", suite or "quick"
    with read_store(db) as store:
        named = load(store, kernel)
    run = named.run
    if problem not in (None, run.problem):
        fail(f"--problem: {run.name} is about {run.problem}, not {problem}")
    return named.attempt.source, run.problem, target or run.target, suite or run.suite


def _write_picture(svg: Path, profiles: "tuple[Profile, ...]", kernel: str, units: "Mapping[str, Unit]") -> None:
    from avo.report.timeline import draw_timelines

    try:
        svg.write_text(draw_timelines(profiles, kernel, units), encoding="utf-8")
    except OSError as error:
        fail(f"cannot write {svg}: {error.strerror}")
    err.print(f"the timeline is in {svg}")


def _record(kernel: str, problem: str, suite: str, profiles: "tuple[Profile, ...]") -> dict[str, Any]:
    return {
        "kernel": kernel,
        "kind": profiles[0].kind,
        "problem": problem,
        "target": profiles[0].target,
        "suite": suite,
        "cases": [made.to_json() for made in profiles],
    }
