"""The process that runs somebody's script in a session that counts launches, and writes down what was launched.

The script is its user's own and is not confined: it may do whatever its user may.
"""

import ast
import os
import runpy
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import triton
from triton import knobs

from avo.evaluator.errors import EvaluatorError
from avo.evaluator.offline import OfflineSession, offline
from avo.evaluator.offline.trials import Trial
from avo.evaluator.tune import Asked, Choice, CountedChoice, Ran, Subject
from avo.evaluator.tuning.records import encode

_MOST_CHARS = 4000
"""Characters of a traceback that are kept: its end."""


def main() -> None:
    """Run ``sys.argv``: name of the target, file for the record, script, arguments of the script."""
    target, out, script, *arguments = sys.argv[1:]
    session = offline(target, execute=False, autotune="all", unsupported="skip")
    ended: dict[str, str] = {}
    try:
        with session:
            ended = _run(session, script, arguments)
    except Exception as error:
        ended = _error(error)
    record = Ran(target, tuple(_tried(session)), cache=str(Path(knobs.cache.dir) / "offline"), **ended)
    Path(out).write_bytes(encode(record))


def _run(session: OfflineSession, script: str, arguments: Sequence[str]) -> dict[str, str]:
    """Return what else is to be recorded."""
    sys.argv = [script, *arguments]
    sys.path[0] = str(Path(script).resolve().parent)
    if is_test(Path(script)):
        return _test(session, script, arguments)
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        return {} if end.code in (None, 0) else {"raised": f"it ended with exit code {end.code}"}
    return {}


def is_test(script: Path) -> bool:
    """Whether pytest would collect a file by its name."""
    return script.name.startswith("test_") or script.stem.endswith("_test")


def _test(session: OfflineSession, script: str, arguments: Sequence[str]) -> dict[str, str]:
    try:
        import pytest
    except ImportError:
        return {"raised": f"{script} is a file of tests, and pytest is not installed"}
    from avo.evaluator.pytest_plugin import ambient

    class Outcomes:
        """Lends the session to the fixture ``triton_offline`` and remembers which tests failed."""

        def __init__(self) -> None:
            self.failed: dict[str, None] = {}

        def pytest_configure(self, config: pytest.Config) -> None:
            config.stash[ambient] = session

        @pytest.hookimpl(tryfirst=True)
        def pytest_unconfigure(self, config: pytest.Config) -> None:
            del config.stash[ambient]

        def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
            if report.failed:
                self.failed[report.nodeid] = None

    outcomes = Outcomes()
    code = int(pytest.main([script, "-q", "-p", "no:cacheprovider", *arguments], plugins=[outcomes]))
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        return {"raised": f"pytest ended with exit code {code}"}
    count = len(outcomes.failed)
    return {"failed": f"{count} test{'s' * (count != 1)} failed: {', '.join(outcomes.failed)}"} if count else {}


def _error(error: BaseException) -> dict[str, str]:
    """Return how an error is recorded: as a refusal if the session raised it first, else as the script's own."""
    first: BaseException | None = error
    while first is not None:
        if isinstance(first, EvaluatorError):
            return {"refused": str(first)}
        first = first.__cause__ or first.__context__
    folders = Path(__file__).parents[1], Path(str(triton.__file__)).parent
    others = *(f"{folder}{os.sep}" for folder in folders), ast.__file__, "<frozen runpy>"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(others)]
    text = "".join([*traceback.format_list(frames), *traceback.format_exception_only(error)])
    return {"raised": text[-_MOST_CHARS:].strip()}


def _tried(session: OfflineSession) -> Iterator[CountedChoice]:
    for trial in session.trials:
        subject = Subject(trial.kernel, trial.location, session.target.name, trial.key, trial.dtypes)
        yield CountedChoice(subject, _choice(trial.config), _asked(trial), trial.reason)


def _choice(config: Any) -> Choice:
    unusual = {"num_ctas": (1, None), "maxnreg": (None,), "ir_override": (None,)}
    options = [("num_warps", config.num_warps), ("num_stages", config.num_stages)]
    options += [(name, value) for name, usual in unusual.items() if (value := getattr(config, name, None)) not in usual]
    written = [(name, repr(value)) for name, value in options]
    if config.pre_hook is not None:
        written.append(("pre_hook", getattr(config.pre_hook, "__name__", str(config.pre_hook))))
    return Choice(tuple((name, repr(value)) for name, value in config.kwargs.items()), tuple(written))


def _asked(trial: Trial) -> Asked | None:
    launch = trial.launch
    if launch is None or launch.counted is None:
        return None
    return Asked(launch.lowered, launch.programs, launch.counted, launch.readable_bytes, launch.writable_bytes)
