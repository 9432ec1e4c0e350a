"""``avo resume``: continue a run that was stopped, killed or given a larger budget."""

from typing import Annotated

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
    RunArgument,
    SandboxOption,
    StepEvaluationsOption,
    StepMinutesOption,
    StepTokensOption,
    StepUsdOption,
    WorkersOption,
    err,
    fail,
    open_store,
)


def resume(
    run: RunArgument,
    workers: WorkersOption = None,
    evaluators: EvaluatorsOption = None,
    max_attempts: Annotated[
        int | None, typer.Option(metavar="N", help="New limit of attempts, those made so far included.")
    ] = None,
    max_hours: Annotated[float | None, typer.Option(metavar="HOURS", help="New limit of time, from now.")] = None,
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
    db: DbOption = None,
    as_json: JsonOption = False,
) -> None:
    """Continue a run where it left off, or end its pause. Options replace its settings.

    Attempts are counted over the whole run, hours from now. Steps that were under way are done over.

    Exit code 0: the budget is used up or nothing is left to try. 1: the seed does not pass, the judge does not pass its
    test, or workers keep failing. 2: the call is wrong. 130: stopped by Ctrl-C or SIGTERM.

    Example: avo resume mha-h100 --max-attempts 200
    """
    from avo.cli.sitting import metrics_served, ready, sit
    from avo.config import RunConfig
    from avo.search.budget import run_used_up
    from avo.search.run import utc_now
    from lineage_db.records import Request

    with open_store(db) as store:
        found = store.run(run)
        given = {
            "workers": workers,
            "evaluators": evaluators,
            "max_attempts": max_attempts,
            "max_hours": max_hours,
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
        }
        if found.paused and found.driven_at(utc_now()):
            if any(value is not None for value in given.values()):
                fail(f"run {run!r} is paused: end the pause without options, or avo stop {run} to change its settings")
            store.driving.ask(found.id, Request.NONE, now=utc_now())
            err.print(f"avo: run {run!r} goes on, where it is driven: {found.driver}")
            return
        settings = ready(RunConfig.stored(found.config, given))
        attempts, _ = store.count_attempts(found.id)
        if settings.max_attempts is not None and attempts >= settings.max_attempts:
            fail(
                f"run {run!r} has made {attempts} of {settings.max_attempts} attempts: "
                "give a larger limit with --max-attempts"
            )
        if spent := run_used_up(store, found, settings):
            fail(f"run {run!r}: {spent}: give a larger limit")
        with metrics_served(store, run, metrics):
            sit(store, found, settings, as_json=as_json, log=log)
