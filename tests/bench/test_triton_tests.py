"""A sample of Triton's own tests is drawn anew by each seed, and run for a target."""

from pathlib import Path

import pytest

from bench.triton_tests import collect, draw, run
from bench.tutorials import FAULTS

SUITE = """
import pytest
import torch
import triton
import triton.language as tl
from triton._internal_testing import run_in_process

@triton.jit
def copied(x, y, N: tl.constexpr):
    tl.store(y + tl.arange(0, N), tl.load(x + tl.arange(0, N)))

@pytest.mark.parametrize("n", [4, 8])
def test_copies(n):
    x, y = torch.ones(4, device="cuda"), torch.zeros(8, device="cuda")
    copied[(1,)](x, y, N=n)

def test_wrong():
    assert torch.cuda.get_device_capability() == (10, 0)

def test_finds():
    result = run_in_process(test_copies, (8,))
    assert "some words" in result.driver_stderr_output and "device-side assert" in str(result.exc)
    assert run_in_process(test_copies, (4,)).exc is None
"""


def test_each_function_is_drawn_once_before_any_is_drawn_again_and_a_seed_draws_the_same_again() -> None:
    ids = [f"file.py::test_{name}[{i}]" for name in "abc" for i in range(5)] + ["file.py::test_d"]
    drawn = draw(ids, 6, seed=3)
    assert draw(reversed(ids), 6, seed=3) == drawn
    assert {each.partition("[")[0] for each in drawn[:4]} == {f"file.py::test_{name}" for name in "abcd"}
    assert len(set(drawn)) == 6
    assert any(draw(ids, 6, seed) != drawn for seed in range(4, 8))
    assert sorted(draw(ids, 100, seed=0)) == sorted(ids)


@pytest.mark.long
def test_the_tests_that_are_drawn_run_for_a_target(tmp_path: Path) -> None:
    (tmp_path / "test_suite.py").write_text(SUITE)
    chosen = [each for each in collect(tmp_path, ["test_suite.py"]) if not each.endswith("[4]")]
    found = {test.partition("::")[2]: each for test, each in run(tmp_path, chosen, "h100", limit=300).items()}
    assert {test: each.how for test, each in found.items()} == {
        "test_copies[8]": "failed",
        "test_wrong": "failed",
        "test_finds": "passed",
    }
    assert found["test_copies[8]"].why.startswith(f"{FAULTS}read out of bounds in copied")


@pytest.mark.long
def test_a_limit_is_of_processor_time(tmp_path: Path) -> None:
    work = "def test_works():\n    for _ in range(10**12): pass\n"
    (tmp_path / "test_suite.py").write_text(f"import time\ndef test_sleeps(): time.sleep(1.5)\n{work}")
    found = run(tmp_path, collect(tmp_path, ["test_suite.py"]), "h100", limit=1).values()
    assert [each.how for each in found] == ["passed", "failed"]
    assert [each.why.rpartition(": ")[2] for each in found] == ["", "takes more than 1 s of processor time"]
