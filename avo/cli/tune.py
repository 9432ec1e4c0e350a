"""``avo tune``: how fast each configuration of a script's autotuned kernels is predicted to be."""

import ast
import json
import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.measure import Measurement
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from avo.cli import completion
from avo.cli.common import console, err, fail
from avo.evaluator.target import CARDS, TARGETS, unchecked
from avo.evaluator.units import figure
from avo.watch.tables import row, table
from avo.watch.wording import printable

if TYPE_CHECKING:
    from avo.evaluator.target import Target
    from avo.evaluator.tune import Choice, Named, Outcome, Ran, Ranking, Subject

_ANY_WIDTH = 10_000
"""Columns in which every table has room."""


def tune(
    script: Annotated[
        Path, typer.Argument(metavar="SCRIPT.py", help="A script, or a file of tests: test_*.py or *_test.py.")
    ],
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="-- ARGUMENT", help="Arguments of the script, or of pytest.")
    ] = None,
    targets: Annotated[
        list[str] | None,
        typer.Option(
            "--target",
            metavar="NAME",
            help=f"Card to predict for: {CARDS}, or calibrated; may be repeated. Default: h100.",
            autocompletion=completion.cards,
        ),
    ] = None,
    keep: Annotated[int, typer.Option(min=1, metavar="N", help="Configurations to keep for each target and key.")] = 4,
    rows: Annotated[int, typer.Option(min=0, metavar="N", help="Rows of each table; 0 shows all.")] = 10,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Also write everything as JSON, unrounded.")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Processes that compile and predict. Default: one per CPU.")
    ] = None,
) -> None:
    """Predict every configuration of a script's autotuned kernels, without a GPU.

    The script is run with your rights, as python would run it: run no script that you do not trust. Its kernels are not
    executed, so its tensors may be as large as real ones and take no time; docs/tune.md says what has contents. For
    each kernel with @triton.autotune, each target and each key, all configurations are compiled, predicted and ranked.
    At the end stands a shorter list of configurations to paste.

    All times are predicted, none is measured.

    Exit code 0: done. 2: the call is wrong, or the script does not run or launches no autotuned kernel.

    Example: avo tune bench_matmul.py --target h100 --target b200 --json tuned.json -- --size 8192
    """
    chosen = [_target(name) for name in dict.fromkeys(targets or ["h100"])]
    if script.is_dir():
        fail(f"{script} is a folder: give the script in it that launches the kernels, or a file of tests")
    if not script.is_file():
        fail(f"cannot read {script}: no such file")
    if json_file and (json_file.is_dir() or not json_file.parent.is_dir()):
        fail(f"--json: {json_file} is not a file in an existing folder")

    from avo.evaluator.tuning.prediction import rank

    runs = [_ran(script, arguments or [], target) for target in chosen]
    total = sum(len(run.tried) for run in runs)
    if not total:
        refused = next((f": {run.refused}" for run in runs if run.refused), "")
        fail(f"{script} launched no kernel with @triton.autotune{refused}")
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=err
    ) as progress:
        task = progress.add_task("predicting configurations", total=total)
        rankings = rank(runs, jobs or len(os.sched_getaffinity(0)), lambda: progress.advance(task))
    for doubt in filter(None, (unchecked(target.name) for target in chosen)):
        console.print(doubt)
    for ranking in rankings:
        _print(ranking, rows, several_types=_types_differ(ranking, rankings))
    kept = {place: list(_kept(place, rankings, keep)) for place in dict.fromkeys(map(_kernel, rankings))}
    for (kernel, location), choices in kept.items():
        if not choices:
            continue
        console.print(f"configs of {kernel} ({_short(location)}) to paste, predicted to be the fastest:\n")
        console.print(
            "\n".join(["configs=[", *(f"    {choice.code}," for choice in choices), "],", ""]), soft_wrap=True
        )
    for run in runs:
        _print_notes(script, run)
    if json_file:
        try:
            json_file.write_text(json.dumps(_record(script, runs, rankings, kept), indent=2, allow_nan=False) + "\n")
        except OSError as error:
            fail(f"cannot write {json_file}: {error.strerror}")
        err.print(f"everything is in {json_file}")


def _target(name: str) -> "Target":
    from avo.evaluator.known import calibrated, known

    if (card := known(name)) is None:
        cards = ", ".join((*TARGETS, *calibrated()))
        fail(f"--target: {name!r} is not a card to predict for: choose one of {cards}")
    return card


def _ran(script: Path, arguments: Sequence[str], target: "Target") -> "Ran":
    from avo.evaluator.tune import ScriptFailed
    from avo.evaluator.tuning.running import run_script

    with err.status(f"running {script} for {target.name}, executing no kernel ..."):
        try:
            return run_script(script, arguments, target, lambda line: err.print(printable(line)))
        except ScriptFailed as error:
            err.print(printable(error.details))
            fail(str(error))


def _print(ranking: "Ranking", rows: int, *, several_types: bool) -> None:
    """Print the configurations of one kernel, for one target and key."""
    subject, timed = ranking.subject, ranking.timed
    shown = timed[: rows or len(timed)]
    console.print(_title(subject, several_types), soft_wrap=True)
    if shown:
        tied = [outcome.choice for outcome in ranking.tied[1:]]
        beside = _table(shown, tied, beside=True)
        fits = Measurement.get(console, console.options.update(max_width=_ANY_WIDTH), beside).maximum <= console.width
        console.print(beside if fits else _table(shown, tied, beside=False))
        for i, outcome in enumerate(() if fits else shown, 1):
            console.print(f"{i}: {outcome.choice}", soft_wrap=True)
    if count := len(ranking.tied[1:]):
        console.print(f"~ {count} cannot be told apart from the fastest")
    if len(timed) > len(shown):
        console.print(f"and {len(timed) - len(shown)} slower ones")
    if timed and timed[0].time and timed[0].time.doubts:
        console.print(f"not known to the model: {'; '.join(timed[0].time.doubts)}", soft_wrap=True)
    for reason, choices in _failures(ranking.outcomes).items():
        console.print(f"not possible: {'; '.join(map(str, choices))}: {printable(reason)}", soft_wrap=True)
    console.print()


def _table(shown: "Sequence[Outcome]", tied: "Collection[Choice]", *, beside: bool) -> Table:
    """Return the times of configurations, which stand ``beside`` their times or are left out; ``tied`` are marked."""
    columns = ("#", ">US", ">RANGE", "LIMITER", ">REGISTERS", ">SPILLED", ">CTAS/SM", ">WARPS")
    made = table(*columns, *(["CONFIGURATION"] if beside else []))
    for i, outcome in enumerate(shown, 1):
        time = outcome.time
        assert time is not None
        between = f"{figure(time.low_us)} to {figure(time.high_us)}"
        spilled = f"{time.spill_bytes} B" if time.spill_bytes else "0"
        warps = f"{time.occupancy:.0%}"
        us = f"{'~' * (outcome.choice in tied)}{figure(time.us)}"
        row(
            made, i, us, between, time.limiter, time.registers, spilled, time.ctas_per_sm, warps,
            *([outcome.choice] if beside else []),
        )  # fmt: skip
    return made


def _title(subject: "Subject", several_types: bool) -> str:
    key = ", ".join(f"{name}={value}" for name, value in subject.key)
    types = ", ".join(f"{name} {kind.removeprefix('torch.')}" for name, kind in subject.dtypes) if several_types else ""
    given = "; ".join(filter(None, (key, types)))
    words = f"{subject.kernel} ({_short(subject.location)}) on {subject.target}{', ' if given else ''}{given}"
    return f"{printable(words)}: predicted, not measured"


def _failures(outcomes: "Sequence[Outcome]") -> "dict[str, list[Choice]]":
    """Return the configurations that have no time, by the reason."""
    found: dict[str, list[Choice]] = {}
    for outcome in outcomes:
        if outcome.time is None:
            found.setdefault(outcome.reason, []).append(outcome.choice)
    return found


def _types_differ(ranking: "Ranking", rankings: "Sequence[Ranking]") -> bool:
    """Whether the kernel is tuned for the same key with other types too."""
    subject = ranking.subject
    same = [each.subject for each in rankings if (_kernel(each), each.subject.key) == (_kernel(ranking), subject.key)]
    return len({each.dtypes for each in same}) > 1


def _kernel(ranking: "Ranking") -> tuple[str, str]:
    return ranking.subject.kernel, ranking.subject.location


def _kept(kernel: tuple[str, str], rankings: "Sequence[Ranking]", most: int) -> "Iterator[Choice]":
    """Yield the configurations of a kernel to keep, those of all targets and keys, in the order of the decorator."""
    mine = [ranking for ranking in rankings if _kernel(ranking) == kernel]
    wanted = {choice for ranking in mine for choice in ranking.contenders(most)}
    listed = dict.fromkeys(choice for ranking in mine for choice in ranking.listed)
    yield from (choice for choice in listed if choice in wanted)


def _print_notes(script: Path, run: "Ran") -> None:
    if run.refused:
        err.print(f"avo: {script} was stopped for {run.target}, later launches are missing: {printable(run.refused)}")
    if run.raised:
        err.print(printable(run.raised))
        err.print(
            f"avo: {script} stopped for {run.target}, later launches are missing: {printable(run.error)}; no kernel "
            "computed, so comparisons of results fail"
        )
    if run.failed:
        err.print(f"avo: for {run.target} {printable(run.failed)}; no kernel computed, so comparisons of results fail")


def _short(location: str) -> str:
    """Return ``FILE:LINE`` with the file's name alone."""
    return Path(location).name


def _record(
    script: Path,
    runs: "Sequence[Ran]",
    rankings: "Sequence[Ranking]",
    kept: "dict[tuple[str, str], list[Choice]]",
) -> dict[str, Any]:
    return {
        "kind": "predicted",
        "script": str(script),
        "targets": [
            {
                "target": run.target,
                "held_against_measurements": not unchecked(run.target),
                "stopped": run.refused,
                "raised": run.raised,
                "failed_tests": run.failed,
            }
            for run in runs
        ],
        "rankings": [
            {
                "kernel": ranking.subject.kernel,
                "location": ranking.subject.location,
                "target": ranking.subject.target,
                "key": dict(ranking.subject.key),
                "dtypes": dict(ranking.subject.dtypes),
                "configurations": [
                    {**_choice(outcome.choice), **asdict(outcome.time)} for outcome in ranking.timed if outcome.time
                ],
                "not_possible": [
                    {**_choice(outcome.choice), "reason": outcome.reason}
                    for outcome in ranking.outcomes
                    if outcome.time is None
                ],
            }
            for ranking in rankings
        ],
        "kept": [
            {"kernel": kernel, "location": location, "configurations": list(map(_choice, choices))}
            for (kernel, location), choices in kept.items()
        ],
    }


def _choice(choice: "Choice") -> dict[str, Any]:
    return {"code": choice.code, "kwargs": _values(choice.kwargs), "options": _values(choice.options)}


def _values(named: "Named") -> dict[str, Any]:
    """Return named values, as numbers and the like where their text says that they are."""
    found: dict[str, Any] = {}
    for name, text in named:
        try:
            found[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            found[name] = text
    return found
