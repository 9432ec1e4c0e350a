"""What a step is doing, as displays read it."""

from datetime import timedelta
from socket import gethostname

from avo.evaluator.evaluators import Progress
from avo.lineage_db.records import Doing
from avo.lineage_db.store import Store
from avo.search.activity import Activity
from tests.avo.recorded import Recorded


def test_what_is_done_side_by_side_is_told_until_it_ends_and_nothing_of_a_step_that_has_ended(store: Store) -> None:
    run = Recorded(store)
    step, began = run.claim(), run.now
    activity = Activity(store, step, lambda: run.now)

    def told() -> tuple[Doing, ...] | None:
        (found,) = store.steps(run.run.id)
        return found.doing

    host = gethostname()
    assert told() is None
    with activity.during("judging a") as tell:
        run.wait(5)
        with activity.during("judging b"):
            tell(Progress(2, 9, "round 3"))
            assert told() == (
                Doing("judging a", began, 2, 9, "round 3", host),
                Doing("judging b", began + timedelta(seconds=5), host=host),
            )
        assert told() == (Doing("judging a", began, 2, 9, "round 3", host),)
    assert told() == ()
    with activity.during("judging c"):
        run.abandon(step)
        tell(Progress(3, 9))
    assert told() == (Doing("judging c", run.now, host=host),)
