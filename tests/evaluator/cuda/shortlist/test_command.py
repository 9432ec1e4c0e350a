"""A shortlist is measured to its end whatever its kernels do, and what was found is on the disk at any time."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from avo.evaluator.cuda import contender, libraries
from avo.evaluator.cuda.shortlist import command
from avo.evaluator.cuda.shortlist.session import Session
from avo.evaluator.measurement import FILE, SHORTLIST, UNMEASURED, Entrant, Measurement
from avo.evaluator.problem import Case
from avo.evaluator.problems import PROBLEMS
from avo.evaluator.problems.mha import MHA
from tests.evaluator.cuda.fake_device import CARD, SETUP

ONE = Case("one", 1, 2, 2, 64, 64, 128, True)
NAMES = ("v0", "v1", "v2")
BEGUN = Measurement(
    "ab", "mine", "mha", "quick", "h100", "v0", {}, {}, "", 0.0, (),
    tuple(
        Entrant(name, UNMEASURED, attempt=i, source=f"# {name}\n", predicted={"one": (1.0, 2.0, 3.0)})
        for i, name in enumerate(NAMES, 1)
    ),
    (),
)  # fmt: skip
SCRIPT = """
import json, os, sys, time
from collections import Counter
from pathlib import Path

starts = Path(__file__).with_name("starts")
with starts.open("a") as file:
    file.write("x")
session, timed = starts.stat().st_size, Counter()
def say(**found): print(json.dumps(found), flush=True)
def fault(status, message): say(fault={"status": status, "message": message, "kind": ""})
say(imported=True)
for line in sys.stdin:
    ((asked, what),) = json.loads(line).items()
    name = (what.get("name") or what.get("case", "")).rpartition(" of ")[2]
    timed[name] += asked == "time" and what["stretch_s"] > 0
    wall_s = 1.05
{body}
    if asked == "begin":
        say(ready={card!r}, setup={setup!r})
    elif asked == "check":
        say(result={"case": "one", "passed": True, "relative_error": None, "absolute_error": None})
    elif asked == "time":
        say(runs=[{"seconds": 1.0, "wall_s": wall_s}], clocks=[], ungraphed="")
    else:
        say(ok=True)
"""


def worker(tmp_path: Path, body: str = "") -> list[str]:
    """Return the command of a worker that does what ``body`` says when it is asked something."""
    script = tmp_path / "worker.py"
    text = SCRIPT.replace("{card!r}", repr(asdict(CARD))).replace("{setup!r}", repr(asdict(SETUP)))
    script.write_text(text.replace("{body}", "".join(f"    {line}\n" for line in body.splitlines())))
    return [sys.executable, str(script)]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A problem of one small case, no library, and a round for each session."""
    monkeypatch.setitem(PROBLEMS, "mha", replace(MHA, correctness_cases=(ONE,), suites={"quick": (ONE,)}))
    monkeypatch.setattr(libraries, "LIBRARIES", ())
    monkeypatch.setattr(Session, "_over", lambda self: True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A shortlist's folder of three kernels."""
    (tmp_path / "kernels").mkdir()
    (tmp_path / SHORTLIST).write_text(json.dumps(asdict(BEGUN)))
    for name in NAMES:
        (tmp_path / "kernels" / f"{name}.py").write_text(f"# {name}\n")
    return tmp_path


def measured(folder: Path) -> Measurement:
    """Return what was written."""
    return Measurement.from_json((folder / FILE).read_text())


def statuses(folder: Path) -> dict[str, str]:
    """Return the verdicts by name."""
    return {each.name: each.status for each in measured(folder).entrants}


def test_all_sessions_add_to_one_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--minutes", "9"], folder, worker(folder)) == 0
    found = measured(folder)
    assert {sample.session for sample in found.samples} == {1, 2, 3, 4}
    assert statuses(folder) == dict.fromkeys(NAMES, "correct")
    assert found.reached("v1").tflops == pytest.approx(MHA.flops(ONE) / 1e12)
    assert "2.00 (1.00 to 3.00)" in capsys.readouterr().out


def test_a_kernel_that_hangs_is_killed_and_left_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contender, "GRACE_S", -0.3)
    hangs = """
if (asked, name, timed["v1"]) == ("time", "v1", 1):
    say(running=True)
    time.sleep(600)
"""
    assert command.main(["--minutes", "9"], folder, worker(folder, hangs)) == 0
    assert statuses(folder) == {"v0": "correct", "v1": "timed_out", "v2": "correct"}
    assert {sample.session for sample in measured(folder).samples if sample.entrant == "v2"} >= {2, 3, 4, 5}


def test_a_kernel_that_ends_its_worker_has_crashed_and_the_others_go_on(folder: Path) -> None:
    assert command.main(["--minutes", "9"], folder, worker(folder, "if name == 'v2': sys.exit(3)")) == 0
    assert statuses(folder) == {"v0": "correct", "v1": "correct", "v2": "crashed"}


def test_after_a_graph_that_fails_a_new_worker_goes_on_with_all(folder: Path) -> None:
    fails = """
if asked == "time" and name != "v1" and what["graph"]:
    say(runs=[], clocks=[], ungraphed="not permitted", last=True)
    sys.exit()
assert asked != "time" or not what["graph"] or session == 1
"""
    assert command.main(["--minutes", "9"], folder, worker(folder, fails)) == 0
    assert statuses(folder) == dict.fromkeys(NAMES, "correct")
    assert measured(folder).ungraphed == "v0: not permitted"
    assert {sample.session for sample in measured(folder).samples} == {2, 3, 4, 5}


@pytest.mark.parametrize(
    "end",
    ["say(error='the GPU reports: uncorrectable ECC error', last=True); sys.exit()", "os.kill(os.getpid(), 9)"],
)
def test_what_the_machine_does_refutes_nobody(folder: Path, end: str) -> None:
    dies = f"if session == 2 and name == 'v2' and asked == 'time': {end}"
    assert command.main(["--minutes", "9"], folder, worker(folder, dies)) == 0
    assert statuses(folder) == dict.fromkeys(NAMES, "correct")


def test_an_earlier_measurement_is_kept(folder: Path) -> None:
    for _ in range(2):
        assert command.main(["--minutes", "9"], folder, worker(folder)) == 0
    kept = sorted(folder.glob("measured*.json"))
    assert len(kept) == 2
    assert {len(Measurement.from_json(each.read_text()).samples) for each in kept} == {12}


WRONG = "if asked == 'check': fault('incorrect', 'all rows'); continue"


def test_where_every_kernel_fails_the_reasons_are_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--minutes", "9"], folder, worker(folder, WRONG)) == 2
    assert "v1: incorrect: all rows" in capsys.readouterr().out


def test_a_fault_stays_one_and_is_not_tried_again(folder: Path) -> None:
    fickle = f"if name == 'v1' and session == 1:\n    {WRONG}\nassert name != 'v1' or session == 1"
    assert command.main(["--minutes", "9"], folder, worker(folder, fickle)) == 0
    assert statuses(folder) == {"v0": "correct", "v1": "incorrect", "v2": "correct"}


def test_without_a_card_it_says_why(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    none = "say(error='torch finds no CUDA GPU', last=True); sys.exit()"
    assert command.main([], folder, worker(folder, none)) == 2
    assert capsys.readouterr().err == "measure.py: torch finds no CUDA GPU\n"
    assert not (folder / FILE).exists()
    assert (folder / "starts").stat().st_size == 1


def test_workers_that_find_nothing_are_not_started_for_ever(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    killed = "if asked == 'time': os.kill(os.getpid(), 9)"
    assert command.main([], folder, worker(folder, killed)) == 2
    assert "nothing runs to its end" in capsys.readouterr().err


def test_a_kernel_that_was_edited_is_not_run(folder: Path) -> None:
    (folder / "kernels" / "v1.py").write_text("# faster\n")
    assert command.main(["--minutes", "9"], folder, worker(folder)) == 0
    assert statuses(folder)["v1"] == "unmeasured"
    assert not measured(folder).times_us("v1")


def test_runs_that_the_hosts_clock_contradicts_are_no_measurement(folder: Path) -> None:
    late = "if name != 'v0': wall_s = 9.0"
    assert command.main(["--minutes", "9"], folder, worker(folder, late)) == 0
    assert statuses(folder) == {"v0": "correct", "v1": "unmeasured", "v2": "unmeasured"}


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--minutes", "0"], "a number of minutes above 0"),
        (["--minutes", "x"], "invalid"),
        (["--cards", "2"], "unrecognized arguments"),
    ],
)
def test_a_wrong_call_is_refused(folder: Path, words: list[str], why: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main(words, folder, worker(folder))
    assert ended.value.code == 2
    assert why in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_loses_nothing(folder: Path, number: signal.Signals) -> None:
    waits = "if sum(timed.values()) > 7: time.sleep(600)"
    program = (
        "import sys; from pathlib import Path; from avo.evaluator.cuda.shortlist import command; "
        "from avo.evaluator.cuda import libraries; libraries.LIBRARIES = (); "
        f"sys.exit(command.main([], Path({str(folder)!r}), {worker(folder, waits)!r}))"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        while not (folder / FILE).exists() or len(measured(folder).samples) < 6:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(number)
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "interrupted: what was measured until now is kept" in out
    assert len(measured(folder).samples) == 7
    assert measured(folder).seconds > 0
