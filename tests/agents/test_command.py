"""A program as the operator: what it is given, what becomes of its calls, and how it ends."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from avo.agents import command
from avo.agents.command import PROGRAM, Command
from avo.agents.errors import ProgramFailed
from avo.agents.operator import Proposal
from avo.agents.served import PendingCall, Unattended
from avo.agents.settings import Settings
from avo.agents.tools.arguments import READ_ONLY
from avo.evaluator.inspection import Look
from tests.agents.world import WHY, World
from tests.avo.fakes import SEED

CLIENT = Path(__file__).with_name("program_client.py")
LEAVES_A_CHILD = "setsid sleep 1000 & echo $!; exec sleep 1000"


def started(world: World, command: str, *names: str) -> Proposal:
    return Command(Settings(command=command, command_env=names)).vary(world.brief())


def ended(world: World) -> dict[str, Any]:
    """Return what the transcript says of the program."""
    (content,) = (content for kind, content in world.desk.entries if kind == PROGRAM)
    return content


def gone(pid: int) -> bool:
    """Return whether a process ends, now or soon."""
    for _ in range(60_000):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.01)
    return False


def test_a_client_of_the_protocol_works_in_its_folder_until_it_submits(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    found = started(world, f"{sys.executable} {CLIENT} {{mcp}} kernel.py 120.0", "PYTHONPATH")
    assert found.attempt is not None
    assert (found.attempt.source, found.attempt.parents) == ("tflops = 120.0", (0,))
    assert found.submission is not None
    assert (found.submission.seen, found.submission.hypothesis) == ("+20%", WHY["hypothesis"])
    said, *results = map(json.loads, ended(world)["stdout"].splitlines())
    assert "You work unattended" in said["instructions"]
    assert {name for name, only_read in said["only_read"].items() if only_read} == READ_ONLY
    assert said["hints"] == [[False, False]], "without a person, codex refuses what may destroy or reach outside"
    assert said["paths"] == ["write_source", "check", "evaluate", "profile", "run_python"]
    assert results[0][1].startswith("ok: compiles")
    assert results[1] == [True, "error: /etc/passwd is no file in your folder"]
    assert "attempt 2: correct, 120 " in results[2][1]
    assert results[3] == [False, "attempt 2 is submitted; the step ends"]
    assert (world.desk.inspections[0].look, world.desk.inspections[0].source) == (Look.CHECK, "tflops = 120.0")
    assert ended(world)["exit_code"] == 0
    (call,) = world.desk.calls
    assert (call["model"], call["usage"].tokens, call["usd"]) == ("some-model", 1010, 0.25)


def test_a_program_finds_its_task_and_the_working_source_in_a_folder_that_goes_with_it() -> None:
    world = World()
    world.accept("tflops = 110.0", (0,))
    with pytest.raises(ProgramFailed, match=r"exit code 0 before it submitted: /\S*/avo-step-"):
        started(world, "cat kernel.py; cat {task}; echo; cat {mcp}; echo; pwd; echo {folder}")
    said = ended(world)["stdout"]
    assert said.startswith("tflops = 110.0")
    assert all(part in said for part in ("# Task", "# Lineage", "# Where you work"))
    assert f'{{"mcpServers": {{"avo": {{"command": "{where(world)}/avo-tools", "args": []}}}}}}\n' in said
    assert not Path(where(world)).exists()


def where(world: World) -> str:
    """Return the folder that a program printed last."""
    *_, folder, again = ended(world)["stdout"].splitlines()
    assert folder == again
    return str(folder)


def test_a_program_gets_no_key_and_no_database_unless_the_user_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "AVO_DB", "RAY_ADDRESS", "ITS_OWN_KEY", "LC_ALL"):
        monkeypatch.setenv(name, f"value-of-{name}")
    world = World()
    with pytest.raises(ProgramFailed):
        started(world, "env", "ITS_OWN_KEY")
    said = ended(world)["stdout"]
    assert [name for name in ("ITS_OWN_KEY", "LC_ALL") if f"{name}=value-of-{name}\n" not in said] == []
    assert [name for name in ("OPENAI_API_KEY", "AVO_DB", "RAY_ADDRESS") if name in said] == []
    assert "AVO_TASK=/" in said


def test_a_program_that_fails_is_known_by_its_exit_code_and_last_line() -> None:
    world = World()
    with pytest.raises(ProgramFailed) as failed:
        started(world, "echo on the way; echo 'no login: run claude login' >&2; exit 3")
    why = "the program ended with exit code 3 before it submitted: no login: run claude login"
    assert str(failed.value) == why
    assert (ended(world)["stdout"], ended(world)["exit_code"]) == ("on the way\n", 3)
    assert ended(world)["used"] == "not known: it wrote no usage.json"
    assert world.desk.calls == []


def test_a_program_whose_time_is_up_is_ended_with_all_that_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, begun = World(), tmp_path / "begun"
    monkeypatch.setattr(command, "time", SimpleNamespace(monotonic=lambda: 3600.0 if begun.exists() else 0.0))
    brief = world.brief()
    world.limit(minutes=2)
    with pytest.raises(ProgramFailed, match="the program did not end within 2 minutes"):
        Command(Settings(command=LEAVES_A_CHILD.replace("; ", f"; touch {begun}; "))).vary(brief)
    assert gone(int(ended(world)["stdout"]))


def test_a_program_ends_with_the_worker_that_started_it_though_its_children_are_killed_first(tmp_path: Path) -> None:
    worker = (
        "import os, time; from pathlib import Path; from avo.agents.program import Program\n"
        f"program = Program({LEAVES_A_CHILD!r}, Path({str(tmp_path)!r}), os.environ)\n"
        "while not program.stdout.text.endswith('\\n'): time.sleep(0.01)\n"
        "print(program.stdout.text, end='', flush=True); time.sleep(1000)"
    )
    with subprocess.Popen([sys.executable, "-c", worker], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        os.kill(child, 0)
        for each in (*children(process.pid), process.pid):  # as Ray ends a worker
            os.kill(each, signal.SIGKILL)
    assert gone(child)


def children(of: int) -> list[int]:
    """Return the ids of the processes that a process has started."""
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(of)], capture_output=True, text=True, check=False)
    return [int(pid) for pid in found.stdout.split()]


def calls(*made: tuple[str, dict[str, Any]]) -> Callable[[], PendingCall | None]:
    pending = iter([PendingCall(name, json.dumps(arguments)) for name, arguments in made])
    return lambda: next(pending, None)


def test_the_best_attempt_of_a_program_that_leaves_is_submitted_with_the_reason() -> None:
    more = calls(
        ("write_source", {"source": "tflops = 120.0"}), ("evaluate", WHY),
        ("write_source", {"source": "tflops = 110.0"}), ("evaluate", WHY),
    )  # fmt: skip
    found = Unattended(more, ending=lambda: "the program ended").vary(World().brief())
    assert found.attempt is not None
    assert found.attempt.source == "tflops = 120.0"
    assert found.reason.startswith("the program ended; submitted is the best attempt: a number: correct, 120 ")


def test_files_stand_for_their_text_in_the_record(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("tflops = 120.0")
    (tmp_path / "outside.py").symlink_to(__file__)
    (tmp_path / "image").write_bytes(b"\xff")
    (tmp_path / "b.txt").write_text("never the working source")
    more = calls(
        ("evaluate", {"path": "a.py", **WHY}), ("check", {"path": "a.py", "source": "x"}), ("check", {"path": "b.py"}),
        ("check", {"path": "outside.py"}), ("check", {"path": "image"}), ("read_note", {"path": "a.py", "id": "exp2"}),
        ("evaluate", {"path": "b.txt"}), ("view_source", {}),
    )  # fmt: skip
    answers = []

    def asked() -> PendingCall | None:
        call = more()
        if call is not None:
            answers.append(call.answer)
        return call

    world = World()
    found = Unattended(asked, folder=tmp_path).vary(world.brief())
    assert found.attempt is not None
    first, *others = [answer.result()[-1] for answer in answers]
    assert first.startswith("attempt 2: correct")
    assert others[:3] == [
        "error: give path or source, not both",
        "error: b.py is no file in your folder",
        "error: outside.py is no file in your folder",
    ]
    assert others[3].startswith("error: image cannot be read: ")
    assert others[4] == "error: read_note takes no path"
    assert others[5].startswith("error: evaluate was not called: hypothesis: Field required")
    assert "tflops = 120.0" in others[6]
    assert "never the working source" not in others[6]
    recorded = [
        (call["function"]["name"], json.loads(call["function"]["arguments"]))
        for kind, content in world.desk.entries
        if kind == "message"
        for call in content["message"].get("tool_calls", ())
    ]
    assert recorded == [("write_source", {"source": "tflops = 120.0"}), ("evaluate", WHY), ("view_source", {})]
    assert SEED in world.desk.entries[1][1]["message"]["content"]
