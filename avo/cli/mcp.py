"""``avo mcp``: serve the tools of a run's steps to another agent."""

import os
import signal
from types import FrameType
from typing import Annotated

import typer

from avo.cli.common import (
    DbOption,
    EvaluatorCommandOption,
    RunArgument,
    SandboxOption,
    StepEvaluationsOption,
    err,
    fail,
    open_store,
)


def mcp(
    run: RunArgument,
    max_attempts: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Evaluate nothing new once the run has so many attempts. Default: no limit.",
            show_default=False,
        ),
    ] = None,
    step_evaluations: StepEvaluationsOption = None,
    sandbox: SandboxOption = None,
    evaluator_command: EvaluatorCommandOption = None,
    db: DbOption = None,
) -> None:  # fmt: skip
    """Let another agent be the variation operator: serve a run's tools over MCP, on standard input and output.

    An agent such as Claude Code or Codex starts this command by itself, see docs/mcp.md. Its first call of a tool
    begins a step of the run, submit ends it, and the next call begins another. Attempts are judged, accepted and
    recorded like those of avo run, which may work on the run at the same time, also under other sessions like this one.

    The state of the run stays as it is: one that is finished or stopped can be served too. The limits of the run on
    attempts, steps, tokens and hours are those of avo run; here --max-attempts and --step-evaluations hold.

    Example: claude mcp add avo -- avo mcp mha-h100 --db /path/to/.avo/lineage.db
    """
    from importlib.util import find_spec

    if find_spec("mcp") is None:
        fail("avo mcp needs the mcp package: pip install 'avo-kernels[mcp]'")

    from avo.config import RunConfig
    from avo.search.budget import Allowance
    from avo.search.evaluators import judge_process
    from avo.search.mcp_server import serve
    from avo.search.run import utc_now
    from avo.search.session import SESSIONS, Session
    from evaluator.isolation import Sandbox

    with open_store(db) as store:
        found = store.run(run)
        config = RunConfig.stored(
            found.config,
            {"sandbox": sandbox, "evaluator_command": evaluator_command, "step_evaluations": step_evaluations},
        )
        if config.evaluator_command is None:
            Sandbox(config.sandbox).check()
        allowance = Allowance(step_evaluations=config.step_evaluations, max_attempts=max_attempts)
        worker = f"{SESSIONS}{os.getpid()}"
        with judge_process(config) as judge:
            session = Session(store, found, config, judge, worker=worker, allowance=allowance, clock=utc_now)

            def leave(number: int, frame: FrameType | None) -> None:
                """End at once: who reads standard input cannot be stopped otherwise."""
                for each in (signal.SIGINT, signal.SIGTERM):
                    signal.signal(each, signal.SIG_DFL)
                try:
                    session.close()
                finally:  # also where the database is away: the step's lease ends by itself
                    os._exit(128 + number)

            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, leave)
            err.print(f"avo: serving run {found.name}, which is {found.state_at(utc_now())}, as worker {worker}")
            try:
                serve(session)
            finally:
                session.close()
