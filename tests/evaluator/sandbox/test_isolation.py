"""A secret of the judge's side is where it could be found, and no job or candidate that looks everywhere finds it."""

import json
import os
import pwd
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from avo.evaluator.capture import CHILD_MODULE, Capturer
from avo.evaluator.catalogue import get_problem
from avo.evaluator.evaluation import Fault
from avo.evaluator.sandbox import landlock
from avo.evaluator.sandbox.jobs import Finished, ForkServer, Limits
from avo.evaluator.serving.process import ProcessEvaluator
from avo.evaluator.targets import get_target
from tests.evaluator.sandbox.isolation import WAYS, isolated

LIMITS = Limits(
    wall_s=600, cpu_s=20, memory_bytes=2**30, file_bytes=0, open_files=64, processes=64, result_bytes=1 << 20,
    confined=True,
)  # fmt: skip
SNOOP = Path(__file__).parent / "snoop.py"
HOME = pwd.getpwuid(os.getuid()).pw_dir


@pytest.fixture
def secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, str]]:
    """The two parts of a secret in the environment, in open files, in the home, in temporary folders and in memory."""
    first, second = secrets.token_hex(16), secrets.token_hex(16)
    whole = (first + second).encode()
    monkeypatch.setenv("AVO_SECRET", first + second)
    with ExitStack() as stack:
        for folder in ("/tmp", HOME, str(tmp_path)):
            file = stack.enter_context(tempfile.NamedTemporaryFile(prefix=".avo-test-", dir=folder))
            file.write(whole)
            file.flush()
            os.set_inheritable(file.fileno(), True)
        yield first, second


@pytest.fixture(params=[WAYS[0], pytest.param(WAYS[1], marks=pytest.mark.long)])
def way(request: pytest.FixtureRequest) -> Iterator[None]:
    """Both ways of keeping jobs apart; without namespaces what can be read depends on Landlock."""
    if request.param == "plain" and not landlock.version():
        pytest.skip("this kernel has no Landlock")
    with isolated(request.param):
        yield


def test_a_process_that_is_not_kept_apart_finds_the_secret(secret: tuple[str, str], tmp_path: Path) -> None:
    limited = ["sh", "-c", f'ulimit -n {LIMITS.open_files}; exec "$@"', "sh"]
    command = [*limited, sys.executable, str(SNOOP), *secret, HOME, str(tmp_path)]
    found = set(json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, close_fds=False).stdout))
    assert {"os.environ", "/proc/PID/environ", "/proc/PID/fd/*", "descriptor", "/tmp", HOME, str(tmp_path)} < found


@pytest.mark.parametrize("confined", [True, False])
def test_no_job_finds_the_secret(way: None, secret: tuple[str, str], tmp_path: Path, confined: bool) -> None:
    with ForkServer(("snoop",), path=[SNOOP.parent]) as server:
        payload = json.dumps([*secret, [HOME, str(tmp_path)]]).encode()
        outcome = server.run("snoop:run", payload, replace(LIMITS, confined=confined))
    assert isinstance(outcome, Finished), outcome
    assert json.loads(outcome.result) == []


@pytest.mark.long
def test_no_candidate_finds_the_secret(way: None, secret: tuple[str, str], tmp_path: Path) -> None:
    first, second = secret
    entry = f"""
def attention(q, k, v, out, lse, *, causal, scale):
    raise OSError(f"found in {{search({first!r}.encode(), {second!r}.encode(), {[HOME, str(tmp_path)]!r})}}")
"""
    problem = get_problem("mha")
    with ForkServer((CHILD_MODULE,)) as server:
        call = problem.call(problem.correctness_cases[0])
        fault = Capturer(server).capture(SNOOP.read_text() + entry, problem.entry, [call], get_target("h100"))
    assert isinstance(fault, Fault)
    assert "found in []" in fault.message


@pytest.mark.long
def test_the_judges_process_itself_gets_no_key(secret: tuple[str, str]) -> None:
    with ProcessEvaluator("h100", "quick") as evaluator:
        evaluator._running()
        child = evaluator._child
        assert child is not None
        process = Path(f"/proc/{child._process.pid}")
        assert process.joinpath("environ").stat().st_uid == 0, "its memory and environment can be read by its user"
        if os.getuid() == 0:
            environment = process.joinpath("environ").read_bytes()
            assert b"PATH=" in environment
            assert b"AVO_SECRET" not in environment
