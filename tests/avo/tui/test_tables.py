"""What is shown of one version."""

from dataclasses import replace

from rich.console import Console

from avo.lineage_db.store import Store
from avo.tui.tables import scores
from tests.avo.recorded import Recorded


def test_what_was_not_checked_of_what_the_compiler_made_is_shown(store: Store) -> None:
    made = Recorded(store)
    made.step(100.0)
    version = store.version(made.run.id, 0)
    unchecked = "Not all that the compiler made was checked: no time was left (3 of 20 cases)"
    attempt = replace(version.attempt, evaluation=replace(version.attempt.evaluation, compiled=unchecked))
    console = Console(width=120)
    with console.capture() as shown:
        console.print(scores(replace(version, attempt=attempt), {0: version}, (), made.run))
    assert unchecked in shown.get()
