"""Pictures of the terminal UI: sample runs of fixed times, at fixed sizes."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from textual.pilot import Pilot

from avo.lineage_db.store import Store
from avo.tui.app import AvoApp
from tests.avo.sample_run import START, make_sample_run
from tests.avo.tui.agent_run import record
from tests.avo.tui.playing import page, until


def pressing(*steps: tuple[str, str]) -> Callable[[Pilot[None]], Awaitable[None]]:
    """Return what presses keys, given as one text, and waits until the screen shows what follows them; and so on."""

    async def play(pilot: Pilot[None]) -> None:
        for keys, then in (("", "★"), *steps):
            await pilot.press(*keys.split())
            await until(pilot, lambda then=then: then in page(pilot))  # type: ignore[misc]

    return play


@pytest.mark.long
def test_a_lineage_looks_as_it_did(store: Store, snap_compare: Any) -> None:
    app = AvoApp(store.url, make_sample_run(store.url), poll_s=0.05)
    assert snap_compare(app, terminal_size=(100, 30), run_before=pressing(("home", "a seed: no parent")))


@pytest.mark.long
def test_a_transcript_looks_as_it_did(store: Store, snap_compare: Any) -> None:
    app = AvoApp(store.url, record(store).run.name, poll_s=0.05, clock=lambda: START)
    steps = ("s", "0  done"), ("j j", "+ evaluate"), ("enter j j j j enter", "── ")
    assert snap_compare(app, terminal_size=(100, 30), run_before=pressing(*steps))


VIEWS: dict[str, tuple[str, ...]] = {
    "scores": ("k", "hypothesis: exp2"),
    "trajectory": ("t", "new best"),
    "attempts": ("a j", "attempt 3 of step 1"),
    "memory": ("m", "◆ nudge"),
    "workers": ("w", "worker-1"),
    "runs": ("r", "best TFLOPS"),
    "help": ("w", "worker-1", "question_mark", "Keys"),  # over a view that has no more to read
}
"""What is pressed and then waited for, in turns."""


@pytest.mark.long
@pytest.mark.parametrize("view", VIEWS)
def test_a_view_looks_as_it_did(store: Store, snap_compare: Any, view: str) -> None:
    run = record(store)
    app = AvoApp(store.url, run.run.name, poll_s=0.05, clock=lambda: run.now)
    steps = zip(VIEWS[view][::2], VIEWS[view][1::2], strict=True)
    assert snap_compare(app, terminal_size=(100, 30), run_before=pressing(*steps))
