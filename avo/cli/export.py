"""``avo export``: versions as an installable package."""

import math
import os
import shlex
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from avo.cli import completion
from avo.cli.common import DbOption, JsonOption, err, fail, load, print_json, read_store, telling
from avo.cli.options import takes_settings
from avo.watch.tables import one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from avo.cli.common import Named
    from avo.config import RunConfig
    from avo.evaluator.evaluators import Tell
    from avo.evaluator.problem import Baseline
    from avo.export.choosing import Chosen
    from avo.export.judging import Passed
    from avo.lineage_db.ablated import Ablation
    from avo.lineage_db.records import Version


@takes_settings
def export(
    versions: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN[@VERSION|#ATTEMPT]",
            help="Versions, e.g. mha-h100@3, or attempts, e.g. mha-h100#38; RUN alone is its best version.",
            autocompletion=completion.references,
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to write; must be empty or not exist.")],
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Name of the package. Default: made from the run's name."),
    ] = None,
    hub_layout: Annotated[
        bool,
        typer.Option("--hub-layout", help="Write what a kernel repository of the Hugging Face Hub has, and no more."),
    ] = False,
    ablate: Annotated[
        bool,
        typer.Option(
            "--ablate", help="Find out what each edit of a version is worth, in minutes, unless that was done."
        ),
    ] = False,
    minimal: Annotated[
        bool, typer.Option("--minimal", help="Export versions without the edits that this finds useless.")
    ] = False,
    wall: Annotated[float, typer.Option(metavar="SECONDS", help="Give up judging a version after this time.")] = 600.0,
    db: DbOption = None,
    as_json: JsonOption = False,
    **settings: Any,
) -> None:
    """Write versions as an installable package, after judging them again.

    It holds the kernels behind one function for each kind of problem, their provenance, tests and a benchmark. Each
    version is judged once more, for a minute or two, on held-out cases too. If one does not pass, nothing is written.

    Exit code 0: written. 1: a version does not pass. 2: the call is wrong.

    Example: avo export mha-h100 gqa-h100@5 --out my-attention --name my-attention
    """
    if not 1 <= wall < math.inf:
        fail(f"--wall: {wall:g} should be 1 second or more")

    from avo.config import RunConfig
    from avo.evaluator.target import CUDA
    from avo.export.choosing import check_together, choose
    from avo.export.package import check_place, package_name, render_package, write_package

    check_place(out)
    with read_store(db) as store:
        named = [load(store, each) for each in versions]
        distinct = {(each.run.id, each.attempt.id): each for each in named}
        told = {run: store.measurements.told(run) for run, _ in distinct}
        made = {run: store.versions(run) for run in told}
        known = {
            key: store.ablations.of(each.run.id, each.version.number) if each.version else None
            for key, each in distinct.items()
        }
    if ablate or minimal:
        found = {key: _ablated(each, made[each.run.id], known[key], db, settings) for key, each in distinct.items()}
        if minimal and not all(found.values()):  # it was said why
            raise typer.Exit(2)
        known |= {key: each for key, each in found.items() if each}
    chosen = [
        choose(each.run, made[run], each.attempt, told[run].get(attempt), known[run, attempt], minimal=minimal)
        for (run, attempt), each in distinct.items()
    ]
    check_together(chosen)
    targets = [each.run.target for each in chosen]
    config = RunConfig.resolve(None, {**settings, "target": CUDA if CUDA in targets else targets[0]})
    package = package_name(name, list(dict.fromkeys(each.run.name for each in chosen)))
    labels = ", ".join(each.label for each in chosen)
    judged = _judged(chosen, config, wall)
    if config.measured:
        with telling("timing libraries") as tell:
            judged = tuple(
                replace(each, libraries=libraries(each, tell, sustained=config.clock == "sustained")) for each in judged
            )
    files = render_package(package, judged, datetime.now(UTC), hub=hub_layout)
    write_package(files, out)
    # pip would look for a bare name in its index.
    command, given = ("kernel-builder upload", str(out)) if hub_layout else ("pip install", os.path.join(".", out))
    err.print(f"{labels}: package {package} is in {out}; next: {command} {shlex.quote(given)}")
    if as_json:
        kernels = [
            {"run": each.run.name, "version": each.version.number if each.version else None, "attempt": each.attempt.id}
            for each in chosen
        ]
        print_json({"package": package, "kernels": kernels, "folder": str(out), "files": sorted(files)})
    else:
        for place in sorted(files):
            print(out / place)


def _ablated(
    each: "Named", versions: "Sequence[Version]", known: "Ablation | None", db: str | None, settings: "dict[str, Any]"
) -> "Ablation | None":
    from avo.cli.ablating import tried

    if each.version:
        return tried(each.run, versions, each.version.number, known, db, **settings)
    err.print(f"avo: {each.label} is no version: its edits are known of versions alone")
    return None


def _judged(chosen: "Sequence[Chosen]", config: "RunConfig", wall: float) -> "tuple[Passed, ...]":
    """Return the versions as they were judged; leave with the reasons where some do not pass."""
    from avo.evaluator.evaluators import Evaluator
    from avo.export.errors import NotExported
    from avo.export.judging import judge
    from avo.search.judging import Judging

    def open_judge(target: str, suite: str) -> Evaluator:
        settled = config.model_copy(update={"target": target, "suite": suite, "evaluation_wall_s": wall})
        return Judging.of(settled).start()

    try:
        with err.status(f"judging {', '.join(each.label for each in chosen)} again ..."):
            return judge(chosen, open_judge)
    except NotExported as fault:
        for line in str(fault).splitlines():
            err.print(f"avo: {one_line(line)}")
        raise typer.Exit(1) from None


def libraries(passed: "Passed", tell: "Tell", *, sustained: bool) -> "tuple[Baseline, ...]":
    """Return what libraries reach on the cases that a version was measured on; nothing where it was predicted."""
    from avo.cli.baselines import measured
    from avo.evaluator.catalogue import get_suite
    from avo.evaluator.problem import Baseline

    problem = passed.chosen.problem
    cases = [case for each in passed.evaluations for case in get_suite(problem, each.suite)]
    lines = measured(problem, passed.target, cases, tell, sustained=sustained)
    return tuple(
        Baseline(line.name, line.place, line.tflops, "; ".join(filter(None, (line.trouble, line.source))))
        for line in lines
    )
