"""Lists that are drawn row by row, however long they are."""

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.text import Text
from textual.app import App, ComposeResult

from avo.tui.lines import MOST_CHARACTERS, Entry, Folds, Lines, wrapped


class Numbers(Lines):
    """Rows that count how often they are drawn."""

    drawn = 0

    def row(self, index: int) -> Text:
        self.drawn += 1
        return Text(f"row {index}")


class Showing(App[None]):
    """Shows both kinds."""

    def compose(self) -> ComposeResult:
        yield Numbers(id="numbers")
        yield Folds(id="folds")


async def test_of_a_long_list_only_the_rows_in_sight_are_drawn() -> None:
    async with Showing().run_test(size=(40, 20)) as pilot:
        numbers = pilot.app.query_one(Numbers)
        numbers.set_count(1_000_000)
        numbers.focus()
        await pilot.press("end")
        await pilot.pause()
        assert (numbers.cursor, numbers.sight.stop) == (999_999, 1_000_000)
        await pilot.press("pageup", "up", "k", "home", "down", "j", "pagedown")
        await pilot.pause()
        assert numbers.cursor == 2 + numbers.size.height - 1
        assert numbers.drawn < 500


async def test_rows_that_come_in_above_leave_the_cursor_on_its_row_unless_it_is_on_the_first() -> None:
    async with Showing().run_test(size=(40, 20)) as pilot:
        numbers = pilot.app.query_one(Numbers)
        numbers.set_count(100)
        numbers.cursor = 50
        await pilot.pause()
        top = numbers.scroll_offset.y
        numbers.set_count(103, above=3)
        await pilot.pause()
        assert (numbers.cursor, numbers.scroll_offset.y) == (53, top + 3)
        numbers.cursor = 0
        numbers.set_count(110, above=7)
        assert numbers.cursor == 0
        numbers.set_count(0)
        assert (numbers.cursor, list(numbers.sight)) == (0, [])


async def test_entries_open_and_close_and_stay_open_when_others_come() -> None:
    one, two = Entry("1", Text("one"), "a\nb"), Entry("2", Text("two"), "")
    async with Showing().run_test(size=(40, 20)) as pilot:
        folds = pilot.app.query_one(Folds)
        folds.show((one, two))
        folds.focus()
        assert [str(folds.row(index)) for index in range(folds.count)] == ["+ one", "  two"]
        await pilot.press("enter")
        assert [str(folds.row(index)) for index in range(folds.count)] == ["- one", "    a", "    b", "  two"]
        folds.show((one, two, Entry("3", Text("three"), "c")))
        assert folds.count == 5
        await pilot.press("down", "enter")
        assert (folds.count, folds.cursor) == (3, 0)
        await pilot.press("e")
        assert folds.count == 6
        await pilot.press("e")
        assert folds.count == 3


@given(st.text(max_size=60), st.integers(2, 20))
def test_wrapped_text_fits_and_holds_nothing_that_moves_a_cursor(text: str, width: int) -> None:
    lines = wrapped(text, width)
    assert all(cell_len(line) <= width for line in lines)
    assert all(line.isprintable() for line in lines)
    assert len("".join(lines).replace(" ", "")) <= len(text)


def test_a_text_of_any_length_is_cut_with_a_word() -> None:
    lines = wrapped("x" * (MOST_CHARACTERS + 7), 100)
    assert len(lines) == MOST_CHARACTERS // 100 + 1
    assert lines[-1] == "... and 7 characters more"
