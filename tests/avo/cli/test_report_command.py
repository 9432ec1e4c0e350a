"""``avo report``: where it writes, what it starts and what it refuses."""

from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import pytest
from typer.testing import Result

from avo.cli.report import _write
from avo.evaluator.candidate import Candidate
from avo.evaluator.evaluation import Fault, Status
from avo.evaluator.profile import Profile
from avo.lineage_db.store import Store
from tests.avo.recorded import Recorded
from tests.avo.sample_profile import PROFILE

Avo = Callable[..., Result]


class FakeProcess:
    """A judge's process that knows its answer."""

    answer: "tuple[Profile, ...] | Fault" = (PROFILE,)
    asked: "list[tuple[object, ...]]"

    def __init__(
        self, target: str, suite: str, wall_s: float, *, sandbox: str, command: str | None, options: tuple[str, ...]
    ) -> None:
        self.asked.append((target, suite, wall_s, sandbox, command))

    def __enter__(self) -> "FakeProcess":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        pass

    def profile(self, candidate: Candidate, case: str | None = None) -> "tuple[Profile, ...] | Fault":
        self.asked.append((candidate.problem, case))
        return self.answer


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> type[FakeProcess]:
    """The judge's process, replaced."""
    monkeypatch.setattr(FakeProcess, "asked", [], raising=False)
    monkeypatch.setattr("avo.search.judging.judge_process", FakeProcess)
    return FakeProcess


def test_a_page_is_written_and_no_judge_is_started(avo: Avo, process: type[FakeProcess], tmp_path: Path) -> None:
    result = avo("report", "mha-h100", "--out", "report.html")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "the report on mha-h100 is in report.html\n"
    assert (tmp_path / "report.html").read_text().startswith("<!doctype html>")
    assert process.asked == []


@pytest.mark.parametrize("arguments", [("--format", "md"), ("--format", "md", "--out", "-")])
def test_a_summary_is_printed(avo: Avo, arguments: tuple[str, ...]) -> None:
    result = avo("report", "mha-h100", *arguments)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith("# mha on H100 by mutate\n")


def test_a_page_can_be_printed_and_a_summary_written(avo: Avo, tmp_path: Path) -> None:
    assert avo("report", "mha-h100", "--out", "-").stdout.endswith("</html>\n")
    assert avo("report", "mha-h100", "--format", "md", "--out", "run.md").stdout == ""
    assert (tmp_path / "run.md").read_text().startswith("# mha on H100 by mutate\n")


def test_a_profile_is_asked_for_a_full_and_a_causal_case(avo: Avo, process: type[FakeProcess], tmp_path: Path) -> None:
    result = avo("report", "mha-h100", "--profile", "--out", "report.html")
    assert result.exit_code == 0, result.output
    assert process.asked == [("h100", "quick", 300.0, "auto", None), ("mha", "8k-full"), ("mha", "8k-causal")]
    assert (tmp_path / "report.html").read_text().count("critical is latency") == 2


def test_a_kernel_that_cannot_be_profiled_still_has_its_report(
    avo: Avo, process: type[FakeProcess], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeProcess, "answer", Fault(Status.TIMED_OUT, "no verdict within\x1b 300 s"))
    result = avo("report", "mha-h100", "--profile", "--out", "report.html")
    assert result.exit_code == 0
    assert "avo: no profile: timed out: no verdict within 300 s" in result.stderr
    assert "There is none: timed out: no verdict within" in (tmp_path / "report.html").read_text()


def test_a_run_without_versions_is_reported_and_not_profiled(
    avo: Avo, process: type[FakeProcess], tmp_path: Path
) -> None:
    with Store.open(str(tmp_path / "live.db")) as store:
        Recorded(store)
    result = avo("report", "live", "--profile", "--out", "report.html", "--db", str(tmp_path / "live.db"))
    assert result.exit_code == 0
    assert "avo: live has no version yet: there is nothing to profile" in result.stderr
    assert process.asked == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no-such-run", "--out", "r.html"], "no run"),
        (["mha-h100@3", "--out", "r.html"], "this command is about a whole run"),
        (["mha-h100"], "say where the report should go: --out report.html"),
        (["mha-h100", "--out", "nowhere/r.html"], "there is no folder nowhere: make it first"),
        (["mha-h100", "--out", "."], "it is a folder"),
        (["mha-h100", "--out", "/dev/null"], "it is not a regular file"),
        (["mha-h100", "--out", "x" * 300], "File name too long"),
        (["mha-h100", "--format", "md", "--profile"], "a summary in md has no profile"),
    ],
)
def test_a_wrong_call_is_one_line_and_exit_code_2(avo: Avo, arguments: list[str], message: str) -> None:
    result = avo("report", *arguments)
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("avo: ")
    assert result.stderr.count("\n") == 1
    assert message in result.stderr


def test_an_existing_file_is_replaced_as_a_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file, link = tmp_path / "report.html", tmp_path / "link.html"
    file.write_text("old")
    link.symlink_to(file)
    _write(link, "new")
    assert (file.read_text(), link.is_symlink()) == ("new", True)

    def full(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(Exception, match="2"):
        _write(file, "newer")
    assert file.read_text() == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.html", "report.html"]


def test_a_report_is_not_written_under_the_name_of_another_form(avo: Avo, tmp_path: Path) -> None:
    result = avo("report", "mha-h100", "--out", "report.pdf")
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert "name it report.html" in result.stderr
    assert not (tmp_path / "report.pdf").exists()
