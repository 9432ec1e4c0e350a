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
    RayAddressOption,
    RunArgument,
    SandboxOption,
    WorkersOption,
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
    sandbox: SandboxOption = None,
    evaluator_command: EvaluatorCommandOption = None,
    cascade: CascadeOption = None,
    ray_address: RayAddressOption = None,
    evaluator_resources: EvaluatorResourcesOption = None,
    db: DbOption = None,
    as_json: JsonOption = False,
) -> None:
    """Continue a run where it left off. Options replace its settings.

    Attempts are counted over the whole run, hours from now. Steps that were under way are done over.

    Exit code 0: the budget is used up or nothing is left to try. 1: the seed does not pass, the judge does not pass its
    test, or workers keep failing. 2: the call is wrong. 130: stopped by Ctrl-C or SIGTERM.

    Example: avo resume mha-h100 --max-attempts 200
    """
    from avo.cli.sitting import ready, sit
    from avo.config import RunConfig

    with open_store(db) as store:
        found = store.run(run)
        settings = RunConfig.stored(
            found.config,
            {
                "workers": workers,
                "evaluators": evaluators,
                "max_attempts": max_attempts,
                "max_hours": max_hours,
                "sandbox": sandbox,
                "evaluator_command": evaluator_command,
                "cascade": cascade,
                "ray_address": ray_address,
                "evaluator_resources": evaluator_resources,
            },
        )
        settings = ready(settings)
        attempts, _ = store.count_attempts(found.id)
        if settings.max_attempts is not None and attempts >= settings.max_attempts:
            fail(
                f"run {run!r} has made {attempts} of {settings.max_attempts} attempts: "
                "give a larger limit with --max-attempts"
            )
        sit(store, found, settings, as_json=as_json)
