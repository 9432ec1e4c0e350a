"""``avo run``: start a run."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from avo.cli.common import (
    CascadeOption,
    DbOption,
    EvaluatorCommandOption,
    EvaluatorResourcesOption,
    EvaluatorsOption,
    JsonOption,
    LogOption,
    MaxStepsOption,
    MaxTokensOption,
    MaxUsdOption,
    MetricsOption,
    ModelOption,
    NotifyOption,
    RayAddressOption,
    SandboxOption,
    StepEvaluationsOption,
    StepMinutesOption,
    StepTokensOption,
    StepUsdOption,
    WorkersOption,
    err,
    fail,
    load_version,
    open_store,
    read_source,
)
from evaluator.target import ARCHITECTURES

if TYPE_CHECKING:
    from avo.config import RunConfig
    from lineage_db.store import Store


def run(
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE", help="TOML file with settings; options win over it.")
    ] = None,
    problem: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="What the kernel computes: mha, gqa, fsa or a PATH.py. Default: mha."),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help=f"Architecture to predict speed for: {ARCHITECTURES}; or cuda, to measure. Default: h100.",
        ),
    ] = None,
    suite: Annotated[
        str | None, typer.Option(metavar="NAME", help="Benchmark cases: quick or paper. Default: quick.")
    ] = None,
    operator: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="What varies the kernels: mutate, agent or single_turn. Default: mutate."),
    ] = None,
    population: Annotated[
        str | None,
        typer.Option(
            metavar="lineage|islands|archive",
            help="How versions live together: one lineage, several, or the best of each kind. Default: lineage.",
        ),
    ] = None,
    workers: WorkersOption = None,
    evaluators: EvaluatorsOption = None,
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
        str | None,
        typer.Option(
            "--from", metavar="RUN[@VERSION]", help="Start from a version of another run, also of another problem."
        ),
    ] = None,
    seed_file: Annotated[Path | None, typer.Option(metavar="FILE", help="Start from this kernel.")] = None,
    seed_name: Annotated[
        str | None,
        typer.Option("--seed-kernel", metavar="NAME", help="Start from this one of the problem's seeds, e.g. tuned."),
    ] = None,
    model: ModelOption = None,
    max_steps: MaxStepsOption = None,
    max_tokens: MaxTokensOption = None,
    max_usd: MaxUsdOption = None,
    step_evaluations: StepEvaluationsOption = None,
    step_tokens: StepTokensOption = None,
    step_usd: StepUsdOption = None,
    step_minutes: StepMinutesOption = None,
    sandbox: SandboxOption = None,
    evaluator_command: EvaluatorCommandOption = None,
    cascade: CascadeOption = None,
    ray_address: RayAddressOption = None,
    evaluator_resources: EvaluatorResourcesOption = None,
    notify: NotifyOption = None,
    log: LogOption = None,
    metrics: MetricsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Evolve a kernel. Without --max-attempts and --max-hours it goes on until Ctrl-C.

    Ctrl-C once: workers finish what they hold, for 30 s at most. Twice: at once. Either way: avo resume RUN.

    A --config file has lines like: target = "b200", max_attempts = 100, min_gain = 0.01, evaluation_wall_s = 300; and
    where speed is measured: alpha = 0.05, equivalence_margin = 0.005, cascade = 0.25.

    Operators agent and single_turn ask a language model behind an OpenAI-compatible endpoint: OPENAI_API_KEY,
    OPENAI_BASE_URL and --model. Their prices and sampling are set under [[models]] in the file: see docs/agent.md.

    First the judge is tested with a wrong and a slow variant of the seed.

    --from a run of another problem: where both have the same entry function (mha, gqa), the version is the seed.
    Elsewhere (mha, fsa) the run starts from a seed of its own problem, and the operator is given the version and its
    history to adapt.

    Exit code 0: the budget is used up or nothing is left to try. 1: the seed does not pass, the judge does not pass its
    test, or workers keep failing. 2: the call is wrong. 130: stopped by Ctrl-C or SIGTERM.

    Example: avo run --target b200 --max-attempts 50
    Example: avo run --operator agent --model gpt-5 --max-steps 20 --max-tokens 5000000
    """
    if seed_file is not None and seed_name is not None:
        fail("--seed-file and --seed-kernel each name a seed: give one of them")

    from avo.cli.sitting import metrics_served, ready, sit
    from avo.config import RunConfig
    from avo.search.run import utc_now
    from evaluator.catalogue import get_problem

    settings = RunConfig.resolve(
        config,
        {
            "problem": problem,
            "target": target,
            "suite": suite,
            "operator": operator,
            "population": population,
            "workers": workers,
            "evaluators": evaluators,
            "max_attempts": max_attempts,
            "max_hours": max_hours,
            "seed": seed,
            "name": name,
            "model": model,
            "max_steps": max_steps,
            "max_tokens": max_tokens,
            "max_usd": max_usd,
            "step_evaluations": step_evaluations,
            "step_tokens": step_tokens,
            "step_usd": step_usd,
            "step_minutes": step_minutes,
            "sandbox": sandbox,
            "evaluator_command": evaluator_command,
            "cascade": cascade,
            "ray_address": ray_address,
            "evaluator_resources": evaluator_resources,
            "notify": notify,
        },
    )
    settings = ready(settings)
    with open_store(db, create=True) as store:
        start = _start(store, settings, start_from, seed_file, seed_name)
        chosen = settings.name
        if chosen is None:
            chosen = store.free_run_name(f"{get_problem(settings.problem).name}-{settings.target}")
        settings = settings.model_copy(update={"name": chosen})
        with metrics_served(store, chosen, metrics):
            created = store.create_run(
                name=chosen,
                problem=settings.problem,
                target=settings.target,
                suite=settings.suite,
                operator=settings.operator,
                seed=settings.seed,
                config={**settings.model_dump(), **start},
                now=utc_now(),
            )
            sit(store, created, settings, as_json=as_json, log=log)


def _start(
    store: "Store", settings: "RunConfig", start_from: str | None, seed_file: Path | None, seed_name: str | None
) -> dict[str, Any]:
    """Return what the run's record keeps of where it starts from."""
    from agents.registry import adapts, get_operator
    from avo.config import START
    from avo.search.transfer import TRANSFERRED, Use, record

    if start_from is None:
        return {START: _seed(settings.problem, seed_file, seed_name)}
    other, version = load_version(store, start_from)
    kept = record(other, version, settings.problem, adapts(get_operator(settings.operator)))
    taken = {} if kept is None else {TRANSFERRED: kept}
    if kept is not None and kept["use"] != Use.SEED:
        seed = _seed(settings.problem, seed_file, seed_name)
        if kept["use"] == Use.NOTHING:
            err.print(
                f"avo: operator {settings.operator!r} cannot adapt {other.name}@{version.number}, which has another "
                f"entry function: it edits {seed['origin']}"
            )
        return {START: seed, **taken}
    if seed_file is not None or seed_name is not None:
        fail("--from names the seed already: leave out --seed-file and --seed-kernel")
    return {START: {"origin": f"{other.name}@{version.number}", "source": version.attempt.source}, **taken}


def _seed(problem: str, seed_file: Path | None, seed_name: str | None) -> dict[str, str]:
    """Return where the problem's own seed comes from and its source."""
    if seed_file is not None:
        return {"origin": str(seed_file), "source": read_source(seed_file)}

    from seeds import SEEDS, seed_source

    seeds = SEEDS.get(problem)
    if seeds is None:
        fail(f"there is no seed for problem {problem!r}: give one with --seed-file")
    if seed_name is not None and seed_name not in seeds:
        fail(f"--seed-kernel: {seed_name!r} should be one of {', '.join(seeds)}")
    origin = f"seeds/{seeds[seed_name or next(iter(seeds))]}"
    return {"origin": origin, "source": seed_source(problem, seed_name)}
