"""From ``avo run`` to a version that a card confirms, with the card's driver stubbed and times that follow a law."""

import json
import math
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from avo.evaluator.cuda import libraries
from avo.evaluator.cuda.shortlist import command, session
from avo.evaluator.measurement import FILE, SHORTLIST, UNMEASURED, Entrant, Measurement
from avo.evaluator.problems import PROBLEMS
from avo.evaluator.problems.mha import MHA
from avo.seeds import seed_source
from tests.evaluator.cuda.stub_card.shortlist import LAUNCH_US, LIBRARY_US, PROGRAM_US, SMS

AVO = (sys.executable, "-m", "avo")
WORKER = (sys.executable, "-m", "tests.evaluator.cuda.stub_card.shortlist")
HEADS, LENGTH = 2, 256


def by_the_law(rows: int) -> float:
    """Return what a kernel with a program for so many rows takes, in microseconds."""
    return LAUNCH_US + PROGRAM_US * math.ceil(HEADS * LENGTH / rows / SMS)


WAITS = """
_attention = attention

def attention(q, *others, **scalars):
    float(q.flatten()[0])  # not permitted while a graph is recorded
    _attention(q, *others, **scalars)
"""


@pytest.mark.long
def test_a_kernel_of_which_no_graph_is_made_is_timed_in_a_process_where_no_capture_has_failed(
    tmp_path: Path, libcuda: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_stub(monkeypatch, libcuda)
    monkeypatch.setattr(libraries, "LIBRARIES", ())
    source = seed_source("mha", "plain")
    texts = {"v0": source, "v1": source + WAITS}
    three = {"8k-full": (1.0, 2.0, 3.0)}
    entrants = tuple(
        Entrant(n, UNMEASURED, attempt=i, source=t, predicted=three) for i, (n, t) in enumerate(texts.items())
    )
    begun = Measurement("ab", "mine", "mha", "quick", "h100", "v0", {}, {}, "", 0.0, (), entrants, ())
    (tmp_path / SHORTLIST).write_text(json.dumps(asdict(begun)))
    (tmp_path / "kernels").mkdir()
    for name, text in texts.items():
        (tmp_path / "kernels" / f"{name}.py").write_text(text)
    assert command.main(["--minutes", "60"], tmp_path, WORKER) == 0, (tmp_path / "measure.log").read_text()
    found = Measurement.from_json((tmp_path / FILE).read_bytes())
    why = "CUDA error: operation not permitted when stream is capturing"
    assert [(each.status, each.message) for each in found.entrants] == [
        ("correct", ""),
        ("correct", f"without a graph: {why}"),
    ]
    assert found.ungraphed == f"v1: {why}"
    assert {sample.session for sample in found.samples} == {2, 3, 4, 5}
    assert found.speeds("v0")["8k-full"].runs == found.speeds("v1")["8k-full"].runs


def on_stub(monkeypatch: pytest.MonkeyPatch, libcuda: Path) -> None:
    """Give workers the stub card, and small shapes by the names of the suites' own; a session has three rounds."""
    suites = {
        name: tuple(replace(case, batch=1, heads=HEADS, kv_heads=2, q_len=LENGTH, kv_len=LENGTH) for case in suite)
        for name, suite in MHA.suites.items()
    }
    few = tuple(case for case in MHA.correctness_cases if case.q_len <= 256)[:4]
    monkeypatch.setitem(PROBLEMS, "mha", replace(MHA, suites=suites, correctness_cases=few))
    monkeypatch.setattr(libraries, "LIBRARIES", libraries.LIBRARIES[:1])
    monkeypatch.setattr(session, "STRETCH_S", 0.0)
    monkeypatch.setattr(session.Session, "_over", lambda self: any(each.round == 3 for each in self._book.samples[-1:]))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    for name in ("LD_LIBRARY_PATH", "TRITON_LIBCUDA_PATH"):
        monkeypatch.setenv(name, str(libcuda.parent))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[4]))


PROGRAM = """
import asyncio, json, sys
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client
from avo.seeds import seed_source

async def work(config):
    open("tuned.py", "w").write(seed_source("mha", "tuned"))
    server = StdioServerParameters(**json.load(open(config))["mcpServers"]["avo"])
    async with stdio_client(server) as streams, ClientSession(*streams) as session:
        await session.initialize()
        why = {"change": "another seed", "hypothesis": "tiles of 128 rows are faster", "expected": "+100%"}
        print(await session.call_tool("evaluate", {"path": "tuned.py", **why}))
        print(await session.call_tool("submit", {"attempt": 2, "change": "another seed", "seen": "faster"}))

asyncio.run(work(sys.argv[1]))
"""
"""An operator that knows a faster kernel, so that no search decides how long the test takes."""


@pytest.mark.corpus
def test_a_version_that_was_predicted_fastest_is_confirmed(
    tmp_path: Path, libcuda: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "240")
    monkeypatch.setenv("AVO_DB", str(tmp_path / "lineage.db"))
    on_stub(monkeypatch, libcuda)

    def avo(*words: str) -> str:
        done = subprocess.run([*AVO, *words], capture_output=True, text=True, timeout=3600, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    (tmp_path / "program.py").write_text(PROGRAM)
    operator = ("--operator", "command", "--command", f"{sys.executable} {tmp_path}/program.py {{mcp}}")
    operator = (*operator, "--command-env", "PYTHONPATH")
    avo("run", "--name", "mine", "--seed-kernel", "plain", "--max-steps", "1", "--workers", "1", *operator)
    avo("shortlist", "mine", "--count", "2", "--out", "list")
    folder = tmp_path / "list"
    assert command.main(["--minutes", "60"], folder, WORKER) == 0, (folder / "measure.log").read_text()
    found = Measurement.from_json((folder / "measured.json").read_bytes())
    assert {sample.session for sample in found.samples} == {1, 2, 3, 4}
    start, best, library = (each.name for each in found.entrants)
    times = {name: found.speeds(name)["8k-full"].median_us for name in (start, best, library)}
    assert times[start] == pytest.approx(by_the_law(64), rel=0.01)
    assert times[best] == pytest.approx(by_the_law(128), rel=0.01)
    assert times[library] == pytest.approx(LIBRARY_US, rel=0.01)
    assert "confirmed" in avo("ingest", "list/measured.json")
    (line,) = (line for line in avo("lineage", "mine").splitlines() if line.split()[1:2] == [best])
    assert "measured, confirmed" in line
    assert avo("show", "mine@measured").startswith(f"mine@{best[1:]}: ")
