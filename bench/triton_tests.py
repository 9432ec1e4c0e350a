"""Runs a sample of Triton's own tests, unchanged, under ``pytest --triton-offline``; or of another package's.

    python -m bench.triton_tests TRITON [--seed 1] [--tests 350] [--limit 60]
    python -m bench.triton_tests CHECKOUT --file tests/modules --tests 100

TRITON is a checkout of https://github.com/triton-lang/triton. The seed draws one set of parameters of each test
function of ``FILES``, then a second one, and so on, in a random order of functions. The sample runs for an h100, and
the tests that are skipped there run for a b200. Nothing of Triton is copied. ``--file`` draws from other files.

It is also the pytest plugin that chooses those tests. Tests that start a process for a kernel that must fail, as those
of ConSan do, run it in their own: a process of theirs has no session. What is found there stands for all messages.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from avo.evaluator.offline import UnsupportedOperation
from avo.evaluator.pytest_plugin import ambient
from bench import tutorials
from bench.tutorials import ROOT, Outcome

LANGUAGE, GLUON = "python/test/unit/language", "python/test/gluon"
FILES = (
    *(f"{LANGUAGE}/test_{name}.py" for name in ("core", "tensor_descriptor", "annotations")),
    *(f"{GLUON}/test_{name}.py" for name in ("core", "lowerings")),
)
TARGETS = ("h100", "b200")
_CHOSEN = "AVO_TRITON_TESTS"
_CAUSES = {
    tutorials.FAULTS: "fault reported",
    "AssertionError": "assertion failed",
    "assert ": "assertion failed",
    "avo.evaluator.executor.errors.UnsupportedOperation": "unsupported",
    "bench.tutorials.TooLong": "too long",
}
"""Causes of failure by how the reason begins."""


# The plugin


class _Anything(str):
    """What a process that found something wrote to stderr: any message that a test looks for."""

    def __contains__(self, text: object) -> bool:
        return True


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests that were drawn."""
    chosen = set(json.loads(Path(os.environ[_CHOSEN]).read_text()))
    items[:] = [item for item in items if item.nodeid in chosen]


def pytest_collection_finish(session: pytest.Session) -> None:
    """Replace ``triton._internal_testing.run_in_process`` where tests have imported it."""
    offline = session.config.stash[ambient]

    def run_here(function: Callable[..., object], args: Any = (), kwargs: Any = None, env: object = None) -> Any:
        found = ""
        try:
            function(*args, **(kwargs or {}))
        except UnsupportedOperation:
            raise
        except Exception as error:
            found = repr(error)
        report = offline.take_report()
        found = found if report.clean else str(report)
        failure = RuntimeError(f"device-side assert: {found}") if found else None
        return SimpleNamespace(exc=failure, driver_stderr_output=_Anything(found) if found else "")

    for module in {sys.modules[item.obj.__module__] for item in session.items if isinstance(item, pytest.Function)}:
        if hasattr(module, "run_in_process"):
            vars(module)["run_in_process"] = run_here


# The command


def draw(ids: Iterable[str], count: int, seed: int) -> list[str]:
    """Return ``count`` test ids, fewer if there are fewer; each function once before any has a second set."""
    chooser = random.Random(seed)
    by_function: dict[str, list[str]] = {}
    for each in sorted(ids):
        by_function.setdefault(each.partition("[")[0], []).append(each)
    functions = list(by_function.values())
    chooser.shuffle(functions)
    for sets in functions:
        chooser.shuffle(sets)
    places = sorted((turn, i) for i, sets in enumerate(functions) for turn in range(len(sets)))
    return [functions[i][turn] for turn, i in places[:count]]


def cause(outcome: Outcome) -> str:
    """Return why a test failed, ``other`` where the reason is none of those known."""
    return next((name for start, name in _CAUSES.items() if outcome.why.startswith(start)), "other")


def _pytest(checkout: Path, files: Sequence[str], *options: str, **variables: str) -> str:
    """Run pytest on the files; return what it prints."""
    command = [sys.executable, "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider", "--triton-offline"]
    command += ["--import-mode=importlib", "--continue-on-collection-errors", f"--rootdir={checkout}"]
    command += [*options, *files]  # of which some may have the same name
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": path} | variables
    done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True)
    return done.stdout + done.stderr


def collect(checkout: Path, files: Sequence[str]) -> list[str]:
    """Return the ids of all tests. Raises ``SystemExit`` if there are none."""
    said = _pytest(checkout, files, "--collect-only")
    ids = [line for line in said.splitlines() if "::" in line and line.startswith(tuple(files))]
    if not ids:
        raise SystemExit(f"no tests in {checkout}: {said.strip()[-300:]}")
    return ids


def run(checkout: Path, files: Sequence[str], chosen: Sequence[str], target: str, limit: int) -> dict[str, Outcome]:
    """Run tests for a target; return what became of each, by id. Raises ``SystemExit`` if some did not run."""
    with tempfile.TemporaryDirectory() as folder:
        results, ids = Path(folder) / "results", Path(folder) / "ids"
        results.touch()
        ids.write_text(json.dumps(chosen))
        options = ("--tb=short", "-p", "bench.tutorials", "-p", "bench.triton_tests")
        asked = tutorials.variables(results, limit, every=True) | {_CHOSEN: str(ids)}
        said = _pytest(checkout, files, *options, f"--triton-offline-target={target}", **asked)
        outcomes = [Outcome(**json.loads(line)) for line in results.read_text().splitlines()]
    found: dict[str, Outcome] = {}
    for each in outcomes:  # a failed teardown follows the call
        found[each.id] = found[each.id] if each.id in found and found[each.id].how != "passed" else each
    if missing := set(chosen) - set(found):
        raise SystemExit(f"{len(missing)} tests did not run, such as {min(missing)}: {said.strip()[-300:]}")
    return found


def main() -> None:
    """Draw, run, and print the counts and what failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path, metavar="CHECKOUT")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tests", type=int, default=350, metavar="N")
    parser.add_argument("--limit", type=int, default=60, metavar="SECONDS", help="per test (default: 60)")
    parser.add_argument("--file", action="append", metavar="PATH", help="file or folder below the checkout")
    options = parser.parse_args()
    checkout, files = options.checkout.resolve(), options.file or FILES
    chosen = draw(collect(checkout, files), options.tests, options.seed)
    found: dict[str, Outcome] = {}
    for target in TARGETS:
        left = [each for each in chosen if each not in found or found[each].how == "skipped"]
        new = run(checkout, files, left, target, options.limit) if left else {}
        for test, outcome in new.items():
            if outcome.how == "failed":
                print(f"{target}, {cause(outcome)}: {test}: {outcome.why}", flush=True)
        found |= new
    counts = Counter(each.how for each in found.values())
    causes = Counter(cause(each) for each in found.values() if each.how == "failed")
    figures = ", ".join(f"{counts[how]} {how}" for how in ("passed", "skipped", "failed"))
    print(f"seed {options.seed}, {len(found)} tests: {figures}")
    print("failed by cause:", ", ".join(f"{count} {why}" for why, count in causes.most_common()) or "none")


if __name__ == "__main__":
    main()
