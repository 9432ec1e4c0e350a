"""The commands that print what a run has found."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from typer.testing import Result

from avo.cli.common import PIPED_WIDTH, console, piped_width
from avo.cli.lineage import branches
from avo.evaluator.candidate import Candidate
from avo.evaluator.evaluation import Evaluation, Status
from avo.lineage_db.records import Submission
from avo.lineage_db.store import Store
from avo.seeds import seed_source
from tests.avo.recorded import Recorded
from tests.avo.sample_run import START, make_evaluation, make_measured, make_sample_run
from tests.decisions import accept

Avo = Callable[..., Result]


def test_runs_shows_best_and_gain(avo: Avo) -> None:
    lines = avo("runs").stdout.splitlines()
    assert "PREDICTED" in lines[1]
    assert lines[3].split()[:9] == ["mha-h100", "mha", "h100", "mutate", "finished", "8", "4", "260", "+160%"]


def test_runs_json_is_unrounded(avo: Avo) -> None:
    newest, oldest = json.loads(avo("runs", "--json").stdout)
    assert newest["score"] == pytest.approx(262.6, rel=1e-12)
    assert oldest["gain"] == pytest.approx(1.6, rel=1e-12)
    assert (oldest["score_kind"], oldest["attempts"], oldest["versions"]) == ("predicted", 8, 4)


def test_lineage_says_what_its_numbers_are(avo: Avo) -> None:
    lines = [line.rstrip() for line in avo("lineage", "mha-h100").stdout.splitlines()]
    assert lines[0] == "mha-h100: versions by mutate, predicted TFLOPS, h100"
    assert lines[2].split() == ["●", "v0", "100", "seed"]
    assert lines[3].split(maxsplit=5)[1:] == ["v1", "v0", "150", "+50%", "BLOCK_M 64 -> 128, num_warps 4 -> 8"]
    assert [line.split()[1] for line in lines[6:]] == ["351", "380", "563", "624"]  # published, not reached


def test_published_figures_are_lines_before_the_version_that_reaches_them(avo: Avo, store: Store) -> None:
    run = Recorded(store)
    run.step(300.0)
    run.step(600.0, (0,), "faster")
    lines = avo("lineage", "live", "--db", store.url).stdout.splitlines()[2:]
    assert [line.split()[1] for line in lines if line.strip()] == ["v0", "351", "380", "563", "v1", "624"]
    assert "published: cuDNN" in lines[3]


def test_what_the_supervisor_said_stands_where_the_lineage_stood(avo: Avo, store: Store) -> None:
    run = Recorded(store)
    run.step(100.0)
    run.step(90.0, (0,), "slower", accept=False)
    store.journal.intervene(
        run.run.id, after_step=1, level="restart", reason="5 steps", directions=["split: loop", "tile: 64"],
        source="", restart_from=0, now=START, seen=0,
    )  # fmt: skip
    run.step(120.0, (0,), "faster")
    lines = [" ".join(line.split()) for line in avo("lineage", "live", "--db", store.url).stdout.splitlines()[2:]]
    assert lines[1] == "▲ supervisor: restart from v0: 5 steps; try split: loop, or tile: 64"
    assert "v1" in lines[2]


def test_what_a_model_saw_is_a_line_below_its_version(avo: Avo, store: Store) -> None:
    run = Recorded(store)
    run.step(100.0)
    run.step(120.0, (0,), "wider", seen="+20%; none on causal\nand more")
    run.step(130.0, (1,), "deeper", seen="x" * 300)
    lines = [line.split() for line in avo("lineage", "live", "--db", store.url).stdout.splitlines()[2:]]
    assert [line[0] for line in lines[:3]] == ["●", "●", "seen:"]
    assert lines[2] == ["seen:", "+20%;", "none", "on", "causal"]
    assert lines[3][1] == "v2"
    assert sum(line.count("x") for line in map("".join, lines)) == 200


def test_lineage_json_has_scores_and_parents(avo: Avo) -> None:
    records = json.loads(avo("lineage", "mha-h100", "--json").stdout)
    assert [(record["version"], record["attempt"], record["parents"]) for record in records] == [
        (0, 1, []), (1, 2, [0]), (2, 4, [1]), (3, 8, [2]),
    ]  # fmt: skip
    assert [record["score"] for record in records] == pytest.approx([100, 150, 210, 260], rel=1e-12)
    gains = [record["gain"] for record in records]
    assert gains[0] is None
    assert gains[1:] == pytest.approx([0.5, 0.4, 260 / 210 - 1], rel=1e-12)
    assert {record["score_kind"] for record in records} == {"predicted"}


def test_a_version_of_two_parents_has_its_gain_over_the_better_one(avo: Avo, tmp_path: Path) -> None:
    url = str(tmp_path / "merged.db")
    name = make_sample_run(url)
    with Store.open(url) as store:
        run = store.run(name)
        step = store.claims.claim(run.id, worker="w", operator="mutate", now=START)
        attempt = store.results.record_attempt(
            step_id=step.id,
            candidate=Candidate("mha", "both = True"),
            change="both [bold]at once",
            parents=(0, 3),
            evaluation=make_evaluation(286.0),
            started=START,
            finished=START,
        )
        store.results.conclude(step.id, attempt_id=attempt.id, parents=(0, 3), reason="", now=START, decide=accept)
    merged = json.loads(avo("lineage", name, "--db", url, "--json").stdout)[-1]
    assert merged["parents"] == [0, 3]
    assert merged["gain"] == pytest.approx(0.1, rel=1e-12)
    text = avo("show", name, "--db", url).stdout
    assert text.startswith(f"{name}@4: both [bold]at once\nmade by mutate from v0 and v3, ")


@pytest.mark.parametrize(
    ("parents", "rails"),
    [
        ([], []),
        ([[], [0], [1]], ["●", "●", "●"]),
        ([[], [0], [0]], ["●", "│ ●", "●"]),
        ([[], [0], [1], [0], [2]], ["●", "│ ●", "│ ●", "● │", "  ●"]),
        ([[], [0], [0], [0], [1, 2]], ["●", "│ ●", "│ │ ●", "● │", "  ●"]),
    ],
)
def test_branches_stand_next_to_the_main_line(parents: Sequence[Sequence[int]], rails: list[str]) -> None:
    assert branches(parents) == rails


def test_attempts_shows_all_and_groups_failures_by_reason(avo: Avo) -> None:
    text = avo("attempts", "mha-h100").stdout
    assert "mha-h100: 8 of 8 attempts by mutate, predicted TFLOPS, h100" in text
    head, reasons = text.split("\n\n")
    assert len(head.splitlines()) == 10
    assert [line.split()[:2] for line in reasons.splitlines()[1:]] == [["2", "incorrect"], ["1", "does_not_fit"]]
    assert "skip [diagonal] blocks" in text
    (refused,) = (line for line in head.splitlines() if "-14%" in line)
    assert refused.split()[:4] == ["6", "5", "v2", "correct"]
    assert refused.endswith("not accepted: -14% in the mean over version 2, +0.5% is needed")


def test_failures_that_differ_in_figures_only_are_one_group(avo: Avo, tmp_path: Path) -> None:
    url = str(tmp_path / "slow.db")
    faults = [
        (Status.NOT_TIMED, "at most 212 TFLOPS, 30% below"), (Status.RACE, "write race at line 7"),
        (Status.NOT_TIMED, "at most 98.1 TFLOPS, 67% below"), (Status.NOT_TIMED, "the cascade has no prediction"),
    ]  # fmt: skip
    with Store.open(url) as store:
        run = Recorded(store, "slow")
        run.step(100.0)
        for status, message in faults:
            run.step(Evaluation(status, message, "h100", "quick", 1.0), (0,))
    groups = [line.split() for line in avo("attempts", "slow", "--db", url).stdout.split("\n\n")[1].splitlines()[1:]]
    assert [(group[:2], group[2:5]) for group in groups] == [
        (["2", "not_timed"], ["at", "most", "212"]),
        (["1", "race"], ["write", "race", "at"]),
        (["1", "not_timed"], ["the", "cascade", "has"]),
    ]
    assert groups[0][-2:] == ["2", "4"]


def test_a_measured_run_says_measured_and_names_its_card(avo: Avo, store: Store) -> None:
    run = Recorded(store, "mha-cuda", target="cuda")
    run.step(make_measured(600.0))
    run.step(make_measured(640.0), (0,), "stages: num_stages 1 -> 2")
    texts = {command: avo(command, "mha-cuda", "--db", store.url).stdout for command in ("show", "lineage", "attempts")}
    texts["diff"] = avo("diff", "mha-cuda@0", "mha-cuda@1", "--db", store.url).stdout
    texts["runs"] = avo("runs", "--db", store.url).stdout
    assert "MEASURED" in texts["runs"]
    assert "measured TFLOPS, cuda" in texts["attempts"]
    for command in ("show", "lineage", "diff"):
        assert "measured TFLOPS, NVIDIA H100 80GB HBM3" in " ".join(texts[command].split()), command
    assert "8k-full  attention_kernel: BLOCK_M=128, num_warps=8" in texts["show"]
    assert not [command for command, text in texts.items() if "predicted" in text.lower()]


@pytest.fixture
def wordy_db(tmp_path: Path) -> str:
    """A database with a run of long changes, one of them at fault."""
    url = str(tmp_path / "wordy.db")
    change = "tile: BLOCK_M 64 -> 128, BLOCK_N 64 -> 128; warps: num_warps 4 -> 8; stages: num_stages 1 -> 3"
    with Store.open(url) as store:
        run = Recorded(store, "a-run-with-a-long-name")
        run.step(100.0)
        run.step(1260.0, (0,), change)
        run.step(make_evaluation(Status.DOES_NOT_FIT), (1,), change)
    return url


@pytest.mark.parametrize("command", ["runs", "lineage", "attempts"])
def test_tables_fit_80_columns_and_lose_no_word(
    avo: Avo, wordy_db: str, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    arguments = (
        (command, "--db", wordy_db) if command == "runs" else (command, "a-run-with-a-long-name", "--db", wordy_db)
    )
    wide = avo(*arguments).stdout
    monkeypatch.setattr(console, "width", 80)
    narrow = avo(*arguments).stdout
    assert max(map(len, narrow.splitlines())) <= 80
    wide, narrow = ("".join(text.split(",")) for text in (wide, narrow))
    heads = ["PROBLEM", "TARGET", "OPERATOR"] if command == "runs" else []
    assert sorted([*narrow.split(), *heads]) == sorted(wide.split())


@pytest.mark.parametrize(
    ("columns", "width"),
    [({}, PIPED_WIDTH), ({"COLUMNS": "80"}, 80), ({"COLUMNS": "wide"}, 240), ({"COLUMNS": "0"}, 240)],
)
def test_a_pipe_is_as_wide_as_columns_says(columns: dict[str, str], width: int) -> None:
    assert piped_width(columns) == width


def test_attempts_json_has_null_scores_for_failures(avo: Avo) -> None:
    records = json.loads(avo("attempts", "mha-h100", "--json").stdout)
    assert [record["id"] for record in records] == list(range(1, 9))
    faulty = [record["status"] for record in records if record["score"] is None]
    assert faulty == ["does_not_fit", "incorrect", "incorrect"]
    assert [record["version"] for record in records] == [0, 1, None, 2, None, None, None, 3]
    assert all(len(record["digest"]) == 64 and record["seconds"] > 0 for record in records)


@pytest.mark.parametrize(
    ("flags", "ids"),
    [
        (["--failures"], [3, 5, 7]),
        (["--status", "incorrect"], [5, 7]),
        (["--status", "correct", "--failures"], []),
        (["--ruling", "no_gain"], [6]),
        (["--ruling", "no_gain", "--ruling", "accepted"], [1, 2, 4, 6, 8]),
        (["--last", "3"], [6, 7, 8]),
        (["--sort", "score"], [8, 4, 6, 2, 1, 3, 5, 7]),
        (["--sort", "score", "--last", "3"], [8, 6, 7]),
        (["--sort", "time", "--status", "incorrect", "--last", "1"], [7]),
    ],
)
def test_attempts_can_be_filtered(avo: Avo, flags: list[str], ids: list[int]) -> None:
    assert [record["id"] for record in json.loads(avo("attempts", "mha-h100", "--json", *flags).stdout)] == ids


def test_show_labels_predicted_and_published(avo: Avo) -> None:
    text = avo("show", "mha-h100@2").stdout
    assert "mha-h100@2: num_stages 1 -> 2" in text
    assert "210 predicted TFLOPS, h100" in text
    assert "PUBLISHED TFLOPS, h100" in text
    assert "arXiv 2407.08608" in text
    assert "BUSY (predicted)" in text
    assert "93%" in text
    assert "+110%" in text
    assert "attention_kernel" in text


def test_show_without_a_version_is_the_best_one(avo: Avo) -> None:
    best, named = (json.loads(avo("show", text, "--json").stdout) for text in ("mha-h100", "mha-h100@v3"))
    assert best == named
    assert best["version"] == 3
    assert best["evaluation"]["score"]["geomean_tflops"] == pytest.approx(260, rel=1e-12)
    assert {figure["target"] for figure in best["published"]} == {"h100"}


@pytest.mark.parametrize("named", ["mha-h100#4", "mha-h100@2", "mha-h100#6", "mha-h100"])
def test_show_reads_no_more_versions_than_it_shows(avo: Avo, monkeypatch: pytest.MonkeyPatch, named: str) -> None:
    monkeypatch.delattr(Store, "versions")
    result = avo("show", named)
    assert result.exit_code == 0
    assert "+" in result.stdout, "the gain over the seed is there all the same"


def test_a_table_that_is_piped_has_no_blanks_at_the_ends_of_its_lines(avo: Avo) -> None:
    lines = avo("lineage", "mha-h100").stdout.splitlines()
    assert len(lines) > 3
    assert [line for line in lines if line != line.rstrip()] == []


@pytest.mark.long
def test_a_locale_that_knows_ascii_only_is_no_error(sample_db: str) -> None:
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-m", "avo", "lineage", "mha-h100", "--db", sample_db]
    done = subprocess.run(command, env={**os.environ, **locale}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["o", "v3", "v2", "260", "+24%"] in [line[:5] for line in lines]
    assert ["-", "351", "published:"] in [line[:3] for line in lines]


def test_every_sign_of_the_ui_has_a_likeness_in_ascii() -> None:
    pictures = Path(__file__).parents[1] / "tui" / "__snapshots__" / "test_pictures"
    signs = {sign for picture in pictures.iterdir() for sign in picture.read_text() if not sign.isascii()}
    assert "★" in signs
    code = f"from avo.cli import main; main.app = lambda: print({''.join(sorted(signs))!r}); main.main()"
    command = [sys.executable, "-c", code]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "?" not in done.stdout


def test_show_source_is_the_source_when_piped(avo: Avo) -> None:
    assert avo("show", "mha-h100@0", "--source").stdout == seed_source("mha")


def test_diff_shows_scores_and_a_unified_diff(avo: Avo) -> None:
    lines = avo("diff", "mha-h100@0", "mha-h100@3").stdout.splitlines()
    assert lines[:5] == [
        "mha-h100@0: 100 predicted TFLOPS, h100",
        "mha-h100@3: 260 predicted TFLOPS, h100",
        "+160%",
        "--- mha-h100@0",
        "+++ mha-h100@3",
    ]
    assert "+    block_m, block_n = 64, 128" in lines


def test_diff_json_goes_across_runs(avo: Avo) -> None:
    record = json.loads(avo("diff", "mha-h100@0", "mha-h100-2", "--json").stdout)
    assert record["old"]["version"] == "mha-h100@0"
    assert record["new"]["version"] == "mha-h100-2@4"
    assert record["gain"] == pytest.approx(1.626, rel=1e-12)
    assert "+ROUND = 1\n" in record["diff"]


def test_an_attempt_is_shown_with_why_it_is_no_version(avo: Avo) -> None:
    text = avo("show", "mha-h100#6").stdout
    assert text.startswith("mha-h100#6: BLOCK_N 64 -> 32\nmade by mutate from v2, 2026-03-01 12:00 UTC, attempt 6\n")
    assert "\nnot accepted: -14% in the mean over version 2, +0.5% is needed\n" in text
    assert "correct, 180 predicted TFLOPS, h100" in text
    data = json.loads(avo("show", "mha-h100#6", "--json").stdout)
    assert (data["version"], data["attempt"], data["parents"], data["accepted"]) == (None, 6, [2], None)
    assert data["decision"]["ruling"] == "no_gain"
    faulty = avo("show", "mha-h100#3").stdout
    assert "does not fit: needs 262144 bytes of shared memory" in faulty


def test_an_attempt_says_what_it_was_edited_from_and_a_version_has_the_words_of_its_submission(
    avo: Avo, store: Store
) -> None:
    run = Recorded(store)
    run.step(100.0)
    run.step(90.0, (0,), "slower", accept=False)
    step = run.claim()
    attempt = store.results.record_attempt(
        step_id=step.id, candidate=Candidate("mha", "x = 3"), change="one line", parents=(0,), started=START,
        finished=START, evaluation=make_evaluation(130.0), built_on=2,
    )  # fmt: skip
    submission = Submission(attempt.id, "all of it", "", "", "as expected")
    store.results.conclude(
        step.id, attempt_id=attempt.id, parents=(0,), reason="", now=START, decide=accept, submission=submission,
    )  # fmt: skip
    shown = avo("show", "live@1", "--db", store.url).stdout
    assert shown.startswith("live@1: all of it\nmade by mutate from v0 and #2, ")
    assert "\nseen: as expected\n" in shown
    assert json.loads(avo("lineage", "live", "--db", store.url, "--json").stdout)[1]["seen"] == "as expected"
    assert json.loads(avo("attempts", "live", "--db", store.url, "--json").stdout)[-1]["built_on"] == 2
    line = next(line for line in avo("attempts", "live", "--db", store.url).stdout.splitlines() if "one line" in line)
    assert line.split()[:4] == ["3", "2", "v0", "#2"]


def test_an_attempt_that_is_a_version_is_shown_as_that(avo: Avo) -> None:
    assert avo("show", "mha-h100#4").stdout == avo("show", "mha-h100@2").stdout


def test_attempts_can_be_compared(avo: Avo) -> None:
    lines = avo("diff", "mha-h100@2", "mha-h100#6").stdout.splitlines()
    assert lines[:3] == [
        "mha-h100@2: 210 predicted TFLOPS, h100", "mha-h100#6: 180 predicted TFLOPS, h100", "-14%",
    ]  # fmt: skip
    assert "+++ mha-h100#6" in lines
    lines = avo("diff", "mha-h100#3", "mha-h100#6").stdout.splitlines()
    assert lines[0].startswith("mha-h100#3: does not fit: needs 262144 bytes")
    assert lines[2] == "--- mha-h100#3"
