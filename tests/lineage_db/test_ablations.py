"""Ablations: the last one of each version is kept."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from avo.lineage_db.ablated import Ablation, Edit
from avo.lineage_db.errors import UnknownRun, UnknownVersion
from avo.lineage_db.store import Store

EDITS = (Edit("tile: 64 -> 128", 0.2, 0.01), Edit("stages: 1 -> 2", None, why="incorrect: row 1 is \ud800"))
MADE = Ablation(
    "mha-h100", 1, (0, 1), False, True, 120.0, EDITS, True, 0, ("stages: 1 -> 2",), "x = 1 # \0\n", 121.5, "avo 1"
)


def test_the_last_ablation_of_a_version_is_kept_as_it_was_made(store: Store, make: Any) -> None:
    run = make.run(store)
    for tflops, parents in ((100.0, ()), (120.0, (0,))):
        make.version(store, run, tflops, parents)
    before, changes = store.run(run.name), store.revision(run.id)[1]
    store.ablations.keep(run.id, replace(MADE, tflops=1.0), now=make.now)
    store.ablations.keep(run.id, MADE, now=make.now + timedelta(days=1))
    assert store.ablations.of(run.id, 1) == MADE
    assert store.ablations.of(run.id, 0) is None
    assert store.run(run.name) == before, "the run itself did nothing"
    assert store.revision(run.id)[1] == changes + 2, "displays notice"


def test_only_a_version_has_an_ablation(store: Store, make: Any) -> None:
    run = make.run(store)
    with pytest.raises(UnknownVersion):
        store.ablations.keep(run.id, MADE, now=make.now)
    with pytest.raises(UnknownRun):
        store.ablations.keep(99, MADE, now=make.now)
    assert store.ablations.of(run.id, 1) is None


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (Edit("a", 0.2, 0.01), ""),
        (Edit("a", 0.004, 0.01, useless=True), "worth nothing, within the resolution"),
        (Edit("a", -0.05, 0.01, useless=True), "slows it down"),
        (Edit("a", None, why="incorrect: row 1"), "incorrect: row 1"),
    ],
)
def test_an_edit_says_what_it_does_besides_its_worth(edit: Edit, words: str) -> None:
    assert edit.words == words
