"""``avo resume``: continue a run that was stopped, killed or given a larger budget."""

from typing import Any

from avo.cli.common import (
    DbOption,
    JsonOption,
    LogOption,
    MetricsOption,
    OtlpOption,
    RunArgument,
    err,
    fail,
    open_store,
)
from avo.cli.options import takes_settings


@takes_settings
def resume(
    run: RunArgument,
    log: LogOption = None,
    metrics: MetricsOption = None,
    otlp: OtlpOption = None,
    db: DbOption = None,
    as_json: JsonOption = False,
    **settings: Any,
) -> None:
    """Continue a run where it left off, or end its pause. Options replace its settings.

    Attempts are counted over the whole run, hours from now. Steps that were interrupted are redone.

    Exit code 0: a limit is reached or nothing is left to try. 1: the seed fails, the judge fails its test, or workers
    keep failing, or a model makes no attempt. 2: the call is wrong. 130: stopped by Ctrl-C, SIGTERM, a closed terminal.

    Example: avo resume mha-h100 --max-attempts 200
    """
    from avo.cli.session import begin, cluster_joined, metrics_served, work_on
    from avo.config import RunConfig
    from avo.limits import Ledger, reached
    from avo.lineage_db.records import Request
    from avo.search.run import utc_now

    with open_store(db) as store:
        found = store.run(run)
        if found.paused and found.driven_at(utc_now()):
            if any(value is not None for value in settings.values()):
                fail(
                    f"run {run!r} is paused: end the pause without options, "
                    f"or stop it with avo stop {run} to change its settings"
                )
            store.driving.ask(found.id, Request.NONE, now=utc_now())
            err.print(f"avo: run {run!r} continues where it is driven: {found.driver}")
            return
        config = RunConfig.stored(found, settings)
        if full := reached(vars(config), Ledger(store, found.id)):
            option = full.limit.setting.replace("_", "-")
            fail(f"run {run!r} {full}: give a larger limit with --{option}")
        beginning = begin(config, store.url)
        with metrics_served(store, run, metrics, otlp), cluster_joined(store, beginning.config):
            work_on(store, found, beginning, as_json=as_json, log=log)
