"""The judge in a process of its own: started here or by a command, replaced when it dies, refused when it is none."""

import os
import shlex
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from avo.evaluator.candidate import Candidate, Incumbent
from avo.evaluator.errors import EvaluatorUnavailable, UnknownProblem, UnknownTarget
from avo.evaluator.evaluation import Evaluation, Fault, Status
from avo.evaluator.evaluators import Progress
from avo.evaluator.sandbox import patience
from avo.evaluator.serving import child
from avo.evaluator.serving.process import ProcessEvaluator
from avo.evaluator.serving.protocol import answer_line, progress_line, ready
from avo.evaluator.targets import get_target

NO_PYTHON = Candidate("mha", "def attention(:")
READY = shlex.quote(ready(get_target("h100")))

Elsewhere = Callable[[str], ProcessEvaluator]


def judge_pid(evaluator: ProcessEvaluator) -> int:
    assert evaluator._child is not None
    return evaluator._child.pid


@pytest.fixture
def elsewhere(tmp_path: Path) -> Elsewhere:
    """Makes an evaluator whose judge is a shell script, started as ssh starts one on another machine."""

    def make(script: str) -> ProcessEvaluator:
        (tmp_path / "judge.sh").write_text(script)
        return ProcessEvaluator("h100", "quick", command=f"sh {tmp_path / 'judge.sh'}")

    return make


@pytest.mark.long
def test_a_judge_serves_many_candidates_and_is_replaced_when_killed() -> None:
    with ProcessEvaluator("h100", "quick") as evaluator:
        assert evaluator.evaluate(NO_PYTHON).status is Status.PARSE_ERROR
        first = judge_pid(evaluator)
        assert evaluator.evaluate(NO_PYTHON, Incumbent(NO_PYTHON, 0.01)).status is Status.PARSE_ERROR
        explained = evaluator.profile(NO_PYTHON, "8k-full")
        assert isinstance(explained, Fault)
        assert explained.status is Status.PARSE_ERROR
        assert judge_pid(evaluator) == first
        os.kill(first, signal.SIGKILL)
        assert evaluator.evaluate(NO_PYTHON).status is Status.PARSE_ERROR
        second = judge_pid(evaluator)
        assert second != first
    with pytest.raises(ProcessLookupError):
        os.kill(second, 0)


@pytest.mark.long
def test_a_command_starts_the_judge_and_is_given_its_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", "/agent")
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    # Like ssh: joins its arguments with blanks and hands them to a shell.
    far = f'test "$SSH_AUTH_SOCK" && test -z "$OPENAI_API_KEY" && exec {sys.executable} -m avo.evaluator'
    command = f"""sh -c 'exec sh -c "$*"' ssh {shlex.quote(far)}"""
    with ProcessEvaluator("a100", "quick", command=command) as evaluator:
        assert evaluator.target == get_target("a100")
        evaluation = evaluator.evaluate(NO_PYTHON)
    assert (evaluation.status, evaluation.target) == (Status.PARSE_ERROR, "a100")


def test_a_judge_is_told_how_long_an_evaluation_may_take(tmp_path: Path) -> None:
    (tmp_path / "judge.sh").write_text('echo "$@" >&2; exit 3')
    evaluator = ProcessEvaluator("h100", "quick", 42.0, command=f"sh {tmp_path / 'judge.sh'}", options=("--more",))
    with pytest.raises(EvaluatorUnavailable, match=r"--target h100 --suite quick --sandbox auto --wall 42\.0 --more"):
        evaluator.evaluate(NO_PYTHON)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo 'ssh: connect to host gpu-box port 22: No route to host' >&2; exit 255",
         "does not start: exit code 255; ssh: connect to host gpu-box port 22: No route to host"),
        ("echo Welcome to gpu-box; cat > /dev/null", "instead of being ready, the judge says 'Welcome to gpu-box'"),
        ("""echo '{"ready": "h100"}'; cat > /dev/null""", "speaks version None of the protocol"),
        (f"echo {READY} | sed s/h100/b200/; cat > /dev/null", "the judge is for target 'b200', not 'h100'"),
        ("kill -9 $$", "does not start: killed by SIGKILL"),
        ("echo 'python: No module named evaluator' >&2; exit 1", "evaluator: write avo.evaluator if AVO's is meant"),
    ],
)  # fmt: skip
def test_a_command_that_starts_no_judge_is_told_in_one_line(elsewhere: Elsewhere, script: str, message: str) -> None:
    with elsewhere(script) as evaluator, pytest.raises(EvaluatorUnavailable) as error:
        evaluator.evaluate(NO_PYTHON)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_problem_without_shapes_held_out_is_verified_on_its_suite(elsewhere: Elsewhere, tmp_path: Path) -> None:
    problem = tmp_path / "problem.py"
    problem.write_text(
        "from dataclasses import replace\n"
        "from avo.evaluator.problems.mha import MHA\n"
        "PROBLEM = replace(MHA, name='quick-only', suites={'quick': MHA.suites['quick']})\n"
    )
    candidate = Candidate(str(problem), "def attention(:")
    verdict = answer_line(1, Evaluation(Status.PARSE_ERROR, "no", "h100", "quick", 0.1))
    with elsewhere(f"echo {READY}; read line; echo {shlex.quote(verdict)}; cat > /dev/null") as evaluator:
        assert evaluator.verify(candidate).status is Status.PARSE_ERROR


def test_how_far_an_answer_is_comes_before_it_and_within_its_time(elsewhere: Elsewhere) -> None:
    verdict = answer_line(1, Evaluation(Status.PARSE_ERROR, "no", "h100", "held_out", 0.1))
    lines = [progress_line(1, Progress(1, 9)), progress_line(1, Progress(2, 9, "round 3")), verdict]
    said = "; ".join(f"echo {shlex.quote(line)}" for line in lines)
    heard: list[Progress] = []
    with elsewhere(f"echo {READY}; read line; {said}; cat > /dev/null") as evaluator:
        assert evaluator.verify(NO_PYTHON, tell=heard.append).message == "no"
        assert heard == [Progress(1, 9), Progress(2, 9, "round 3")]
    with elsewhere(f"echo {READY}; read line; {said}; cat > /dev/null") as evaluator:
        assert evaluator.verify(NO_PYTHON).message == "no"
    endless = f"echo {READY}; read line; while sleep 0.05; do echo {shlex.quote(lines[0])}; done"
    with elsewhere(endless) as evaluator:
        evaluator._wall_s = 0.1
        assert evaluator.verify(NO_PYTHON).status is Status.TIMED_OUT


def test_only_the_time_in_which_a_judge_waits_for_others_does_not_count(
    elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "at_work", lambda *_, **__: False)  # so that all other time counts
    verdict = answer_line(1, Evaluation(Status.PARSE_ERROR, "no", "h100", "quick", 0.1))
    waits, works, end = (
        f"echo {shlex.quote(line)}"
        for line in (progress_line(1, Progress(waits=True)), progress_line(1, Progress()), verdict)
    )
    for script, status in (
        (f"{waits}; sleep 2; {works}; sleep 0.05; {end}", Status.PARSE_ERROR),
        (f"{works}; sleep 2; {works}; sleep 0.05; {end}", Status.TIMED_OUT),
        (f"{waits}; {works}", Status.TIMED_OUT),
    ):
        with elsewhere(f"echo {READY}; read line; {script}; cat > /dev/null") as evaluator:
            evaluator._wall_s = 1.0
            assert evaluator.evaluate(NO_PYTHON).status is status


def test_silence_is_no_judge(elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "START_S", 0.2)
    with elsewhere("cat > /dev/null") as evaluator, pytest.raises(EvaluatorUnavailable, match=r"silent for 0\.2 s"):
        evaluator.evaluate(NO_PYTHON)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("no-such-program --at all", r"no-such-program: (No such file or directory|Permission denied)"),
        ("ssh 'gpu-box", "cannot be read: No closing quotation"),
        ("  ", "command is empty"),
    ],
)
def test_a_command_that_is_none_is_told_in_one_line(command: str, message: str) -> None:
    with pytest.raises(EvaluatorUnavailable, match=message):
        ProcessEvaluator("h100", "quick", command=command).evaluate(NO_PYTHON)


def test_a_judge_that_dies_on_a_candidate_twice_blames_it_with_its_last_words(elsewhere: Elsewhere) -> None:
    with elsewhere(f"echo {READY}; read line; echo connection closed >&2; exit 3") as evaluator:
        evaluation = evaluator.evaluate(NO_PYTHON)
    assert evaluation.status is Status.CRASHED
    assert evaluation.message.endswith("died on this candidate: exit code 3; connection closed")


def test_noise_among_the_answers_costs_one_verdict_and_a_fresh_judge(elsewhere: Elsewhere) -> None:
    with elsewhere(f"echo {READY}; read line; echo Broadcast message; cat > /dev/null") as evaluator:
        assert evaluator.target == get_target("h100")
        first = judge_pid(evaluator)
        with pytest.raises(EvaluatorUnavailable, match="cannot be read: 'Broadcast message'"):
            evaluator.evaluate(NO_PYTHON)
        assert evaluator.target == get_target("h100")
        assert judge_pid(evaluator) != first


def test_what_a_command_leaves_behind_does_not_keep_us(
    elsewhere: Elsewhere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "_END_S", 5.0)  # in which what the command said is read
    # Like the shared connection that ssh may leave: out of the group, and holding the standard error it was given.
    pid = tmp_path / "pid"
    stays = f"setsid sh -c 'echo $$ > {pid}; exec sleep 3600' > /dev/null &"
    script = f"{stays} until test -s {pid}; do sleep 0.01; done; echo lost >&2; exit 255"
    with elsewhere(script) as evaluator, pytest.raises(EvaluatorUnavailable, match="exit code 255; lost"):
        evaluator.evaluate(NO_PYTHON)
    os.kill(int(pid.read_text()), signal.SIGKILL)  # it is still there


@pytest.mark.parametrize("does", ["cat > /dev/null", "read line; while :; do :; done"], ids=["nothing", "much"])
def test_no_verdict_in_time_is_a_value(elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch, does: str) -> None:
    monkeypatch.setattr(patience, "MOST", 10**6)  # so that its own time ends it, on a busy machine too
    with elsewhere(f"echo {READY}; {does}") as evaluator:
        evaluator._wall_s = 0.1
        evaluation, closely = evaluator.evaluate(NO_PYTHON), evaluator.verify(NO_PYTHON)
    assert evaluation.status is closely.status is Status.TIMED_OUT
    assert "no verdict within 0.1 s: --wall" in evaluation.message
    assert "no verdict within 0.4 s: --wall" in closely.message


def test_names_that_are_none_are_refused_before_a_process_starts() -> None:
    with pytest.raises(UnknownTarget):
        ProcessEvaluator("v100", "quick")
    evaluator = ProcessEvaluator("h100", "slow", command="no-such-program")
    with pytest.raises(UnknownProblem):
        evaluator.evaluate(NO_PYTHON)
    with pytest.raises(UnknownProblem, match="case '9k': choose one of 8k-causal, 8k-full"):
        ProcessEvaluator("h100", "quick", command="no-such-program").profile(NO_PYTHON, "9k")


def test_a_judge_that_was_closed_is_not_started_again(elsewhere: Elsewhere, tmp_path: Path) -> None:
    evaluator = elsewhere(f"echo started >> {tmp_path / 'log'}; echo {READY}; cat")
    assert evaluator.target.name == "h100"
    evaluator.close()
    with pytest.raises(EvaluatorUnavailable, match="closed"):
        evaluator.evaluate(NO_PYTHON)
    assert (tmp_path / "log").read_text() == "started\n"


@pytest.mark.long
def test_the_judge_is_of_this_code_wherever_it_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "avo").mkdir()
    (tmp_path / "avo" / "__init__.py").write_text("raise SystemExit('another avo')")
    monkeypatch.chdir(tmp_path)
    with ProcessEvaluator("h100", "quick") as evaluator:
        assert evaluator.target.name == "h100"
