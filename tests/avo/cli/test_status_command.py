"""``avo status``."""

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from rich.console import Console

from avo.cli.status import in_words
from avo.config import RunConfig
from avo.evaluator.evaluation import Status
from avo.lineage_db.records import PendingReply
from avo.lineage_db.store import Store
from avo.watch.view import read_view
from tests.avo.cli.conftest import Avo
from tests.avo.fakes import make_run
from tests.avo.recorded import Recorded


def test_a_status_is_printed_as_words_and_as_json(avo: Avo) -> None:
    result = avo("status", "mha-h100")
    assert result.exit_code == 0
    assert [
        word for word in ("mha-h100", "finished", "5 correct", "predicted TFLOPS, h100") if word not in result.stdout
    ] == []
    data = json.loads(avo("status", "mha-h100", "--json").stdout)
    assert (data["state"], data["attempts"], data["driver"]) == ("finished", 8, None)


def test_a_run_that_nobody_works_on_says_on_one_line_what_it_is_about_and_how_it_goes_on(
    avo: Avo, tmp_path: Path
) -> None:
    with Store.open(str(tmp_path / "left.db")) as store:
        run = make_run(store, RunConfig(problem="mha-w1024-global-sinks"), "left")
    lines = avo("status", run.name, "--db", str(tmp_path / "left.db")).stdout.splitlines()
    assert lines[0] == "left: mha-w1024-global-sinks for h100, suite quick, mutate"
    assert lines[1].split(maxsplit=1) == ["state", "interrupted; continue with: avo resume left"]
    assert "avo resume" not in avo("status", "mha-h100").stdout


def test_what_a_run_did_since_some_time_is_printed_as_words_and_as_json(avo: Avo) -> None:
    result = avo("status", "mha-h100", "--since", "3650d")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[0].endswith(": mha for h100")
    assert "8 attempts in 8 steps: 5 correct" in result.stdout
    data = json.loads(avo("status", "mha-h100", "--since", "3650d", "--json").stdout)
    assert (data["run"], sum(data["verdicts"].values()), data["steps"]) == ("mha-h100", 8, 8)
    assert sum(json.loads(avo("status", "mha-h100", "--since", "30m", "--json").stdout)["verdicts"].values()) == 0


@pytest.mark.parametrize("since", ["8", "h", "-1h", "0m", "nand", "8x", "999999999999d"])
def test_a_time_since_when_that_is_none_is_one_line(avo: Avo, since: str) -> None:
    result = avo("status", "mha-h100", f"--since={since}")
    assert (result.exit_code, result.stderr) == (2, f"avo: --since: {since!r} should be a time such as 30m, 8h or 2d\n")


def test_watching_ends_with_the_run(avo: Avo) -> None:
    result = avo("status", "mha-h100", "--watch", "--json")
    assert [json.loads(line)["state"] for line in result.stdout.splitlines()] == ["finished"]


def test_watching_needs_a_terminal(avo: Avo) -> None:
    result = avo("status", "mha-h100", "--watch")
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)


def test_an_unknown_run_is_one_line(avo: Avo) -> None:
    for arguments in ([], ["--watch"]):
        assert (avo("status", "nope", *arguments).exit_code) == 2


def test_words_tell_who_does_what_and_what_is_wrong(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    run = Recorded(store)
    run.store.driving.take(run.run.id, "box:7", now=run.now)
    run.step(100.0)
    run.step(120.0, (0,))
    run.step(Status.INCORRECT, (0,))
    reply = PendingReply("m", run.now, run.now, 500)
    step = run.claim("w1")
    run.look(step, "a", "b")
    run.store.journal.listen(step.id, reply, now=run.now)
    run.store.journal.add_call(
        run.run.id, None, model="m", input_tokens=100, cached_tokens=0, output_tokens=20, usd=0.5, seconds=1.0,
        error="429: slow down", now=run.now,
    )  # fmt: skip
    now = run.now + timedelta(seconds=10)
    view = read_view(store, "live", now)
    Console(width=200).print(in_words(view, now))
    said = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "driver box:7, lease for 32s" in said
    worker = said.index("w1 step 3, mutate, for 10s, 2 looks, lease for 50s")
    assert said[worker + 1] == "m writes: 500 characters, the last 10s ago"
    assert "attempts 3, 6.4 a minute in 4 steps, 2 looks" in said
    assert "best v1, 120 predicted TFLOPS, h100, +20% over the seed" in said
    assert "models 120 tokens, 0.50 USD, 1 call" in said
    assert "last call m: 429: slow down" in said


def test_what_a_program_used_is_not_known_until_it_says_so(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    run = Recorded(store).run
    made = replace(read_view(store, "live", run.created), run=replace(run, operator="command"))
    Console(width=200).print(in_words(made, run.created))
    said = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "models not known: the program does not say what it used" in said
