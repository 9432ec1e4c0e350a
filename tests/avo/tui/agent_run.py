"""A run as an agent leaves it: transcripts, calls, notes, hypotheses and interventions, some of them hostile."""

import json
from typing import Any

from avo.evaluator.candidate import Candidate
from avo.evaluator.evaluation import Status
from avo.lineage_db.records import Attempt, Step, Submission
from avo.lineage_db.store import Store
from avo.seeds import seed_source
from tests.avo.recorded import Recorded
from tests.avo.sample_run import make_evaluation
from tests.decisions import accept

HOSTILE = "[red]not markup[/red] \x1b[2J\x07 \u202e " + "long " * 400


def record(store: Store, name: str = "agent") -> Recorded:
    """Record three versions, a failure, two interventions, and a step that is running."""
    run = Recorded(store, name)
    run.drive()
    run.step(300.0, source=seed_source("mha"))
    step = run.claim()
    run.wait(2)
    say(run, step, "message", role="system", content="You improve attention kernels.\n" * 3)
    say(run, step, "message", role="user", content="The best so far is version 0.")
    call(run, step)
    think = "The exponentials bind: fold the scale into them."
    say(run, step, "message", role="assistant", content=think, tool_calls=[tool("a", "evaluate", source="x\ny")])
    wrong = attempt(run, step, Status.INCORRECT, "exp -> exp2", "exp2 is one instruction")
    say(run, step, "message", role="tool", tool_call_id="a", content="incorrect: 12 of 77 rows are wrong")
    call(run, step, error="timed out", usd=None)
    say(run, step, "message", role="assistant", content=None, tool_calls=[tool("b", "evaluate", source=HOSTILE)])
    right = attempt(run, step, 360.0, "exp -> exp2, the scale folded in", "exp2 is one instruction")
    say(run, step, "message", role="tool", tool_call_id="b", content=HOSTILE)
    say(run, step, "summary", text="tried exp2", tokens={"kept": 3})
    store.journal.remember(step.id, f"exp2 needs the scale in log2 units {HOSTILE}", now=run.now)
    said = Submission(right.id, "exp -> exp2", "exp2 is one instruction", "+10% where exp binds", "+20%")
    store.results.conclude(
        step.id, attempt_id=right.id, parents=(0,), reason="submitted", now=run.now,
        decide=accept, submission=said,
    )  # fmt: skip
    intervene(run, 1, "nudge", "tiles were not tried", ("try BLOCK_M 128",))
    run.step(400.0, (1,), "BLOCK_M 64 -> 128", source=seed_source("mha") + "\nTILE = 128\n")
    intervene(run, 2, "restart", f"stagnation {HOSTILE}", ("go back to version 0", "try warp specialisation"), 0)
    running = run.claim("worker-1")
    store.claims.announce(running.id, wrong.digest[::-1], now=run.now)  # of another than is recorded
    say(run, running, "message", role="user", content="The best so far is version 2.")
    return run


def say(run: Recorded, step: Step, kind: str, **content: Any) -> None:
    """Write an entry of a transcript, a second later."""
    run.wait(1)
    run.store.journal.add_message(step.id, kind, {kind: content} if kind == "message" else content, now=run.now)


def tool(name: str, function: str, **arguments: str) -> dict[str, Any]:
    """Return a call of a tool, as a model writes it."""
    return {"id": name, "type": "function", "function": {"name": function, "arguments": json.dumps(arguments)}}


def call(run: Recorded, step: Step, *, error: str = "", usd: float | None = 0.0123) -> None:
    """Write down a call of a model."""
    run.store.journal.add_call(
        run.run.id, step.id, model="model-1", input_tokens=12_000, cached_tokens=9_000, output_tokens=345, usd=usd,
        seconds=4.2, error=error, now=run.now,
    )  # fmt: skip


def attempt(run: Recorded, step: Step, verdict: Status | float, change: str, hypothesis: str) -> Attempt:
    """Record an attempt with its hypothesis."""
    source = seed_source("mha").replace("tl.exp(", "tl.exp2(") + f"\nATTEMPT = {verdict!r}\n"
    return run.store.results.record_attempt(
        step_id=step.id, candidate=Candidate("mha", source), change=change, parents=(0,),
        evaluation=make_evaluation(verdict), started=run.now, finished=run.now, hypothesis=hypothesis,
    )  # fmt: skip


def intervene(
    run: Recorded, after: int, level: str, reason: str, directions: tuple[str, ...], restart: int | None = None
) -> None:
    """Write down what the supervisor said."""
    run.wait(1)
    run.store.journal.intervene(
        run.run.id, after_step=after, level=level, reason=reason, directions=directions, source="model-1",
        restart_from=restart, now=run.now, seen=99,
    )  # fmt: skip
