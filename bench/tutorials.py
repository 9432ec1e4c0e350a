"""Runs Triton's own Gluon tutorials and its attention example, unchanged, under ``pytest --triton-offline``.

    python -m bench.tutorials TRITON [--target b200] [--only 06-tcgen05] [--limit 200] [--every] [--write]

TRITON is a checkout of https://github.com/triton-lang/triton. Each test runs with the first of its parameters, or with
``--every`` set of them, and fails when it takes longer than ``--limit`` seconds. ``--write`` puts the table of what
passes into docs/executor.md, whose rows of other files stay. Nothing of Triton is copied. Seconds are those of the
processor, so that what else the machine does fails no test.

It is also the pytest plugin that chooses those tests, and tells what became of them.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType

import pytest

from bench.tables import put, row

ROOT = Path(__file__).parents[1]
DOCUMENT, PLACE = ROOT / "docs/executor.md", "bench.tutorials: passed"
TARGETS = ("h100", "b200")
FOLDER = Path("python/tutorials/gluon")
EXAMPLE = Path("python/examples/gluon/01-attention-forward.py")
FAULTS = "the sanitiser reports faults: "
"""What the reason begins with for a test that fails by faults only."""
_RESULTS, _LIMIT, _EVERY = "AVO_TUTORIALS_RESULTS", "AVO_TUTORIALS_LIMIT", "AVO_TUTORIALS_EVERY"


@dataclass(frozen=True)
class Outcome:
    """What became of one test, or of a file that could not be imported (test ``""``)."""

    file: str
    test: str
    how: str
    """``passed``, ``failed`` or ``skipped``."""
    why: str = ""
    id: str = ""


# The plugin


class TooLong(Exception):
    """A test takes longer than it may."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep one set of parameters of each test."""
    if _EVERY not in os.environ:
        first: dict[tuple[Path, str], pytest.Item] = {}
        for item in items:
            first.setdefault((item.path, getattr(item, "originalname", item.name)), item)
        items[:] = first.values()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """End a test that takes too long."""
    seconds = int(os.environ[_LIMIT])

    def stop(number: int, frame: FrameType | None) -> None:
        raise TooLong(f"takes more than {seconds} s of processor time")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        return (yield)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def _tell(outcome: Outcome) -> None:
    with Path(os.environ[_RESULTS]).open("a") as out:
        out.write(json.dumps(asdict(outcome)) + "\n")


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """Tell of a file that could not be imported."""
    if report.failed:
        _tell(Outcome(Path(report.nodeid).stem, "", "failed", str(report.longrepr).splitlines()[-1]))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Tell what became of a test."""
    if report.when == "call" or report.outcome != "passed":
        file, _, test = report.nodeid.partition("::")
        crash = getattr(report.longrepr, "reprcrash", None)
        reason = crash.message if crash else report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
        if "\nfaults:\n" in reason:  # the plugin's own failure
            reason = FAULTS + reason.partition("\nfaults:\n")[2].strip()
        _tell(Outcome(Path(file).stem, test, report.outcome, (reason.splitlines() or [""])[0], report.nodeid))


# The command


def run_pytest(
    folder: Path, arguments: Iterable[str], target: str = TARGETS[0], *, limit: int = 0, every: bool = False
) -> tuple[list[Outcome], str]:
    """Run pytest in a folder, for a target; return what became of each test, and what pytest prints."""
    with tempfile.TemporaryDirectory() as place:
        results = Path(place) / "results"
        results.touch()
        paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = os.environ | {"PYTHONPATH": paths, _RESULTS: str(results), _LIMIT: str(limit)}
        environment |= {_EVERY: "1"} if every else {}
        environment.setdefault("OMP_NUM_THREADS", "1")  # threads of torch spin where other processes want the cores
        options = ("-q", "--no-header", "--tb=short", "-p", "no:cacheprovider", "-p", "bench.tutorials")
        offline = ("--triton-offline", "--triton-offline-target", target)
        command = [sys.executable, "-m", "pytest", *options, *offline, *arguments]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        found = [Outcome(**json.loads(line)) for line in results.read_text().splitlines()]
    return found, (done.stdout + done.stderr).strip() or f"pytest ended with {done.returncode}"


def run(checkout: Path, file: Path, target: str, *, limit: int, every: bool) -> list[Outcome]:
    """Run the tests of one file for one target."""
    found, said = run_pytest(checkout / file.parent, [file.name], target, limit=limit, every=every)
    return found or [Outcome(file.stem, "", "failed", said.splitlines()[-1])]


def _cell(outcomes: Sequence[Outcome]) -> str:
    ran = [each for each in outcomes if each.how != "skipped"]
    passed = sum(each.how == "passed" for each in ran)
    none = "for other targets" if outcomes else "not run"
    return f"{passed} of {len(ran)}" if ran else none


def table(found: dict[str, list[Outcome]]) -> str:
    """Return the table of what passed, a row for each file, with each different reason of those that failed."""
    targets = list(found)
    lines = [row("file", *targets, "what fails"), row("---", *("---:" for _ in targets), "---")]
    for file in sorted({each.file for outcomes in found.values() for each in outcomes}):
        here = {target: [each for each in found[target] if each.file == file] for target in targets}
        every = [each for outcomes in here.values() for each in outcomes]
        failed = {(each.test.partition("[")[0], each.why[:200]) for each in every if each.how == "failed"}
        reasons = "; ".join(f"`{test}`: {why}" if test else why for test, why in sorted(failed)).replace("|", "\\|")
        lines.append(row(file, *(_cell(here[target]) for target in targets), reasons))
    return "\n".join(lines)


def with_other_rows(table: str, document: str) -> str:
    """Return a table with the rows that the document has of other files."""
    before = document.partition(f"<!-- {PLACE} -->\n")[2].partition("<!-- end -->")[0]
    head, rows = table.splitlines()[:2], table.splitlines()[2:]
    by_file = {line.split(" | ")[0]: line for line in (*before.splitlines()[2:], *rows)}
    return "\n".join([*head, *(by_file[file] for file in sorted(by_file))])


def files(checkout: Path, only: Iterable[str]) -> list[Path]:
    """Return the files to run, relative to the checkout, in order; raise ``SystemExit`` where there are none."""
    wanted = list(only)
    every = [*sorted(path.relative_to(checkout) for path in (checkout / FOLDER).glob("[0-9]*.py")), EXAMPLE]
    chosen = [path for path in every if (checkout / path).exists() and (not wanted or path.stem in wanted)]
    if not chosen:
        raise SystemExit(f"{checkout} has no {FOLDER}/{'|'.join(wanted) or '*'}.py: name a checkout of Triton")
    return chosen


def main() -> None:
    """Run the files for each target, print what fails, and print or write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path, metavar="TRITON")
    parser.add_argument("--target", action="append", choices=TARGETS, help="default: both")
    parser.add_argument("--only", action="append", default=[], metavar="FILE", help="without folder and .py")
    parser.add_argument("--limit", type=int, default=200, metavar="SECONDS", help="per test (default: 200)")
    parser.add_argument("--every", action="store_true", help="with every set of parameters")
    parser.add_argument("--write", action="store_true", help="put the table into docs/executor.md")
    options = parser.parse_args()
    if options.write and options.target:
        parser.error("--write needs both targets: leave --target out")
    found: dict[str, list[Outcome]] = {target: [] for target in options.target or TARGETS}
    for file in files(options.checkout, options.only):
        for target, outcomes in found.items():
            new = run(options.checkout, file, target, limit=options.limit, every=options.every)
            outcomes += new
            print(f"{file.stem} for {target}: {_cell(new)}", flush=True)
            for each in new:
                if each.how == "failed":
                    print(f"    {each.test or 'the file'}: {each.why}", flush=True)
    if options.write:
        document = DOCUMENT.read_text()
        DOCUMENT.write_text(put(document, PLACE, with_other_rows(table(found), document)))
    else:
        print(table(found))


if __name__ == "__main__":
    main()
