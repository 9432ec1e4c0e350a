"""The views of a run, played with the keyboard on a run that an agent left."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from textual.command import CommandList, CommandPalette
from textual.pilot import Pilot

from avo.evaluator.errors import EvaluatorUnavailable
from avo.evaluator.evaluation import CaseScore, Fault, Status
from avo.evaluator.fake import FakeEvaluator
from avo.evaluator.profile import Code, CodeLine, LaunchProfile, Part, Profile
from avo.evaluator.target import ScoreKind
from avo.lineage_db.ending import Cause, Ending
from avo.lineage_db.records import Doing, PendingReply, Request, RunState, StepState
from avo.lineage_db.store import Store
from avo.tui.app import AvoApp
from avo.tui.attempts import Ledger
from avo.tui.copying import CopyScreen
from avo.tui.detail import VersionDetail
from avo.tui.help import HelpScreen
from avo.tui.keys import Scroll
from avo.tui.lineage import LineageList
from avo.tui.lines import Folds
from avo.tui.reader import Picture, RunReader
from avo.tui.tables import WIDEST
from tests.avo.recorded import HOUR, Recorded
from tests.avo.report.test_timeline import LANES
from tests.avo.sample_run import make_evaluation
from tests.avo.tui.agent_run import record
from tests.avo.tui.playing import page, until

pytestmark = pytest.mark.long

LINE = CodeLine(0xFE0, "MUFU.EX2 R4, R4", 92, "pipe", 12.0, 0.25)
IDLE = CodeLine(0xFF0, "NOP", None, "", 0.0, 0.0)
LATER = timedelta(seconds=75)
"""Time between the last write and the moment when the view is looked at."""
PROFILE = Profile(
    ScoreKind.PREDICTED,
    "h100",
    CaseScore("8k-causal", 300.0, 100.0, "exp"),
    (Part("prologue", 0, 100.0, 1.0),),
    (LaunchProfile("kernel", 8, 2, ("registers",), 0.5, 128, 0, 1024, 100.0, 1.48, ()),),
    (),
    LANES,
    Code("attention_kernel", "loop at line 92", (LINE, IDLE), ("$L__BB0_2:", "ex2.approx.ftz.f32 %f1, %f2;")),
)


@pytest.fixture
def run(store: Store) -> Recorded:
    return record(store)


def app(run: Recorded, judge: FakeEvaluator | EvaluatorUnavailable | None = None) -> AvoApp:
    def profiler(_: object) -> object:
        if isinstance(judge, EvaluatorUnavailable):
            raise judge
        return nullcontext(judge)

    clock = lambda: run.now + LATER  # noqa: E731
    made = AvoApp(run.store.url, run.run.name, poll_s=0.05, profiler=profiler, clock=clock)  # type: ignore[arg-type]
    made.NOTIFICATION_TIMEOUT = 3600  # it stays for as long as a busy machine takes to look at it
    return made


async def seen(pilot: Pilot[None], *words: str, gone: str = "\0") -> str:
    """Wait until the screen shows all ``words`` and no longer ``gone``, and return it."""
    await until(pilot, lambda: all(word in page(pilot) for word in words) and gone not in page(pilot))
    return page(pilot)


@asynccontextmanager
async def opened(
    run: Recorded, judge: FakeEvaluator | EvaluatorUnavailable | None = None, **shape: Any
) -> AsyncIterator[Pilot[None]]:
    """The view of the run once it shows the best version; ``shape`` is of the terminal."""
    async with app(run, judge).run_test(**shape) as pilot:
        await seen(pilot, "★ v2")
        yield pilot


async def test_a_version_says_what_its_operator_expected_and_saw(run: Recorded) -> None:
    async with app(run).run_test(size=(140, 40)) as pilot:
        await seen(pilot, "★ v2 ◆nudge BLOCK_M 64 -> 128", "◆restart: stagnation")
        await pilot.press("k")
        await seen(pilot, "hypothesis: exp2 is one instruction", "expected: +10% where exp binds", "seen: +20%")


async def test_versions_are_found_and_filtered_by_words_numbers_and_gains(run: Recorded) -> None:
    async with opened(run, size=(80, 24), notifications=True) as pilot:
        tree = pilot.app.screen.query_one(LineageList)
        await pilot.press("slash", *"FOLD", "enter")
        await until(pilot, lambda: tree.selected == 1 and pilot.app.focused is tree)
        await pilot.press("slash", *"v0", "enter")
        await until(pilot, lambda: tree.selected == 0)
        await pilot.press("f", *">15", "enter")
        await seen(pilot, "filter: >15")
        assert [option.id for option in tree.options if not option.disabled] == ["1"]
        await pilot.press("f", *["backspace"] * 3, "enter")
        await until(pilot, lambda: len([o for o in tree.options if not o.disabled]) == 3)
        await pilot.press("slash", *"zz", "enter")
        await seen(pilot, "there is no 'zz'")


async def test_a_version_is_compared_with_any_other_side_by_side(run: Recorded) -> None:
    async with opened(run, size=(160, 30)) as pilot:
        await pilot.press("z", "v", *"v0", "enter")
        shown = await seen(pilot, "Diff to v0", "version 0", "version 2")
        assert not pilot.app.screen.query_one(LineageList).display
        assert any("+ TILE = 128" in line for line in shown.splitlines())
        await pilot.press("d")
        await seen(pilot, "--- version 0", "+++ version 2", "+TILE = 128")
        await pilot.press("escape", "k")
        await seen(pilot, "Diff to parent")


async def test_the_hot_loop_is_made_by_the_judge_when_it_is_asked_for(run: Recorded) -> None:
    judge = FakeEvaluator(lambda candidate: make_evaluation(1.0), (PROFILE,))
    async with opened(run, judge, size=(140, 30)) as pilot:
        await pilot.press("4")
        await seen(pilot, "Press p to have the judge compile v2 for h100")
        await pilot.press("p")
        await seen(pilot, "loop at line 92: 2 instructions, predicted for h100", " 25.0%  pipe", "MUFU.EX2 R4, R4")
        assert pilot.app.focused is pilot.app.screen.query_one(LineageList)
        await pilot.press("o")
        await seen(pilot, "[PTX]", "ex2.approx.ftz.f32")
        await pilot.press("o")
        await seen(pilot, "[why]", "PREDICTED TIME", "prologue")
        await pilot.press("o")
        await seen(pilot, "[timeline]", "tensor           █▄  50%", "CTA 0 warps 0-3  #s")
        await pilot.press("n")
        await seen(pilot, "Press p", "case 8k-full")


async def test_lines_of_code_longer_than_the_page_are_scrolled_to_their_ends(run: Recorded) -> None:
    run.step(500.0, (2,), "wide", source=f"x = 1{' ' * 90}# the end\n")
    async with app(run).run_test(size=(80, 26)) as pilot:
        await seen(pilot, "★ v3")
        for keys, place in (("2", "#source-page"), ("a", "#attempt-page")):
            await pilot.press(keys, "enter")
            await until(pilot, lambda place=place: pilot.app.screen.query_one(place, Scroll).max_scroll_x > 0)  # type: ignore[misc]
            assert "# the end" not in page(pilot)
            pilot.app.screen.query_one(place, Scroll).scroll_to(x=1000, animate=False)
            await seen(pilot, "# the end")


async def test_a_line_of_any_length_takes_no_more_than_the_widest_page(run: Recorded) -> None:
    run.step(500.0, (2,), "long", source=f"x = '{'z' * 100_000}'\n")
    async with app(run).run_test(size=(80, 24)) as pilot:
        await seen(pilot, "★ v3")
        await pilot.press("2")
        await seen(pilot, "x = 'zzzz")
        assert 80 < pilot.app.screen.query_one("#source-page", Scroll).virtual_size.width <= WIDEST + 2


async def test_how_to_ask_for_the_hot_loop_is_read_in_80_columns(run: Recorded) -> None:
    async with opened(run, size=(80, 24)) as pilot:
        await pilot.press("4")
        await seen(pilot, "seconds of a core", "n: another case")


@pytest.mark.parametrize(
    ("judge", "words"),
    [
        (EvaluatorUnavailable("no GPU: \x1b[2J run nvidia-smi"), "the judge is not available: no GPU:"),
        (FakeEvaluator(lambda _: make_evaluation(1.0), Fault(Status.TIMED_OUT, "no verdict")), "timed out: no verdict"),
    ],
)
async def test_a_judge_that_cannot_say_leaves_a_line(
    run: Recorded, judge: FakeEvaluator | EvaluatorUnavailable, words: str
) -> None:
    async with opened(run, judge, size=(120, 24)) as pilot:
        await pilot.press("p")
        assert "\x1b" not in await seen(pilot, words)


async def test_attempts_are_grouped_by_reason_and_described_in_full(run: Recorded) -> None:
    run.step(Status.INCORRECT, (0,), "again wrong")
    run.step(Status.DOES_NOT_FIT, (0,), "too large")
    async with opened(run, size=(120, 40)) as pilot:
        await pilot.press("a")
        await seen(pilot, "6 all", "3 accepted", "2 incorrect: case ragged", "1 does not fit", "too large")
        await pilot.press("shift+tab", "j", "j", "j", "enter", "j")
        words = ("hypothesis: exp2 is one instruction", "incorrect: case ragged: 12 of 77 rows")
        await seen(pilot, *words, gone="too large")


async def test_a_transcript_folds_each_call_of_a_tool_with_its_result(run: Recorded) -> None:
    async with opened(run, size=(120, 40)) as pilot:
        await pilot.press("s")
        await seen(pilot, "3  running", "1  done      2 tried, 24,690 tok")
        await pilot.press("j", "j", "enter")
        shown = await seen(pilot, "evaluate", "→ incorrect: 12 of 77 rows are wrong", "12,000 (9,000 cached) tokens in")
        assert "failed: timed out" in shown
        assert "timed out, 12,000" in shown
        assert "summary" in shown, "a kind that is not known"
        assert "\x1b" not in shown
        assert "\u202e" not in shown
        await pilot.press("j", "j", "j", "j", "enter")
        assert "source:" in await seen(pilot, "──")
        await pilot.press("e")
        await until(pilot, lambda: pilot.app.screen.query_one("#transcript", Folds).count > 60)
        await pilot.press("z", "end")
        await seen(pilot, "submitted", gone="3  running")


async def test_memory_shows_notes_and_the_supervisor_by_time(run: Recorded) -> None:
    async with opened(run, size=(100, 30)) as pilot:
        await pilot.press("m")
        shown = await seen(pilot, "notes of operators: 1", "◆ restart stagnation [red]not markup[/red]")
        assert shown.index("restart") < shown.index("◆ nudge") < shown.index("note exp2")
        await pilot.press("e", "end")
        await seen(pilot, "exp2 needs the scale in log2 units")


async def test_workers_show_what_runs_and_since_when(run: Recorded) -> None:
    async with opened(run, size=(100, 24)) as pilot:
        await pilot.press("w")
        await seen(pilot, "worker-1", "1m 16s", "candidate ")
        assert "The run" not in page(pilot)
        (step,) = (step for step in run.store.steps(run.run.id) if step.state is StepState.RUNNING)
        run.store.journal.listen(step.id, PendingReply("gpt", run.now, run.now, 1234), now=run.now)
        await seen(pilot, "gpt writes: 1.2k characters")
        ended_by = Ending(Cause.REQUEST, "was asked to stop")
        run.store.set_run_state(run.run.id, RunState.STOPPED, now=run.now, ended_by=ended_by)
        why = "stopped; it was asked to stop; continue with: avo resume agent"
        await seen(pilot, "agent  stopped", f"The run is {why}")


async def test_a_long_headline_leaves_room_for_why_a_run_ended(run: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("avo.watch.view.headline", lambda *_: f"{'fast ' * 36}on H100.")
    run.store.set_run_state(
        run.run.id, RunState.STOPPED, now=run.now, ended_by=Ending(Cause.REQUEST, "was asked to stop")
    )
    async with app(run).run_test(size=(80, 24)) as pilot:
        await seen(pilot, "stopped; it was asked to stop; continue with: avo resume agent", "best v")


async def test_a_pause_a_stop_and_a_driver_that_is_gone_are_told_apart_from_running(run: Recorded) -> None:
    async with app(run).run_test(size=(120, 24)) as pilot:
        await seen(pilot, "agent  running  mha")
        await pilot.press("w")
        run.store.driving.ask(run.run.id, Request.PAUSE, now=run.now)
        await seen(pilot, "agent  paused  mha", "The run is paused: no new steps until avo resume agent.", "worker-1")
        run.store.driving.ask(run.run.id, Request.STOP, now=run.now)
        await seen(pilot, "agent  running, asked to stop  mha")
        run.wait(HOUR.total_seconds())
        said = "The run is interrupted: driver-0, which drove it, is overdue by"
        await seen(pilot, "agent  interrupted  mha", said)
        assert "worker-1" not in page(pilot)
        run.drive()
        await seen(pilot, "agent  running  mha")


async def test_the_list_of_runs_says_which_of_them_go_on(run: Recorded) -> None:
    async with app(run).run_test(size=(80, 24)) as pilot:
        await pilot.press("r")
        await seen(pilot, "agent  running ")
        run.store.driving.ask(run.run.id, Request.PAUSE, now=run.now)
        await seen(pilot, "agent  paused ")
        run.wait(HOUR.total_seconds())
        await seen(pilot, "agent  interrupted ")


async def test_the_trajectory_has_every_attempt_the_cases_and_the_baselines_at_their_lines(run: Recorded) -> None:
    async with opened(run, size=(100, 40)) as pilot:
        await pilot.press("t")
        shown = await seen(pilot, "400 best", "364 8k-causal", "attempts", "624 FlashAttention-3", "● new best 3")
        assert "x faulty or unverified 1" in shown
        assert "predicted TFLOPS, h100" in shown
        assert "+20% v1" in shown
        await pilot.press("c")
        await until(pilot, lambda: "8k-causal" not in page(pilot))
        run.step(Status.INCORRECT, (0,))
        await seen(pilot, "x faulty or unverified 2")


async def test_views_change_without_losing_their_place_and_escape_leads_back(run: Recorded) -> None:
    async with opened(run, size=(80, 24)) as pilot:
        await pilot.press("k", "2", "s")
        await seen(pilot, "[s] Steps")
        await pilot.press("enter", "escape", "escape")
        await seen(pilot, "[l] Lineage")
        assert pilot.app.screen.query_one(LineageList).selected == 1
        assert pilot.app.screen.query_one(VersionDetail).tab == "source"
        await pilot.press("question_mark")
        assert isinstance(pilot.app.screen, HelpScreen)
        await pilot.press("escape", "ctrl+p")
        await until(pilot, lambda: isinstance(pilot.app.screen, CommandPalette))
        await pilot.press(*"trajec")
        found = pilot.app.screen.query_one(CommandList)
        await until(pilot, lambda: found.option_count == 1)
        await pilot.press("enter")
        await seen(pilot, "[t] Trajectory")


async def test_a_run_that_is_deleted_while_it_is_watched_leaves_a_line_and_the_last_picture(run: Recorded) -> None:
    async with opened(run, size=(100, 24)) as pilot:
        engine = create_engine(run.store.url)
        with engine.begin() as connection:
            connection.execute(text("UPDATE runs SET name = 'gone', id = 99"))
        engine.dispose()
        await seen(pilot, "no run", "★ v2")
        await pilot.press("1", "k")
        await seen(pilot, "● v1")


async def test_attempts_are_searched_and_sorted(run: Recorded) -> None:
    async with opened(run, size=(120, 30)) as pilot:
        await pilot.press("a")
        await seen(pilot, "4 newest first", "     4  400 ")
        await pilot.press("o")
        await seen(pilot, "4 fastest first")
        ledger = pilot.app.screen.query_one(Ledger)
        await until(pilot, lambda: [str(ledger.row(index))[:6].strip() for index in range(4)] == ["4", "3", "1", "2"])
        await pilot.press("slash", *"EXP2 scale", "enter")
        await seen(pilot, "1 fastest first, with exp2 scale", "attempt 3 of step 1")
        run.step(Status.INCORRECT, (0,), "another scale for exp2")
        await seen(pilot, "2 fastest first, with exp2 scale")
        await pilot.press("slash", *"nowhere", "enter")
        await seen(pilot, "0 fastest first, with nowhere")


async def test_an_attempt_is_compared_with_its_parent_another_attempt_or_a_version(run: Recorded) -> None:
    async with opened(run, size=(120, 40), notifications=True) as pilot:
        await pilot.press("a")
        await seen(pilot, "attempt 4 of step 2")
        await pilot.press("d")
        await seen(pilot, "--- version 1", "+++ attempt 4")
        await pilot.press("v", *"2", "enter")
        await seen(pilot, "--- attempt 2", "+++ attempt 4")
        await pilot.press("v", *"v0", "enter")
        await seen(pilot, "--- attempt 1", "+++ attempt 4")
        await pilot.press("v", *"99", "enter")
        await seen(pilot, "This run has no attempt 99")
        await pilot.press("v", *"best", "enter")
        await seen(pilot, "there is no 'best'")
        await pilot.press("d")
        await until(pilot, lambda: "+++ attempt 4" not in page(pilot))


async def test_a_click_on_its_name_opens_a_view(run: Recorded) -> None:
    async with opened(run, size=(80, 24)) as pilot:
        await pilot.click("#views", offset=(page(pilot).splitlines()[3].index("Attempts"), 0))
        await seen(pilot, "[a] Attempts", "newest first")
        await pilot.click("#views", offset=(1, 0))
        await seen(pilot, "[l] Lineage")


async def test_source_digest_and_commands_are_copied(run: Recorded) -> None:
    made = app(run)
    made._options = " --db x.db"
    async with made.run_test(size=(100, 30)) as pilot:
        await seen(pilot, "★ v2")
        attempt = run.store.version(run.run.id, 2).attempt
        await copying(pilot, "enter", attempt.source)
        await copying(pilot, "j enter", attempt.digest)
        await copying(pilot, "j j j enter", "avo run --from agent@2 --db x.db")
        await copying(pilot, "end enter", "avo run --from agent@2 --db x.db")  # it runs: nothing to continue
        run.store.set_run_state(run.run.id, RunState.STOPPED, now=run.now)
        await seen(pilot, "agent  stopped")
        await copying(pilot, "end enter", "avo resume agent --db x.db")
        await pilot.press("a")
        await seen(pilot, "attempt 4 of step 2")
        await copying(pilot, "j j enter", "avo show agent#4 --db x.db")


async def copying(pilot: Pilot[None], keys: str, expected: str) -> None:
    """Choose from the list of texts with ``keys`` and wait until ``expected`` is in the clipboard."""
    await pilot.press("y")
    await until(pilot, lambda: isinstance(pilot.app.screen, CopyScreen) and pilot.app.focused is not None)
    pilot.app.copy_to_clipboard("nothing yet")
    await pilot.press(*keys.split())
    await until(pilot, lambda: pilot.app.clipboard == expected and not isinstance(pilot.app.screen, CopyScreen))


async def test_the_theme_is_kept_and_one_that_is_gone_is_no_trouble(run: Recorded, tmp_path: Path) -> None:
    file = tmp_path / "settings" / "theme"
    for written, expected in ((None, "textual-dark"), ("gone", "textual-dark"), ("nord\n", "nord")):
        if written:
            file.write_text(written)
        made = AvoApp(run.store.url, None, theme_file=file)
        async with made.run_test() as pilot:
            assert made.theme == expected
            made.theme = "dracula"
            await pilot.pause()
        assert file.read_text() == "dracula\n"


async def test_no_view_is_blank_while_a_long_run_is_read(run: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on, read = Event(), RunReader.read

    def held(reader: RunReader, store: Store, previous: Picture | None) -> Picture:
        picture = read(reader, store, previous)
        if picture.want.groups or picture.want.memories:
            go_on.wait()
        return picture

    monkeypatch.setattr(RunReader, "read", held)
    async with app(run).run_test(size=(80, 24)) as pilot:
        try:
            await seen(pilot, "★ v2")
            await pilot.press("a")
            await seen(pilot, "Reading the attempts ...")
            await pilot.press("m")
            await seen(pilot, "Reading the notes ...")
        finally:
            go_on.set()
        await seen(pilot, "notes of operators: ", gone="Reading")


async def test_no_view_is_blank_while_the_seed_is_judged(run: Recorded) -> None:
    young = Recorded(run.store, "young")
    young.drive()
    made = AvoApp(run.store.url, "young", poll_s=0.05, clock=lambda: young.now + LATER)
    async with made.run_test(size=(80, 24)) as pilot:
        await seen(pilot, "The run was started", "workers evaluate the seeds first")
        run.store.driving.tell(young.run.id, Doing("starting Ray", young.now), now=young.now)
        await seen(pilot, "Now: starting Ray,")
        step = young.claim()
        run.store.claims.tell(step.id, [Doing("examining seed a", young.now, 3, 9)], now=young.now)
        for key in "tasl":
            await pilot.press(key)
            await seen(pilot, f"[{key}]")
            if key != "s":
                await seen(pilot, "The seeds are being evaluated, for", "worker-0")
        await pilot.press("s", "l")
        await seen(pilot, "The seeds are being evaluated, for", "worker-0", "examining seed a, 1m 15s: 3 of 9 checks")
        await pilot.press("w")
        await seen(pilot, "works on", "examining seed a, 1m 15s:")
