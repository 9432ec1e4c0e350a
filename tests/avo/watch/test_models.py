"""What several models gained and cost, and which is asked next, on the displays of a run."""

from collections.abc import Callable

import pytest

from avo.lineage_db.store import Store
from avo.watch.view import read_view, to_json
from tests.avo.recorded import Recorded
from tests.avo.watch.test_refusals import html, live, status_of


@pytest.fixture
def run(store: Store) -> Recorded:
    made = Recorded(store, models=[{"name": "big", "weight": 1.0}, {"name": "small", "weight": 1.0}])
    made.drive()
    made.step(100.0, change="seed")
    step = made.claim()
    store.journal.add_call(
        made.run.id, step.id, model="big", input_tokens=9_000, cached_tokens=0, output_tokens=1_000, usd=2.5,
        seconds=1.0, error="", now=made.now,
    )  # fmt: skip
    made.conclude(step, made.evaluate(step, 105.0, (0,), "wider tiles"), accept=True)
    return made


@pytest.mark.parametrize("show", [live, status_of])
def test_a_display_says_what_each_model_gained_and_which_is_asked_next(
    run: Recorded, show: Callable[[Recorded], str]
) -> None:
    text = show(run)
    assert "big: 1 step, +5.0% for $2.50; asked in " in text
    assert "small: no step yet; asked in " in text


def test_the_report_and_json_have_the_shares(run: Recorded) -> None:
    assert "Of the next steps" in html(run)
    first, second = to_json(read_view(run.store, "live", run.now), run.now)["models"]
    assert (first["model"], first["steps"], first["usd"], second["steps"]) == ("big", 1, 2.5, 0)
    assert first["share"] + second["share"] == pytest.approx(1.0)


def test_a_run_with_one_model_has_no_shares(store: Store) -> None:
    made = Recorded(store, models=[{"name": "big"}])
    assert read_view(store, "live", made.now).models == ()
