"""What edits are worth, on the command line: made once, kept, and made again by other releases only."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from avo.evaluator.candidate import Candidate
from avo.evaluator.evaluation import Evaluation
from avo.evaluator.fake import FakeEvaluator
from avo.lineage_db.store import Store
from avo.search.judging import releases
from tests.avo.recorded import Recorded
from tests.avo.sample_run import make_evaluation, make_sample_run

Avo = Callable[..., Result]

JUDGE = Path(__file__).parents[1] / "export" / "judge_command.py"


def verdict(candidate: Candidate) -> Evaluation:
    """The larger tiles of the best version are worth 30%, whatever else there is."""
    return make_evaluation(260.0 if "64, 128" in candidate.source else 200.0)


@pytest.fixture
def judges(monkeypatch: pytest.MonkeyPatch) -> list[FakeEvaluator]:
    """The judges that were started."""
    started: list[FakeEvaluator] = []

    def start(*arguments: Any, **options: Any) -> FakeEvaluator:
        started.append(FakeEvaluator(verdict))
        return started[-1]

    monkeypatch.setattr("avo.search.judging.judge_process", start)
    return started


@pytest.fixture
def db(tmp_path: Path) -> str:
    """A database of the test's own with the run mha-h100, whose best version is 3."""
    url = str(tmp_path / "lineage.db")
    make_sample_run(url)
    return url


def test_what_edits_are_worth_is_found_out_once_and_kept(avo: Avo, db: str, judges: list[FakeEvaluator]) -> None:
    first = avo("show", "mha-h100", "--ablate", "--db", db)
    assert first.exit_code == 0, first.stderr
    assert len(judges) == 1
    assert "mha-h100@3: what each of its hunks of its difference to the seed is worth in it" in first.stdout
    assert "worth in it: how much slower it is predicted without" in " ".join(first.stdout.split())
    assert "+30% ±1%" in first.stdout
    again = avo("show", "mha-h100", "--ablate", "--db", db)
    assert (again.stdout, again.stderr, len(judges)) == (first.stdout, "", 1)
    made = json.loads(avo("show", "mha-h100@3", "--ablate", "--json", "--db", db).stdout)
    assert [(each["worth"], each["width"], each["useless"]) for each in made["edits"]] == [
        (pytest.approx(0.3), 0.01, False)
    ]
    assert made["releases"] == releases()
    with Store.read(db) as store:
        kept = store.ablations.of(store.run("mha-h100").id, 3)
    assert kept is not None
    assert avo("show", "mha-h100", "--ablate", "--source", "--db", db).stdout == kept.minimal
    assert len(judges) == 1


def test_other_releases_find_it_out_again(
    avo: Avo, db: str, judges: list[FakeEvaluator], monkeypatch: pytest.MonkeyPatch
) -> None:
    avo("show", "mha-h100", "--ablate", "--db", db)
    monkeypatch.setattr("avo.search.judging.releases", lambda: "avo-kernels 99")
    avo("show", "mha-h100", "--ablate", "--db", db)
    assert len(judges) == 2


def test_a_database_that_cannot_be_written_keeps_nothing_and_it_is_shown_all_the_same(
    avo: Avo, db: str, judges: list[FakeEvaluator], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("avo.cli.ablating.open_store", lambda url: Store.open("/proc/lineage.db"))
    result = avo("show", "mha-h100", "--ablate", "--db", db)
    assert (result.exit_code, len(judges)) == (0, 1)
    assert "+30% ±1%" in result.stdout
    assert "avo: what the edits of mha-h100@3 are worth is not kept: " in result.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("mha-h100@0", "avo: --ablate: mha-h100@0 is a seed, which has no edits: name a later version\n"),
        ("mha-h100#6", "avo: --ablate: mha-h100#6 is no version: name one, such as mha-h100@1\n"),
    ],
)
def test_what_has_no_edits_is_refused(avo: Avo, db: str, judges: list[FakeEvaluator], name: str, why: str) -> None:
    result = avo("show", name, "--ablate", "--db", db)
    assert (result.exit_code, result.stderr, judges) == (2, why, [])


@pytest.mark.parametrize("form", ["html", "md"])
def test_a_report_finds_out_what_edits_are_worth_once(
    avo: Avo, db: str, judges: list[FakeEvaluator], form: str
) -> None:
    call = ("report", "mha-h100", "--format", form, "--out", "-", "--db", db)
    assert "worth in it" not in avo(*call).stdout
    assert judges == []
    found = avo(*call, "--ablate")
    assert (found.exit_code, len(judges)) == (0, 1)
    assert "worth in it" in found.stdout
    again = avo(*call)
    assert (again.stdout.count("+30% ±1%"), len(judges)) == (found.stdout.count("+30% ±1%"), 1)


def test_a_report_is_written_where_edits_have_no_worth(avo: Avo, tmp_path: Path, judges: list[FakeEvaluator]) -> None:
    url = str(tmp_path / "live.db")
    with Store.open(url) as store:
        run = Recorded(store)
        call = ("report", "live", "--ablate", "--format", "md", "--db", url)
        nothing = avo(*call)
        run.step(100.0)
        seed = avo(*call)
    for result, why in ((nothing, "live has no version yet"), (seed, "live@0 is a seed, which has no edits")):
        assert (result.exit_code, judges) == (0, [])
        assert result.stdout.startswith("# mha on H100")
        assert f"avo: {why}" in result.stderr


@pytest.mark.long
def test_an_export_finds_out_what_edits_are_worth_and_can_leave_the_useless_ones_out(
    avo: Avo, db: str, tmp_path: Path
) -> None:
    judge = ("--evaluator-command", f"{sys.executable} {JUDGE} none", "--db", db)  # all kernels are as fast
    seed = avo("export", "mha-h100@0", "--minimal", "--out", "seed", *judge)
    assert (seed.exit_code, seed.stderr.startswith("avo: mha-h100@0 is a seed, which has no edits")) == (2, True)
    attempt = avo("export", "mha-h100#6", "--ablate", "--out", "attempt", *judge)
    assert "avo: mha-h100#6 is no version: its edits are known of versions alone\n" in attempt.stderr
    assert attempt.exit_code == 0
    kernels = []
    for out, options in (("plain", ()), ("whole", ("--ablate",)), ("kept", ()), ("small", ("--minimal",))):
        result = avo("export", "mha-h100@3", "--out", out, *options, *judge)
        assert result.exit_code == 0, result.stderr
        assert (tmp_path / out / "edits-mha_h100_v3.svg").exists() is (out != "plain")
        (kernel,) = (tmp_path / out).rglob("mha_h100_v3.py")
        kernels.append("    block_m, block_n = 64, 128" in kernel.read_text())
    assert kernels == [True, True, True, False]
    assert "version 3 without 1 useless edit of the run" in (tmp_path / "small/README.md").read_text()
