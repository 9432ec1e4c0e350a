"""Runs a sample of Triton's own tests under ``pytest --triton-offline``; or of another package's.

    python -m bench.triton_tests TRITON [--seed 1] [--tests 350] [--limit 600]
    python -m bench.triton_tests CHECKOUT --file tests/modules --tests 100

TRITON is a checkout of https://github.com/triton-lang/triton. The seed draws one set of parameters of each test
function of ``FILES``, then a second one, and so on, in a random order of functions. The sample runs for an h100, and
the tests that are skipped there run for a b200. Nothing of Triton is copied. ``--file`` draws from other files.

It is also a pytest plugin. Tests that start a process for a kernel that must fail, as those of ConSan do, run it in
their own: a process of theirs has no session. Messages that they look for are not compared.
"""

import argparse
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from avo.evaluator.offline import UnsupportedOperation
from avo.evaluator.pytest_plugin import ambient
from bench.tutorials import TARGETS, Outcome, run_pytest

LANGUAGE, GLUON = "python/test/unit/language", "python/test/gluon"
FILES = (
    *(f"{LANGUAGE}/test_{name}.py" for name in ("core", "tensor_descriptor", "annotations")),
    *(f"{GLUON}/test_{name}.py" for name in ("core", "lowerings")),
)
_OPTIONS = ("--import-mode=importlib", "--continue-on-collection-errors", "--rootdir=.", "-p", "bench.triton_tests")


# The plugin


class _Anything(str):
    """What a process that found something wrote to stderr: any message that a test looks for."""

    def __contains__(self, text: object) -> bool:
        return True


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


def collect(checkout: Path, files: Sequence[str]) -> list[str]:
    """Return the ids of all tests. Raises ``SystemExit`` if there are none."""
    _, said = run_pytest(checkout, [*_OPTIONS, "--collect-only", *files], every=True)
    ids = [line for line in said.splitlines() if "::" in line and line.startswith(tuple(files))]
    if not ids:
        raise SystemExit(f"no tests in {checkout}: {said[-300:]}")
    return ids


def run(checkout: Path, chosen: Sequence[str], target: str, limit: int) -> dict[str, Outcome]:
    """Run tests for a target; return what became of each, by id. Raises ``SystemExit`` if some did not run."""
    outcomes, said = run_pytest(checkout, [*_OPTIONS, *sorted(chosen)], target, limit=limit, every=True)
    found: dict[str, Outcome] = {}
    for each in outcomes:  # a failed teardown follows the call
        found[each.id] = found[each.id] if each.id in found and found[each.id].how != "passed" else each
    if missing := set(chosen) - set(found):
        raise SystemExit(f"{len(missing)} tests did not run, such as {min(missing)}: {said[-300:]}")
    return found


def main() -> None:
    """Draw, run, and print the counts and what failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path, metavar="CHECKOUT")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tests", type=int, default=350, metavar="N")
    parser.add_argument("--limit", type=int, default=600, metavar="SECONDS", help="processor time per test (600)")
    parser.add_argument("--file", action="append", metavar="PATH", help="file or folder below the checkout")
    options = parser.parse_args()
    checkout, files = options.checkout.resolve(), options.file or FILES
    chosen = draw(collect(checkout, files), options.tests, options.seed)
    found: dict[str, Outcome] = {}
    for target in TARGETS:
        left = [each for each in chosen if each not in found or found[each].how == "skipped"]
        new = run(checkout, left, target, options.limit) if left else {}
        for test, outcome in new.items():
            if outcome.how == "failed":
                print(f"{target}: {test}: {outcome.why}", flush=True)
        found |= new
    counts = Counter(each.how for each in found.values())
    figures = ", ".join(f"{counts[how]} {how}" for how in ("passed", "skipped", "failed"))
    print(f"seed {options.seed}, {len(found)} tests: {figures}")


if __name__ == "__main__":
    main()
