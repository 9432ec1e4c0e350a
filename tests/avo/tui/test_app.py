"""The terminal UI, played with the keyboard on a real database."""

from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from textual.pilot import Pilot
from textual.widgets import Static, TabbedContent

from avo.config import RunConfig
from avo.evaluator.evaluation import Status
from avo.lineage_db.errors import DatabaseUnavailable, UnknownRun
from avo.lineage_db.store import Store
from avo.tui.app import AvoApp, run_ui
from avo.tui.attempts import Ledger
from avo.tui.help import HelpScreen
from avo.tui.keys import Scroll, Table
from avo.tui.lineage import LineageList
from avo.tui.run import RunScreen
from avo.tui.runs import RunsScreen
from tests.avo.fakes import make_run
from tests.avo.recorded import Recorded
from tests.avo.sample_run import ABLATION, START, make_measured, make_sample_run
from tests.avo.tui.playing import page, until


def app(url: str, run_name: str | None = None) -> AvoApp:
    return AvoApp(url, run_name, poll_s=0.1, clock=lambda: START)


def text(pilot: Pilot[None], selector: str) -> str:
    """Return what a Static shows, 100 columns wide."""
    console = Console(width=100, color_system=None)
    with console.capture() as capture:
        console.print(pilot.app.screen.query_one(selector, Static).content)
    return capture.get()


def lineage(pilot: Pilot[None]) -> LineageList:
    return pilot.app.screen.query_one(LineageList)


def ledger(pilot: Pilot[None]) -> Ledger:
    return pilot.app.screen.query_one(Ledger)


def versions_shown(pilot: Pilot[None]) -> int:
    shown = lineage(pilot).options if isinstance(pilot.app.screen, RunScreen) else ()
    return sum(not option.disabled for option in shown)


def grey(pilot: Pilot[None], line: int) -> int:
    """Brightness of the background at the start of a line, 0 to 255."""
    (segment, *_) = pilot.app.screen._compositor.render_strips()[line].crop(1, 3)
    assert segment.style
    assert segment.style.bgcolor
    assert segment.style.bgcolor.triplet
    return segment.style.bgcolor.triplet.green


async def test_a_run_opens_on_its_best_version_and_says_what_its_score_is(store: Store) -> None:
    name = make_sample_run(store.url)
    async with app(store.url, name).run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: versions_shown(pilot) == 4)
        assert lineage(pilot).selected == 3
        assert "Predicted 260 TFLOPS on H100" in text(pilot, "#header")
        scores = text(pilot, "#scores-text")
    assert "Version 3  260 predicted TFLOPS, h100" in scores
    for word in (
        "v2, parent",
        "v0, seed",
        "FlashAttention-3",
        "published",
        "critical",
        "busiest",
        "168 registers",
        "ragged",
    ):
        assert word in scores


@pytest.mark.long
async def test_a_sentence_that_is_too_long_for_the_terminal_is_wrapped_and_nothing_of_it_is_cut(store: Store) -> None:
    run = Recorded(store, target="cuda")
    measured = make_measured(600.0)
    assert measured.score is not None
    card = "NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition"
    run.step(replace(measured, score=replace(measured.score, card=card)))
    async with app(store.url, "live").run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: versions_shown(pilot) == 1)
        (sentence,) = [line for line in text(pilot, "#header").splitlines() if line.startswith("Measured")]
        assert len(sentence) > 80
        await until(pilot, lambda: sentence in " ".join(page(pilot).split()))
        assert "1 attempt" in page(pilot), "it hides nothing that follows it"


@pytest.mark.long
async def test_a_measured_run_is_shown_with_its_card_quartiles_and_configurations(store: Store) -> None:
    run = Recorded(store, target="cuda")
    run.step(make_measured(600.0))
    run.step(make_measured(640.0), (0,))
    async with app(store.url, "live").run_test(size=(100, 24)) as pilot:
        await until(pilot, lambda: versions_shown(pilot) == 2)
        assert "Measured 640 (635 to 645) TFLOPS on NVIDIA H100" in text(pilot, "#header")
        scores = text(pilot, "#scores-text")
        await pilot.press("r")
        await until(pilot, lambda: "640 measured" in page(pilot))
    for words in (
        "Measured TFLOPS, NVIDIA H100 80GB HBM3", "driver 570.86", "faster than the best so far: +2.0% in 2 rounds",
        "quartiles from", "635", "8k-full: attention_kernel: BLOCK_M=128, num_warps=8",
    ):  # fmt: skip
        assert words in scores
    assert not [word for word in ("redicted", "busiest") if word in scores]


@pytest.mark.long
async def test_what_the_edits_of_the_best_version_are_worth_appears_in_its_detail_alone(store: Store) -> None:
    name = make_sample_run(store.url)
    async with app(store.url, name).run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: versions_shown(pilot) == 4)
        assert "Which edits carry it" not in text(pilot, "#scores-text")
        store.ablations.keep(store.run(name).id, ABLATION, now=START)
        await until(pilot, lambda: "Which edits carry it" in text(pilot, "#scores-text"))
        assert "BLOCK_N 64 -> 128 +30% ±2%" in " ".join(text(pilot, "#scores-text").split())
        await pilot.press("up")
        await until(pilot, lambda: "Version 2" in text(pilot, "#scores-text"))
        assert "Which edits carry it" not in text(pilot, "#scores-text")


@pytest.mark.long
async def test_published_figures_are_lines_across_the_lineage(store: Store) -> None:
    run = Recorded(store)
    run.step(300.0)
    async with app(store.url, "live").run_test(size=(100, 24)) as pilot:
        await until(pilot, lambda: versions_shown(pilot) == 1)
        run.step(600.0, (0,), "faster")
        await until(pilot, lambda: versions_shown(pilot) == 2)
        drawn = [str(option.prompt) for option in lineage(pilot).options]
        assert lineage(pilot).selected == 0
        await pilot.press("down")
        assert lineage(pilot).selected == 1
    assert [line.split()[0] for line in drawn] == ["300", "351", "380", "563", "600", "624"]
    assert "FlashAttention-3, published" in drawn[-1]


@pytest.mark.long
async def test_everything_has_its_place_in_80_columns_and_24_rows(store: Store) -> None:
    name = make_sample_run(store.url)
    words = ("★ v3", "● v0 seed", "Scores", "Source", "Diff to parent", "Attempts", "260", "Best", "Quit")
    async with app(store.url, name).run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: all(word in page(pilot) for word in words))


@pytest.mark.long
async def test_attempts_show_status_and_change_in_80_columns(store: Store) -> None:
    name = make_sample_run(store.url)
    async with app(store.url, name).run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: versions_shown(pilot) == 4)
        await pilot.press("a")
        await until(pilot, lambda: "260 -> v3" in page(pilot))
        shown = page(pilot)
        await pilot.press("end", "k")
        change = "from v0: BLOCK_M 64 -> 128, num_warps 4 -> 8"
        await until(pilot, lambda: change in text(pilot, "#attempt-message"))
    for words in ("260 -> v3", "does not fit", "num_stages 1 -> 5", "skip [diagonal] blo", "BLOCK_N 64 -> 128"):
        assert words in shown


async def test_the_list_of_runs_fits_80_columns(store: Store) -> None:
    Recorded(store, "night-mha-h100-12").step(1000.0)
    make_sample_run(store.url)
    async with app(store.url).run_test(size=(80, 24)) as pilot:
        table = pilot.app.screen.query_one(Table)
        await until(pilot, lambda: table.row_count == 2)
        lines = page(pilot).splitlines()
    for words in ("gain", "+160%", "1000 predicted", "night-mha-h100-12", "finished", "interrupted", "mha h100"):
        assert any(words in line for line in lines)
    assert table.virtual_size.width <= 80


async def test_a_problem_with_a_long_name_cuts_no_figure_off_the_list_of_runs(store: Store) -> None:
    name = make_sample_run(store.url)
    problem = "gqa-h64x8-d64-w128-global-sinks-8192x1-16384x1"
    make_run(store, RunConfig(problem=problem), "gpt-oss-20b-prefill-h100")
    async with app(store.url).run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: all(word in page(pilot) for word in (name, "+160%", "finished", "interrupted")))


async def test_the_list_of_runs_is_filtered_and_sorted_with_the_keys_of_the_attempts(store: Store) -> None:
    Recorded(store, "night").step(1000.0)
    make_sample_run(store.url)
    async with app(store.url).run_test(size=(80, 24)) as pilot:
        table = pilot.app.screen.query_one(Table)
        await until(pilot, lambda: table.row_count == 2)
        assert table.chosen == "mha-h100"
        await pilot.press("o")
        await until(pilot, lambda: "fastest first" in page(pilot))
        rows = [row.value for row in table.rows]
        assert rows == ["night", "mha-h100"]
        await pilot.press("f", *"FINISHED mha")
        await until(pilot, lambda: table.row_count == 1)
        await pilot.press("enter")
        assert "fastest first  filter: FINISHED mha" in page(pilot)
        await pilot.press("slash", *" nowhere")
        await until(pilot, lambda: "No run has all of these words" in page(pilot))
        await pilot.press("escape")
        await until(pilot, lambda: table.row_count == 1)
        await pilot.press("enter")
        await until(pilot, lambda: versions_shown(pilot) == 4)


@pytest.mark.long
async def test_an_empty_memory_says_why_and_diff_with_says_what_it_takes(store: Store) -> None:
    name = make_sample_run(store.url)
    async with app(store.url, name).run_test(size=(120, 24)) as pilot:
        await until(pilot, lambda: versions_shown(pilot) == 4)
        await pilot.press("v")
        await until(pilot, lambda: "diff with: version, e.g. v4 (enter: show, escape: leave" in page(pilot))
        await pilot.press("escape", "a", "v")
        await until(pilot, lambda: "attempt 38 or version v4" in page(pilot))
        await pilot.press("escape", "m")
        await until(pilot, lambda: "The operator mutate takes none: only operators that call tools do." in page(pilot))
        assert "has had no reason to step in" in page(pilot)


@pytest.mark.long
async def test_the_best_and_the_selected_version_are_marked_without_colour(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    name = make_sample_run(store.url)
    async with app(store.url, name).run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: versions_shown(pilot) == 4)
        await pilot.press("k")
        await pilot.pause()
        assert page(pilot).count("★") == 1
        for _ in ("lineage focused", "detail focused"):
            greys = [grey(pilot, lineage(pilot).region.y + row) for row in range(4)]
            assert greys[2] > max(greys[0], greys[1], greys[3]) + 48, "v2, the selected one"
            await pilot.press("enter")
            await pilot.pause()


@pytest.mark.long
async def test_the_tabs_show_source_diff_and_attempts_of_the_selected_version(store: Store) -> None:
    name = make_sample_run(store.url)
    async with app(store.url, name).run_test() as pilot:
        await until(pilot, lambda: versions_shown(pilot) == 4)
        await pilot.press("2")
        assert pilot.app.screen.query_one(TabbedContent).active == "source"
        assert "def attention_kernel(" in text(pilot, "#source-text")
        await pilot.press("3")
        assert "-    block_m, block_n = 64, 64" in text(pilot, "#diff-text").replace("\xa0", " ")
        await pilot.press("4")
        assert "Press p" in text(pilot, "#hot-text")
        assert pilot.app.focused is lineage(pilot), "a tab can be looked at without leaving the lineage"
        await pilot.press("a")
        await until(pilot, lambda: ledger(pilot).count == 8)


@pytest.mark.long
async def test_moving_through_the_lineage_changes_the_detail(store: Store) -> None:
    name = make_sample_run(store.url)
    async with app(store.url, name).run_test() as pilot:
        await until(pilot, lambda: versions_shown(pilot) == 4)
        for key, number in (("k", 2), ("up", 1), ("j", 2), ("home", 0), ("b", 3)):
            await pilot.press(key)
            await pilot.pause()
            assert lineage(pilot).selected == number
            assert f"Version {number} " in text(pilot, "#scores-text")


@pytest.mark.long
async def test_the_seed_has_no_diff(store: Store) -> None:
    name = make_sample_run(store.url)
    async with app(store.url, name).run_test() as pilot:
        await until(pilot, lambda: versions_shown(pilot) == 4)
        await pilot.press("home", "3")
        await pilot.pause()
        assert "no parent" in text(pilot, "#diff-text")


@pytest.mark.long
async def test_enter_goes_to_the_detail_which_scrolls_and_escape_comes_back(store: Store) -> None:
    name = make_sample_run(store.url)
    async with app(store.url, name).run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: versions_shown(pilot) == 4)
        await pilot.press("2", "enter", "j", "j", "down")
        source = pilot.app.screen.query_one("#source-page", Scroll)
        await until(pilot, lambda: source.scroll_offset.y == 3)
        await pilot.press("a")
        await until(pilot, lambda: ledger(pilot).count == 8)
        assert pilot.app.focused is ledger(pilot)
        await pilot.press("end", "k", "k")
        await until(pilot, lambda: "needs 262144 bytes of shared memory" in text(pilot, "#attempt-message"))
        await pilot.press("escape", "k")
        await pilot.pause()
        assert lineage(pilot).selected == 2


@pytest.mark.long
async def test_a_version_accepted_while_the_ui_is_open_appears_without_losing_the_selection(store: Store) -> None:
    run = Recorded(store)
    run.step(100.0)
    run.step(120.0, (0,))
    async with app(store.url, "live").run_test() as pilot:
        await until(pilot, lambda: versions_shown(pilot) == 2)
        await pilot.press("2", "enter", "j", "escape", "home")
        await pilot.pause()
        run.step(140.0, (1,), "the new one")
        await until(pilot, lambda: versions_shown(pilot) == 3)
        assert lineage(pilot).selected == 0
        assert "★ v2" in page(pilot)
        assert "best v2, +40% over the seed" in text(pilot, "#header")
        assert pilot.app.screen.query_one(TabbedContent).active == "source"


@pytest.mark.long
async def test_a_branch_above_the_selection_leaves_it_where_it_is_on_the_screen(store: Store) -> None:
    run = Recorded(store)
    run.step(100.0)
    for number in range(40):
        run.step(101.0 + number, (number,))
    async with app(store.url, "live").run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: versions_shown(pilot) == 41)
        tree = lineage(pilot)
        await until(pilot, lambda: tree.scroll_offset.y > 0)
        await pilot.press("k", "k", "k")
        await pilot.pause()
        top = tree.scroll_offset.y
        run.step(50.0, (20,), "a branch")
        run.step(142.0, (40,), "the best line goes on")
        await until(pilot, lambda: versions_shown(pilot) == 43 and tree.scroll_offset.y == top + 1)
        assert tree.selected == 37
        assert [option.id for option in tree.options][20:23] == ["20", "41", "21"]


@pytest.mark.long
async def test_the_detail_keeps_its_scroll_while_attempts_come_in(store: Store) -> None:
    run = Recorded(store)
    run.step(100.0, source="x = 1\n" * 200)
    async with app(store.url, "live").run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: versions_shown(pilot) == 1)
        await pilot.press("2", "enter", "j", "j")
        source = pilot.app.screen.query_one("#source-page", Scroll)
        await until(pilot, lambda: source.scroll_offset.y == 2)
        run.step(Status.INCORRECT, (0,))
        await until(pilot, lambda: "2 attempts" in text(pilot, "#header"))
        assert source.scroll_offset.y == 2
        assert pilot.app.focused is source


@pytest.mark.long
async def test_an_attempt_is_marked_when_it_becomes_a_version(store: Store) -> None:
    run = Recorded(store)
    run.step(100.0)
    step = run.claim()
    attempt = run.evaluate(step, 120.0, (0,))
    async with app(store.url, "live").run_test() as pilot:
        await until(pilot, lambda: versions_shown(pilot) == 1)
        await pilot.press("a")
        await until(pilot, lambda: f"{attempt.id}  120  " in page(pilot))
        run.conclude(step, attempt, True)
        await until(pilot, lambda: f"{attempt.id}  120 -> v1" in page(pilot))


@pytest.mark.long
async def test_a_run_is_chosen_from_the_list_and_left_again(store: Store) -> None:
    make_sample_run(store.url)
    Recorded(store, "later").step(50.0)
    async with app(store.url).run_test() as pilot:
        await until(pilot, lambda: pilot.app.screen.query_one(Table).row_count == 2)
        assert "later" in page(pilot).split("mha-h100")[0], "newest first"
        assert "260 predicted" in page(pilot)
        await pilot.press("j", "enter")
        await until(pilot, lambda: versions_shown(pilot) == 4)
        await pilot.press("r")
        await until(pilot, lambda: isinstance(pilot.app.screen, RunsScreen))


async def test_a_run_that_starts_while_the_list_is_open_appears_and_the_cursor_stays(store: Store) -> None:
    Recorded(store, "first")
    async with app(store.url).run_test() as pilot:
        table = pilot.app.screen.query_one(Table)
        await until(pilot, lambda: table.chosen == "first")
        Recorded(store, "second")
        await until(pilot, lambda: table.row_count == 2)
        assert table.chosen == "first"


@pytest.mark.long
async def test_a_database_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "lineage.db"
    async with app(str(path)).run_test() as pilot:
        await until(pilot, lambda: "avo run" in page(pilot))
        with Store.open(str(path)) as store:
            make_sample_run(store.url)
        await until(pilot, lambda: pilot.app.screen.query_one(Table).row_count == 1)
        await pilot.press("enter")
        await until(pilot, lambda: versions_shown(pilot) == 4)


async def test_an_empty_database_says_what_to_do(store: Store) -> None:
    async with app(store.url).run_test() as pilot:
        await until(pilot, lambda: "No runs yet" in page(pilot))
        assert "avo run" in page(pilot)


async def test_a_run_whose_seed_is_not_judged_yet_says_so(store: Store) -> None:
    run = Recorded(store)
    run.drive()
    run.claim()
    async with app(store.url, "live").run_test() as pilot:
        await until(pilot, lambda: "The seeds are being evaluated" in page(pilot))


async def test_a_faulty_seed_is_named_with_its_fault(store: Store) -> None:
    Recorded(store).step(Status.INCORRECT)
    async with app(store.url, "live").run_test() as pilot:
        await until(pilot, lambda: "No seed was accepted: incorrect" in page(pilot))
        assert "12 of 77 rows are wrong" in page(pilot)


async def test_help_lists_the_keys_and_closes(store: Store) -> None:
    async with app(store.url).run_test() as pilot:
        await pilot.press("question_mark")
        assert isinstance(pilot.app.screen, HelpScreen)
        assert "jump to the best version" in text(pilot, "#help")
        await pilot.press("escape")
        assert isinstance(pilot.app.screen, RunsScreen)


@pytest.mark.parametrize("keys", [["q"], ["question_mark", "q"]])
async def test_q_quits_also_from_the_help(store: Store, keys: list[str]) -> None:
    async with app(store.url).run_test() as pilot:
        await pilot.press(*keys)
        await pilot.pause()
        assert pilot.app.return_code == 0
        assert not pilot.app.is_running


@pytest.mark.long
async def test_what_candidates_write_is_shown_as_it_is(store: Store) -> None:
    run = Recorded(store)
    run.step(100.0)
    run.step(120.0, (0,), "[red]not markup[/red] \x1b[2J", source="x = '[bold]'  # \x1b[31m\n")
    async with app(store.url, "live").run_test(size=(140, 40)) as pilot:
        await until(pilot, lambda: versions_shown(pilot) == 2)
        await pilot.press("b")
        assert "[red]not markup[/red]" in page(pilot)
        await pilot.press("2")
        await pilot.pause()
        shown = page(pilot)
        await pilot.press("a")
        await until(pilot, lambda: ledger(pilot).count == 2)
        shown += page(pilot)
    assert "'[bold]'" in shown
    assert "\x1b" not in shown


def test_a_run_that_does_not_exist_is_refused_before_the_screen_is_taken(store: Store, tmp_path: Path) -> None:
    with pytest.raises(UnknownRun):
        run_ui(store.url, "nothing")
    with pytest.raises(DatabaseUnavailable):
        run_ui(str(tmp_path / "missing.db"), "nothing")
