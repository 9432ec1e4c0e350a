"""A shortlist is measured to its end whatever its kernels do, and what was found is on the disk at any time."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from avo.evaluator.cuda.shortlist import command
from avo.evaluator.cuda.shortlist.session import UNGRAPHED
from avo.evaluator.measurement import FILE, SHORTLIST, UNMEASURED, Entrant, Measurement

CARD = {"ready": {"card": {"name": "Card"}, "setup": {}, "cases": [{"name": "one", "flops": 10**9, "floor_us": 1.0}]}}
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
import json, sys, time
orders = json.loads(sys.argv[1])
def say(**found): print(json.dumps(found), flush=True)
def sample(name, number=1, us=100.0, wall_us=110.0):
    say(sample=dict(session=orders["session"], round=number, entrant=name, case="one", us=us, wall_us=wall_us))
CARD = {card!r}
names = [name for name in orders["kernels"] if name not in orders["without"]]
def right(names):
    say(**CARD)
    for name in names: say(entrant=name, status="correct", message="", release="")
    for name in names: sample(name)
{body}
"""


def child(tmp_path: Path, body: str) -> list[str]:
    """Return the command of a process that does what ``body`` says instead of a session."""
    script = tmp_path / "child.py"
    script.write_text(SCRIPT.replace("{card!r}", repr(CARD)).replace("{body}", body))
    return [sys.executable, str(script)]


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


def test_all_processes_add_to_one_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--minutes", "9"], folder, child(folder, "right(names)")) == 0
    found = measured(folder)
    assert {sample.session for sample in found.samples} == {1, 2, 3, 4}
    assert statuses(folder) == dict.fromkeys(NAMES, "correct")
    assert found.geomean_tflops("v1") == pytest.approx(10**9 / 100 / 1e6)
    assert "2 (1 to 3)" in capsys.readouterr().out


def test_a_kernel_that_hangs_is_killed_and_left_out(folder: Path) -> None:
    hangs = """
right([name for name in names if name != "v1"])
if "v1" in names:
    say(doing="v1, one", entrant="v1", limit_s=0.2)
    time.sleep(600)
"""
    assert command.main(["--minutes", "9"], folder, child(folder, hangs)) == 0
    assert statuses(folder) == {"v0": "correct", "v1": "timed_out", "v2": "correct"}
    assert {sample.session for sample in measured(folder).samples if sample.entrant == "v2"} == {1, 2, 3, 4, 5}


def test_a_kernel_that_ends_its_process_has_crashed_and_the_others_go_on(folder: Path) -> None:
    dies = """
right(names)
if "v2" in names:
    say(doing="v2, one", entrant="v2", limit_s=9)
    sys.exit(3)
"""
    assert command.main(["--minutes", "9"], folder, child(folder, dies)) == 0
    assert statuses(folder) == {"v0": "correct", "v1": "correct", "v2": "crashed"}


def test_after_a_graph_that_fails_a_new_process_goes_on_with_all(folder: Path) -> None:
    fails = f"""
if {{"v0", "v2"}} - {{*orders["ungraphed"]}}:
    say(**CARD)
    name = min({{"v0", "v2"}} - {{*orders["ungraphed"]}})
    say(doing=name, entrant=name, limit_s=9)
    say(ungraphed="not permitted", entrant=name)
    sys.exit({UNGRAPHED})
right(names)
assert orders["ungraphed"] == {{"v0": "not permitted", "v2": "not permitted"}}
"""
    assert command.main(["--minutes", "9"], folder, child(folder, fails)) == 0
    assert statuses(folder) == dict.fromkeys(NAMES, "correct")
    assert measured(folder).ungraphed == "v0: not permitted"
    assert {sample.session for sample in measured(folder).samples} == {3, 4, 5, 6}


@pytest.mark.parametrize(
    "end",
    ["say(error='the GPU reports: uncorrectable ECC error')\n    sys.exit(3)", "import os; os.kill(os.getpid(), 9)"],
)
def test_what_the_machine_does_refutes_nobody(folder: Path, end: str) -> None:
    dies = f"""
right(names)
if orders["session"] == 2:
    say(doing="v2, one", entrant="v2", limit_s=9)
    {end}
"""
    assert command.main(["--minutes", "9"], folder, child(folder, dies)) == 0
    assert statuses(folder) == dict.fromkeys(NAMES, "correct")


def test_an_earlier_measurement_is_kept(folder: Path) -> None:
    for _ in range(2):
        assert command.main(["--minutes", "9"], folder, child(folder, "right(names)")) == 0
    kept = sorted(folder.glob("measured*.json"))
    assert len(kept) == 2
    assert {len(Measurement.from_json(each.read_text()).samples) for each in kept} == {12}


def test_where_every_kernel_fails_the_reasons_are_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = "say(**CARD)\nfor name in names: say(entrant=name, status='incorrect', message='all rows', release='')"
    assert command.main(["--minutes", "9"], folder, child(folder, wrong)) == 2
    assert "v1: incorrect: all rows" in capsys.readouterr().out


def test_a_fault_stays_one(folder: Path) -> None:
    fickle = """
right(names)
if orders["session"] == 1: say(entrant="v1", status="incorrect", message="rows are wrong", release="")
"""
    assert command.main(["--minutes", "9"], folder, child(folder, fickle)) == 0
    assert statuses(folder)["v1"] == "incorrect"


def test_without_a_card_it_says_why(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([], folder, child(folder, "say(error='torch finds no CUDA GPU')\nsys.exit(3)")) == 2
    assert capsys.readouterr().err == "measure.py: torch finds no CUDA GPU\n"
    assert not (folder / FILE).exists()


def test_processes_that_find_nothing_are_not_started_for_ever(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([], folder, child(folder, "say(**CARD)")) == 2
    assert "nothing runs to its end" in capsys.readouterr().err


def test_a_kernel_that_was_edited_is_not_run(folder: Path) -> None:
    (folder / "kernels" / "v1.py").write_text("# faster\n")
    assert command.main(["--minutes", "9"], folder, child(folder, "right(names)")) == 0
    assert statuses(folder)["v1"] == "unmeasured"
    assert not measured(folder).times_us("v1")


def test_runs_that_the_hosts_clock_contradicts_are_no_measurement(folder: Path) -> None:
    late = (
        "right([])\nfor n in (1, 2, 3): [sample(name, n, wall_us=100.0 if name == 'v0' else 900.0) for name in names]"
    )
    assert command.main(["--minutes", "9"], folder, child(folder, late)) == 0
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
        command.main(words, folder, child(folder, "right(names)"))
    assert ended.value.code == 2
    assert why in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_loses_nothing(folder: Path, number: signal.Signals) -> None:
    waits = "right(names)\n[sample(name, 2) for name in names]\nsample('v0', 3)\ntime.sleep(600)"
    program = (
        "import sys; from pathlib import Path; from avo.evaluator.cuda.shortlist import command; "
        f"sys.exit(command.main([], Path({str(folder)!r}), {child(folder, waits)!r}))"
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
