"""The tree of versions: where each one stands."""

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from avo.lineage_db.records import Attempt, Version
from avo.watch.tree import layout
from tests.avo.sample_run import make_evaluation

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def version(number: int, parents: tuple[int, ...], tflops: float) -> Version:
    attempt = Attempt(number + 1, 1, number, "", "", "", parents, make_evaluation(tflops), NOW, NOW)
    return Version(1, number, parents, NOW, attempt)


def drawn(*versions: Version) -> list[str]:
    return [f"{row.lines}{row.version.number}" for row in layout(versions)]


def test_a_chain_needs_no_indentation() -> None:
    assert drawn(version(0, (), 100), version(1, (0,), 110), version(2, (1,), 120)) == ["0", "1", "2"]


def test_the_line_to_the_last_version_stays_flush_and_others_branch_off_before_it() -> None:
    assert drawn(
        version(0, (), 100), version(1, (0,), 120), version(2, (0,), 110), version(3, (2,), 115), version(4, (3,), 130)
    ) == ["0", "├─1", "2", "3", "4"]


def test_a_branch_of_a_branch_keeps_the_lines_of_both() -> None:
    assert drawn(
        version(0, (), 100), version(1, (0,), 101), version(2, (1,), 102), version(3, (1,), 103), version(4, (0,), 200)
    ) == ["0", "├─1", "│ ├─2", "│ 3", "4"]


def test_a_version_with_two_parents_stands_below_the_first() -> None:
    assert drawn(version(0, (), 100), version(1, (0,), 120), version(2, (0,), 110), version(3, (2, 1), 130)) == [
        "0",
        "├─1",
        "2",
        "3",
    ]


@given(st.data())
def test_every_version_is_drawn_once_and_below_its_parent(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 30))
    versions = [version(0, (), 100.0)]
    for number in range(1, count):
        parent = data.draw(st.integers(0, number - 1))
        versions.append(version(number, (parent,), data.draw(st.floats(50, 500))))
    order = [row.version.number for row in layout(versions)]
    assert sorted(order) == list(range(count))
    assert all(order.index(v.parents[0]) < order.index(v.number) for v in versions[1:])


def test_a_long_chain_is_laid_out_without_recursion() -> None:
    chain = [version(0, (), 1.0)] + [version(number, (number - 1,), 1.0 + number) for number in range(1, 3000)]
    assert [row.lines for row in layout(chain)] == [""] * 3000
