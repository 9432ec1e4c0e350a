"""``avo run`` and ``avo resume``: wrong calls, the summary, and a seed that real workers and the real judge refuse."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer import Exit

from avo import doctor
from avo.agents.model import Usage
from avo.agents.settings import ModelSettings
from avo.cli import session
from avo.cli.session import Beginning, begin, in_words, ready, summarise, work_on
from avo.config import ISOLATION, START, TOOLS, RunConfig
from avo.errors import RunFailed
from avo.evaluator.fake import FakeEvaluator
from avo.evaluator.sandbox import bubblewrap
from avo.evaluator.sandbox.isolation import isolation
from avo.lineage_db.decision import Decision, Ruling
from avo.lineage_db.ending import Cause, Ending
from avo.lineage_db.errors import DatabaseUnavailable
from avo.lineage_db.records import RunState, StepState
from avo.lineage_db.store import Store
from avo.search import judging
from avo.search.run import RunSession
from avo.search.seeding import SeedOperator
from tests.agents.endpoint import Endpoint
from tests.avo.cli.conftest import Avo
from tests.avo.fakes import NOW, SEED, judge, make_run, make_work
from tests.avo.recorded import Recorded


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--seed-kernel", "b"], ["--seed-kernel", "'b' is neither a file nor a seed (plain, tuned"]),
        (["--seed-kernel", "hopper", "--target", "b200"], ["'hopper' is not for b200: choose one of plain, tuned"]),
        (["--from", "mha-h100", "--seed-kernel", "b"], ["--from names the seed already"]),
        (["--from", "nope@1"], ["no run 'nope'", "mha-h100"]),
        (["--from", "mha-h100@99"], ["no version 99"]),
        (["--seed-kernel", "nowhere.py"], ["cannot read nowhere.py"]),
        (["--config", "nowhere.toml"], ["nowhere.toml", "No such file"]),
        pytest.param(["--target", "cuda"], ["GPU"], marks=pytest.mark.long),
        (["--cascade", "fast"], ["--cascade", "'fast'", "a fraction from 0 to 1, or 'off'"]),
        (["--evaluator-command", ""], ["--evaluator-command", "a command like: ssh gpu-box"]),
        (["--operator", "nope"], ["unknown operator 'nope'", "mutate"]),
        (["--max-attempts", "0"], ["--max-attempts", "0"]),
        (["--max-hours", "0"], ["--max-hours", "0", "greater than 0"]),
        (["--max-hours", "-1"], ["--max-hours", "-1", "greater than 0"]),
        (["--workers", "-1"], ["--workers", "-1"]),
        (["--name", ""], ["run name '' is not valid"]),
        (["--name", "a@b"], ["run name 'a@b' is not valid"]),
        (["--name", "mha-h100"], ["'mha-h100' exists already"]),
        (["--sandbox", "never"], ["--sandbox", "'never'", "'auto' or 'require'"]),
        (["--ray-address", "head"], ["--ray-address: nobody answers at head: give auto"]),
        (["--model", "gpt-5"], ["--model: operator 'mutate' asks no model: add --operator agent"]),
        (["--command", "claude"], ["--command: operator 'mutate' starts no program: add --operator command"]),
        (["--device", "0"], ["--device is for --target cuda", "for h100 speed is predicted"]),
    ],
)
def test_a_wrong_call_is_one_line_and_exit_code_2_and_leaves_no_run(
    avo: Avo, arguments: list[str], parts: list[str]
) -> None:
    before = avo("runs", "--json").stdout
    result = avo("run", *arguments)
    assert result.exit_code == 2
    assert avo("runs", "--json").stdout == before
    assert result.stderr.count("\n") == 1
    assert [part for part in parts if part not in result.stderr] == []


def test_a_machine_without_namespaces_is_refused_where_they_are_required(
    avo: Avo, sample_db: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bubblewrap, "missing", lambda: "none today")
    (tmp_path / "kernel.py").write_text(SEED)
    for call in (["run"], ["resume", "mha-h100", "--max-attempts", "99"], ["evaluate", "kernel.py"]):
        result = avo(*call, "--sandbox", "require")
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr == f"avo: no namespaces for candidates: none today: {bubblewrap.ADVICE}\n"
    with Store.open(sample_db, create=False) as store:
        assert {summary.run.name for summary in store.runs()} == {"mha-h100", "mha-h100-2"}


def test_fewer_evaluators_than_asked_for_are_said_and_no_gpu_is_asked_where_a_command_reaches_another_machine(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(session, "_gpus", lambda: 2)
    monkeypatch.setattr(judging, "get_target", asked.append)
    monkeypatch.setattr(judging.os, "sysconf", lambda name: 2**20)
    assert ready(RunConfig(target="cuda", workers=8, evaluators=9)).evaluators == 8
    assert capsys.readouterr().err == "avo: --evaluators 8 instead of 9: 4 for each GPU of this machine\n"
    assert asked == ["cuda"]
    monkeypatch.setattr(judging, "judge_process", lambda *_, **__: FakeEvaluator(lambda candidate: NotImplemented))
    assert ready(RunConfig(target="cuda", workers=8, evaluator_command="ssh box evaluate")).workers == 8
    assert ready(RunConfig(target="h100", workers=8)).workers == 8
    assert ready(RunConfig(target="cuda", workers=1)).evaluators == 1
    assert (capsys.readouterr().err, asked) == ("", ["cuda", "cuda"])


def test_a_command_that_starts_no_judge_is_refused_before_ray_starts_or_a_run_is_made(avo: Avo, sample_db: str) -> None:
    for command, words in (("echo hello", "instead of being ready, the judge says 'hello"), ("false", "exit code 1")):
        for call in (["run", "--name", "new"], ["resume", "mha-h100", "--max-attempts", "99"]):
            result = avo(*call, "--evaluator-command", command)
            assert (result.exit_code, result.stdout) == (2, "")
            assert words in result.stderr
            assert result.stderr.count("\n") == 1
    with Store.open(sample_db, create=False) as store:
        assert {summary.run.name for summary in store.runs()} == {"mha-h100", "mha-h100-2"}


def test_a_judge_that_requires_namespaces_does_not_start_without(monkeypatch: pytest.MonkeyPatch) -> None:
    command = [sys.executable, "-m", "avo.evaluator", "--target", "h100", "--sandbox", "require"]
    result = subprocess.run(command, env={**os.environ, "PATH": ""}, capture_output=True, text=True, timeout=600)
    assert (result.returncode, result.stdout) == (2, ""), result.stderr
    assert result.stderr.startswith(
        "python -m avo.evaluator: no namespaces for candidates: bubblewrap is not installed"
    )
    assert result.stderr.count("\n") == 1


def test_resuming_an_unknown_run_names_the_known_ones(avo: Avo) -> None:
    result = avo("resume", "nope")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "mha-h100-2" in result.stderr


@pytest.fixture
def used_up(tmp_path: Path) -> Path:
    """A database with a finished run that has made the one attempt of its budget."""
    path = tmp_path / "used_up.db"
    with Store.open(str(path)) as store:
        run = make_run(store, RunConfig(max_attempts=1), name="done")
        make_work(store, run, FakeEvaluator(judge)).perform(SeedOperator(SEED), "w0")
        store.set_run_state(run.id, RunState.FINISHED, now=NOW)
    return path


@pytest.mark.long
def test_a_run_that_another_process_drives_is_left_alone(avo: Avo, used_up: Path) -> None:
    holder = (
        "import sys\nfrom avo.search.leases import exclusive\nfrom avo.search.run import utc_now\n"
        "from avo.lineage_db.store import Store\n"
        "with Store.open(sys.argv[1]) as store:\n"
        "    with exclusive(store, store.run('done'), clock=utc_now, lost=print, say=print):\n"
        "        print('held', flush=True)\n        sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", holder, str(used_up)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        result = avo("resume", "done", "--max-attempts", "9", "--db", str(used_up))
        child.communicate("")
    assert result.exit_code == 2
    assert "another process" in result.stderr


def test_the_summary_names_kind_and_target_and_the_commands_to_look_further(sample_db: str) -> None:
    with Store.open(sample_db, create=False) as store:
        summary = summarise(store, "mha-h100")
    assert summary["best"]["geomean_tflops"] > summary["seed"]["geomean_tflops"] == pytest.approx(100.0)
    assert (summary["best"]["kind"], summary["best"]["target"]) == ("predicted", "h100")
    words = in_words(summary)
    assert "Predicted 260 TFLOPS on H100" in words
    assert [line.strip() for line in words.splitlines()[-3:]] == [
        "avo lineage mha-h100",
        "avo ui mha-h100",
        "avo export mha-h100 --out DIR",
    ]


def test_the_summary_names_an_attempt_that_would_be_accepted_and_was_not_examined_in_time(store: Store) -> None:
    better = Decision(Ruling.ACCEPTABLE, "+20% in the mean over version 0")
    run = Recorded(store)
    run.step(100.0, change="seed")
    step = run.claim()
    for tflops, source in ((120.0, "tile"), (130.0, "warps")):
        run.evaluate(step, tflops, (0,), source, decision=better)
    said = "Attempt 3 would be accepted with 130 predicted TFLOPS; the run ended before it was examined: "
    for ended_by, goes_on in (
        (Ending(Cause.LIMIT, "has made 3 of 3 attempts", "max_attempts", enough=6), "--max-attempts 6 goes on, "),
        (Ending(Cause.FAILED, "failed", final=True), None),
    ):
        store.set_run_state(run.run.id, RunState.FINISHED, now=run.now, ended_by=ended_by)
        on = f"avo resume live {goes_on}" if goes_on else ""
        assert f"{said}{on}avo run --from live#3 starts from it." in in_words(summarise(store, "live"))


def test_the_summary_of_a_run_whose_seed_failed_does_not_advise_to_resume_it(store: Store) -> None:
    run = Recorded(store)
    for final, rest in ((True, "."), (False, "; continue with: avo doctor && avo resume live")):
        ended_by = Ending(Cause.FAILED, "failed: no seed passes", final=final)
        store.set_run_state(run.run.id, RunState.STOPPED, now=run.now, ended_by=ended_by)
        assert in_words(summarise(store, "live")).splitlines()[1:] == [f"It failed: no seed passes{rest}"]


@pytest.mark.long
def test_a_seed_that_the_judge_refuses_ends_the_run_with_the_verdict(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("def attention(:\n")
    environment = {key: value for key, value in os.environ.items() if key != "AVO_DB"}
    command = [sys.executable, "-m", "avo", "run", "--seed-kernel", "broken.py", "--workers", "1", "--json"]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
    assert result.returncode == 1, result.stderr
    assert "avo: no seed passes: parse error:" in result.stderr
    assert "Traceback" not in result.stderr
    summary = json.loads(result.stdout)
    assert (summary["attempts"], summary["versions"], summary["best"]) == (1, 0, None)
    with Store.open(str(tmp_path / ".avo" / "lineage.db"), create=False) as store:
        run = store.run(summary["run"])
        assert run.state is RunState.STOPPED
        assert run.config[START] == [{"origin": "broken.py", "source": "def attention(:\n"}]
        assert [step.state for step in store.steps(run.id)] == [StepState.DONE]
        assert run.config[ISOLATION] == [isolation()]
        assert [part.split()[0] for part in run.config[TOOLS][0].split(", ")] == ["avo-kernels", "torch", "triton"]


def test_a_session_without_namespaces_says_so_and_stays_on_record(
    used_up: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("avo.search.run.RunSession.drive", lambda session: session.store.set_run_state(
        session.run.id, RunState.FINISHED, now=NOW, config=dict(session.run.config)
    ))  # fmt: skip
    with Store.open(str(used_up), create=False) as store:
        for lacking in ("none today", "", ""):
            monkeypatch.setattr(bubblewrap, "missing", lambda lacking=lacking: lacking)
            run = store.run("done")
            store.set_run_state(run.id, RunState.FINISHED, now=NOW)
            work_on(store, store.run("done"), Beginning(RunConfig(max_attempts=1)), as_json=False)
        first, second = store.run("done").config[ISOLATION]
    assert (first[:10], second[:27]) == ("namespaces", "no namespaces (none today),")
    said = capsys.readouterr()
    assert said.err.count("avo: candidates run without namespaces: none today") == 1


def test_a_version_is_shown_with_what_kept_candidates_apart(avo: Avo, used_up: Path) -> None:
    with Store.open(str(used_up), create=False) as store:
        run = store.run("done")
        config = {**run.config, ISOLATION: ["namespaces, Landlock, seccomp", "no namespaces (none), seccomp"]}
        store.set_run_state(run.id, RunState.FINISHED, now=NOW, config=config)
    shown = avo("show", "done", "--db", str(used_up))
    assert "kept apart by namespaces, Landlock, seccomp; or by no namespaces (none), seccomp" in shown.stdout
    assert json.loads(avo("show", "done", "--db", str(used_up), "--json").stdout)["isolation"] == config[ISOLATION]


@pytest.mark.parametrize("error", [RunFailed("workers died"), DatabaseUnavailable("the server is away")])
def test_a_session_logs_and_notifies_what_happens(
    used_up: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fails(session: RunSession) -> None:
        session.store.set_run_state(session.run.id, RunState.RUNNING, now=NOW)
        raise error

    monkeypatch.setattr("avo.search.run.RunSession.drive", fails)
    with Store.open(str(used_up), create=False) as store:
        run = store.run("done")
        store.set_run_state(run.id, RunState.FINISHED, now=NOW)
        config = RunConfig(max_attempts=1, notify=f'echo "$AVO_EVENT $AVO_TEXT" >> {tmp_path}/told')
        with pytest.raises((Exit, DatabaseUnavailable)):
            work_on(store, store.run("done"), Beginning(config), as_json=True, log=tmp_path / "run.jsonl")
    assert (tmp_path / "told").read_text() == f"failure run done failed: {error}\n"
    events = [json.loads(line)["event"] for line in (tmp_path / "run.jsonl").read_text().splitlines()]
    assert "failure" in events


def test_a_port_that_is_taken_or_none_leaves_no_run_behind(avo: Avo, sample_db: str) -> None:
    with socket.create_server(("127.0.1", 0)) as taken:
        for where, words in ((str(taken.getsockname()[1]), "choose another address"), ("web", "PORT or HOST:PORT")):
            result = avo("run", "--metrics", where)
            assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
            assert words in result.stderr
    with Store.open(sample_db, create=False) as store:
        assert {summary.run.name for summary in store.runs()} == {"mha-h100", "mha-h100-2"}


def test_a_mistake_with_an_endpoint_is_one_line_before_ray_starts_or_a_run_is_made(
    avo: Avo, sample_db: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text_call = {"text": '<tool_call>{"name": "ready"}</tool_call>'}
    wrong_key = {"status": 401, "body": '{"error": {"message": "Incorrect key"}}'}
    for operator, line, words in (
        ("agent", wrong_key, "HTTP 401: Incorrect key: is the key right?"),
        ("single_turn", wrong_key, "HTTP 401: Incorrect key: is the key right?"),
        ("agent", text_call, "--enable-auto-tool-choice --tool-call-parser NAME"),
    ):
        with Endpoint([], probed=[line]) as endpoint:
            monkeypatch.setenv("OPENAI_BASE_URL", endpoint.url)
            result = avo("run", "--operator", operator, "--model", "m")
        assert (result.exit_code, result.stdout) == (2, "")
        assert words in result.stderr
        assert result.stderr.count("\n") == 1
    with Store.open(sample_db, create=False) as store:
        assert {summary.run.name for summary in store.runs()} == {"mha-h100", "mha-h100-2"}


def test_a_run_begins_with_the_checks_of_the_doctor(avo: Avo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.os, "getloadavg", lambda: (999.0, 0.0, 0.0))
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda folder: SimpleNamespace(free=2**20))
    with Endpoint([], probed=[{"status": 503, "body": "overloaded"}]) as endpoint:
        model = ModelSettings(name="m", base_url=endpoint.url)
        beginning = begin(RunConfig(operator="agent", models=[model]), str(tmp_path / "runs.db"))
    load, disk, trouble = [line for line in beginning.warnings if not line.startswith("memory")]
    assert load.startswith("processor: ")
    assert "load average 999.0" in load
    assert disk.startswith("disk: 0.0 GiB free in ")
    assert trouble == "model 'm': HTTP 503: overloaded; steps will ask again"
    assert [call["error"] for call in beginning.calls] == ["HTTP 503: overloaded"] * 2
    (tmp_path / "text.db").write_text("not a database, but long enough to be read as one: " * 40)
    result = avo("run", "--db", "text.db")
    assert result.exit_code == 2
    assert result.stderr.startswith("avo: database: ")


def test_what_a_run_begins_with_is_said_and_its_calls_are_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(RunSession, "drive", lambda self: None)
    call = {"model": "m", "usage": Usage(1000, 0, 100), "usd": 1.25, "seconds": 0.5, "error": ""}
    with Store.open(str(tmp_path / "runs.db")) as store:
        made = make_run(store)
        beginning = Beginning(RunConfig(), ["disk: full"], [call])
        work_on(store, made, beginning, as_json=False)
        (kept,) = store.journal.calls(made.id)
    assert (kept.step_id, kept.input_tokens, kept.output_tokens, kept.usd) == (None, 1000, 100, 1.25)
    assert "avo: disk: full" in capsys.readouterr().err
