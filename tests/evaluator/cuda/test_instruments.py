"""ncu and compute-sanitizer: what they print is read, and they run real workers; a script stands in for the tools."""

import csv
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from avo.cli.main import app
from avo.evaluator import cuda
from avo.evaluator.candidate import Candidate
from avo.evaluator.cuda import contender, memcheck, ncu, triton_device
from avo.evaluator.cuda.contender import Contender, start_worker
from avo.evaluator.cuda.measured import Measured
from avo.evaluator.cuda.memcheck import Memcheck
from avo.evaluator.cuda.ncu import Ncu
from avo.evaluator.evaluation import Fault, Status
from avo.evaluator.judging.judge import Judge
from avo.evaluator.judging.speed import CompiledPlan, Instruments
from avo.evaluator.problems.mha import MHA
from avo.evaluator.profile import Counted, Source
from avo.evaluator.sandbox.jobs import ForkServer
from avo.evaluator.targets import get_target
from avo.seeds import seed_source
from tests.evaluator.cuda.fake_device import CARD, Loopback
from tests.evaluator.cuda.on_gpu import compiled
from tests.evaluator.cuda.test_judge_on_cuda import ExecutingDevice
from tests.evaluator.cuda.test_stub_card import SMALL

HERE = Path(__file__).parent
RECORDED = HERE / "recorded"
SEED = seed_source("mha")
TINY = """
from dataclasses import replace

from avo.evaluator.problem import Case
from avo.evaluator.problems.mha import MHA

SMALL = Case("small-causal", 1, 2, 2, 128, 128, 128, True)
PROBLEM = replace(
    MHA, name="tiny", correctness_cases=(SMALL,), suites={"quick": (replace(SMALL, name="large"),)}, baselines=()
)
"""
CLEAN = "========= COMPUTE-SANITIZER\n========= ERROR SUMMARY: 0 errors\n"
WGMMA = """========= Invalid __shared__ ? of size 2048 bytes
=========     at 0x2570 in /root/code/triton/python/tutorials/03-matrix-multiplication.py:223:matmul_kernel_0d1d2d3de4de
=========     by thread (224,0,0) in block (4,0,0)
=========     Address 0x1bc20 is out of bounds
========= ERROR SUMMARY: 1 error
"""
"""https://github.com/NVIDIA/compute-sanitizer-samples/issues/19"""
DENIED = """==PROF== Connected to process 7
==ERROR== ERR_NVGPUCTRPERM - The user does not have permission to access NVIDIA GPU Performance Counters on the target
==WARNING== No kernels were profiled.
"""
Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Puts tools on the PATH, with the files that they print; without an argument nothing but what workers need."""

    def put(*names: str, **files: str) -> Path:
        folder = tmp_path / "bin"
        folder.mkdir()
        for name in names:
            script = folder / name
            script.write_text(f"#!{sys.executable}\n{(HERE / 'stand_in.py').read_text()}")
            script.chmod(0o755)
        for page in ("ncu_raw.csv", "ncu_source.csv"):
            shutil.copy(RECORDED / page, folder)
        for name, text in files.items():
            (folder / f"{name}.txt").write_text(text)
        monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
        return folder

    return put


@pytest.fixture
def plan(fork_server: ForkServer) -> CompiledPlan:
    return compiled(fork_server, Candidate("mha", SEED), get_target("h100"), [SMALL])[0]


def test_counters_are_read_from_what_ncu_prints_whatever_it_does_not_know() -> None:
    text = (RECORDED / "ncu_raw.csv").read_text()
    (row,) = ncu.raw_page(f"==PROF== Connected to process 7\n{text}==PROF== Disconnected\n".replace("45.07", "n/a"))
    found = ncu.counters_of(row | {"gpu__time_duration.sum": "1,420,832"}, [], {}, Source("kernel.py", ""))
    assert (found.kernel, found.lines) == ("transposeCoalesced", ())
    assert found.values["time, us"] == pytest.approx(1420.832)
    assert found.values["SM clock, GHz"] == pytest.approx(1.0496, abs=1e-4)
    assert found.values["of them by bank conflicts"] == 65011712
    assert "warps on an SM" not in found.values
    assert "HBM of its peak, %" not in found.values


def test_samples_are_read_by_instruction_and_add_up_to_lines() -> None:
    text = (RECORDED / "ncu_source.csv").read_text()
    (samples,) = ncu.source_page(text)
    head, *rows = csv.reader(text.splitlines()[1:])
    assert [sum(found.values()) for found in samples] == [int(row[head.index("# Samples")]) for row in rows]
    (row,) = ncu.raw_page((RECORDED / "ncu_raw.csv").read_text())
    first, unknown = ncu.counters_of(row, samples, {112: 2, 128: 2}, Source("kernel.py", "a\n  b")).lines
    assert (first.line, first.source, next(iter(first.reasons))) == (2, "b", "mio")
    assert unknown.line is None
    assert first.share + unknown.share == pytest.approx(1)


@pytest.mark.long
def test_profile_prints_what_ncu_measured_beside_what_is_predicted(
    install: Install, stub_command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("ncu")
    monkeypatch.setattr(start_worker, "__defaults__", (stub_command, (), "GPU-00000000"))
    monkeypatch.setattr(contender.ask_card, "__defaults__", (stub_command, "GPU-00000000"))
    cuda.card.cache_clear()
    (tmp_path / "tiny.py").write_text(TINY)
    (tmp_path / "kernel.py").write_text(SEED)
    result = CliRunner().invoke(
        app, ["profile", str(tmp_path / "kernel.py"), "--problem", str(tmp_path / "tiny.py"), "--target", "cuda"]
    )
    cuda.card.cache_clear()
    assert result.exit_code == 0, result.output
    assert triton_device.TIMED == "avo timed run"  # which the stand-in is asked for
    _, _, measured = result.output.partition("measured by ncu on ")
    rows = {line.rsplit(None, 2)[0].strip(): line.split()[-2:] for line in measured.splitlines() if line.strip()}
    assert rows["issue slots used, %"][1] == "7.07"
    assert 0 < float(rows["issue slots used, %"][0]) < 100
    assert rows["warps on an SM"][1] == "45.07"
    assert "PREDICTED" in measured
    assert "mio" in measured


@pytest.mark.long
def test_what_keeps_ncu_from_counting_is_said_once_and_what_to_do(
    install: Install, start_card: Callable[..., Contender], plan: CompiledPlan
) -> None:
    install("ncu", refused=DENIED)
    held: list[str] = []

    @contextmanager
    def hold() -> Iterator[None]:
        held.append("taken")
        try:
            yield
        finally:
            held.append("given back")

    counting = Ncu(start_card, hold)
    first = counting.count(MHA, [plan, plan], Source("candidate.py", SEED))
    assert first == [Counted(why=ncu.FORBIDDEN), None]
    assert counting.count(MHA, [plan], Source("candidate.py", SEED)) == [None]
    assert held == ["taken", "given back"]


def test_absent_tools_are_told_once_without_waiting_for_the_card(install: Install, plan: CompiledPlan) -> None:
    install()
    counting, checking = Ncu(hold=lambda: pytest.fail("the card is taken")), Memcheck()
    source = Source("candidate.py", SEED)
    assert counting.count(MHA, [plan], source) == [Counted(why="no ncu on this machine: counters are predicted only")]
    assert counting.count(MHA, [plan], source) == [None]
    assert [checking.check(MHA, [plan]), checking.check(MHA, [plan])] == [memcheck.ABSENT, ""]


def test_a_wrong_access_is_told_in_the_tools_words() -> None:
    misaligned = (RECORDED / "memcheck.txt").read_text()
    found = memcheck.finding(misaligned)
    assert found is not None
    assert (found.status, found.kind) == (Status.CRASHED, "write by unaligned_kernel, in machine code")
    beyond = memcheck.finding(misaligned[misaligned.index("Running unaligned_kernel") :])
    assert beyond == Fault(
        Status.OUT_OF_BOUNDS,
        "compute-sanitizer: Invalid __global__ write of size 4 bytes, at out_of_bounds_function()+0xb0 in "
        "memcheck_demo.cu:39, by thread (0,0,0) in block (0,0,0), Address 0x87654320 is out of bounds, and is "
        "137,179,965,340,896 bytes before the nearest allocation at 0x7cc43a800000 of size 1,024 bytes",
        "write by out_of_bounds_function, in machine code",
    )
    assert memcheck.finding(WGMMA) is None


def test_a_tool_that_does_not_run_gives_no_verdict() -> None:
    report = (RECORDED / "memcheck_not_run.txt").read_text()
    assert memcheck.finding(report) is None
    assert memcheck.tool_trouble(report) == "Error: process didn't terminate successfully"
    assert memcheck.tool_trouble("") == "it left no report"
    assert memcheck.tool_trouble(CLEAN) == ""


@pytest.mark.parametrize(("report", "status"), [(CLEAN, Status.CORRECT), (None, Status.CRASHED)], ids=["clean", "not"])
@pytest.mark.long
def test_a_version_is_run_below_compute_sanitizer_before_it_is_accepted(
    report: str | None,
    status: Status,
    install: Install,
    start_card: Callable[..., Contender],
    fork_server: ForkServer,
    tmp_path: Path,
) -> None:
    folder = install("compute-sanitizer", report=report or (RECORDED / "memcheck.txt").read_text())
    (tmp_path / "tiny.py").write_text(TINY)
    card = replace(CARD.target(), name="h100")
    speed = Measured(card, start=lambda: Contender(Loopback(ExecutingDevice(lambda buffers: None))))
    instruments = Instruments(check=Memcheck(start_card).check)
    with Judge(card, "quick", server=fork_server, speed=speed, instruments=instruments) as judge:
        candidate = Candidate(str(tmp_path / "tiny.py"), SEED)
        evaluation = judge.evaluate(candidate)
        assert evaluation.status is Status.CORRECT, evaluation.message
        assert not (folder / "seen.txt").exists()
        verdict = judge.verify(candidate, evaluation.plan_digest)
    assert verdict.status is status, verdict.message
    assert "compute-sanitizer" not in verdict.compiled
    seen = (folder / "seen.txt").read_text()
    assert seen.startswith("env 0 1\n")
    assert "--kernel-name kne=attention_kernel" in seen
