"""What happens to a worker's process is a value to the judge, and no process stays behind."""

import json
import os
from dataclasses import asdict

import pytest

from avo.evaluator.cuda import contender as module
from avo.evaluator.cuda.contender import ask_card, start_worker
from avo.evaluator.errors import EvaluatorUnavailable
from avo.evaluator.evaluation import Fault, Status
from avo.evaluator.serving import child
from tests.evaluator.cuda.fake_device import CARD, CASE, SETUP


def greets(then: str) -> tuple[str, ...]:
    ready = json.dumps({"ready": asdict(CARD), "setup": asdict(SETUP)})
    return ("sh", "-c", f"echo '{{}}'; read line; echo '{ready}'; {then}")


def test_a_worker_that_dies_says_how_and_is_a_fault() -> None:
    made = start_worker(greets("read line; echo the driver gave up >&2; exit 7"))
    expected = "case small: the process that ran it on the GPU died: exit code 7; the driver gave up"
    assert made.check(CASE.name, 4, 1) == Fault(Status.CRASHED, expected)
    made.close()


def test_a_worker_that_was_killed_is_a_fault_and_no_error() -> None:
    made = start_worker(greets("exec sleep 60"))
    assert made.card == CARD
    made.kill()
    expected = "case small: the process that ran it on the GPU died: killed by SIGKILL"
    assert made.check(CASE.name, 4, 1) == Fault(Status.CRASHED, expected)
    made.close()


def test_half_a_line_of_a_worker_that_dies_is_its_death() -> None:
    made = start_worker(greets("""read line; printf '{"resu'; exit 7"""))
    found = made.check(CASE.name, 4, 1)
    made.close()
    assert found == Fault(Status.CRASHED, "case small: the process that ran it on the GPU died: exit code 7")


def test_a_worker_is_not_told_to_wait_at_every_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_LAUNCH_BLOCKING", "1")
    made = start_worker(greets("read line; echo $CUDA_LAUNCH_BLOCKING- >&2; exit 7"))
    found = made.check(CASE.name, 4, 1)
    made.close()
    assert isinstance(found, Fault)
    assert found.message.endswith("; -")


def test_a_worker_that_cannot_be_killed_is_given_up_and_is_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GRACE_S", 0.0)
    made = start_worker(greets("""read line; echo '{"running": true}'; exec sleep 60"""))
    with monkeypatch.context() as patch:
        patch.setattr(os, "killpg", lambda pid, number: None)
        patch.setattr(child, "_KILL_S", 0.1)
        patch.setattr(child, "_END_S", 0.1)
        with pytest.raises(EvaluatorUnavailable, match="case small: the GPU worker survives being killed"):
            made.time(CASE.name, [3], 0.1)
    assert made._child.kill()


def test_a_worker_finds_the_c_compiler_that_the_user_has_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CC", "CXX", "CPATH"):
        monkeypatch.setenv(name, "mine")
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    assert {"CC", "CXX", "CPATH"} <= set(child.environment())
    assert "OPENAI_API_KEY" not in child.environment()


@pytest.mark.long
def test_without_a_gpu_one_line_says_so() -> None:
    with pytest.raises(EvaluatorUnavailable, match=r"^torch finds no CUDA GPU: [^\n]+ \(torch [^\n]*\)$"):
        ask_card()


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("/no/such/python",), "the GPU worker does not start: /no/such/python: No such file"),
        (("sh", "-c", "echo oh no >&2; exit 3"), "the GPU worker does not start: exit code 3; oh no"),
        (("sleep", "60"), "the GPU worker does not start: silent for 0.1 s"),
    ],
)
def test_a_worker_that_does_not_start_is_no_verdict(
    command: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("avo.evaluator.serving.child.START_S", 600.0 if command[0] != "sleep" else 0.1)
    with pytest.raises(EvaluatorUnavailable, match=message):
        ask_card(command)


def test_silence_without_a_kernel_running_is_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PREPARE_S", 0.2)
    made = start_worker(greets("exec sleep 60"))
    with pytest.raises(EvaluatorUnavailable, match=r"silent for 0\.2 s"):
        made.check(CASE.name, 4, 1)


def test_a_profilers_lines_are_not_its_workers_and_nothing_is_limited_under_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PREPARE_S", 0.1)
    prof = "echo '==PROF== Connected to process 7'"
    made = start_worker(greets(f"{prof}; read line; {prof}; sleep 0.3; echo '{{}}'"), ("env", "-u", "NO_SUCH"))
    assert made.card == CARD
    made.forget(CASE.name)
    made.close()


def test_a_worker_does_not_touch_the_gpu_before_it_is_used() -> None:
    made = start_worker(("sh", "-c", "echo '{}'; read line && echo begun >&2; exit 3"))
    made.close()
    assert "begun" not in made._child.last_words()  # type: ignore[attr-defined]
