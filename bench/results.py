"""What ``mutate`` finds by itself: runs on each problem and some settings, for two architectures, and a document made
from their records.

python -m bench.results --minutes 15 --out docs/results.md    does the runs that are missing, then writes the document
python -m bench.results --out docs/results.md --write         writes it from the existing runs

A run starts from the plain seed where its problem has one, and has a database of its own below ``--folder``. A run
that was stopped goes on for the rest of its minutes; a finished one is left as it is. Other settings have their run and
their section too if --problems names them. Runs that --problems and --targets leave out, and runs without a database
there, stay as the document has them, so that it can be made in parts. Every number is predicted.
"""

import argparse
import json
import math
import os
import platform
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version as installed
from pathlib import Path

import msgspec

from avo.evaluator.catalogue import get_problem
from avo.evaluator.errors import EvaluatorError
from avo.evaluator.problems import PROBLEMS
from avo.evaluator.units import figure, rooflines_us
from avo.lineage_db.errors import UnknownRun
from avo.lineage_db.records import Step
from avo.lineage_db.spans import covered
from avo.lineage_db.store import Store
from avo.report.data import Report, VersionEntry
from avo.report.reading import read_report
from avo.seeds import seeds_of
from avo.watch.scores import geomean, lines, published
from avo.watch.wording import first_line, percent, verdicts

ROOT = Path(__file__).parents[1]
SETTINGS = (
    "mha-d192x128", "gqa-packed", "gqa-h64x8-d64-w128-global-sinks-8192x1",
    "gqa_backward-h64x8-d64-w128-global-sinks-packed-4096x2", "decode-h64x8-d64-w128-global-sinks-32768x1",
)  # fmt: skip
"""Settings in which each part of a setting occurs."""
SEARCHED = (*PROBLEMS, *SETTINGS)
TARGETS = ("h100", "b200")
_ENOUGH = 0.5
"""A run with fewer minutes left counts as done: its last steps could take longer."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """The command and machine of one session of a run."""

    command: str
    commit: str
    triton: str
    machine: str


def main() -> int:
    """Do the missing runs and write the document; return 1 where a run failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=15.0, help="of each run")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results.md")
    parser.add_argument("--folder", type=Path, default=ROOT / ".avo" / "results", help="of the databases")
    parser.add_argument("--problems", nargs="+", default=SEARCHED)
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=TARGETS)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--write", action="store_true", help="run nothing")
    parser.add_argument("--note", default="", help="a few words on how busy the machine is, for the document")
    options = parser.parse_args()
    try:
        for problem in options.problems:
            get_problem(problem)
    except EvaluatorError as error:
        parser.error(str(error))
    failed = False
    if not options.write:
        options.folder.mkdir(parents=True, exist_ok=True)
        for problem in options.problems:
            for target in options.targets:
                failed |= search(options.folder, problem, target, options.minutes, options.workers, options.note) != 0
    shown = tuple(dict.fromkeys((*SEARCHED, *options.problems)))
    before = options.out.read_text(encoding="utf-8") if options.out.exists() else ""
    anew = {f"{problem}-{target}" for problem in options.problems for target in options.targets}
    options.out.write_text("\n".join(document(options.folder, shown, before, anew)) + "\n", encoding="utf-8")
    return int(failed)


def search(folder: Path, problem: str, target: str, minutes: float, workers: int, note: str = "") -> int:
    """Run ``mutate`` for ``minutes``, less those the run has had already, and return the command's exit code."""
    name = f"{problem}-{target}"
    database = folder / f"{name}.db"
    known = _read(database, name)
    left = minutes if known is None else minutes - known[0].busy.total_seconds() / 60
    if left < _ENOUGH and known is not None:
        return 0
    start = ("run", "--problem", problem, "--target", target, "--operator", "mutate", "--name", name)
    # Not from an expert's seeds, where there are some: what comes of the run is the search's.
    plain = ("--seed-kernel", "plain") if "plain" in seeds_of(problem) else ()
    begin = ("resume", name) if known else (*start, *plain)
    command = ("avo", *begin, "--workers", str(workers), "--max-hours", f"{left / 60:.4f}")
    sessions = [*_conditions(folder, name), conditions(" ".join(command), note)]
    (folder / f"{name}.json").write_text(json.dumps([asdict(each) for each in sessions]), encoding="utf-8")
    return subprocess.run([sys.executable, "-m", *command, "--db", str(database)], check=False, cwd=ROOT).returncode


def conditions(command: str, note: str = "") -> Conditions:
    """Return the conditions of a session that starts now, with a ``note`` on its machine."""

    def git(*arguments: str) -> str:
        found = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
        return found.stdout.strip()

    commit = git("rev-parse", "--short", "HEAD") or "unknown"
    changed = ", with changes" if git("status", "--porcelain", "--untracked-files=no") else ""
    machine = f"{len(os.sched_getaffinity(0))} {platform.machine()} cores, no GPU used{f', {note}' if note else ''}"
    return Conditions(command, commit + changed, installed("triton"), machine)


def document(
    folder: Path, problems: Sequence[str] = SEARCHED, before: str = "", anew: Collection[str] | None = None
) -> Iterator[str]:
    """Yield the document of the runs on ``problems``: those in ``folder`` that are named in ``anew``, by default all of
    them, and others as they were ``before``.
    """
    yield "# Results"
    yield ""
    yield "The operator `mutate` found these kernels by itself, without a GPU. They were executed and found correct."
    yield "**Every speed on this page is predicted** by the [performance model](performance-model.md), not measured."
    yield "`python -m bench.results` writes this page; the databases of the runs have every attempt. Compare runs of"
    yield "one commit only: a later one has another model, and `mutate` searches otherwise."
    parts = _parts(before)
    names = list(dict.fromkeys([*(f"{problem}-{target}" for problem in problems for target in TARGETS), *parts]))
    for name in names:
        if (anew is None or name in anew) and (part := _part(folder, name)):
            parts[name] = part
    found = [parts[name] for name in names if name in parts]
    yield ""
    yield "| run | commit | minutes | attempts | versions | seed | best | predicted gain |"
    yield "|---|---|---|---|---|---|---|---|"
    yield from (row for row, _ in found)
    for _, section in found:
        yield ""
        yield section


def _part(folder: Path, name: str) -> tuple[str, str] | None:
    """Return the row and the section of a run; None where there is no run yet."""
    if (found := _read(folder / f"{name}.db", name)) is None:
        return None
    report, steps = found
    sessions = _conditions(folder, name)
    return _summary(name, report, sessions), "\n".join(_section(name, report, steps, sessions))


def _parts(page: str) -> dict[str, tuple[str, str]]:
    """Return the row and the section of each run that a document has."""
    head, *sections = re.split(r"^## ", page, flags=re.MULTILINE)
    rows = {found[1]: found[0] for found in re.finditer(r"^\| (\S+) \|.*$", head, re.MULTILINE)}
    named = {section.partition("\n")[0]: f"## {section}".rstrip() for section in sections}
    return {name: (rows[name], section) for name, section in named.items() if name in rows}


def _read(database: Path, name: str) -> tuple[Report, Sequence[Step]] | None:
    """Return the run and its steps; None where there is no run yet."""
    if not database.exists():
        return None
    with Store.open(str(database), create=False) as store:
        try:
            report = read_report(store, name, datetime.now(UTC))
            return report, store.steps(report.run.id)
        except UnknownRun:
            return None


def _conditions(folder: Path, name: str) -> list[Conditions]:
    path = folder / f"{name}.json"
    return msgspec.json.decode(path.read_bytes(), type=list[Conditions]) if path.exists() else []


def _summary(name: str, report: Report, sessions: Sequence[Conditions]) -> str:
    commits = ", ".join(dict.fromkeys(each.commit.partition(",")[0] for each in sessions))
    minutes = f"{report.busy.total_seconds() / 60:.1f}"
    counts = (commits, minutes, len(report.attempts), len(report.versions))
    if report.view.seed is None or report.view.best is None:
        return _row(name, *counts, "", "", "")
    before, after = geomean(report.view.seed), geomean(report.view.best)
    return _row(name, *counts, figure(before), figure(after), percent(after / before - 1))


def _section(name: str, report: Report, steps: Sequence[Step], sessions: Sequence[Conditions]) -> Iterator[str]:
    yield f"## {name}"
    for each in sessions:
        yield ""
        yield f"`{each.command}`, commit {each.commit}, triton {each.triton}, {each.machine}."
    yield ""
    yield f"Suite `{report.run.suite}`, seed {report.run.seed}. Attempts: {verdicts(report.view.counts)}."
    score = report.view.seed.attempt.evaluation.score if report.view.seed else None
    found = lines(score, published(report.run.problem), report.versions) if score else []
    for _, line in found:
        yield f"Published on these cases, geometric mean: {line.name} {line.published:.0f} TFLOPS."
    bounds = {} if found else rooflines_us(report.run.problem, report.run.suite, report.run.target)
    if bounds:
        least = ", ".join(f"{case} {figure(bound)} us" for case, bound in bounds.items())
        yield f"Nothing was published on these cases. At the card's peaks they take {least}."
    yield ""
    yield "| attempt | minute | version | predicted TFLOPS | on held-out shapes | over the best before | what changed |"
    yield "|---|---|---|---|---|---|---|"
    places = {attempt.attempt_id: place for place, attempt in enumerate(report.attempts, 1)}
    gains = _gains(report)
    for entry in report.by_number:
        yield _version(entry, steps, places[entry.version.attempt.id], gains.get(entry.version.number))
    yield ""
    yield "| move | tries | versions | predicted gain of these versions together |"
    yield "|---|---|---|---|"
    yield from _moves(report, gains)


def _gains(report: Report) -> dict[int, float]:
    """Return by how much each version but the seeds is faster than all before it, by number."""
    gains, best = {}, 0.0
    for entry in report.by_number:
        speed = geomean(entry.version)
        if entry.gain is not None:
            gains[entry.version.number] = speed / best - 1
        best = max(best, speed)
    return gains


def _version(entry: VersionEntry, steps: Sequence[Step], place: int, gain: float | None) -> str:
    version = entry.version
    held_out, accepted = version.attempt.evaluation.held_out_tflops, version.accepted
    # Pauses between sessions do not count.
    busy = covered((s.started, min(s.finished or accepted, accepted)) for s in steps if s.started < accepted)
    return _row(
        place,
        f"{busy.total_seconds() / 60:.1f}",
        f"v{version.number}",
        figure(geomean(version)),
        "" if held_out is None else figure(held_out),
        percent(gain),
        first_line(version.attempt.change),
    )


def _moves(report: Report, known: Mapping[int, float]) -> Iterator[str]:
    """Yield a row for each move, the largest gain first; a gain of several moves counts for each of them."""
    tries: dict[str, int] = defaultdict(int)
    gains: dict[str, list[float]] = defaultdict(list)
    for attempt in report.attempts:
        for move in _names(attempt.change):
            tries[move] += 1
    for entry in report.entries:
        if (gain := known.get(entry.version.number)) is not None:
            for move in _names(entry.version.attempt.change):
                gains[move].append(math.log1p(gain))
    for move in sorted(tries, key=lambda move: (-sum(gains[move]), move)):
        paid = percent(math.expm1(sum(gains[move]))) if gains[move] else ""
        yield _row(move, tries[move], len(gains[move]), paid)


def _names(change: str) -> list[str]:
    return [part.partition(":")[0].strip() for part in change.split(";") if ":" in part]


def _row(*cells: object) -> str:
    return f"| {' | '.join(str(cell).replace('|', '/') for cell in cells)} |"


if __name__ == "__main__":
    sys.exit(main())
