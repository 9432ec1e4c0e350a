"""What the list of versions finds, keeps and marks."""

from datetime import timedelta

import pytest

from avo.lineage_db.entries import Intervention
from avo.lineage_db.store import Store
from avo.tui.lineage import kept, marked, matches
from avo.tui.reader import Picture, RunReader
from tests.avo.recorded import Recorded
from tests.avo.sample_run import START


@pytest.fixture
def run(store: Store) -> Recorded:
    """Two roots, a branch, and a version that is slower than the best."""
    made = Recorded(store)
    made.step(100.0)
    made.step(110.0, (0,), "Tile 128")
    made.step(105.0, (), "another root")
    made.step(121.0, (1,), "tile 256, fold")
    return made


def picture(run: Recorded) -> Picture:
    return RunReader(run.run.name, lambda: run.now).read(run.store, None)


@pytest.mark.parametrize(
    ("words", "found"),
    [("", [0, 1, 2, 3]), ("TILE", [1, 3]), ("tile fold", [3]), ("v2", [2]), (">5", [1, 3]), (">", [0, 1, 2, 3])],
)
def test_all_words_have_to_match(run: Recorded, words: str, found: list[int]) -> None:
    numbers = picture(run).by_number
    assert [number for number, version in numbers.items() if matches(version, numbers, words)] == found


def test_what_is_kept_hangs_from_its_nearest_kept_ancestor(run: Recorded) -> None:
    run.step(130.0, (3,), "nothing of it")
    run.step(140.0, (4,), "tile 512")
    seen = picture(run)
    assert [(v.number, v.parents) for v in kept(seen.versions, seen.by_number, "tile")] == [
        (1, ()),
        (3, (1,)),
        (5, (3,)),
    ]


def test_an_intervention_marks_the_first_version_after_it(run: Recorded) -> None:
    def made(number: int, seconds: float) -> Intervention:
        return Intervention(number, 1, 0, "nudge", "", (), "", None, START + timedelta(seconds=seconds))

    marks = marked(picture(run).versions, [made(1, 1), made(2, 13), made(3, 1000)])
    assert {number: [one.id for one in found] for number, found in marks.items()} == {0: [1], 2: [2], -1: [3]}
