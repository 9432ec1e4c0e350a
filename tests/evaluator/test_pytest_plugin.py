"""The pytest plugin, in a run of pytest of its own on a small project."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = """
import pytest, torch, triton
import triton.language as tl

ASKED_AT_IMPORT = torch.cuda.is_available()

@triton.jit
def copy(x, y, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y + i, tl.load(x + i, mask=i < n), mask=i < n)

def run(size, n):
    x, y = torch.randn(size, device="cuda"), torch.zeros(64, device="cuda")
    copy[(1,)](x, y, n, BLOCK=64)
    assert torch.equal(y[:size], x[:n])
"""
WITH_FIXTURE = """
def test_right(triton_offline):
    run(40, 40)
    assert len(triton_offline.launches) == 1

def test_wrong(triton_offline):
    x = torch.randn(30)
    copy[(1,)](x, torch.zeros(64), 40, BLOCK=64)

def test_expected(triton_offline):
    copy[(1,)](torch.randn(30), torch.zeros(64), 40, BLOCK=64)
    assert [fault.kind for fault in triton_offline.take_report().faults] == ["read out of bounds"]

@pytest.fixture
def late(triton_offline):
    yield
    copy[(1,)](torch.randn(30), torch.zeros(64), 40, BLOCK=64)

def test_wrong_at_the_end(late):
    pass

"""
OF_ITS_OWN = """
@pytest.mark.triton_offline(target="a100")
def test_other_target(triton_offline):
    assert torch.cuda.get_device_capability() == (8, 0)
"""
COMPILED = """
def test_level(triton_offline):
    run(40, 40)
    assert "#blocked" in triton_offline.launches[-1].ir
"""
UNAWARE = """
def test_right():
    assert ASKED_AT_IMPORT
    run(40, 40)

def test_wrong():
    copy[(1,)](torch.randn(30), torch.zeros(64), 40, BLOCK=64)

def test_broken():
    assert False, "its own"

def test_aware(triton_offline):
    run(40, 40)
"""


def run_pytest(folder: Path, source: str, *flags: str) -> str:
    (folder / "test_it.py").write_text(TESTS + source)
    plugin = ["-p", "avo.evaluator.pytest_plugin"]
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *plugin, *flags, "test_it.py"]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment(root), timeout=600)
    return run.stdout + run.stderr


def environment(root: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}


@pytest.mark.long
def test_the_fixture_fails_a_test_whose_kernels_make_faults(tmp_path: Path) -> None:
    output = run_pytest(tmp_path, WITH_FIXTURE + OF_ITS_OWN)
    assert "1 failed, 4 passed" in output, output
    assert "ERROR test_it.py::test_wrong_at_the_end" in output
    assert "FAILED test_it.py::test_wrong" in output
    assert "read out of bounds in copy at test_it.py:" in output
    assert "3 launches of 1 kernel; tests with faults: 2" in output


@pytest.mark.long
def test_the_flag_takes_in_tests_that_know_nothing_of_it_and_skips_those_with_options_of_their_own(
    tmp_path: Path,
) -> None:
    output = run_pytest(tmp_path, UNAWARE + OF_ITS_OWN, "--triton-offline", "-rs")
    assert "2 failed, 2 passed, 1 skipped" in output, output
    assert "SKIPPED [1] test_it.py" in output
    assert "read out of bounds in copy at" in output
    assert "AssertionError: its own" in output
    assert "tests with faults: 1" in output


@pytest.mark.long
def test_what_the_compiler_makes_is_executed_where_that_is_asked_for(tmp_path: Path) -> None:
    for flags in ((), ("--triton-offline",)):
        assert "1 failed" in run_pytest(tmp_path, COMPILED, *flags)
        assert "1 passed" in run_pytest(tmp_path, COMPILED, "--triton-offline-level", "compiled", *flags)


def test_runs_of_pytest_that_need_no_kernels_do_not_pay_for_torch() -> None:
    root = Path(__file__).parents[2]
    code = "import sys, avo.evaluator.pytest_plugin; sys.exit(bool({'torch', 'triton'} & sys.modules.keys()))"
    subprocess.run([sys.executable, "-c", code], env=environment(root), check=True, timeout=600)
