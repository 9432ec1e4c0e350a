"""The judge's own command line: what it takes is what a run may configure."""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest

from avo.evaluator.__main__ import _cascade, _keep, _margin
from avo.evaluator.errors import EvaluatorUnavailable


def test_a_cascade_is_a_fraction_from_zero_on_or_off() -> None:
    assert [_cascade(text) for text in ("0", "0.25", "off")] == [0.0, 0.25, None]
    for text in ("1", "-0.1"):
        with pytest.raises(argparse.ArgumentTypeError, match="neither a fraction from 0 to 1 nor off"):
            _cascade(text)


def test_a_margin_is_more_than_nothing_and_less_than_half() -> None:
    assert _margin("0.005") == 0.005
    for text in ("0", "0.5"):
        with pytest.raises(argparse.ArgumentTypeError, match=r"not between 0 and 0\.5"):
            _margin(text)


def test_a_judge_that_nobody_listens_to_ends_whatever_it_is_doing() -> None:
    code = (
        "import time\nfrom avo.evaluator.__main__ import end_with_reader\n"
        "end_with_reader(1)\nprint('ready', flush=True)\ntime.sleep(3600)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as busy:
        assert busy.stdin is not None
        assert busy.stdout is not None
        assert busy.stdout.readline() == b"ready\n"
        busy.stdin.close()
        with pytest.raises(subprocess.TimeoutExpired):
            busy.wait(timeout=0.2)
        busy.stdout.close()
        assert busy.wait(timeout=600) == 1


def test_a_judge_that_ends_by_itself_has_its_own_exit_code() -> None:
    code = (
        "import os, sys, threading\nfrom avo.evaluator.__main__ import end_with_reader\n"
        "kept, closed = os.pipe()\nos.close(closed)\nend_with_reader(closed)\n"
        "[thread.join() for thread in threading.enumerate() if thread.name == 'reader']\nsys.exit(2)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=600, check=False).returncode == 2


def test_what_was_timed_is_appended_line_by_line(tmp_path: Path) -> None:
    _keep(None, {"case": "a"})
    for case in ("a", "b"):
        _keep(tmp_path / "trace", {"case": case})
    assert [json.loads(line)["case"] for line in (tmp_path / "trace").read_text().splitlines()] == ["a", "b"]


def test_a_trace_that_cannot_be_written_is_no_candidates_fault_and_told_first(tmp_path: Path) -> None:
    nowhere = tmp_path / "none" / "trace"
    with pytest.raises(EvaluatorUnavailable, match=f"--trace: cannot write {nowhere}: No such file or directory"):
        _keep(nowhere, {"case": "a"})
    command = [sys.executable, "-m", "avo.evaluator", "--target", "h100", "--trace", str(nowhere)]
    done = subprocess.run(command, input="", capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"python -m avo.evaluator: --trace: cannot write {nowhere}: No such file or directory\n"
