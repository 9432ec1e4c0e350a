"""The lineage as a git repository, read by git itself."""

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import Result

from avo.evaluator.candidate import Candidate
from avo.evaluator.units import figure
from avo.export.repository import message, readme
from avo.lineage_db.records import Submission
from avo.lineage_db.store import Store
from avo.seeds import seed_source
from avo.watch.wording import measured as in_words
from tests.avo.recorded import Recorded
from tests.avo.sample_run import START, make_evaluation
from tests.avo.shortlisted import measured
from tests.decisions import accept

Avo = Callable[..., Result]


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True).stdout


def test_each_version_is_a_commit_in_order_with_its_scores_as_trailers(avo: Avo, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "lineage"
    result = avo("git", "mha-h100", "--out", str(out))
    assert result.exit_code == 0, result.output
    assert git(out, "log", "--format=%s").splitlines()[::-1] == [
        "v0: seed",
        "v1: BLOCK_M 64 -> 128, num_warps 4 -> 8",
        "v2: num_stages 1 -> 2",
        "v3: BLOCK_N 64 -> 128",
    ]
    trailer = "--format=%(trailers:key=Score,valueonly)%(trailers:key=Parent-version,valueonly)"
    assert git(out, "log", "-1", trailer).split("\n")[:2] == ["260 predicted TFLOPS, h100, geometric mean", "2"]
    assert git(out, "show", "v0:kernel.py") == seed_source("mha")
    assert git(out, "status", "--porcelain") == ""
    assert git(out, "tag").split() == ["v0", "v1", "v2", "v3"]
    assert git(out, "log", "-1", "--format=%at", "v0").strip() == str(int(START.timestamp()) + 6)


def test_every_seed_is_a_root(avo: Avo, store: Store, tmp_path: Path) -> None:
    run = Recorded(store)
    run.step(90.0)
    run.step(100.0)
    run.step(110.0, (1,))
    run.step(120.0, (0,))
    avo("git", "live", "--out", str(tmp_path / "out"), "--db", store.url)
    parents = [git(tmp_path / "out", "log", "-1", "--format=%P", f"v{number}").strip() for number in range(4)]
    heads = [git(tmp_path / "out", "rev-parse", f"v{number}").strip() for number in range(2)]
    assert parents == ["", "", heads[1], heads[0]]


def test_the_same_lineage_gives_the_same_commits(avo: Avo, tmp_path: Path) -> None:
    heads = set()
    for name in ("one", "two"):
        avo("git", "mha-h100", "--out", str(tmp_path / name))
        heads.add(git(tmp_path / name, "rev-parse", "main"))
    assert len(heads) == 1


def test_branches_merges_words_and_interventions_are_kept(avo: Avo, store: Store, tmp_path: Path) -> None:
    run = Recorded(store)
    run.step(100.0)
    run.step(110.0, (0,), "left")
    run.step(120.0, (0,), "right; data 3\nabc\n")
    run.step(125.0, (0,), "alone")
    store.journal.intervene(
        run.run.id, after_step=3, level="nudge", reason="4 steps", directions=[], source="", restart_from=None,
        now=START, seen=0,
    )  # fmt: skip
    step = run.claim()
    fields = {"parents": (1, 2), "started": START, "finished": START}
    attempt = store.results.record_attempt(
        step_id=step.id,
        candidate=Candidate("mha", "both = '\0 é'\n"),
        change="the last edit alone",
        evaluation=make_evaluation(130.0),
        hypothesis="they do not meet",
        **fields,
    )
    submission = Submission(attempt.id, "both " * 30, attempt.hypothesis, "10% more", "4% more")
    store.results.conclude(
        step.id, attempt_id=attempt.id, parents=(1, 2), reason="", now=START, decide=accept,
        submission=submission,
    )  # fmt: skip
    out = tmp_path / "lineage"
    assert avo("git", "live", "--db", store.url, "--out", str(out)).exit_code == 0
    parents = git(out, "rev-parse", "v1", "v2").split()
    assert git(out, "log", "-1", "--format=%P", "main").split() == parents
    assert git(out, "branch", "--format=%(refname:short)").split() == ["main", "tip-v3"]
    body = git(out, "log", "-1", "--format=%B", "main")
    assert body.splitlines()[0] == f"v4: {'both ' * 30}".strip(), "the subject is whole"
    assert "the last edit alone" not in body
    for words in ("both " * 30).strip(), "Hypothesis: they do not meet", "Expected: 10% more", "Supervisor (nudge)":
        assert words in body
    assert git(out, "show", "main:kernel.py") == "both = '\0 é'\n"


def test_a_change_of_many_moves_is_named_by_them_in_the_subject_and_told_below(
    avo: Avo, store: Store, tmp_path: Path
) -> None:
    run = Recorded(store)
    run.step(100.0, change="seed")
    change = f"specialise: {'no mask, ' * 30}exp2; side: 4 heads"
    run.step(110.0, (0,), change)
    avo("git", "live", "--db", store.url, "--out", str(tmp_path / "git"))
    lines = git(tmp_path / "git", "log", "-1", "--format=%B", "v1").splitlines()
    assert lines[:3] == ["v1: specialise + side", "", change]


def test_the_readme_and_the_message_have_what_was_measured_beside_what_was_predicted(
    avo: Avo, store: Store, tmp_path: Path
) -> None:
    run = Recorded(store)
    run.step(100.0, change="seed")
    run.step(110.0, (0,), "a | b")
    avo("git", "live", "--db", store.url, "--out", str(tmp_path / "before"))
    store.measurements.ingest(measured(store, "live"), now=run.now)
    avo("git", "live", "--db", store.url, "--out", str(tmp_path / "after"))
    trailer = ("log", "-1", "--format=%(trailers:key=Measured,valueonly)", "v1")
    assert git(tmp_path / "before", *trailer).strip() == ""
    told = store.measurements.told(run.run.id)
    found = told[store.version(run.run.id).attempt.id]
    assert found.finding.measured is not None
    assert git(tmp_path / "after", *trailer).strip() == in_words(found, "live")
    before, after = ((tmp_path / name / "README.md").read_text().splitlines() for name in ("before", "after"))
    assert "| v1 | v0 | 110 |  | a \\| b |" in before
    assert f"| v1 | v0 | 110 | {figure(found.finding.measured.tflops)} measured, confirmed | a \\| b |" in after
    assert "Predicted ones come from a model of the card" in after[2]
    assert "| v1 " not in git(tmp_path / "after", "show", "v0:README.md")


@pytest.mark.parametrize("what", ["full", "file", "no run", "no version"])
def test_what_cannot_be_written_is_one_line_and_nothing_is_left(avo: Avo, tmp_path: Path, what: str) -> None:
    out, name, url = tmp_path / "out", "mha-h100", ()
    if what == "full":
        out.mkdir()
        (out / "precious").touch()
    elif what == "file":
        out.touch()
    elif what == "no run":
        name = "nothing"
    else:
        url = ("--db", str(tmp_path / "new.db"))
        with Store.open(url[1]) as store:
            Recorded(store, name)
    before = sorted(tmp_path.rglob("*"))
    result = avo("git", name, "--out", str(out), *url)
    assert result.exit_code == 2
    assert len(result.stderr.strip().splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_an_attempt_that_is_no_version_is_a_branch_of_its_own(avo: Avo, tmp_path: Path) -> None:
    out = tmp_path / "lineage"
    assert avo("git", "mha-h100#6", "--out", str(out)).exit_code == 0
    assert git(out, "branch", "--format=%(refname:short)").split() == ["attempt-6", "main"]
    assert git(out, "log", "-1", "--format=%P", "attempt-6").strip() == git(out, "rev-parse", "v2").strip()
    body = git(out, "log", "-1", "--format=%B", "attempt-6")
    assert body.startswith("attempt 6: BLOCK_N 64 -> 32\n")
    assert "No version: not accepted: -14% in the mean over version 2, +0.5% is needed\n" in body
    assert "Attempt: 6\n" in body
    for name, same in (("mha-h100", "plain"), ("mha-h100#4", "version")):
        avo("git", name, "--out", str(tmp_path / same))
        assert git(tmp_path / same, "rev-parse", "main") == git(out, "rev-parse", "main")
        assert git(tmp_path / same, "branch", "--format=%(refname:short)").split() == ["main"]


def test_a_faulty_attempt_is_committed_with_its_fault(avo: Avo, tmp_path: Path) -> None:
    out = tmp_path / "lineage"
    assert avo("git", "mha-h100#3", "--out", str(out)).exit_code == 0
    assert "No version: does not fit: needs 262144 bytes" in git(out, "log", "-1", "--format=%B", "attempt-3")


def test_a_run_that_memory_bounds_has_time_and_bandwidth(store: Store) -> None:
    run = Recorded(store)
    run.step(100.0, change="seed")
    run.step(110.0, (0,))
    store.measurements.ingest(measured(store, "live"), now=run.now)
    versions, told = store.versions(run.run.id), store.measurements.told(run.run.id)
    decode = replace(run.run, problem="decode")
    text = readme(decode, versions, told)
    assert "Speeds are us, GB/s, of peak, geometric means" in text
    (row,) = (line for line in text.splitlines() if line.startswith("| v1 |"))
    assert row.count(" us, ") == row.count(" GB/s, ") == 2
    (step,) = (step for step in store.steps(run.run.id) if step.number == versions[1].step_number)
    said = message(decode, versions[1], versions, step, (), told[versions[1].attempt.id])
    (trailer,) = (line for line in said.splitlines() if line.startswith("Measured: "))
    assert " us, " in trailer
    assert "TFLOPS" not in trailer
