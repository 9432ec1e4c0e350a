"""``avo mcp``: serve the tools of a run's steps to another agent."""

import os
import signal
from types import FrameType
from typing import Annotated, Any

import typer

from avo.cli.common import DbOption, RunArgument, err, fail, open_store
from avo.cli.options import takes_settings


@takes_settings
def mcp(
    run: RunArgument,
    max_attempts: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Evaluate nothing new once the run has this many attempts. Default: no limit.",
        ),
    ] = None,
    db: DbOption = None,
    **settings: Any,
) -> None:
    """Let another agent be the variation operator: serve a run's tools over MCP, on standard input and output.

    An agent such as Claude Code or Codex starts this command by itself, see docs/mcp.md. Its first tool call begins a
    step of the run, submit ends it, and the next call begins another. Attempts are judged, accepted and recorded like
    those of avo run. avo run and several such sessions may work on one run at the same time.

    The state of the run stays as it is: a finished or stopped run can be served too. The limits of the run
    apply to avo run only; here --max-attempts, --step-evaluations and --step-looks apply.

    Example: claude mcp add avo -- avo mcp mha-h100 --db /path/to/.avo/lineage.db
    """
    from importlib.util import find_spec

    if find_spec("mcp") is None:
        fail("avo mcp needs the mcp package: pip install 'avo-kernels[mcp]'")

    from avo.agents.mcp_server import serve
    from avo.config import RunConfig
    from avo.knowledge_base.library import Library
    from avo.search.agent_session import SESSIONS, AgentSession
    from avo.search.budget import Allowance
    from avo.search.judging import Judging, check_machine
    from avo.search.run import utc_now
    from avo.search.step import Work

    with open_store(db) as store:
        found = store.run(run)
        config = RunConfig.stored(found, settings)
        check_machine(config)
        allowance = Allowance(
            step_evaluations=config.step_evaluations, step_looks=config.step_looks, max_attempts=max_attempts
        )
        worker = f"{SESSIONS}{os.getpid()}"
        with Judging.of(config).start_alone() as judge:
            session = AgentSession(Work(store, found, config, judge, Library.load(), utc_now, allowance), worker)

            def leave(number: int, frame: FrameType | None) -> None:
                """End at once: a thread that reads standard input cannot be stopped otherwise."""
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
