"""The operator ``command``: a user's program, such as a headless coding agent, is started for each step."""

import contextlib
import json
import os
import re
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import msgspec

from avo.agents import mcp_relay
from avo.agents.errors import NoProgram, ProgramFailed
from avo.agents.folder import with_paths
from avo.agents.model import Usage
from avo.agents.operator import COMMAND_OPERATOR, Brief, Proposal
from avo.agents.program import Program, environment
from avo.agents.prompts import render
from avo.agents.served import PendingCall, Unattended
from avo.agents.settings import Settings
from avo.agents.tools.arguments import tool_specs
from avo.evaluator.catalogue import get_suite
from avo.evaluator.problem import HELD_OUT
from avo.evaluator.temporary import TemporaryFolder

PROGRAM = "program"
"""Kind of the transcript entry that says how the program ended, and keeps the end of what it wrote."""
MOST_MINUTES = 60.0
"""How long a step may take where no limit is set: a program that hangs would hold its worker forever."""
PARTING_S = 20.0
"""How long a program may run on after its submission, to write what it used."""
_POLL_S = 0.2
_TASK, _MCP, _SERVER, _SOCKET = "task.md", "mcp.json", "avo-tools", "avo.sock"
_SOURCE, _USAGE = "kernel.py", "usage.json"
_OVER = "error: the step is over"
_PLACES = ("task", "mcp", "server", "folder")
"""What stands in braces in a command and is replaced by a path."""
_PLACEHOLDER = re.compile(r"(?<![$%@])\{(\w+)\}")


def check(settings: Settings, variables: Mapping[str, str]) -> None:
    """Raise ``NoProgram`` where the program cannot be started with what the user has set.

    ``variables`` are those of the environment.
    """
    if find_spec("mcp") is None:
        raise NoProgram("operator 'command' needs the mcp package: pip install 'avo-kernels[mcp]'")
    if not settings.command.strip():
        raise NoProgram("operator 'command' needs --command: avo run --help has an example, docs/mcp.md has more")
    if unknown := [name for name in _PLACEHOLDER.findall(settings.command) if name not in _PLACES]:
        known = ", ".join(f"{{{name}}}" for name in _PLACES)
        raise NoProgram(
            f"--command: {{{unknown[0]}}} stands for nothing; known: {known}. For other words in braces: {{ "
            f"{unknown[0]} }}, or a script"
        )
    if missing := [name for name in settings.command_env if name not in variables]:
        raise NoProgram(f"--command-env: {missing[0]} is not set: export it, or leave the option out")


class Used(msgspec.Struct, forbid_unknown_fields=True):
    """What a program says that it used, in the file ``usage.json`` of its folder."""

    model: str = PROGRAM
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    usd: float | None = None


class Command:
    """Starts the command in a folder of its own, serves the step's tools to it, and ends it after its submission."""

    name = COMMAND_OPERATOR

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def vary(self, brief: Brief) -> Proposal:
        """Work until the program submits, ends or is out of time. Then its best correct attempt is submitted.

        Raises ``ProgramFailed`` where there is no such attempt because it failed, or called no tool at all.
        """
        with TemporaryFolder("step") as folder:
            return _Step(brief, self._settings, Path(folder)).work()


class _Step:
    """One call of ``vary``, and the session that the program's MCP client has."""

    def __init__(self, brief: Brief, settings: Settings, folder: Path) -> None:
        self._brief, self._settings, self._folder = brief, settings, folder
        self._calls: SimpleQueue[PendingCall] = SimpleQueue()
        self._stack = ExitStack()
        self._program: Program | None = None
        self._started = time.monotonic()
        left = brief.desk.left().minutes
        self._minutes = MOST_MINUTES if left is None else left
        self._told: tuple[str, ...] = ()
        self._over = False
        self._trouble = ""
        """Why no more calls came; empty where there was a submission."""
        self._failed = True
        """Whether the program made no call yet, or ended with an error before it submitted."""

    def work(self) -> Proposal:
        """Perform the step, as ``Command.vary`` says."""
        served = Unattended(self._next, self._start, self._ending, self._folder)
        with self._stack:
            proposal = served.vary(self._brief)
            self._over = True
            served.answer(served.said)
            self._refuse_calls()
            if self._program is not None and not self._trouble:
                self._program.wait(PARTING_S)
        self._record()
        if proposal.attempt is None and self._failed:
            raise ProgramFailed(self._trouble)
        return proposal

    # What the MCP server asks for.

    @property
    def tools(self) -> Sequence[dict[str, Any]]:
        """The tools of the step."""
        problem = self._brief.problem
        suites = tuple(name for name in problem.suites if name != HELD_OUT)
        return with_paths(tool_specs(suites, tuple(case.name for case in get_suite(problem, self._brief.suite))))

    @property
    def instructions(self) -> str:
        """What the program is told about the tools."""
        return render("unattended", source=_SOURCE, task=_TASK, minutes=self._minutes)

    def task(self) -> str:
        """Return what is in the file with the task."""
        return "\n\n".join(self._told)

    def call(self, name: str, arguments: str) -> "Future[tuple[str, ...]]":
        """Queue a call of a tool."""
        call = PendingCall(name, arguments)
        self._calls.put(call)
        if self._over:
            self._refuse_calls()
        return call.answer

    # What the step asks for.

    def _start(self, texts: Sequence[str], source: str) -> None:
        from avo.agents.mcp_server import listening  # the mcp package takes a second to import

        self._told = (*texts, self.instructions)
        files = {
            _TASK: self.task(),
            _SOURCE: source,
            _SERVER: f"#!/bin/sh\nexec {_words(sys.executable, '-I', mcp_relay.__file__, self._folder / _SOCKET)}\n",
            _MCP: json.dumps({"mcpServers": {"avo": {"command": str(self._folder / _SERVER), "args": []}}}),
        }
        for name, text in files.items():
            (self._folder / name).write_text(text, encoding="utf-8")
        (self._folder / _SERVER).chmod(0o700)
        self._stack.enter_context(listening(self, self._folder / _SOCKET))
        paths = (self._folder / _TASK, self._folder / _MCP, self._folder / _SERVER, self._folder)
        places = dict(zip(_PLACES, paths, strict=True))
        command = _PLACEHOLDER.sub(lambda found: shlex.quote(str(places[found[1]])), self._settings.command)
        told = {f"AVO_{name.upper()}": str(place) for name, place in places.items()}
        given = environment(os.environ, self._settings.command_env)
        self._program = Program(command, self._folder, {**given, **told})
        self._stack.callback(self._program.end)

    def _next(self) -> PendingCall | None:
        """Return the next call; None when the program has ended or its time is up."""
        assert self._program is not None
        while True:
            running = self._program.running  # before the look: what it asked for before it ended counts
            try:
                call = self._calls.get(timeout=_POLL_S)
                if call.answer.set_running_or_notify_cancel():
                    self._failed = False
                    return call
            except Empty:
                if not running or time.monotonic() > self._started + 60 * self._minutes:
                    return None

    def _ending(self) -> str:
        program = self._program
        assert program is not None
        if program.running:
            self._trouble = f"the program did not end within {self._minutes:.0f} minutes"
        else:
            program.end()  # what it wrote last is read
            how = f"the program ended with exit code {program.code} before it submitted"
            self._trouble = f"{how}: {program.last_line}"
            self._failed = self._failed or program.code != 0
        return self._trouble

    def _refuse_calls(self) -> None:
        with contextlib.suppress(Empty):
            while True:
                call = self._calls.get_nowait()
                if call.answer.set_running_or_notify_cancel():
                    call.answer.set_result((_OVER,))

    def _record(self) -> None:
        """Keep how the program ended, and what it used if it says so."""
        program, desk, seconds = self._program, self._brief.desk, time.monotonic() - self._started
        if program is None:
            return
        used = self._used()
        if used is not None:
            usage = Usage(used.input_tokens, used.cached_tokens, used.output_tokens)
            desk.charge(model=used.model, usage=usage, usd=used.usd, seconds=seconds, error="")
        content = {
            "command": self._settings.command,
            "exit_code": program.code,
            "seconds": round(seconds, 1),
            "used": "not known: it wrote no usage.json" if used is None else msgspec.to_builtins(used),
            "stdout": program.stdout.text,
            "stderr": program.stderr.text,
        }
        desk.record(PROGRAM, content)

    def _used(self) -> Used | None:
        try:
            return msgspec.json.decode((self._folder / _USAGE).read_bytes(), type=Used)
        except (OSError, ValueError):
            return None


def _words(*words: object) -> str:
    return shlex.join(map(str, words))
