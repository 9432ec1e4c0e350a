"""Pytest plugin: executes the Triton kernels of tests on the CPU, and fails a test whose kernels have faults.

    def test_scale(triton_offline):            # one session for this test
        scale[(4,)](x, y, 1000, BLOCK=256)

    pytest --triton-offline                    # one session for the whole run, open before the first test is imported

``@pytest.mark.triton_offline(target="a100", check_order=True)`` gives the fixture's session its options. A test that
expects faults takes them away: ``report = triton_offline.take_report()``.

Every run of pytest imports this module, so torch and triton are imported only when a session is opened.
"""

from argparse import Namespace
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from avo.evaluator.offline import OfflineSession, SessionReport


@dataclass
class _Totals:
    """The figures of a whole run, for the summary."""

    launches: int = 0
    kernels: set[str] = field(default_factory=set)
    notes: dict[str, None] = field(default_factory=dict)
    unsupported: dict[str, None] = field(default_factory=dict)
    with_faults: int = 0
    """Number of tests whose launches had faults."""

    def add(self, report: "SessionReport") -> None:
        """Add a report to the totals."""
        self.launches += len(report.launches)
        self.kernels.update(launch.kernel for launch in report.launches)
        self.notes.update(dict.fromkeys(note.message for note in report.notes))
        self.unsupported.update(dict.fromkeys(report.unsupported))


_totals = pytest.StashKey[_Totals]()
ambient = pytest.StashKey["OfflineSession"]()
"""The session of the whole run, which the fixture lends to tests and which ends with it."""
_current = pytest.StashKey["OfflineSession"]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the command-line options."""
    group = parser.getgroup("triton-offline", "Triton kernels without a GPU")
    group.addoption("--triton-offline", action="store_true", help="execute all Triton kernels on the CPU, sanitised")
    group.addoption("--triton-offline-target", default="h100", metavar="NAME", help="GPU to lower for [h100]")
    group.addoption(
        "--triton-offline-autotune",
        default="fitting",
        choices=("fitting", "first", "all"),
        help="which configurations of autotuned kernels to run [fitting]",
    )
    group.addoption(
        "--triton-offline-unsupported",
        default="raise",
        choices=("raise", "skip"),
        help="what to do with kernels that cannot be executed [raise]",
    )
    group.addoption(
        "--triton-offline-level",
        default="source",
        choices=("source", "compiled"),
        help="execute what the front end makes of the source, or what the compiler makes of that [source]",
    )


def _options(given: Namespace) -> dict[str, Any]:
    """Return the options of a session that the command line gives."""
    return {name: getattr(given, f"triton_offline_{name}") for name in ("target", "autotune", "unsupported", "level")}


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Open the session of ``--triton-offline`` before conftest files import anything."""
    options = early_config.known_args_namespace
    if options.triton_offline:
        from avo.evaluator.offline import offline

        early_config.stash[ambient] = offline(**_options(options), check_devices=True).__enter__()


def pytest_configure(config: pytest.Config) -> None:
    """Declare the ``triton_offline`` mark."""
    config.addinivalue_line("filterwarnings", "ignore:nothing is timed without a GPU")  # suites run unchanged
    config.addinivalue_line("markers", "triton_offline(**options): options of the triton_offline fixture's session")
    config.stash[_totals] = _Totals()


def pytest_unconfigure(config: pytest.Config) -> None:
    """Close the session of ``--triton-offline``."""
    session = config.stash.get(ambient, None)
    if session is not None:
        del config.stash[ambient]
        session.__exit__(None, None, None)


@pytest.fixture
def triton_offline(request: pytest.FixtureRequest) -> Iterator["OfflineSession"]:
    """Return an open session, in which Triton kernels run on the CPU; under ``--triton-offline``, that of the run."""
    session = request.config.stash.get(ambient, None)
    mark = request.node.get_closest_marker("triton_offline")
    if session is not None:
        if mark and mark.kwargs:
            pytest.skip("its session has its own options, but --triton-offline runs all tests in one session")
        yield session
        return
    from avo.evaluator.offline import offline

    with offline(**_options(request.config.option) | (mark.kwargs if mark else {})) as session:
        request.node.stash[_current] = session
        yield session


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, object, object]:
    """Add launches since the last test, such as those at import, to the totals only."""
    _take(item)
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Fail a test that would pass, if its launches had faults."""
    return (yield from _checked(item))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    """Fail the teardown of a test whose fixtures' launches had faults."""
    return (yield from _checked(item))


def _checked(item: pytest.Item) -> Generator[None, object, object]:
    try:
        result = yield
    except BaseException:
        _take(item)
        raise
    report = _take(item)
    if report is not None and not report.clean:
        item.config.stash[_totals].with_faults += 1
        pytest.fail(str(report), pytrace=False)
    return result


def _take(item: pytest.Item) -> "SessionReport | None":
    session = item.stash.get(_current, None) or item.config.stash.get(ambient, None)
    if session is None:
        return None
    report = session.take_report()
    item.config.stash[_totals].add(report)
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print what was launched and found."""
    totals = config.stash[_totals]
    if not totals.launches:
        return
    from avo.evaluator.offline.report import counted

    terminalreporter.section("triton offline")
    terminalreporter.line(
        f"{counted(totals.launches, 'launch', 'launches')} of {counted(len(totals.kernels), 'kernel', 'kernels')}; "
        f"tests with faults: {totals.with_faults}"
    )
    for title, lines in (("skipped", totals.unsupported), ("notes", totals.notes)):
        for line in lines:
            terminalreporter.line(f"{title}: {line}")
