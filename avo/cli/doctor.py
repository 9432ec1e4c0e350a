"""``avo doctor``: what this machine has, and what to do about what is missing."""

from contextlib import AbstractContextManager
from dataclasses import asdict

import typer

from avo.cli.common import DbOption, JsonOption, console, err, print_json
from avo.cli.database import database_url
from avo.doctor import Check, Health, examine
from avo.watch.tables import row, table

_STYLES = {Health.OK: "", Health.ABSENT: "yellow", Health.BROKEN: "bold red"}
_RAY_S = 60.0
"""Longest wait for each of Ray's processes: somebody looks on, and a run itself waits longer."""


def doctor(db: DbOption = None, as_json: JsonOption = False) -> None:
    """Examine this machine and say what is missing.

    Exit code 0 when a run without a GPU works here, 1 when something that it needs is broken.

    Example: avo doctor
    """

    def ray() -> AbstractContextManager[object]:
        from avo.config import LOCAL
        from avo.search.cluster import ray_running  # not before Ray was looked for

        return ray_running(LOCAL, cpus=1, gpus=0, resources={}, tries=1, start_s=_RAY_S)

    checks: list[Check] = []
    with err.status("examining ...") as status:
        for check in examine(database_url(db), ray):
            checks.append(check)
            status.update(f"examined {check.name} ...")
    if as_json:
        print_json([asdict(check) for check in checks])
    else:
        made = table("", "PART", "FOUND", "WHAT TO DO")
        for check in checks:
            row(made, check.health, check.name, check.found, check.advice, style=_STYLES[check.health])
        console.print(made)
    broken = [check.name for check in checks if check.health is Health.BROKEN]
    if broken:
        err.print(f"avo: a run does not work here yet: {', '.join(broken)}")
        raise typer.Exit(1)
    err.print("A run works here: avo run")
