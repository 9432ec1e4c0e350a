"""What a shell completes: runs, their versions and attempts, problems, targets, suites, operators. Never an error."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

import typer
from typer import _completion_shared

from avo.cli.database import database_url

if TYPE_CHECKING:
    from avo.lineage_db.store import Store

# While bash completes names of hosts, the @ of RUN@VERSION begins a word of its own there.
_completion_shared._completion_scripts["bash"] = "shopt -u hostcomplete\n" + _completion_shared.COMPLETION_SCRIPT_BASH

_MOST = 50
"""Most versions or attempts of a run that are offered: the newest."""

Complete = Callable[[typer.Context, str], list[str]]


def runs(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the names of runs, newest first."""
    return _read(ctx, incomplete, lambda store: (each.run.name for each in store.runs()))


def references(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the names of runs; behind the ``@`` of RUN@VERSION the versions of the run, behind the ``#`` of
    RUN#ATTEMPT its attempts; newest first.
    """
    run, at, _ = incomplete.partition("@")

    def newest(store: "Store") -> Iterable[str]:
        return (f"{run}@{each.number}" for each in reversed(store.versions(store.run(run).id)[-_MOST:]))

    return _read(ctx, incomplete, newest) if at else attempts(ctx, incomplete)


def attempts(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the names of runs; behind the ``#`` of RUN#ATTEMPT the attempts of the run, newest first."""
    run, sign, _ = incomplete.partition("#")

    def newest(store: "Store") -> Iterable[str]:
        last, _ = store.revision(store.run(run).id)
        return (f"{run}#{attempt}" for attempt in range(last, 0, -1))

    return _read(ctx, incomplete, newest)[:_MOST] if sign else runs(ctx, incomplete)


def problems(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the names of installed problems."""
    from avo.evaluator.catalogue import problem_names

    return _beginning(problem_names(), incomplete)


def targets(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the names of targets."""
    return _beginning(["cuda", *cards(ctx, "")], incomplete)


def cards(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the names of the targets for which speed is predicted."""
    from avo.evaluator.errors import BadCards
    from avo.evaluator.known import calibrated
    from avo.evaluator.target import TARGETS

    found = list(TARGETS)
    with suppress(BadCards):
        found += calibrated()
    return _beginning(found, incomplete)


def suites(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the suites of the problem that the command line names before, or of mha."""
    from avo.evaluator.catalogue import get_problem

    with suppress(Exception):
        return _beginning(get_problem(ctx.params.get("problem") or "mha").suites, incomplete)
    return []


def shown_suites(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the suites that the command may have: a search is not shown those that are held out."""
    from avo.evaluator.problem import HELD_OUT

    return [name for name in suites(ctx, incomplete) if name != HELD_OUT or ctx.info_name != "run"]


def operators(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the names of installed operators."""
    from avo.agents.registry import operator_names

    return _beginning(operator_names(), incomplete)


OF_SETTINGS: dict[str, Complete] = {
    "problem": problems,
    "target": targets,
    "suite": shown_suites,
    "operator": operators,
}
"""What completes the options that are made of the settings of a run."""


def _read(ctx: typer.Context, incomplete: str, names: Callable[["Store"], Iterable[str]]) -> list[str]:
    from avo.lineage_db.store import Store

    with suppress(Exception), Store.read(database_url(ctx.params.get("db"))) as store:
        return _beginning(names(store), incomplete)
    return []


def _beginning(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]
