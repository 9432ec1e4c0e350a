"""A first contact with a card gathers what it can: steps that fail or hang cost no more than themselves."""

import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy
import pytest

from avo.evaluator.cuda.device import Clocks
from avo.evaluator.measurement import Measurement
from avo.evaluator.target import TARGETS
from avo.evaluator.targets import get_target
from avo.seeds import fitting
from bench.first_contact import __main__ as command
from bench.first_contact import faulty, steps
from bench.first_contact.runner import Step, limit, perform
from bench.first_contact.steps import STEPS, edited, kernels
from tests.evaluator.cuda.fake_device import CARD

SCRIPT = """
case $0 in
    good) echo found > $1/good.jsonl; echo said;;
    bad) echo why >&2; exit 3;;
    hangs) echo half > $1/hangs.jsonl; sleep 600 & sleep 600;;
    aside) echo $$ > $1/aside.pid; sleep 600;;
esac
"""


def steps_of(*names: str) -> list[Step]:
    return [Step(name, 600.0, 600.0, "") for name in names]


def run(folder: Path, *names: str, left_s: float = 3000.0, aside: str | None = None) -> list[str]:
    until = time.monotonic() + left_s
    outcomes = perform(steps_of(*names), folder, ("sh", "-c", SCRIPT), until, lambda text: None, aside)
    assert [outcome.step for outcome in outcomes] == list(names)
    assert json.loads((folder / "summary.json").read_text())[-1]["ending"] == outcomes[-1].ending
    return [outcome.ending for outcome in outcomes]


def test_what_fails_is_noted_and_the_next_step_begins(tmp_path: Path) -> None:
    assert run(tmp_path, "bad", "good") == ["failed with exit code 3", "done"]
    assert (tmp_path / "bad.log").read_text() == "why\n"
    assert (tmp_path / "good.jsonl").read_text() == "found\n"


def test_what_hangs_is_stopped_with_all_that_it_started_and_what_it_found_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, wait = tmp_path / "hangs.jsonl", subprocess.Popen.wait

    def in_no_time(process: "subprocess.Popen[bytes]", timeout: float | None = None) -> int:
        """Reach the limit of the step that hangs as soon as it has found something."""
        if timeout is None or "hangs" not in process.args:  # type: ignore[operator]
            return wait(process, timeout)
        while not (found.exists() and found.read_text() == "half\n"):
            time.sleep(0.01)
        monkeypatch.undo()
        raise subprocess.TimeoutExpired(process.args, timeout)

    monkeypatch.setattr(subprocess.Popen, "wait", in_no_time)
    assert run(tmp_path, "hangs", "bad") == ["stopped at its limit of 600 s", "failed with exit code 3"]
    assert found.read_text() == "half\n"


def test_steps_without_time_are_not_begun(tmp_path: Path) -> None:
    assert run(tmp_path, "good", "bad", left_s=0.0) == ["no time was left"] * 2


def taken(steps: list[Step], left_s: float, taking: Callable[[Step, float], float]) -> list[float]:
    """Return the limit of each step, where ``taking`` says of a step and its limit how long it takes."""
    limits = []
    for number, step in enumerate(steps):
        limits.append(limit(steps[number:], left_s))
        left_s -= taking(step, limits[-1])
    return limits


def test_on_a_card_on_which_everything_hangs_each_step_has_its_share_within_ten_minutes() -> None:
    limits = taken(list(command.STEPS), 600.0, lambda step, limit_s: limit_s)
    assert all(limit_s >= step.share_s for step, limit_s in zip(command.STEPS, limits, strict=True))
    assert sum(limits) <= 600.0
    assert sum(step.share_s for step in command.STEPS) <= 580.0


def test_what_quick_steps_leave_goes_to_those_behind_them() -> None:
    limits = taken(list(command.STEPS), 600.0, lambda step, limit_s: 5.0)
    assert limits[2:-1] == [step.most_s for step in command.STEPS[2:-1]]
    assert limits[-1] == 550.0


def test_where_there_is_little_time_the_first_steps_have_it() -> None:
    limits = taken(list(command.STEPS), 120.0, lambda step, limit_s: limit_s)
    assert limits == [20.0, 40.0, 60.0, *[0.0] * (len(limits) - 3)]


def test_a_step_that_fails_says_why_in_a_line(tmp_path: Path) -> None:
    said: list[str] = []
    perform(steps_of("bad", "good"), tmp_path, ("sh", "-c", SCRIPT), time.monotonic() + 600, said.append)
    assert said[1].startswith("    failed with exit code 3 after ")
    assert said[1].endswith(" s: why")
    assert said[3].endswith(" s")


def test_what_runs_beside_the_steps_ends_with_them(tmp_path: Path) -> None:
    pid = tmp_path / "aside.pid"
    pid.touch()
    while not pid.read_text():
        run(tmp_path, *["good"] * 3, aside="aside")
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_ctrl_c_ends_the_steps_and_not_the_collecting(tmp_path: Path) -> None:
    said: list[str] = []

    def interrupt(text: str) -> None:
        said.append(text)
        if text.startswith("2/3"):
            signal.raise_signal(signal.SIGINT)

    outcomes = perform(
        steps_of("good", "bad", "good"), tmp_path, ("sh", "-c", SCRIPT), time.monotonic() + 300, interrupt
    )
    assert [outcome.ending for outcome in outcomes] == ["done", "interrupted"]
    assert said[-1] == "interrupted: collecting what there is"


def test_what_a_worker_that_hangs_has_said_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    communicate, said = subprocess.Popen.communicate, tmp_path / "said"

    def impatient(process: Any, given: bytes = b"", limit_s: float | None = None) -> Any:
        if limit_s is None:
            return communicate(process)
        while not said.exists():
            time.sleep(0.01)
        raise subprocess.TimeoutExpired("", limit_s)

    monkeypatch.setattr(subprocess.Popen, "communicate", impatient)
    with pytest.raises(SystemExit, match="a worker says: first; on standard error: nothing"):
        steps.worker(
            steps.Bench(tmp_path, until=time.monotonic() + 600),
            ("sh", "-c", f"echo first; touch {said}; exec sleep 600"),
        )
    found = json.loads((tmp_path / "worker.jsonl").read_text())
    assert (found["out"], found["code"]) == ("first\n", -signal.SIGKILL)
    assert not (tmp_path / steps.CARD_FILE).exists()


def test_clocks_are_logged_of_the_card_that_a_worker_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str | None] = []

    class Nvml:
        def __init__(self, uuid: str | None = None) -> None:
            asked.append(uuid)

        def clocks(self) -> Clocks:
            return Clocks(1755, 4)

    def sleep(seconds: float) -> None:
        if (card := tmp_path / steps.CARD_FILE).exists():
            raise KeyboardInterrupt
        card.write_text(json.dumps(asdict(replace(CARD, uuid="GPU-3"))))

    monkeypatch.setattr("avo.evaluator.cuda.nvml.Nvml", Nvml)
    monkeypatch.setattr("time.sleep", sleep)
    with pytest.raises(KeyboardInterrupt):
        steps.clocks(steps.Bench(tmp_path))
    rows = [json.loads(line) for line in (tmp_path / "clocks.jsonl").read_text().splitlines()]
    assert asked == [row["card"] for row in rows] == [None, "GPU-3"]


def test_workers_for_faulty_kernels_start_ahead_and_those_left_over_are_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[SimpleNamespace] = []
    closed: list[SimpleNamespace] = []

    def start() -> Any:
        started.append(SimpleNamespace())
        started[-1].close = partial(closed.append, started[-1])
        return started[-1]

    def tried(target: object, start: Callable[[], object]) -> Iterator[dict[str, object]]:
        for _ in range(2):
            yield {"worker": start(), "started": len(started)}

    monkeypatch.setattr(faulty, "_tried", tried)
    first, second = faulty.try_all(TARGETS["h100"], start)
    assert (first["worker"], first["started"], second["worker"]) == (started[0], 1 + faulty.AHEAD, started[1])
    assert closed == started[2:]


def test_every_step_that_is_listed_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--list"]) == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert {*listed, command.CLOCKS} == set(STEPS)
    assert listed[:4] == ["state", "worker", "same", "doctor"]


def test_a_wrong_call_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--steps", "seeds"]) == 2
    assert command.main(["--out", str(tmp_path)]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert "unknown step 'seeds': see --list" in first
    assert "name a folder that is not there yet" in second


def test_a_folder_is_free_again_where_nothing_could_be_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "_fetched", lambda folder: "pip does not fetch what is missing")
    assert command.main(["--out", str(tmp_path / "found")]) == 2
    assert "pip does not fetch" in capsys.readouterr().err
    assert not (tmp_path / "found").exists()


def test_the_variants_are_forty_kernels() -> None:
    assert len({source for _, source in edited()}) == 40


@pytest.mark.long
def test_predictions_are_held_against_the_seeds_and_the_best_kernels_known() -> None:
    named = [(problem, name) for problem, name, source in kernels(get_target("h100")) if source]
    seeds = [(problem, name) for problem in ("mha", "fsa") for name in fitting(problem, get_target("h100"))]
    best = [(problem, "the best known for h100") for problem in ("mha", "fsa")]
    assert sorted(named) == sorted(seeds + best)
    assert [problem for problem, _ in named][:4] == ["mha", "fsa", "mha", "fsa"]
    assert not any("best" in name for _, name, _ in kernels(get_target("a100")))


BARE = """
import importlib, re, sys, tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
named = [*project["dependencies"], *(each for group in project["optional-dependencies"].values() for each in group)]
absent = {re.match("[A-Za-z0-9]+", each)[0].lower() for each in named} - set(sys.argv[1:])

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0].lower() in absent:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
for module in ("bench.first_contact.__main__", "bench.first_contact.steps", "bench.first_contact.faulty",
               "avo.doctor", "avo.search.canary", "avo.evaluator.cuda.baselines", "avo.evaluator.cuda.worker"):
    importlib.import_module(module)
h100 = sys.modules["avo.evaluator.targets"].get_target("h100")
assert list(sys.modules["bench.first_contact.steps"].kernels(h100))
print(*sorted(absent))
"""


@pytest.mark.long
def test_no_more_is_needed_than_torch_triton_numpy_and_a_few_packages() -> None:
    there = ["torch", "triton", "numpy", "msgspec", "numba", "nvidia", "libcst", "avo"]
    of_torch = ["jinja2", "mpmath"]
    done = subprocess.run(
        [sys.executable, "-c", BARE, *there, *of_torch], cwd=command.REPOSITORY, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert {"sqlalchemy", "ray", "typer", "pytest"} <= set(done.stdout.split())
    assert sorted(command._FETCHED.values()) == ["libcst", "msgspec", "numba", "nvidia-ml-py"]


@pytest.mark.parametrize(
    ("code", "trouble"), [(0, ""), (1, "pip does not fetch what is missing: install nvidia-ml-py")]
)
def test_packages_that_are_missing_are_fetched_into_the_folder(
    code: int, trouble: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[list[str]] = []

    def run(words: list[str], **options: object) -> SimpleNamespace:
        ran.append(words)
        return SimpleNamespace(returncode=code)

    monkeypatch.setattr(command, "find_spec", lambda name: None if name == "pynvml" else object())
    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setenv("PYTHONPATH", "/mine")
    assert command._fetched(tmp_path) == trouble
    ((*_, where, package),) = ran
    assert (where, package) == (str(tmp_path / "packages"), "nvidia-ml-py")
    assert "--no-deps" in ran[0]
    if not code:
        assert os.environ["PYTHONPATH"] == f"{command.REPOSITORY}:{tmp_path / 'packages'}:/mine"


def test_numba_is_fetched_with_what_it_needs_and_numpy_stays_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[list[str]] = []
    monkeypatch.setattr(command, "find_spec", lambda name: None if name == "numba" else object())
    monkeypatch.setattr(subprocess, "run", lambda words, **_: ran.append(words) or SimpleNamespace(returncode=0))
    monkeypatch.setenv("PYTHONPATH", "")
    assert command._fetched(tmp_path) == ""
    assert f"numpy=={numpy.__version__}" in ran[0]
    assert "--no-deps" not in ran[0]


@pytest.mark.long
def test_all_steps_run_on_a_simulated_card_and_the_archive_has_what_they_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))
    out = tmp_path / "found"
    monkeypatch.setattr(command, "STEPS", [replace(step, share_s=3600.0, most_s=3600.0) for step in command.STEPS])
    simulated = (sys.executable, "-m", "tests.bench.simulated_card")
    assert command.main(["--out", str(out), "--minutes", "600"], simulated) == 0
    assert f"the evidence is in {out}.tar.gz" in capsys.readouterr().out
    endings = {each["step"]: each["ending"] for each in json.loads((out / "summary.json").read_text())}
    logs = {name: (out / f"{name}.log").read_text()[-2000:] for name, ending in endings.items() if ending != "done"}
    assert set(logs) == {"do_bench"}, logs  # needs a GPU of its own
    with tarfile.open(f"{out}.tar.gz") as archive:
        names = {Path(name).name for name in archive.getnames()}
    assert {"summary.json", "state.log", "worker.jsonl", "doctor.jsonl", "seed.jsonl", "baselines.jsonl"} <= names

    def lines(step: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (out / f"{step}.jsonl").read_text().splitlines()]

    assert '"imported": true' in lines("worker")[0]["out"]
    assert lines("seed")[0]["score"]["card"] == "Fake H100"
    comparison = lines("same")[0]["score"]["comparison"]
    assert (len(comparison["log_ratios"]), comparison["between"]) == (12, 0)
    assert "3 pairs of processes differ by 0.000%" in (out / "same.log").read_text()
    assert [row["evaluation"]["status"] for row in lines("canary")[:-1]].count("incorrect") == 2
    assert {row["part"] for row in lines("same_runs")} == {"evaluation", "comparison", "score"}
    assert [row["measured"]["status"] for row in lines("predicted")] == ["correct", "parse_error"]
    assert lines("predicted")[0]["predicted"]["kind"] == "predicted"
    faults = {row["kernel"]: row["status"] for row in lines("faults")}
    assert faults["the seed after: hangs"] == "correct"
    assert len(lines("variants")) == 2
    kept = Measurement.from_json((out / "measured-tiny.json").read_bytes())
    assert (kept.card_name, kept.target, len(kept.kernels)) == ("Fake H100", "h100", 3)
    assert all(kept.speeds(each.name)["large-causal"].runs == 6 for each in kept.kernels)
