"""The protocol itself: a real client on the standard streams of ``avo mcp``, whose judge is a fake."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client

from avo.agents.tools.arguments import READ_ONLY, TOOLS
from avo.config import START, RunConfig
from avo.lineage_db.records import StepState
from avo.lineage_db.store import Store
from avo.seeds import seed_source
from tests.agents.world import WHY
from tests.avo.fakes import NOW, SEED


@pytest.fixture
def db(tmp_path: Path) -> str:
    """A database with the run ``mine``, which nobody has seeded."""
    judging = f"{sys.executable} {Path(__file__).parents[1] / 'avo' / 'fake_judge.py'}"
    return run_in(tmp_path, RunConfig(evaluator_command=judging), SEED)


def run_in(folder: Path, config: RunConfig, seed: str) -> str:
    """Return the address of a database with the run ``mine``, which starts from a seed."""
    url = str(folder / "runs.db")
    with Store.open(url) as store:
        store.create_run(
            name="mine", problem="mha", target="h100", suite="quick", operator="mutate", seed=0,
            config={**config.model_dump(), START: [{"origin": "seed.py", "source": seed}]}, now=NOW,
        )  # fmt: skip
    return url


@asynccontextmanager
async def client(db: str, errors: Path) -> AsyncIterator[ClientSession]:
    """Connect to a server of its own."""
    command = ["-m", "avo", "mcp", "mine", "--db", db]
    server = StdioServerParameters(command=sys.executable, args=command, env={**os.environ})
    with errors.open("w") as stream:
        async with stdio_client(server, errlog=stream) as (read, write), ClientSession(read, write) as session:
            yield session


@pytest.mark.long
def test_ctrl_c_ends_it_though_its_input_stays_open(db: str) -> None:
    command = [sys.executable, "-m", "avo", "mcp", "mine", "--db", db]
    hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.write(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello}) + "\n")
        server.stdin.flush()
        assert json.loads(server.stdout.readline())["id"] == 1  # it reads its input
        server.send_signal(signal.SIGINT)
        assert server.wait(600) == 130


def texts(result: Any) -> list[str]:
    return [content.text for content in result.content]


@pytest.mark.long
async def test_a_kernel_in_gluon_is_checked_profiled_and_evaluated_by_the_judge(tmp_path: Path) -> None:
    hopper = seed_source("mha", "hopper")
    deeper = hopper.replace("STAGES=2", "STAGES=3").replace("block_m, block_n = 64, 128", "block_m, block_n = 64, 64")
    stuck = deeper.replace("expect(ready.index(stage), ", "expect(ready.index(stage), 2 * ")
    assert len({hopper, deeper, stuck}) == 3
    url = run_in(tmp_path, RunConfig(), seed_source("mha"))
    async with client(url, tmp_path / "errors") as session:
        await session.initialize()
        await session.call_tool("write_source", {"source": stuck})
        (refused,) = texts(await session.call_tool("check", {}))
        assert "deadlock" in refused
        assert "k_ready" in refused
        await session.call_tool("write_source", {"source": deeper})
        assert "is right on these cases" in texts(await session.call_tool("check", {}))[0]
        (profile,) = texts(await session.call_tool("profile", {}))
        assert "8k-causal" in profile
        assert "predicted TFLOPS" in profile
        (judged,) = texts(await session.call_tool("evaluate", WHY))
        assert "attempt 2: correct" in judged
    with Store.open(url) as store:
        assert store.attempt(store.run("mine").id, 2).source == deeper


@pytest.mark.long
async def test_an_agent_of_the_user_adds_a_version_and_a_step_that_it_leaves_is_continued(
    db: str, tmp_path: Path
) -> None:
    async with client(db, tmp_path / "errors") as session:
        hello = await session.initialize()
        assert "The first call begins a step" in (hello.instructions or "")
        listed = {tool.name: tool for tool in (await session.list_tools()).tools}
        assert list(listed) == list(TOOLS)
        assert listed["submit"].input_schema["required"] == ["attempt", "change", "seen"]
        only_read = {name: tool.annotations and tool.annotations.read_only_hint for name, tool in listed.items()}
        assert {name for name, hint in only_read.items() if hint} == READ_ONLY
        assert only_read["evaluate"] is False
        assert "path" not in listed["check"].input_schema["properties"]
        prompt = (await session.get_prompt("task")).messages[0].content
        assert prompt.text.startswith("You are the variation operator")  # type: ignore[union-attr]

        system, brief, said = texts(await session.call_tool("read_lineage", {}))
        assert system == prompt.text  # type: ignore[union-attr]
        assert SEED in brief
        assert "v0" in said
        refused = await session.call_tool("evaluate", {"change": "a number"})
        assert refused.is_error
        assert "hypothesis: Field required" in texts(refused)[0]
        assert 'send {"hypothesis": string' in texts(refused)[0]
        await session.call_tool("write_source", {"source": "tflops = 120.0"})
        (judged,) = texts(await session.call_tool("evaluate", WHY))
        assert "attempt 2: correct, 120 " in judged
        (over,) = texts(await session.call_tool("submit", {"attempt": 2, "change": "more", "seen": "+20%"}))
        assert "accepted as version 1" in over
        await session.call_tool("write_source", {"source": "tflops = 110.0"})

    with Store.open(db) as store:
        run = store.run("mine")
        version = store.version(run.id)
        assert (version.number, version.attempt.source, version.parents) == (1, "tflops = 120.0", (0,))
        assert version.attempt.hypothesis == f"{WHY['hypothesis']} (expected: +10%)"
        seed, first, second = store.steps(run.id)
        assert "canary" in seed.reason
        assert first.submission is not None
        assert (first.operator, first.submission.seen) == ("mcp", "+20%")
        assert (second.state, second.reason) == (StepState.ABANDONED, "the agent disconnected before it submitted")
        kept = store.journal.messages(first.id)
        called = [json.dumps(entry.content) for entry in kept if "tool_calls" in entry.content.get("message", ())]
        assert [name for text in called for name in TOOLS if f'"{name}"' in text] == [
            "read_lineage", "evaluate", "write_source", "evaluate", "submit",
        ]  # fmt: skip
