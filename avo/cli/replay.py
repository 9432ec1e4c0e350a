"""``avo replay``: replay a recorded run without a model."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from avo.cli.common import DbOption, RunArgument, console, fail, open_store, read_store

if TYPE_CHECKING:
    from avo.lineage_db.store import Store
    from avo.search.recorded import RecordedRun


def replay(
    run: RunArgument,
    recorded: Annotated[
        bool, typer.Option("--recorded", help="Take verdicts from the record too instead of judging again.")
    ] = False,
    attempts: Annotated[
        bool, typer.Option("--attempts", help="Make the recorded attempts again instead of asking the operators.")
    ] = False,
    into: Annotated[
        str | None, typer.Option(metavar="DB", help="Keep the replay as a run in this database. Default: nowhere.")
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Name of the run that --into keeps. Default: RUN-replay, numbered if taken."),
    ] = None,
    db: DbOption = None,
) -> None:
    """Replay a recorded run without a model, and compare the lineages.

    Each step is shown what it was shown then, in runs of several workers too, and steps are performed one at a time, in
    the order in which they added to the lineage. Steps of agent, single_turn, mcp and command get the recorded replies,
    steps of mutate the same random seeds. Steps of an operator of another package repeat the recorded attempts; with
    --attempts all do, as is needed where mutate has changed since. What they submit is judged and accepted anew.

    Exit code 0: the same lineage. 1: another one; the first difference is printed. 2: the call is wrong.

    Example: avo replay mha-h100 --recorded
    """
    from avo.evaluator.temporary import TemporaryFolder
    from avo.search.recorded import RecordedRun

    if name is not None and into is None:
        fail("--name names the run that is kept: give --into DB as well")
    with read_store(db) as source:
        record = RecordedRun.read(source, source.run(run))
    with (
        TemporaryFolder("replay") as folder,
        open_store(into or str(Path(folder) / "replay.db"), create=True) as store,
    ):
        different = _replay(store, record, name, recorded, attempts=attempts, kept=into is not None)
    if different:
        raise typer.Exit(1)


def _replay(
    store: "Store", record: "RecordedRun", name: str | None, recorded: bool, *, attempts: bool, kept: bool
) -> str:
    from avo.config import TRANSFERRED, RunConfig
    from avo.evaluator.targets import get_target
    from avo.lineage_db.records import RunState
    from avo.search.judging import Judging
    from avo.search.recorded import RecordedJudge
    from avo.search.replay import replay
    from avo.search.run import utc_now
    from avo.watch.wording import counted

    run = record.run
    config = RunConfig.stored(run, {})
    made = store.create_run(
        name=name or store.free_run_name(f"{run.name}-replay"),
        problem=run.problem,
        target=run.target,
        suite=run.suite,
        operator=run.operator,
        seed=run.seed,
        config={key: value for key, value in run.config.items() if key != TRANSFERRED},
        now=utc_now(),
    )
    state = RunState.STOPPED
    try:
        with RecordedJudge(record, get_target(run.target)) if recorded else Judging.of(config).start_alone() as judge:
            different = replay(record, store, made, config, judge, utc_now, attempts=attempts)
        state = RunState.STOPPED if different else RunState.FINISHED
    finally:
        store.set_run_state(made.id, state, now=utc_now())
    where = f", kept as {made.name}" if kept else ""
    versions = counted(len(record.versions), "version")
    console.print(f"{run.name}: {different or f'the same lineage, {versions}'}{where}", soft_wrap=True)
    return different
