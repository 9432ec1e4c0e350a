"""``avo run``: start a run."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from avo.cli.common import DbOption, JsonOption, SandboxOption, fail, load_version, open_store, read_source

if TYPE_CHECKING:
    from lineage_db.store import Store


def run(
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE", help="TOML file with settings; options win over it.")
    ] = None,
    problem: Annotated[str | None, typer.Option(metavar="NAME", help="What the kernel computes. Default: mha.")] = None,
    target: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Architecture to predict speed for: a100, h100, h200 or b200. Default: h100."
        ),
    ] = None,
    suite: Annotated[
        str | None, typer.Option(metavar="NAME", help="Benchmark cases: quick or paper. Default: quick.")
    ] = None,
    operator: Annotated[
        str | None, typer.Option(metavar="NAME", help="What varies the kernels. Default: mutate.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(metavar="N", help="Candidates judged side by side. Default: one per CPU, at most 8.")
    ] = None,
    max_attempts: Annotated[
        int | None,
        typer.Option(metavar="N", help="Stop once so many attempts are made, the seed included. Default: no limit."),
    ] = None,
    max_hours: Annotated[
        float | None,
        typer.Option(metavar="HOURS", help="Stop after this time, e.g. 0.05 for three minutes. Default: no limit."),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(metavar="N", help="Seed of the random choices: with one worker it repeats a run. Default: 0."),
    ] = None,
    db: DbOption = None,
    name: Annotated[
        str | None, typer.Option(metavar="RUN", help="Name of the run. Default: PROBLEM-TARGET, numbered if taken.")
    ] = None,
    start_from: Annotated[
        str | None, typer.Option("--from", metavar="RUN[@VERSION]", help="Start from a version of another run.")
    ] = None,
    seed_file: Annotated[Path | None, typer.Option(metavar="FILE", help="Start from this kernel.")] = None,
    sandbox: SandboxOption = None,
    as_json: JsonOption = False,
) -> None:
    """Evolve a kernel. Without --max-attempts and --max-hours it goes on until Ctrl-C.

    Ctrl-C once: workers finish what they hold, for 30 s at most. Twice: at once. Either way: avo resume RUN.

    A --config file has lines like: target = "b200", max_attempts = 100, min_gain = 0.01, evaluation_wall_s = 300.

    Exit code 0: the budget is used up or nothing is left to try. 1: the seed does not pass, or workers keep failing.
    2: the call is wrong. 130: stopped by Ctrl-C or SIGTERM.

    Example: avo run --target b200 --max-attempts 50
    """
    if start_from is not None and seed_file is not None:
        fail("--from and --seed-file both name a seed: give one of them")

    from avo.cli.sitting import START, sit
    from avo.config import RunConfig
    from avo.run import utc_now
    from evaluator.sandbox import Sandbox

    settings = RunConfig.resolve(
        config,
        {
            "problem": problem,
            "target": target,
            "suite": suite,
            "operator": operator,
            "workers": workers,
            "max_attempts": max_attempts,
            "max_hours": max_hours,
            "seed": seed,
            "name": name,
            "sandbox": sandbox,
        },
    )
    Sandbox(settings.sandbox).check()
    with open_store(db, create=True) as store:
        origin, source = _seed(store, settings.problem, start_from, seed_file)
        chosen = settings.name
        if chosen is None:
            chosen = store.free_run_name(f"{settings.problem}-{settings.target}")
        settings = settings.model_copy(update={"name": chosen})
        created = store.create_run(
            name=chosen,
            problem=settings.problem,
            target=settings.target,
            suite=settings.suite,
            operator=settings.operator,
            seed=settings.seed,
            config={**settings.model_dump(), START: {"origin": origin, "source": source}},
            now=utc_now(),
        )
        sit(store, created, settings, as_json=as_json)


def _seed(store: "Store", problem: str, start_from: str | None, seed_file: Path | None) -> tuple[str, str]:
    """Return where the seed comes from and its source."""
    if start_from is not None:
        other, version = load_version(store, start_from)
        return f"{other.name}@{version.number}", version.attempt.source
    if seed_file is not None:
        return str(seed_file), read_source(seed_file)

    from seeds import seed_source

    try:
        return "seeds", seed_source(problem)
    except KeyError:
        fail(f"there is no seed for problem {problem!r}: give one with --seed-file or --from")
