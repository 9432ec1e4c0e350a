"""``avo report``: a run as one file to read, print and pass on."""

import os
import sys
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from avo.cli.ablating import tried
from avo.cli.common import DbOption, RunArgument, err, fail, read_store
from avo.watch.tables import one_line

if TYPE_CHECKING:
    from avo.evaluator.evaluation import Fault
    from avo.evaluator.profile import Profile
    from avo.report.data import Report

STDOUT = Path("-")


_OTHERS = (".pdf", ".png", ".svg", ".docx", ".json")
"""File endings that a report cannot have."""


class Format(StrEnum):
    """What a report is written in."""

    HTML = "html"
    MD = "md"


def report(
    run: RunArgument,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="File to write; - prints. Default: print md; html needs a name."),
    ] = None,
    form: Annotated[Format, typer.Option("--format", help="html: the whole report. md: a summary for a README.")] = (
        Format.HTML
    ),
    profile: Annotated[
        bool, typer.Option("--profile", help="Also explain the best version's time: starts a judge. Only with html.")
    ] = False,
    ablate: Annotated[
        bool,
        typer.Option(
            "--ablate",
            help="Find out what each edit of the best version is worth, in minutes, unless that was done.",
        ),
    ] = False,
    db: DbOption = None,
) -> None:
    """Write a report on a run: figures, lineage with diffs, what paid off, attempts, time and cost, environment.

    The page is one file that loads nothing else: open it in any browser, or print it. Everything but the profile is
    read from the database; what edits are worth is kept there. An existing file is replaced.

    Example: avo report mha-h100 --out report.html
    """
    if out is None and form is Format.HTML:
        fail("say where the report should go: --out report.html, or --out - to print it")
    if profile and form is Format.MD:
        fail("--profile: a summary in md has no profile: leave it out, or take --format html")
    file = None if out in (None, STDOUT) else out
    if file is not None and file.suffix.lower() in _OTHERS:
        fail(f"--out {file}: reports are written as html and md: name it {file.with_suffix(f'.{form}')}, and open that")
    if file is not None:
        _check(file)

    from avo.report.reading import read_report
    from avo.report.render import to_html, to_markdown

    now = datetime.now(UTC)
    with read_store(db) as store:
        found = read_report(store, run, now)
    view = found.view
    if ablate and view.best:
        made = tried(found.run, found.versions, view.best.number, view.ablation, db)
        found = replace(found, view=replace(view, ablation=made or view.ablation))
    elif ablate:
        err.print(f"avo: {run} has no version yet: there are no edits")
    text = (
        to_html(found, now, _profiles(found) if profile else None) if form is Format.HTML else to_markdown(found, now)
    )
    if file is None:
        sys.stdout.write(text)
    else:
        _write(file, text)
        err.print(f"the report on {run} is in {file}")


def _profiles(report: "Report") -> "tuple[Profile, ...] | Fault | None":
    """Return the profile of the best version on the last full and the last causal case; None where there is none."""
    from avo.config import RunConfig
    from avo.evaluator.candidate import Candidate
    from avo.evaluator.evaluation import Fault
    from avo.search.judging import Judging

    run, best = report.run, report.view.best
    if best is None:
        err.print(f"avo: {run.name} has no version yet: there is nothing to profile")
        return None
    made: list[Profile] = []
    with (
        err.status(f"profiling {run.name}@{best.number} for {run.target} ..."),
        Judging.of(RunConfig.stored(run, {})).start() as judge,
    ):
        for figure in report.trajectories:
            found = judge.profile(Candidate(run.problem, best.attempt.source), figure.cases[-1].name)
            if isinstance(found, Fault):
                err.print(f"avo: no profile: {found.status.words}: {one_line(found.message)}")
                return found
            made += found
    return tuple(made)


def _check(file: Path) -> None:
    """Leave with one line where no file can be written, before the work is done."""
    try:
        if file.is_dir():
            fail(f"cannot write {file}: it is a folder: name a file in it")
        if file.exists() and not file.is_file():
            fail(f"cannot write {file}: it is not a regular file: name another")
        if not file.parent.is_dir():
            fail(f"cannot write {file}: there is no folder {file.parent}: make it first")
    except OSError as error:
        fail(f"cannot write {file}: {error.strerror}")


def _write(file: Path, text: str) -> None:
    """Write a file as a whole: until it is complete, an existing one stays as it was."""
    target = file.resolve()
    unfinished = target.with_name(f".{target.name[:200]}.{os.getpid()}")
    try:
        try:
            unfinished.write_text(text, encoding="utf-8", newline="")
            unfinished.replace(target)
        except OSError:
            with suppress(OSError):
                unfinished.unlink(missing_ok=True)
            raise
    except OSError as error:
        fail(f"cannot write {file}: {error.strerror}")
