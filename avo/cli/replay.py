"""``avo replay``: replay a recorded run without a model."""

from typing import TYPE_CHECKING, Annotated

import typer

from avo.cli.common import DbOption, RunArgument, console, fail, open_store

if TYPE_CHECKING:
    from lineage_db.store import Store


def replay(
    run: RunArgument,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name of the new run. Default: RUN-replay, numbered if taken.")
    ] = None,
    recorded: Annotated[
        bool, typer.Option("--recorded", help="Take verdicts from the record too instead of judging again.")
    ] = False,
    out_db: Annotated[
        str | None, typer.Option(metavar="URL", help="Database of the new run. Default: that of RUN.")
    ] = None,
    db: DbOption = None,
) -> None:
    """Replay a recorded run as a new run, without a model, and compare the lineages.

    Steps of agent, single_turn and mcp get the recorded replies, steps of mutate the same random seeds. They are
    performed one at a time, in the order in which they ended.

    Exit code 0: the same lineage. 1: another one; the first difference is printed. 2: the call is wrong.

    Example: avo replay mha-h100 --recorded
    """
    from contextlib import nullcontext

    with open_store(db) as source, nullcontext(source) if out_db is None else open_store(out_db, create=True) as store:
        different = _replay(source, store, run, name, recorded)
    if different:
        raise typer.Exit(1)


def _replay(source: "Store", store: "Store", run: str, name: str | None, recorded: bool) -> str:
    from contextlib import ExitStack

    from avo.config import RunConfig
    from avo.search.evaluators import run_evaluator
    from avo.search.replay import RecordedJudge, RecordedRun, replay
    from avo.search.run import utc_now
    from evaluator.targets import get_target
    from lineage_db.records import RunState

    record = RecordedRun.read(source, source.run(run))
    if not record.versions:
        fail(f"run {run!r} has no version: there is nothing to replay")
    config = RunConfig.stored(record.run, {})
    made = store.create_run(
        name=name or store.free_run_name(f"{run}-replay"),
        problem=record.run.problem,
        target=record.run.target,
        suite=record.run.suite,
        operator=record.run.operator,
        seed=record.run.seed,
        config=record.run.config,
        now=utc_now(),
    )
    with ExitStack() as stack:
        judge = (
            RecordedJudge(record, get_target(made.target)) if recorded else stack.enter_context(run_evaluator(config))
        )
        try:
            different = replay(source, record, store, made, config, judge, utc_now)
        finally:
            store.set_run_state(made.id, RunState.FINISHED, now=utc_now())
    count = len(record.versions)
    console.print(f"{made.name}: {different or f'the same lineage, {count} versions'}", soft_wrap=True)
    return different
